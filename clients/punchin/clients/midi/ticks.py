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
_FEWEST_LOST, _LOST_SHARE, _SCATTERED = 3, 12, 8  # tried: up to a twelfth of the ticks, from three to eight,
_STALL, _MOST_LOST = 4.0, 100  # and what gaps of more than so many mean gaps hide, up to a hundred
_SLACK = 2  # ticks
_BLOCKS_S = sorted((2**power / rate for rate in (44_100, 48_000) for power in range(6, 14)), reverse=True)
_LEAST_BLOCK, _MOST_BLOCK = 0.5, 2.5  # ticks; where an empty block can look as a lost tick does
_AT_BLOCKS, _STANDING = 0.6, 0.4  # how nearly ticks come at one place of their blocks, and how far that moves, radians
_WITHIN_BLOCKS = 1.5  # all whole ticks lie around one line
_ROUNDS = 2  # from lines to counts and back
_FIRST_SCATTER = 0.06  # in ticks squared
_HUBER = 1.345
_EVEN, _NEIGHBOURS = 0.15, 6  # gaps differ by less from one to the next, in parts of a gap; and those on each side
_BUNCHED = 0.5  # of its neighbours' gap: a tick that came late
_PLAINLY = 0.3  # of a gap: so near to whole ones


def count_ticks(at_s: Floats) -> tuple[Counts, float]:
    """Tick numbers from 0 on, [N], for rising times: the likeliest count of an even clock that lost some of its ticks.

    Ticks that came late do not make a hole and those that overtook each other are no double: a count may only leave
    numbers out, and each hole must pay for itself (`HOLE`) by how much nearer the ticks then lie to one line. A line is
    tried for no tick lost, one, two, ... evenly; each gets the count that fits it best, and is fitted to that again.
    Second comes how far the ticks scatter around their line, in ticks squared. Ticks that come in an audio device's
    blocks are counted one by one where that leaves them near one line: an empty block looks as a lost tick does.
    """
    block_s = block(at_s)
    if block_s is not None:
        counted, scatter, late_s = _even(at_s, np.ones(len(at_s) - 1))
        if np.ptp(late_s) < _WITHIN_BLOCKS * block_s:
            return counted, scatter
    gaps = np.diff(at_s)
    beside = np.array([np.median(gaps[max(i - _NEIGHBOURS, 0) : i + _NEIGHBOURS + 1]) for i in range(len(gaps))])
    if np.median(np.abs(np.diff(gaps))) < _EVEN * np.median(gaps) and (gaps > _BUNCHED * beside).all():
        steps = np.maximum(np.rint(gaps / beside), 1)
        plainly = np.abs(gaps / beside - steps)[gaps > beside] < _PLAINLY  # a timer's long gap is one and a half
        if plainly.all() and np.count_nonzero(steps > 1) * _LOST_SHARE <= len(at_s):
            return _even(at_s, steps)[:2]
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


def block(at_s: Floats) -> float | None:
    """The length of an audio device's blocks where all ticks come with those and are about as long; else None."""
    mean_s = (at_s[-1] - at_s[0]) / (len(at_s) - 1)
    for block_s in _BLOCKS_S:
        if _LEAST_BLOCK * mean_s < block_s < _MOST_BLOCK * mean_s:
            turns = np.exp(2j * np.pi * at_s / block_s)
            first, second = (half.mean() for half in np.array_split(turns, 2))
            if abs(turns.mean()) > _AT_BLOCKS and abs(np.angle(second * first.conjugate())) < _STANDING:
                return block_s
    return None


def block_error(at_s: Floats, block_s: float) -> float:
    """One standard error of a period, in parts of it, where ticks come with blocks: the fewer gaps differ, the larger.

    One odd gap in the middle of even ones tilts a line by up to 1.5 blocks in all.
    """
    blocks = np.rint(np.diff(at_s) / block_s)
    odd = np.count_nonzero(blocks != np.median(blocks))
    return float(0.75 * block_s / (at_s[-1] - at_s[0]) / max(odd, 1))


def _even(at_s: Floats, steps: Floats) -> tuple[Counts, float, Floats]:
    """Where each lost tick shows by itself: a tempo that moves bends the line, and no tick is lost for that.

    Third comes how late each tick is, in seconds.
    """
    numbers = np.insert(np.cumsum(steps), 0, 0)
    slope, first = np.polyfit(numbers, at_s, 1)
    late_s = at_s - first - slope * numbers
    return numbers.astype(np.int64), float(np.square(late_s / slope).mean()) + LEAST_SCATTER, late_s


def _most_lost(since: Floats) -> int:
    """How many lost ticks are tried: some of all, and those that fit into long gaps."""
    gaps, mean_s = np.diff(since), float(since[-1]) / (len(since) - 1)
    stalled = int(np.round(gaps[gaps > _STALL * mean_s] / mean_s).sum())
    return min(max(_FEWEST_LOST, min(len(since) // _LOST_SHARE, _SCATTERED)) + stalled, _MOST_LOST)


def _holes(late: Floats, scatter: Floats, most: int) -> Counts:
    """How many ticks are missing before each, [lines, N]: never falling, at most `most` in all, at the least cost.

    late: how far behind a plain count each tick comes, in ticks; a line may be a tick or two off as a whole, so a path
    may begin at any number. Dynamic programming, number by number: the cheapest way to have so many missing after a
    tick came from one less (HOLE) after the tick where that was best, and stayed. Each step is a running minimum.
    """
    missing, after = np.arange(-_SLACK, most + _SLACK + 1), np.arange(late.shape[1] + 1)
    off = np.square(late - missing[:, None, None]) / (2 * scatter[:, None])  # [missing, lines, N]
    stay = np.concatenate([np.zeros((*off.shape[:2], 1)), np.cumsum(off, axis=2)], axis=2)
    cost, came = stay[0], np.zeros(stay.shape, dtype=np.int64)
    ends = np.empty(off.shape[:2])
    ends[0] = cost[:, -1]
    for i in range(1, len(missing)):
        step = cost + HOLE - stay[i]
        step[:, 0] = 0.0  # it may begin here
        best = np.minimum.accumulate(step, axis=1)
        came[i] = np.maximum.accumulate(np.where(step == best, after, 0), axis=1)
        cost = stay[i] + best
        ends[i] = cost[:, -1]
    lines = np.arange(len(late))
    at, until = ends.argmin(axis=0), np.full(len(late), late.shape[1])
    holes = np.repeat(missing[at][:, None], late.shape[1], axis=1)
    for _ in range(len(missing) - 1):
        until = came[at, lines, until]
        at = np.maximum(at - 1, 0)
        holes -= after[:-1] < until[:, None]
    return holes


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
