"""A take as loud as what it replaces, and never over the ceiling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from punchin.session.loudness import loudness_db, true_peak_db

Audio = NDArray[np.float32]

CEILING_DBTP = -1.0  # or the source's own true peak, where that is higher
SAME_DB = 0.05  # a correction smaller than this is inaudible and not made: gain is exactly 1
FULL_SCALE = 1 - 2**-15  # the highest sample that 16 bits hold; or the source's own, where that is higher
MOST_DB = 24.0  # a take that is further off is not lifted further: that would be its noise
_ROUNDING_DB = 1e-4  # a peak this little over is the arithmetic's


@dataclass(frozen=True, slots=True)
class Level:
    """What was done to a take's level. `gain_db` 0.0 is nothing at all, bit for bit."""

    gain_db: float
    held_by_ceiling: bool = False  # the ceiling, or full scale, won over the level


@dataclass(frozen=True, slots=True, eq=False)
class Aim:
    """What a take's level is to be, from what it replaces. Measured once for all takes of a region, ahead of them.

    loudness_db: LUFS, under 0.4 s RMS; None where source and context are silent.
    ceiling_dbtp: the highest true peak. full_scale: the highest sample, also under a ceiling over 0 dBTP.
    """

    loudness_db: float | None
    ceiling_dbtp: float
    full_scale: float

    @classmethod
    def at(cls, source: Audio, context: Audio, rate_hz: int) -> Aim:
        """As loud as the source region, with a true peak of at most max(-1 dBTP, the source region's own).

        source: [channels, n] float32, what a take can replace of what is heard (`Target.audible`). context:
        [channels, any] float32, whose loudness a silent source takes.
        """
        target = loudness_db(source, rate_hz)
        if target is None:
            target = loudness_db(context, rate_hz, source.shape[1])
        ceiling = max(CEILING_DBTP, _peak_or_floor(source, rate_hz))
        full_scale = max(FULL_SCALE, float(np.abs(source).max(initial=0.0)))
        return cls(target, ceiling, full_scale)


def match(take: Audio, heard: Audio, aim: Aim, rate_hz: int, *, level: bool = True) -> tuple[Audio, Level]:
    """The take at the loudness it should have, its true peak under the ceiling, no sample over full scale.

    take: [channels, any] float32. heard: [channels, n] float32, what of it is heard where it lands
    (`Target.audible`), n as long as the source that was aimed at; it alone is measured. Where there is no loudness to
    aim at, or nothing is heard, the level stays.
    level: False leaves the loudness alone and only keeps the ceiling.
    """
    wanted_db = _wanted_db(heard, aim, rate_hz) if level else 0.0
    room_db = aim.ceiling_dbtp - _peak_or_floor(heard, rate_hz)
    spare_db = 20 * float(np.log10(aim.full_scale / max(float(np.abs(heard).max(initial=0.0)), 1e-10)))
    held = wanted_db > min(room_db, spare_db) + SAME_DB
    gain_db = min(wanted_db, spare_db, room_db if held else np.inf)
    if abs(gain_db) < SAME_DB and spare_db > -_ROUNDING_DB:
        return take, Level(0.0, held)
    return (take * np.float64(10 ** (gain_db / 20))).astype(np.float32), Level(gain_db, held)


def _wanted_db(heard: Audio, aim: Aim, rate_hz: int) -> float:
    """The gain that makes `heard` as loud as its source, 24 dB at most."""
    now = loudness_db(heard, rate_hz)
    if aim.loudness_db is None or now is None:
        return 0.0
    return float(np.clip(aim.loudness_db - now, -MOST_DB, MOST_DB))


def _peak_or_floor(audio: Audio, rate_hz: int) -> float:
    peak = true_peak_db(audio, rate_hz)
    return -200.0 if peak is None else peak
