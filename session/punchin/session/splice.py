"""Laying a take into what was there, so that nothing clicks and nothing outside changes.

Both fades end at their edge: in [start - f, start] the old gives way to the new, in [end - f, end] the new to the old.
So the take's first attack plays whole, and so does the next bar's. A fade may lie a little earlier (never later) where
that joins better. Outside, before the first fade and from `end` on, each frame is the old one, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from punchin.protocol.errors import PunchinError
from punchin.session.level import CEILING_DBTP

Audio = NDArray[np.float32]

FADES_S = (0.05, 0.04, 0.03, 0.02)  # tried from the longest
EARLY_S = 0.005  # how far before its edge a fade may end
_ATTACK_DB = 9.0  # a rise of level by more than this from block to block: more than any sine's own shape makes
_BLOCK_S = 0.0025
_LOUDEST = 10 ** (CEILING_DBTP / 20)  # a fade makes no sample louder than this, or than the louder side is


@dataclass(frozen=True, slots=True)
class Fade:
    """A crossfade of `frames` frames that ends `early_frames` before its edge."""

    frames: int
    early_frames: int = 0

    @property
    def reach_frames(self) -> int:
        """From the fade's start to the edge."""
        return self.frames + self.early_frames


@dataclass(frozen=True, slots=True)
class Fades:
    """The two crossfades of one splice: from old to new before the region's start, back before its end."""

    into: Fade
    back: Fade


def lead_frames(start_frame: int, rate_hz: int) -> int:
    """How many frames before the region a take should cover: room for the longest fade, less at a file's start."""
    return min(start_frame, ceil((FADES_S[0] + EARLY_S) * rate_hz))


def choose(old: Audio, new: Audio, start_frame: int, end_frame: int, rate_hz: int) -> Fades:
    """The fades for this splice: the longest of 50, 40, 30 and 20 ms that crosses no attack of either side.

    An attack inside a fade would be heard twice or half; where even 20 ms crosses one, 20 ms it is. Where either side
    begins something up to 5 ms before the edge, played a little early, the fade ends before that. Less room (a file's
    start, a take without lead) makes a shorter fade. Arguments as in `splice`.
    """
    lead = _lead(old, new, start_frame, end_frame)
    into = _longest(old[:, :start_frame], new[:, :lead], rate_hz)
    back = _longest(old[:, start_frame:end_frame], new[:, lead:], rate_hz)
    return Fades(into, back)


def splice(old: Audio, new: Audio, start_frame: int, end_frame: int, fades: Fades) -> Audio:
    """`old` with `new` in frames [start_frame, end_frame): a new array of old's shape.

    old: [channels, n] float32. new: [channels, lead + end_frame - start_frame] float32 at the same rate; it ends at
    `end_frame`, and its first `lead` frames lie before `start_frame` (`lead_frames` says how many are wanted).
    Raises PunchinError when take, region and fades do not fit; a caller that used `choose` never sees it.

    With x from 0 to 1 over the fade and r the correlation of old and new in it, clamped to [0, 1]:
    out = (old + x (new - old)) / sqrt(1 - 2 x (1 - x) (1 - r)). It keeps the power of the mix steady: r = 1 is the
    linear fade, r = 0 the equal-power fade. Where old and new are equal, r is 1 and so is the divisor: bit-equal.
    Where the mix would be louder than the ceiling and than both sides, r is as much higher as it must be for that.
    """
    lead = _lead(old, new, start_frame, end_frame)
    if fades.into.reach_frames > lead or fades.back.reach_frames > end_frame - start_frame:
        raise PunchinError(
            f"fades of {fades.into.reach_frames} and {fades.back.reach_frames} frames do not fit into a take of "
            f"{lead} frames before and {end_frame - start_frame} in the region"
        )
    first = start_frame - lead  # old's frame under new's first one
    starts, joined = start_frame - fades.into.reach_frames, start_frame - fades.into.early_frames
    leaves, ends = end_frame - fades.back.reach_frames, end_frame - fades.back.early_frames
    out = old.copy()
    out[:, starts:joined] = _mix(old[:, starts:joined], new[:, starts - first : joined - first])
    out[:, joined:leaves] = new[:, joined - first : leaves - first]
    out[:, leaves:ends] = _mix(new[:, leaves - first : ends - first], old[:, leaves:ends])
    return out


def correlation(a: Audio, b: Audio) -> float:
    """How alike two equally long sounds are, over all channels: from 0 (or opposed) to 1 (equal, silence too)."""
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    power = np.sqrt(np.sum(a64 * a64) * np.sum(b64 * b64))
    if power == 0.0:
        return float(np.array_equal(a, b))
    return float(np.clip(np.sum(a64 * b64) / power, 0.0, 1.0))


def _mix(gone: Audio, come: Audio) -> Audio:
    """From `gone` to `come` over their whole length, by the gain law of `splice`. Half-frame steps: it is symmetric."""
    frames = gone.shape[1]
    x = (np.arange(frames) + 0.5) / max(frames, 1)
    from_, to = gone.astype(np.float64), come.astype(np.float64)
    linear, lift = from_ + x * (to - from_), 2 * x * (1 - x)  # never over both sides; the most that a fade is lifted by
    peak = max(_LOUDEST, float(np.abs(gone).max(initial=0)), float(np.abs(come).max(initial=0)))
    room = float(((1 - np.square(linear / peak)) / lift).min(initial=1.0))
    law = np.sqrt(1 - lift * max(min(1 - correlation(gone, come), room), 0.0))
    return (linear / law).astype(np.float32)


def _lead(old: Audio, new: Audio, start_frame: int, end_frame: int) -> int:
    lead = new.shape[1] - (end_frame - start_frame)
    if not (0 <= start_frame < end_frame <= old.shape[1] and 0 <= lead <= start_frame and len(old) == len(new)):
        raise PunchinError(
            f"a take of {new.shape[1]} frames and {len(new)} channels does not fit frames {start_frame} to {end_frame} "
            f"of {old.shape[1]} frames and {len(old)} channels"
        )
    return lead


def _longest(old: Audio, new: Audio, rate_hz: int) -> Fade:
    """The best fade at the end of both sounds; see `choose`."""
    frames = min(old.shape[1], new.shape[1])
    ends = [side[:, side.shape[1] - frames :] for side in (old, new)]
    attacks = [found for found in (_since_attack(side, rate_hz) for side in ends) if found is not None]
    early = max((since for since in attacks if since <= EARLY_S * rate_hz), default=0)
    room = frames - early
    attacks = [found for found in (_since_attack(side[:, :room], rate_hz) for side in ends) if found is not None]
    free = min(attacks, default=room)
    shortest = round(FADES_S[-1] * rate_hz)
    wanted = next((length for length in (round(s * rate_hz) for s in FADES_S) if length <= free), shortest)
    return Fade(min(wanted, room), early)


def _since_attack(audio: Audio, rate_hz: int) -> int | None:
    """Frames from the last attack in the 50 ms before the end to the end; None when there is none."""
    block = max(round(_BLOCK_S * rate_hz), 1)
    count = min(round(FADES_S[0] / _BLOCK_S) + 2, audio.shape[1] // block)
    if count < 3:
        return None
    tail = audio[:, audio.shape[1] - count * block :].astype(np.float64)
    power = (tail * tail).reshape(len(tail), count, block).mean(axis=(0, 2)) + 1e-10  # -100 dBFS: noise is no attack
    rises = 10 * np.log10(power[2:] / np.maximum(power[1:-1], power[:-2])) > _ATTACK_DB
    return int(count - 2 - np.flatnonzero(rises)[-1]) * block if rises.any() else None
