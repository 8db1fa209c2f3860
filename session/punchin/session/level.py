"""A take as loud as what it replaces, and never over the ceiling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from punchin.session.loudness import loudness_db, true_peak_db

Audio = NDArray[np.float32]

CEILING_DBTP = -1.0  # or the source's own true peak, where that is higher
SAME_DB = 0.05  # a correction smaller than this is inaudible and not made: gain is exactly 1
MOST_DB = 24.0  # a take that is further off is not lifted further: that would be its noise


@dataclass(frozen=True, slots=True)
class Level:
    """What was done to a take's level. `gain_db` 0.0 is nothing at all, bit for bit."""

    gain_db: float
    held_by_ceiling: bool = False  # the ceiling won over the level
    held_by_limit: bool = False  # the loudness differed by more than 24 dB


def match(
    take: Audio,
    source: Audio,
    context: Audio,
    rate_hz: int,
    lead_frames: int = 0,
    *,
    level: bool = True,
    mono: bool = False,
) -> tuple[Audio, Level]:
    """The take at the source region's loudness, its true peak at most max(-1 dBTP, the source region's own).

    take: [channels, lead_frames + n] float32; the lead (what lies under the first fade) gets the same gain but is not
    measured. source: [channels, n] float32. context: [channels, any] float32, whose loudness a silent source takes;
    where both are silent, or the take is, the level stays. Loudness is LUFS, under 0.4 s RMS.
    level: False leaves the loudness alone and only keeps the ceiling. mono: the take's file will have one channel, so
    the take is measured as it will sound from there, not as wide as it came.
    """
    body = _folded(take[:, lead_frames:], source) if mono else take[:, lead_frames:]
    wanted_db, limited = _wanted_db(body, source, context, rate_hz) if level else (0.0, False)
    ceiling = max(CEILING_DBTP, _peak_or_floor(source, rate_hz))
    room_db = ceiling - _peak_or_floor(body, rate_hz)
    held = wanted_db > room_db + SAME_DB
    gain_db = min(wanted_db, room_db) if held else wanted_db
    if abs(gain_db) < SAME_DB:
        return take, Level(0.0, held, limited)
    return (take * np.float64(10 ** (gain_db / 20))).astype(np.float32), Level(gain_db, held, limited)


def _folded(body: Audio, source: Audio) -> Audio:
    """`body` as one channel plays it: along the balance (pan) of its source, the middle where that is silent."""
    balance = np.sqrt(np.square(source, dtype=np.float64).mean(axis=1)) if source.any() else np.ones(len(source))
    balance /= np.linalg.norm(balance)
    return np.outer(balance, balance @ body).astype(np.float32)


def _wanted_db(body: Audio, source: Audio, context: Audio, rate_hz: int) -> tuple[float, bool]:
    """The gain that makes `body` as loud as its source, and whether it was cut to the limit."""
    frames = body.shape[1]
    target = loudness_db(source, rate_hz, frames)
    if target is None:
        target = loudness_db(context, rate_hz, frames)
    now = loudness_db(body, rate_hz, frames)
    if target is None or now is None:
        return 0.0, False
    wanted = target - now
    return float(np.clip(wanted, -MOST_DB, MOST_DB)), abs(wanted) > MOST_DB


def _peak_or_floor(audio: Audio, rate_hz: int) -> float:
    peak = true_peak_db(audio, rate_hz)
    return -200.0 if peak is None else peak
