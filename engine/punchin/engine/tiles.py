"""Exact tiles: how much more must be computed around a piece so that its values are those of the whole.

A convolution's output depends on a bounded stretch of its input. Following that stretch from the wanted frames back
through every layer gives the cone that a tile needs; what lies around the wanted frames is computed and thrown away,
and what is kept equals the untiled result up to float rounding. No cross-fades.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from punchin.engine.spec import VaeSpec

EDGE_KERNEL, DILATIONS = 7, (1, 3, 9)  # of every Oobleck model
LAST_ENCODER_KERNEL = 3


class Span(NamedTuple):
    """Entries [low, high) of a sequence."""

    low: int
    high: int

    def around(self, reach: int) -> Span:
        """The span with `reach` entries more on each side."""
        return Span(self.low - reach, self.high + reach)

    def within(self, length: int) -> Span:
        """What of the span lies in [0, length)."""
        return Span(max(self.low, 0), min(self.high, length))


class Tile(NamedTuple):
    """Latent frames [start, stop) are kept of [low, high), which are computed."""

    start: int
    stop: int
    low: int
    high: int


def tiles(start: int, stop: int, length: int, size: int, margin: int) -> Iterator[Tile]:
    """Tiles of `size` frames that cover [start, stop) of a sequence of `length` frames, in order."""
    for low in range(start, stop, size):
        high = min(low + size, stop)
        yield Tile(low, high, max(low - margin, 0), min(high + margin, length))


def decode_cone(spec: VaeSpec, start: int, stop: int, length: int) -> tuple[Span, ...]:
    """What each level of the decoder must hold so that latent frames [start, stop) of `length` come out whole.

    Levels: the latent, the input of each block, the input of the last convolution; each in entries of its own rate.
    """
    rate = spec.hop
    span = Span(start * rate, stop * rate).around(EDGE_KERNEL // 2)
    cone = [span.within(length * rate)]
    for stride in spec.strides:  # the decoder's last block has the encoder's first stride
        span, rate = span.around(_unit_reach()), rate // stride
        # A transposed convolution's output o comes from the inputs i with i*stride - stride/2 <= o < that + 2*stride.
        half = stride // 2
        span = Span(-((stride + half - 1 - span.low) // stride), (span.high - 1 + half) // stride + 1)
        cone.append(span.within(length * rate))
    cone.append(span.around(EDGE_KERNEL // 2).within(length))
    return tuple(reversed(cone))


def decode_margin(spec: VaeSpec) -> int:
    """Latent frames that a decoded tile needs on each side: 9 for the released VAE."""
    far = 1000  # from any edge
    span = decode_cone(spec, far, far + 1, 2 * far)[0]
    return max(far - span.low, span.high - far - 1)


def encode_margin(spec: VaeSpec) -> int:
    """Latent frames' worth of audio that an encoded tile needs on each side: 7 for the released VAE."""
    span = Span(0, 1).around(LAST_ENCODER_KERNEL // 2)
    for stride in reversed(spec.strides):
        half = stride // 2
        span = Span(span.low * stride - half, (span.high - 1) * stride - half + 2 * stride).around(_unit_reach())
    span = span.around(EDGE_KERNEL // 2)
    return max(ceil(-span.low / spec.hop), ceil(span.high / spec.hop) - 1)


def _unit_reach() -> int:
    return sum(dilation * (EDGE_KERNEL // 2) for dilation in DILATIONS)
