"""From a key in REAPER to an order in the daemon, from a finished job to a take in the project; and what idling costs.

REAPER is the tests' strict fake with its timer at 30 Hz; bridge, daemon and engine worker are real processes, the model
is `identity`. Each round presses the key at another phase of the timer. Prints medians beside their limits, and the
machine's load, which they grow with; exit 1 when one is over.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakereaper.desk import Desk
from fakereaper.host import TICK_S

from punchin.clients.connect import connect

KEY_TO_SUBMIT_S, DONE_TO_LANDED_S, IDLE_CPU_S, IDLE_S, IDLE_CALLS = 0.080, 0.150, 0.3, 30.0, 3.0
LONGEST_S = 60.0
SONG_S = 32.0  # the item that the region lies in: 16 bars at 120; the model hears 30 s of it


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds of idling to measure")
    parser.add_argument("--region", type=float, default=4.0, help="seconds of the region (default: two bars at 120)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PUNCHIN_HOME"] = str(Path(folder) / "home")
        desk = Desk(Path(folder) / "desk", real_time=True)
        (desk.spool / "bridge.beat").unlink()
        desk.host.execute = lambda line, _: subprocess.run(shlex.split(line), check=True) and None
        try:
            return measure(desk, given.rounds, given.idle, given.region)
        finally:
            subprocess.run([sys.executable, "-m", "punchin.clients.cli", "stop"], capture_output=True, check=False)
            os.kill(bridge_pid(desk), 15)


def measure(desk: Desk, rounds: int, idle_s: float, region_s: float) -> int:
    desk.simple(length_s=SONG_S)
    desk.project.time_selection = (24.0, 24.0 + region_s)
    desk.remember_words(model="identity")
    one_round(desk, 0.0)  # starts bridge, daemon and worker, and warms the imports
    worked_s = cpu_s(bridge_pid(desk))
    taken = [one_round(desk, TICK_S * n / rounds) for n in range(rounds)]
    worked_s = (cpu_s(bridge_pid(desk)) - worked_s) / rounds
    results = [
        ("key to submit", statistics.median(t[0] for t in taken), KEY_TO_SUBMIT_S, "s"),
        ("done to landed", statistics.median(t[1] for t in taken), DONE_TO_LANDED_S, "s"),
        ("idle bridge, CPU in 30 s", idle_bridge(desk, idle_s) * IDLE_S / idle_s, IDLE_CPU_S, "s"),
        ("idle watcher, calls in 100 ms", idle_watcher(desk), IDLE_CALLS, ""),
    ]
    for name, value, limit, unit in results:
        print(f"{name:<30} {value:.3f} {unit:<2} limit {limit:g}  {'ok' if value <= limit else 'OVER'}")
    for word, which in (("fastest", min), ("slowest", max)):
        submit_s, landed_s = (which(t[i] for t in taken) for i in (0, 1))
        print(f"{word} of {rounds}: {submit_s:.3f} s and {landed_s:.3f} s")
    print(f"the bridge's processor time a take: {worked_s:.3f} s, which the load changes little")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return int(any(value > limit for _, value, limit, _ in results))


def one_round(desk: Desk, phase_s: float) -> tuple[float, float]:
    """Seconds from key to order, and from done to landed."""
    item = desk.project.tracks[0].items[0]
    before = len(item.takes)
    tick(desk, 5)
    time.sleep(phase_s)
    pressed_s = time.time()
    desk.press("Repaint selection (last preset)")
    until_s = time.monotonic() + LONGEST_S
    while True:
        began_s = time.monotonic()
        desk.host.tick()
        if len(item.takes) > before:
            break  # at once: the rest of the tick is REAPER's own
        if began_s > until_s:
            raise SystemExit(f"no take after {LONGEST_S:g} s: {desk.host.console[-1:]}")
        rest(began_s)
    landed_s = time.time()
    with connect(start=False) as client:
        job = client.jobs(most=1)[0]
        done_ns = next(event.at_ns for event in client.follow(job.id) if event.state == "done")
    return job.created_ns / 1e9 - pressed_s, landed_s - done_ns / 1e9


def tick(desk: Desk, count: int = 1) -> None:
    for _ in range(count):
        began_s = time.monotonic()
        desk.host.tick()
        rest(began_s)


def rest(began_s: float) -> None:
    """Sleep until REAPER's timer is due again."""
    time.sleep(max(0.0, TICK_S - (time.monotonic() - began_s)))


def bridge_pid(desk: Desk) -> int:
    return int((desk.spool / "bridge.beat").read_text().split("\t")[0].removeprefix("pid="))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_bridge(desk: Desk, seconds: float) -> float:
    pid = bridge_pid(desk)
    before = cpu_s(pid)
    time.sleep(seconds)
    return cpu_s(pid) - before


def idle_watcher(desk: Desk) -> float:
    """Calls of REAPER's API in 100 ms while a job is open and nothing happens."""
    desk.host.tick(30)
    before, ticks = desk.host.total_calls, 300
    desk.host.tick(ticks)
    return (desk.host.total_calls - before) / (ticks * TICK_S) * 0.1


if __name__ == "__main__":
    sys.exit(main())
