"""Whether a repaint's edges stand out in what was decoded, before anything is spliced."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from punchin.protocol.limits import HOP, MODEL_HZ
from punchin.session import seams

WIDTH_FRAMES = round(0.03 * MODEL_HZ)  # before an edge and a bar line alike: the fade that a splice would have


def edges_db(
    audio: NDArray[np.float32], region: tuple[int, int], lines_frames: Sequence[int]
) -> tuple[float, float] | None:
    """How far the spectrum jumps at both edges of a region, in dB over what this music does at its bar lines.

    audio: [2, n] at 48 kHz, the whole window decoded. region: latent frames. lines_frames: bar lines in the window;
    those within 100 ms of the region do not count as context. None where fewer than two of them sound.
    """
    low, high = (edge * HOP for edge in region)
    near = round(0.1 * MODEL_HZ)
    context = [line for line in lines_frames if not low - near <= line <= high + near and 0 < line < audio.shape[1]]
    habit = seams.habit(audio, MODEL_HZ, context, WIDTH_FRAMES)
    if habit is None:
        return None
    return habit.over_db(audio, MODEL_HZ, low), habit.over_db(audio, MODEL_HZ, high)
