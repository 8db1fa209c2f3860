"""Changing the sample rate: the only place where it happens, by soxr at its very high quality.

soxr's filter is linear in phase and its delay is taken out, so frame 0 stays frame 0 and time t stays time t.
Near the array's ends the filter leans on silence; callers who need those frames give `MARGIN_S` more sound around them.
Measured, there and back through 48 kHz: 44.1 kHz -107 dB for content up to 16 kHz, 96 kHz -144 dB, 22.05 kHz -91 dB
up to 8.8 kHz (near a rate's half soxr interpolates its filter).
"""

from __future__ import annotations

from math import gcd

import numpy as np
from numpy.typing import NDArray

Audio = NDArray[np.float32]

MARGIN_S = 0.02  # from an array's end to where the filter no longer hears that the sound stops there


def frames_at(frames: int, from_hz: int, to_hz: int) -> int:
    """How many frames at `to_hz` last as long as `frames` at `from_hz`, to the nearest (half rounds up)."""
    return (2 * frames * to_hz + from_hz) // (2 * from_hz)


def resample(audio: Audio, from_hz: int, to_hz: int, frames: int | None = None) -> Audio:
    """The same sound at another rate. At equal rates the same array comes back, bit for bit.

    audio: [channels, n] float32. frames: the length wanted, `frames_at(n, ...)` unless given; what lies beyond the
    sound is silence. Frame 0 of input and output are the same instant.
    """
    wanted = frames_at(audio.shape[1], from_hz, to_hz) if frames is None else frames
    if from_hz == to_hz and wanted == audio.shape[1]:
        return audio
    return resample_span(audio, from_hz, to_hz, 0, 0, wanted)


def resample_span(audio: Audio, from_hz: int, to_hz: int, first_frame: int, start_frame: int, stop_frame: int) -> Audio:
    """Frames [start_frame, stop_frame) at `to_hz` of a sound whose first frame is `first_frame` at `from_hz`.

    Both count on one clock whose frame 0 is common to both rates, so a piece cut out anywhere keeps its phase although
    its first frame falls between two frames of the other rate. Frames outside the sound are silence.
    audio: [channels, n] float32. Returns [channels, stop_frame - start_frame] float32.
    """
    import soxr

    if from_hz == to_hz:
        return _cut(audio, start_frame - first_frame, stop_frame - first_frame)
    step = gcd(from_hz, to_hz)
    # From the last instant at or before the sound that both rates share: there soxr's phase is exact.
    blocks, lead = divmod(first_frame, from_hz // step)
    padded = np.pad(audio, ((0, 0), (lead, 0)))
    out = np.ascontiguousarray(soxr.resample(padded.T, from_hz, to_hz, quality="VHQ").T, dtype=np.float32)
    origin = blocks * (to_hz // step)
    return _cut(out, start_frame - origin, stop_frame - origin)


def _cut(audio: Audio, start: int, stop: int) -> Audio:
    """Frames [start, stop), silence where there are none."""
    frames = audio.shape[1]
    inside = audio[:, min(max(start, 0), frames) : min(max(stop, 0), frames)]
    if inside.shape[1] == stop - start:
        return inside
    before = min(max(-start, 0), stop - start)
    return np.pad(inside, ((0, 0), (before, stop - start - before - inside.shape[1])))
