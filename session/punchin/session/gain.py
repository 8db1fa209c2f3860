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
    for channel in np.flatnonzero(held.any(axis=1)):
        low = np.flatnonzero(strength[channel] < 2 * lowest)  # from -30 dB on the take is whole
        from_held = _frames_between(low, np.flatnonzero(held[channel]))
        share = np.maximum(from_held / _JOIN_FRAMES, strength[channel, low] / lowest - 1).clip(0, 1)
        out[channel, low] = share * out[channel, low] + (1 - share) * kept[channel, low]
    return np.where(held | same, kept, out.astype(np.float32)), int(held.any(axis=0).sum())


def _frames_between(frames: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
    """How far each of `frames` is from the nearest of the others. Both rise."""
    bounded = np.concatenate([[-np.inf], others, [np.inf]])
    after = np.searchsorted(others, frames)
    return np.minimum(frames - bounded[after], bounded[after + 1] - frames)
