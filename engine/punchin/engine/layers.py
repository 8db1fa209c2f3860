"""What the transformers share: norm, rotary positions, band, attention, MLP, encoder layer.

Axes: B batch, S sequence, L keys, N query heads, K key heads, D per head, H hidden width.
Attribute names are the checkpoint's, so that loading needs no rename table. Masks and rotary tables come in as
arguments: a layer takes no decision that its caller already took. No buffers: everything a module holds is a weight.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from punchin.engine.band import Mask, attention, band_mask
from punchin.engine.spec import BlockSpec


class RMSNorm(nn.Module):
    """Root mean square norm as in Qwen3: in float32, cast back to the input's type, then times the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> same."""
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class Rope(NamedTuple):
    """Rotary positions, the halves of a head as the pairs: cos and sin [S, D], in the activations' type."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Tensor) -> Tensor:
        """[B, heads, S, D] -> same."""
        low, high = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-high, low], dim=-1) * self.sin


def rope_table(spec: BlockSpec, length: int, like: Tensor) -> Rope:
    """The table for positions 0 to length - 1, computed in float32: angle = position * theta^(-2j/D)."""
    half = torch.arange(0, spec.head_dim, 2, dtype=torch.float32, device=like.device)
    positions = torch.arange(length, dtype=torch.float32, device=like.device)
    angles = torch.outer(positions, spec.rope_theta ** (-half / spec.head_dim)).repeat(1, 2)  # [S, D]
    return Rope(angles.cos().to(like.dtype), angles.sin().to(like.dtype))


class KeysValues(NamedTuple):
    """What attention looks at: normed keys and values, both [B, K, L, D]."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Grouped-query attention with normed queries and keys; rotary only where `rope` is given."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.q_proj = nn.Linear(spec.width, spec.heads * spec.head_dim, bias=False)
        self.k_proj = nn.Linear(spec.width, spec.kv_heads * spec.head_dim, bias=False)
        self.v_proj = nn.Linear(spec.width, spec.kv_heads * spec.head_dim, bias=False)
        self.o_proj = nn.Linear(spec.heads * spec.head_dim, spec.width, bias=False)
        self.q_norm = RMSNorm(spec.head_dim, spec.norm_eps)
        self.k_norm = RMSNorm(spec.head_dim, spec.norm_eps)

    def forward(self, x: Tensor, rope: Rope, mask: Mask = None) -> Tensor:
        """Self-attention: x [B, S, H] -> same. mask [S, S] or [B, 1, S, S], True where a query may look, or a band."""
        keys, values = self.keys_values(x)
        return self.attend(rope.rotate(self._queries(x)), KeysValues(rope.rotate(keys), values), mask)

    def cross(self, x: Tensor, source: KeysValues, seen: Tensor | None = None) -> Tensor:
        """Attention from x [B, S, H] to keys and values of batch B or 1, made before; no positions.

        seen [B, 1, 1, L]: False at padding, which only training batches have.
        """
        shared = KeysValues(*(each.expand(len(x), -1, -1, -1) for each in source))
        return self.attend(self._queries(x), shared, seen)

    def keys_values(self, source: Tensor) -> KeysValues:
        """The keys, normed, and values of source [B, L, H]."""
        return KeysValues(self.k_norm(self._heads(self.k_proj(source))), self._heads(self.v_proj(source)))

    def attend(self, queries: Tensor, source: KeysValues, mask: Mask) -> Tensor:
        """`queries` [B, N, S, D] -> [B, S, H]."""
        y = attention(queries, source.keys, source.values, mask)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def _queries(self, x: Tensor) -> Tensor:
        return self.q_norm(self._heads(self.q_proj(x)))

    def _heads(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # [B, N or K, S, D]


class Mlp(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x)), without biases."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(spec.width, spec.mlp_width, bias=False)
        self.up_proj = nn.Linear(spec.width, spec.mlp_width, bias=False)
        self.down_proj = nn.Linear(spec.mlp_width, spec.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., H] -> same."""
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class EncoderLayer(nn.Module):
    """One pre-norm layer, looking both ways: of the lyric and timbre encoders, the tokenizer and the detokenizer."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.self_attn = Attention(spec)
        self.input_layernorm = RMSNorm(spec.width, spec.norm_eps)
        self.post_attention_layernorm = RMSNorm(spec.width, spec.norm_eps)
        self.mlp = Mlp(spec)

    def forward(self, x: Tensor, rope: Rope, mask: Tensor | None) -> Tensor:
        """[B, S, H] -> same."""
        x = x + self.self_attn(self.input_layernorm(x), rope, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class EncoderLayers(nn.ModuleList):
    """A stack of encoder layers, by turns banded (even) and full (odd)."""

    def __init__(self, spec: BlockSpec, count: int) -> None:
        super().__init__(EncoderLayer(spec) for _ in range(count))
        self.spec = spec

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """`x` [B, S, H] -> same. valid [B, S]: False at padding, which nobody looks at (its own rows mean nothing)."""
        table = rope_table(self.spec, x.shape[1], x)
        near = band_mask(self.spec.window, x.shape[1], x.device)
        seen = None if valid is None else valid[:, None, None, :]
        if seen is not None:
            near = seen if near is None else seen & near
            # A padding row far from the end may have nothing in its band: let it see itself, or NaN would spread.
            near = near | (~near.any(-1, keepdim=True) & torch.eye(x.shape[1], dtype=torch.bool, device=x.device))
        for i, layer in enumerate(self):
            x = layer(x, table, seen if i % 2 else near)
        return x
