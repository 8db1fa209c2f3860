"""Banded attention in blocks: for long sequences, only what lies near the diagonal is computed.

A block of queries sees its own keys and `window` more on each side, so the work grows with the length and not with
its square. The result is that of full attention under a band mask, up to float rounding.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

BLOCK: Final = 256  # queries in a block
BLOCKS_FROM: Final = 1_024  # entries; below, one masked product over everything is faster


class Blocks(NamedTuple):
    """A band for attention in blocks: near [blocks, 1, BLOCK, BLOCK + 2*window], True where a query may look."""

    window: int
    length: int
    near: Tensor


Mask = Tensor | Blocks | None


def band_mask(window: int, length: int, device: torch.device) -> Tensor | None:
    """[S, S], True where |i - j| <= window; None where that is everywhere."""
    if length <= window + 1:
        return None
    at = torch.arange(length, device=device)
    return (at[:, None] - at[None, :]).abs() <= window


def band(window: int, length: int, device: torch.device) -> Mask:
    """The band in the form that is fast for this length."""
    return blocks(window, length, device) if length >= BLOCKS_FROM else band_mask(window, length, device)


def blocks(window: int, length: int, device: torch.device) -> Blocks:
    """The band of a sequence of any length, in blocks."""
    count = -(-length // BLOCK)
    offset = torch.arange(BLOCK + 2 * window, device=device) - window  # of a key from its block's first query
    key = torch.arange(count, device=device)[:, None] * BLOCK + offset
    near = (torch.arange(BLOCK, device=device)[:, None] - offset).abs() <= window
    near = near & ((key >= 0) & (key < length))[:, None]
    # Queries past the end have nothing to see; they are cut off, but must not make NaN on the way.
    return Blocks(window, length, (near | ~near.any(-1, keepdim=True))[:, None])


def attention(queries: Tensor, keys: Tensor, values: Tensor, mask: Mask) -> Tensor:
    """Queries [B, N, S, D] over keys and values [B, K, L, D], N a multiple of K -> [B, N, S, D]."""
    if not isinstance(mask, Blocks):
        return _product(queries, keys, values, mask)
    count, batch = len(mask.near), len(queries)
    tail = count * BLOCK - mask.length
    q = pad(queries, (0, 0, 0, tail)).unflatten(2, (count, BLOCK)).transpose(1, 2).flatten(0, 1)
    k, v = (_windows(each, mask.window, tail) for each in (keys, values))
    near = mask.near.repeat(batch, 1, 1, 1)
    y = _product(q, k, v, near)  # batch: every block of every item
    return y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)[:, :, : mask.length]


def _product(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and queries.is_cuda:  # no fused kernel takes a mask and groups: a table of scores would be kept
        keys, values = (each.repeat_interleave(queries.shape[1] // each.shape[1], dim=1) for each in (keys, values))
    return scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)


def _windows(x: Tensor, window: int, tail: int) -> Tensor:
    """[B, K, L, D] -> [B * blocks, K, BLOCK + 2*window, D]: what each block may see, zeros beyond the ends."""
    wide = pad(x, (0, 0, window, window + tail)).unfold(2, BLOCK + 2 * window, BLOCK)  # [B, K, blocks, D, seen]
    return wide.permute(0, 2, 1, 4, 3).flatten(0, 1)
