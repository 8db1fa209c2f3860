"""The before/after picture of one region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from punchin.session.measure import Span
from punchin.session.splice import Fades

Audio = NDArray[np.float32]


def before_after(
    path: Path, before: Audio, after: Audio, span: Span, fades: Fades, *, title: str = "", first_bar: int = 1
) -> None:
    """Write a PNG 1200 px wide: waveform and log spectrogram before and after, bars, the region and its fades.

    before, after: [channels, n] float32 at `span.rate_hz`, of one length. first_bar: the number of the first bar line
    in `span.bar_lines_frames`.
    """
    raise NotImplementedError
