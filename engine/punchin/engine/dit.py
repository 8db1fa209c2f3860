"""The diffusion transformer: noisy latent, time, context and condition to velocity. No files, no devices, no log.

Axes: B batch, T latent frames, C latent channels, S patches, L condition tokens, H hidden width.
What looks like an omission is intended: cross-attention has no gate, no rotary positions and, in what the released
models compute, no padding mask. Batches of captions of different length, which only training has, bring one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, silu

from punchin.engine.band import Mask, band
from punchin.engine.layers import Attention, KeysValues, Mlp, RMSNorm, Rope, rope_table
from punchin.engine.spec import TIME_CHANNELS, DitSpec


class Modulation(NamedTuple):
    """What a time does to the layers: `table` [B, 6, H] to each block, `out` [B, 1, H] to the last norm."""

    table: Tensor
    out: Tensor


class Prepared(NamedTuple):
    """A condition as every step needs it: keys and values of each layer's cross-attention. One per request."""

    layers: tuple[KeysValues, ...]
    seen: Tensor | None = None  # [B, 1, 1, L], False at padding; None: nothing is padding


class TimeEmbedding(nn.Module):
    """Sinusoid of 1000*t, cosines first, through two layers; `time_proj` gives the six modulations."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(TIME_CHANNELS, width)
        self.linear_2 = nn.Linear(width, width)
        self.time_proj = nn.Linear(width, 6 * width)

    def forward(self, t: Tensor) -> Modulation:
        """`t` [B] in [0, 1], float32. The sinusoid is made from float32: in bfloat16, 0.954545 would become 0.952."""
        half = TIME_CHANNELS // 2
        rates = torch.exp(-math.log(10_000) / half * torch.arange(half, dtype=torch.float32, device=t.device))
        angles = 1000.0 * t.float()[:, None] * rates
        wave = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear_1.weight.dtype)
        out = self.linear_2(silu(self.linear_1(wave)))
        return Modulation(self.time_proj(silu(out)).unflatten(-1, (6, -1)), out[:, None])


class Layer(nn.Module):
    """Self-attention and MLP are modulated by time; cross-attention is not. Names are the checkpoint's."""

    def __init__(self, spec: DitSpec) -> None:
        super().__init__()
        block = spec.block
        self.self_attn_norm = RMSNorm(block.width, block.norm_eps)
        self.self_attn = Attention(block)
        self.cross_attn_norm = RMSNorm(block.width, block.norm_eps)
        self.cross_attn = Attention(block)
        self.mlp_norm = RMSNorm(block.width, block.norm_eps)
        self.mlp = Mlp(block)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, block.width) / block.width**0.5)

    def forward(
        self, h: Tensor, time: Tensor, cond: KeysValues, rope: Rope, near: Mask, seen: Tensor | None = None
    ) -> Tensor:
        """`h` [B, S, H], time [B, 6, H] -> [B, S, H]. `near`: where a patch may look; None: everywhere."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (self.scale_shift_table + time).chunk(6, dim=1)
        x = (self.self_attn_norm(h) * (1 + scale_a) + shift_a).type_as(h)
        h = (h + gate_a * self.self_attn(x, rope, near)).type_as(h)
        h = h + self.cross_attn.cross(self.cross_attn_norm(h), cond, seen)
        x = (self.mlp_norm(h) * (1 + scale_m) + shift_m).type_as(h)
        return (h + gate_m * self.mlp(x)).type_as(h)


class Dit(nn.Module):
    """The velocity field. Even layers look `window` patches to each side, odd layers everywhere."""

    def __init__(self, spec: DitSpec) -> None:
        super().__init__()
        self.spec = spec
        width, patch = spec.block.width, spec.patch
        # The released keys count positions in a sequence whose first entry, a transpose, has no weights.
        self.proj_in = nn.Sequential(nn.Identity(), nn.Conv1d(3 * spec.latent_channels, width, patch, patch))
        self.time_embed = TimeEmbedding(width)
        self.time_embed_r = TimeEmbedding(width)
        self.condition_embedder = nn.Linear(spec.condition_width, width)
        self.layers = nn.ModuleList(Layer(spec) for _ in range(spec.layers))
        self.norm_out = RMSNorm(width, spec.block.norm_eps)
        self.proj_out = nn.Sequential(nn.Identity(), nn.ConvTranspose1d(width, spec.latent_channels, patch, patch))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)

    def forward(self, x: Tensor, t: Tensor, context: Tensor, condition: Tensor, valid: Tensor | None = None) -> Tensor:
        """Velocity (noise minus data) of x [B, T, C] at times t [B]; the whole computation, for training and tests.

        context [B, T, 2C]: source latent, then mask. condition [B, L, condition width]; valid [B, L], False where
        that is padding. Computed in the weights' type, returned in x's.
        """
        return self.velocity(x, t, context, self.prepare(condition, valid))

    def prepare(self, condition: Tensor, valid: Tensor | None = None) -> Prepared:
        """What all steps of one request share: condition [B, L, condition width] to each layer's keys and values."""
        e = self.condition_embedder(condition.to(self.scale_shift_table.dtype))
        layers = tuple(layer.cross_attn.keys_values(e) for layer in cast(Iterable[Layer], self.layers))
        return Prepared(layers, None if valid is None else valid[:, None, None, :])

    def modulation(self, t: Tensor) -> Modulation:
        """What times t [B] do to the layers. r = t always, so the second embedding is of 0; its weights count."""
        at, step = self.time_embed(t), self.time_embed_r(torch.zeros_like(t))
        return Modulation(at.table + step.table, at.out + step.out)

    def velocity(self, x: Tensor, t: Tensor, context: Tensor, prepared: Prepared) -> Tensor:
        """As `forward`, with the condition already prepared. `prepared` may have batch 1 for any B."""
        return self.steered(x, self.modulation(t), context, prepared)

    def steered(self, x: Tensor, modulation: Modulation, context: Tensor, prepared: Prepared) -> Tensor:
        """As `velocity`, with the time's modulation already made: a schedule's times are known before it begins."""
        h = self.states(x, modulation, context, prepared)
        shift, scale = (self.scale_shift_table + modulation.out).chunk(2, dim=1)
        h = (self.norm_out(h) * (1 + scale) + shift).type_as(h)
        return self.proj_out(h.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]].to(x.dtype)

    def states(
        self, x: Tensor, modulation: Modulation, context: Tensor, prepared: Prepared, depth: int | None = None
    ) -> Tensor:
        """What the first `depth` layers, or all, make of x: [B, S, H]."""
        h = self._patches(x, context)
        table = rope_table(self.spec.block, h.shape[1], h)
        near = band(self.spec.block.window, h.shape[1], h.device)
        for i, (layer, cond) in enumerate(zip(self.layers[:depth], prepared.layers[:depth], strict=True)):
            h = layer(h, modulation.table, cond, table, None if i % 2 else near, prepared.seen)
        return h

    def _patches(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, S, H]; a last, incomplete patch is filled with zeros, mask included."""
        dtype = self.scale_shift_table.dtype
        h = torch.cat([context.expand(len(x), -1, -1).to(dtype), x.to(dtype)], dim=-1)
        h = pad(h, (0, 0, 0, -h.shape[1] % self.spec.patch))
        # Contiguous, and so is all that is made of it: a Linear would copy its weight for each item of any other.
        return self.proj_in(h.transpose(1, 2)).transpose(1, 2).contiguous()
