"""Exact tiles: how much more must be computed around a piece so that its values are those of the whole.

A convolution's output depends on a bounded stretch of its input. Following that stretch from one output frame back
through every layer gives the margin, in latent frames, that a tile needs on each side; what lies in the margin is
computed and thrown away, and what is kept equals the untiled result up to float rounding. No cross-fades.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, floor
from typing import NamedTuple

from punchin.engine.spec import VaeSpec

EDGE_KERNEL, DILATIONS = 7, (1, 3, 9)  # of every Oobleck model
LAST_ENCODER_KERNEL = 3


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


def decode_margin(spec: VaeSpec) -> int:
    """Latent frames that a decoded tile needs on each side: 9 for the released VAE."""
    low, high = 0, spec.hop - 1  # the audio frames of latent frame 0
    low, high = _window(low, high, EDGE_KERNEL)
    for stride in spec.strides:  # the decoder's last block has the encoder's first stride
        for dilation in reversed(DILATIONS):
            low, high = _window(low, high, EDGE_KERNEL, dilation)
        low, high = ceil((low + stride // 2 - 2 * stride + 1) / stride), floor((high + stride // 2) / stride)
    low, high = _window(low, high, EDGE_KERNEL)
    return max(-low, high)


def encode_margin(spec: VaeSpec) -> int:
    """Latent frames' worth of audio that an encoded tile needs on each side: 7 for the released VAE."""
    low, high = _window(0, 0, LAST_ENCODER_KERNEL)
    for stride in reversed(spec.strides):
        low, high = low * stride - stride // 2, high * stride - stride // 2 + 2 * stride - 1
        for dilation in reversed(DILATIONS):
            low, high = _window(low, high, EDGE_KERNEL, dilation)
    low, high = _window(low, high, EDGE_KERNEL)
    return max(ceil(-low / spec.hop), ceil((high + 1) / spec.hop) - 1)


def _window(low: int, high: int, kernel: int, dilation: int = 1) -> tuple[int, int]:
    reach = dilation * (kernel - 1) // 2
    return low - reach, high + reach
