"""Which tick is which, and the line through them: counting a clock whose ticks come late, bunched, or not at all.

Arithmetic on arrival times alone; `clock` keeps them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

LEAST_SCATTER = 1e-4  # in ticks squared: no clock is steadier
HOLE = -float(np.log(0.01))  # what a lost tick costs, in log likelihood: one in a hundred is
_FEWEST_LOST, _LOST_SHARE, _SCATTERED = 3, 12, 16  # tried: up to a twelfth of the ticks, from three to sixteen,
_STALL, _MOST_LOST = 4.0, 100  # and what gaps of more than so many mean gaps hide, up to a hundred
_SLACK = 2  # ticks
_ROUNDS = 3  # from counts to lines and back; it settles in two
_FIRST_SCATTER = 0.06  # in ticks squared
_HUBER = 1.345


def count_ticks(at_s: Floats) -> tuple[Counts, float]:
    """Tick numbers from 0 on, [N], for rising times: the likeliest count of an even clock that lost some of its ticks.

    Ticks that came late do not make a hole and those that overtook each other are no double: a count may only leave
    numbers out, and each hole must pay for itself (`HOLE`) by how much nearer the ticks then lie to one line. A line is
    tried for no tick lost, one, two, ... evenly; each gets the count that fits it best, and is fitted to that again.
    Second comes how far the ticks scatter around their line, in ticks squared.
    """
    since = at_s - at_s[0]
    plain = np.arange(len(since))
    most = _most_lost(since)
    line = np.linalg.qr(np.vander(since / since[-1], 2))[0]
    places = (plain * (1 + np.arange(most + 1)[:, None] / plain[-1])) @ line @ line.T
    places -= np.angle(np.exp(2j * np.pi * places).sum(axis=1))[:, None] / (2 * np.pi)
    scatter, holes = np.full(most + 1, _FIRST_SCATTER), np.zeros(places.shape, dtype=np.int64)
    for _ in range(_ROUNDS):
        holes = _holes(places - plain, scatter, most)
        places = (plain + holes).astype(np.float64) @ line @ line.T
        scatter = np.square(places - plain - holes).mean(axis=1) + LEAST_SCATTER
    lost = holes[:, -1] - holes[:, 0]
    best = np.argmin(len(since) / 2 * np.log(scatter) + HOLE * lost)
    return plain + holes[best] - holes[best, 0], float(scatter[best])


def _most_lost(since: Floats) -> int:
    """How many lost ticks are tried: some of all, and those that fit into long gaps."""
    gaps, mean_s = np.diff(since), float(since[-1]) / (len(since) - 1)
    stalled = int(np.round(gaps[gaps > _STALL * mean_s] / mean_s).sum())
    return min(max(_FEWEST_LOST, min(len(since) // _LOST_SHARE, _SCATTERED)) + stalled, _MOST_LOST)


def _holes(late: Floats, scatter: Floats, most: int) -> Counts:
    """How many ticks are missing before each, [lines, N]: never falling, at most `most` in all, at the least cost.

    late: how far behind a plain count each tick comes, in ticks; a line may be a tick or two off as a whole, so a path
    may begin at any number. The best one is found from the first tick to the last (Viterbi). Each step up costs HOLE:
    the sum of all steps is where a path ends less where it began.
    """
    missing = np.arange(-_SLACK, most + _SLACK + 1)
    off = np.square(late.T[:, :, None] - missing) / (2 * scatter[:, None])  # [N, lines, missing]
    reached, before = np.empty_like(off), np.empty_like(off)
    reached[0] = off[0] - HOLE * missing
    for i in range(1, len(off)):
        np.minimum.accumulate(reached[i - 1], axis=1, out=before[i])
        np.add(before[i], off[i], out=reached[i])
    came = np.maximum.accumulate(np.where(reached[:-1] == before[1:], np.arange(len(missing)), 0), axis=2)
    lines, path = np.arange(late.shape[0]), np.empty(late.shape, dtype=np.int64)
    path[:, -1] = np.argmin(reached[-1] + HOLE * missing, axis=1)
    for i in range(late.shape[1] - 2, -1, -1):
        path[:, i] = came[i, lines, path[:, i + 1]]
    return missing[path]


def fit_line(numbers: list[int], times: list[float]) -> tuple[float, float, float, float]:
    """Huber regression of times on numbers: the period, its standard error, number 0's time, and the ticks' spread."""
    x, y = np.asarray(numbers, dtype=np.float64), np.asarray(times)
    mean_x, mean_y = x.mean(), y.mean()
    x, y = x - mean_x, y - mean_y
    weights, slope, offset, error, spread = np.ones(len(x)), 0.0, 0.0, np.inf, 0.0
    for _ in range(5):  # reweighting settles fast on ticks
        total, sum_x, sum_y = weights.sum(), weights @ x, weights @ y
        power = float(weights @ (x * x) - sum_x * sum_x / total)
        slope = float((weights @ (x * y) - sum_x * sum_y / total) / power)
        offset = float((sum_y - slope * sum_x) / total)
        left = np.abs(y - offset - slope * x)
        error = float(np.sqrt(weights @ (left * left) / max(len(x) - 2, 1) / power))
        spread = 1.4826 * float(np.median(left)) + 1e-9
        weights = np.minimum(1.0, _HUBER * spread / np.maximum(left, 1e-12))
    return slope, error, float(mean_y + offset - slope * mean_x), spread
