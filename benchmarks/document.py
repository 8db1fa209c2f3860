"""Open a project of 600 items, put a take on one, write it: milliseconds, and how many times that fits into 150.

Processor time stands beside the clock's: on a machine that others use, the load changes it little.

python benchmarks/document.py [--items 600] [--times 20]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rppmaker import item, media, noise, project, track

from punchin.session.document import LandingTake, land, open_session

LIMIT_MS = 150


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", type=int, default=600)
    arguments.add_argument("--times", type=int, default=20)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for i in range(5):
            media(folder, f"Media/{i}.wav", noise(2, 4 * 48_000))
        tracks = given.items // 30
        path = project(
            folder,
            *(track(f"T{t}", *(item(i * 2, 2, rf"Media\{i % 5}.wav") for i in range(30))) for t in range(tracks)),
        )
        _once(path)  # imports
        times = [_once(path) for _ in range(given.times)]
    median, cpu = (statistics.median(each) for each in zip(*times, strict=True))
    print(
        json.dumps(
            {
                "items": tracks * 30,
                "median_ms": round(median, 1),
                "cpu_ms": round(cpu, 1),
                "fits": round(LIMIT_MS / median, 2),
                "load": round(os.getloadavg()[0], 1),
            }
        )
    )


def _once(path: Path) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor."""
    began, worked = time.perf_counter(), time.process_time()
    session = open_session(path)
    target = session.target("T3", session.region(bars=(5, 5)))
    new = np.zeros((2, target.lead_frames + target.end_frame - target.start_frame), dtype=np.float32)
    land(target, [LandingTake(target.place(new), "punchin 1", {"seed": 1})])
    return (time.perf_counter() - began) * 1000, (time.process_time() - worked) * 1000


if __name__ == "__main__":
    main()
