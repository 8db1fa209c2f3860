"""A scripted engine worker: speaks the real link, makes takes of noise, and fails as it is told.

The script stands in the order's prompt, words separated by blanks, done in this order for every attempt:
`steps=N` (default 3) progress messages, `pause=S` seconds after each, `die=N` ends at step N with status 137,
`die-once=PATH` the same at step 1 but only if PATH does not exist yet (it is made), `oom`, `oom-once`, `fail=TEXT`,
`deaf` (never looks for a cancel), `hang` (does nothing for ever after the steps), `garbage` (writes no message),
`short` (says more frames than it wrote), `empty` (takes of no frames), `child` (starts a process that sleeps),
`parts=N` (each take in N stretches), `die-parted=PATH` (says 20 and ends, but only if PATH does not exist yet),
`whole=S` (each step takes S seconds in which it hears nothing), `litter` (leaves a file that is no take).
Without a script it is quick. The environment PUNCHIN_FAKE: `slow-start=S`, `no-start`, `stay` (deaf to the pipe's end).
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from punchin.protocol import link
from punchin.protocol.order import Provenance


class Fake:
    def __init__(self):
        self.out = os.fdopen(os.dup(1), "wb")
        self.cancelled = set()
        self.arrived = threading.Condition()
        self.runs = []

    def listen(self):
        with os.fdopen(0, "rb") as commands:
            while (command := link.read_command(commands)) is not None:
                if isinstance(command, link.Unload):
                    os._exit(0)
                with self.arrived:
                    if isinstance(command, link.Cancel):
                        self.cancelled.add(command.job)
                    else:
                        self.runs.append(command)
                    self.arrived.notify_all()
        if "stay" not in os.environ.get("PUNCHIN_FAKE", ""):
            os._exit(0)

    def next_run(self):
        with self.arrived:
            self.arrived.wait_for(lambda: self.runs)
            return self.runs.pop(0)

    def pause(self, seconds, job, deaf):
        """Wait; True if the job was cancelled meanwhile."""
        with self.arrived:
            return self.arrived.wait_for(lambda: job in self.cancelled and not deaf, seconds)

    def say(self, message):
        link.write(self.out, message)


def script_of(order):
    words = [word.partition("=") for word in order.prompt.split()]
    return {name: value for name, _, value in words}


def take_bytes(order, seed):
    """What a take of this order and seed holds: bytes that a test can compute as well."""
    start, stop = order.wanted or (0, order.frames)
    block = hashlib.sha256(f"{order.prompt} {seed}".encode()).digest()
    size = (stop - start) * 8
    return (block * (size // len(block) + 1))[:size]


def make(fake, run):
    script = script_of(run.order)
    if "child" in script:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if "litter" in script:
        (Path(run.out_dir) / "half.f32").write_bytes(bytes(1_000))
    deaf = "deaf" in script
    once = script.get("die-once")
    steps = int(script.get("steps", 3))
    for step in range(1, steps + 1):
        fake.say(link.Progress(job=run.job, phase="diffusing", done=step, total=steps))
        if "whole" in script:  # a step that cannot be interrupted
            time.sleep(float(script["whole"]))
        if fake.pause(float(script.get("pause", 0)), run.job, deaf):
            fake.say(link.Stopped(job=run.job))
            return
        if int(script.get("die", 0)) == step:
            os._exit(137)
        if once and not Path(once).exists():
            Path(once).touch()
            print("the fake dies once", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    if "die-parted" in script and not Path(script["die-parted"]).exists():
        Path(script["die-parted"]).touch()
        write_parts(fake, run, 20)
        os._exit(9)
    write_parts(fake, run, int(script.get("parts", 0)))
    if "hang" in script:
        time.sleep(600)
    if "garbage" in script:
        fake.out.write(b"\0\0\0\5hello")
        fake.out.flush()
        return
    if "oom" in script or ("oom-once" in script and run.rung == 0):
        fake.say(link.Failed(job=run.job, code="oom", text="out of memory", next_rung=run.rung + 1))
        return
    if "fail" in script:
        fake.say(link.Failed(job=run.job, code="refused", text=script["fail"], hint="try another"))
        return
    fake.say(link.Made(job=run.job, takes=write_takes(run, script), provenance=provenance(run)))


def write_parts(fake, run, parts):
    """The takes in stretches of equal length, each told as soon as it is written."""
    for seed in run.order.seeds if parts else ():
        data = take_bytes(run.order, seed)
        step = len(data) // 8 // parts * 8
        for index in range(parts):
            path = Path(run.out_dir) / f"part-{seed}-{index}.f32"
            path.write_bytes(data[index * step : (index + 1) * step])
            start, frames = index * step // 8, step // 8
            part = {"index": index, "start_frame": start, "path": str(path), "channels": 2, "frames": frames}
            fake.say(link.Part(job=run.job, seed=seed, **part))


def write_takes(run, script):
    takes = []
    for seed in run.order.seeds:
        path = Path(run.out_dir) / f"{seed}.f32"
        data = b"" if "empty" in script else take_bytes(run.order, seed)
        with path.open("wb") as file:
            file.write(data)
            os.fsync(file.fileno())
        frames = len(data) // 8 + ("short" in script)
        takes.append(link.MadeTake(seed=seed, path=str(path), channels=2, frames=frames))
    return tuple(takes)


def provenance(run):
    return Provenance(model=run.order.model, notes=("fake",) + (("a lower rung",) if run.rung else ()))


def main():
    mode = dict(word.partition("=")[::2] for word in os.environ.get("PUNCHIN_FAKE", "").split())
    if "no-start" in mode:
        sys.exit("the fake has no engine")
    time.sleep(float(mode.get("slow-start", 0)))
    fake = Fake()
    threading.Thread(target=fake.listen, daemon=True).start()
    fake.say(link.Ready(pid=os.getpid(), device="fake:0", total_bytes=8 << 30, free_bytes=6 << 30, plan="whole"))
    while True:
        make(fake, fake.next_run())


if __name__ == "__main__":
    main()
