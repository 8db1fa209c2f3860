"""An engine worker that does as its first argument says; the second is a folder for marks and gates.

identity   gives back what it got
shift      one sample late: a fault that a null test must find
noise      white noise, another for each seed
click      a click at both edges for even seeds, the source for odd ones: only some takes keep the limits
short      one frame less than asked for
stubborn   as hold, and deaf to cancel
hold       as identity, but only once a file `gate` is in the folder; says one step of progress before
"""

import hashlib
import sys
import threading
import time
from pathlib import Path

import numpy as np

from punchin.protocol import link
from punchin.protocol.order import Provenance


def perform(mode, source, seed):
    if mode == "shift":
        return np.roll(source, 1, axis=0)
    if mode == "noise":
        return np.random.default_rng(seed).normal(0, 0.1, source.shape).astype("<f4")
    if mode == "click" and seed % 2 == 0:
        loud = source.copy()
        loud[len(loud) // 2 :: 997] = 0.9
        return loud
    return source


def wait_for_gate(folder, job, send, cancelled):
    """Until the gate is open; a heartbeat meanwhile. False when the job was cancelled first."""
    while not (folder / "gate").exists():
        if job in cancelled:
            return False
        send(link.Progress(job=job, phase="diffusing", done=1, total=8))
        time.sleep(0.02)  # a poll of the file system, not a guess at how long something takes
    return True


def run(mode, folder, command, send, cancelled):
    order = command.order
    send(link.Progress(job=command.job, phase="diffusing", done=1, total=8))
    if mode in ("hold", "stubborn") and not wait_for_gate(folder, command.job, send, cancelled):
        return send(link.Stopped(job=command.job))
    takes = [take for number in range(len(order.passages)) for take in takes_of(mode, command, number)]
    provenance = Provenance(model=f"scripted-{mode}")
    return send(link.Made(job=command.job, takes=tuple(takes), provenance=provenance))


def takes_of(mode, command, number):
    passage = command.order.passages[number]
    source = np.zeros((passage.frames, 2), "<f4")
    if passage.source is not None:
        raw = Path(command.files[passage.source.sha256]).read_bytes()
        source = np.frombuffer(raw, "<f4").reshape(-1, passage.source.channels)
    start, stop = passage.wanted or (0, passage.frames)
    for seed in passage.seeds:
        made = perform(mode, source, seed)[start : stop - (mode == "short")]
        path = Path(command.out_dir) / f"{hashlib.sha256(made.tobytes()).hexdigest()}-{number}-{seed}.f32"
        path.write_bytes(made.tobytes())
        channels, frames = made.shape[1], len(made)
        yield link.MadeTake(passage=number, seed=seed, path=str(path), channels=channels, frames=frames)


def main(mode, folder):
    lock, cancelled = threading.Lock(), set()

    def send(reply):
        with lock:
            link.write(sys.stdout.buffer, reply)

    send(link.Ready(pid=0, device="cpu"))
    while (command := link.read_command(sys.stdin.buffer)) is not None:
        if isinstance(command, link.Run):
            threading.Thread(target=run, args=(mode, folder, command, send, cancelled), daemon=True).start()
        elif isinstance(command, link.Cancel):
            cancelled.update({command.job} if mode != "stubborn" else ())
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
