"""How much faster than real time is a take measured, conformed and drawn? Prints one ratio a step, from one run.

The target is the report on 30 s of stereo in under a second: 30x. Interleaved rounds share a busy machine's weather;
the quartiles tell how much of it there was. `python benchmarks/measure_take.py [ROUNDS]`
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import quantiles
from time import perf_counter

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from punchin.session import measure, picture, warp
from punchin.session.splice import choose, lead_frames, splice
from punchin.session.tempo import Stretch, TempoMap

RATE_HZ, SECONDS = 48_000, 30
TEMPO = TempoMap((Stretch(0.0, 120.0, 124.0), Stretch(float(SECONDS), 124.0, 124.0)))


def music(seed: int) -> np.ndarray:
    """Thirty seconds of eighths: [2, n] float32, kicks, hats and plucked chords in time with TEMPO."""
    rng = np.random.default_rng(seed)
    audio = 1e-4 * rng.standard_normal((2, SECONDS * RATE_HZ))
    t = np.arange(RATE_HZ // 4) / RATE_HZ
    for i, at in enumerate(TEMPO.beats_to_seconds(np.arange(0, 60, 0.5))):
        hz = 110 * 2 ** (rng.integers(0, 24) / 12)
        sound = 0.1 * sum(np.sin(2 * np.pi * hz * h * t) / h for h in range(1, 6)) * np.exp(-9 * t)
        sound = sound + 0.2 * rng.standard_normal(len(t)) * np.exp(-(30 + 40 * (i % 2)) * t)
        first = round(float(at) * RATE_HZ)
        part = audio[:, first : first + len(sound)]
        part += sound[: part.shape[1]]
    return audio.astype(np.float32)


def interleaved(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round. Every round runs all of them, the order turning by one."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    names = deque(contestants)
    for lap in range(rounds + 1):
        for name in names:
            began = perf_counter()
            contestants[name]()
            if lap:  # lap 0 imports and warms caches
                seconds[name].append(perf_counter() - began)
        names.rotate()
    return seconds


def main(rounds: int = 7) -> None:
    if rounds < 2:
        sys.exit(f"error: ROUNDS is {rounds}, allowed is 2 and up: one has no quartiles")
    before, take = music(0), music(1)
    start, end = (round(s * RATE_HZ) for s in TEMPO.bars_to_seconds(3, 12))
    new = take[:, start - lead_frames(start, RATE_HZ) : end]
    fades = choose(before, new, start, end, RATE_HZ)
    after = splice(before, new, start, end, fades)
    lines = tuple(round(float(line) * RATE_HZ) for line in TEMPO.bar_lines(0, SECONDS))
    span = measure.Span(RATE_HZ, start, end, lines, TEMPO.grid(0, SECONDS))
    made = measure.Made(resampled=False, warped=False, window_s=float(SECONDS))
    conformed = warp.plan(TEMPO.grid(0, SECONDS), 0.0, float(SECONDS))
    known = measure.Before.of(before, span)
    report = measure.report(known, after, fades, made)
    assert report.length_error_samples == 0, report  # a fast wrong answer has no speed
    assert report.outside_max_abs_diff == 0.0, report
    assert abs((report.tempo_ratio or 0) - 1) < 1e-3, report
    with tempfile.TemporaryDirectory() as folder:
        seconds = interleaved(
            {
                "report": lambda: measure.report(measure.Before.of(before, span), after, fades, made),
                "take alone": lambda: measure.report(known, after, fades, made),
                "conform": lambda: warp.warp(before, RATE_HZ, conformed.warp),
                "picture": lambda: picture.before_after(Path(folder) / "p.png", before, after, span, fades),
            },
            rounds,
        )
    assert "numba" not in sys.modules
    for name, times in seconds.items():
        low, middle, high = quantiles([SECONDS / s for s in times], n=4)
        print(
            f"real time / {name} {middle:.0f}x  (quartiles {low:.0f} to {high:.0f}, n = {rounds}; {min(times):.3f} s)"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
