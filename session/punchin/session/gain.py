"""From what was heard back to what the take's file holds: item gain, fades and pan taken out again."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Audio = NDArray[np.float32]

HELD_BELOW_DB = -36.0  # under this gain, dividing would lift the model's noise floor by more than it is worth
_JOIN_FRAMES = 960  # beside such frames the take comes in over so many, 20 ms at 48 kHz, or by -30 dB if that is sooner


def ungain(new: Audio, heard: Audio, kept: Audio, gain: ArrayLike) -> tuple[Audio, int]:
    """What the take's file must hold so that the DAW plays `new`; and in how many frames it could not.

    new, heard: [2, n] float32, the take and what the model was given, both as heard. kept: [channels, n] float32, the
    source's own samples there, channels 1 or 2. gain: gain x fade x pan of each heard channel, [2, n] or what
    broadcasts to it. Returns ([channels, n] float32, held frames).

    Divides in float64. A mono source gets the least-squares answer (l gl + r gr) / (gl**2 + gr**2). Where the gain is
    under -36 dB the file keeps kept's samples, and the frame is counted; beside such frames it fades from kept to the
    take, over 960 frames or until the gain is -30 dB: a quick fade's first attack is not kept away. A frame that came
    back as it went keeps kept's samples too: that is its exact inverse, without the rounding.
    """
    gains = np.broadcast_to(np.asarray(gain, dtype=np.float64), new.shape)
    new64 = new.astype(np.float64)
    if len(kept) == 1:
        power = (gains * gains).sum(axis=0, keepdims=True)
        strength, numerator, divisor = np.sqrt(power / 2), (new64 * gains).sum(axis=0, keepdims=True), power
        same = (new == heard).all(axis=0, keepdims=True)
    else:
        strength, numerator, divisor, same = np.abs(gains), new64, gains, new == heard
    lowest = 10 ** (HELD_BELOW_DB / 20)
    held = strength < lowest
    out = np.divide(numerator, divisor, out=np.zeros_like(numerator), where=~held)
    if held.any():
        share = np.maximum(_from_held(held) / _JOIN_FRAMES, strength / lowest - 1).clip(0, 1)
        out = share * out + (1 - share) * kept
    return np.where(held | same, kept, out.astype(np.float32)), int(held.any(axis=0).sum())


def _from_held(held: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many frames each one is from the nearest held one of its channel, [channels, n]; many where there is none."""
    at, far = np.arange(held.shape[1]), held.shape[1] + _JOIN_FRAMES
    last = np.maximum.accumulate(np.where(held, at, -far), axis=1)
    following = np.minimum.accumulate(np.where(held, at, 2 * far)[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(at - last, following - at)
