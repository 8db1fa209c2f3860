"""The audio tokenizer: five latent frames to one of 64,000 codes (25 Hz to 5 Hz), and back.

Axes: B batch, T latent frames, C latent channels, N codes, P frames of one code, W width, Q code dimensions.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from punchin.engine.layers import EncoderLayers, RMSNorm
from punchin.engine.spec import TokenizerSpec

GROUPS = 256  # codes worked on at once: each is a sequence of its own, so this bounds memory and changes nothing


class Codes(NamedTuple):
    """What the tokenizer heard: states [B, N, W] to detokenize, indices [B, N] int64 to write down."""

    states: Tensor
    indices: Tensor


def whole_codes(latent: Tensor, silence: Tensor, pool: int) -> Tensor:
    """`latent` [B, T, C] made a multiple of `pool` frames long by the first frames of silence [1, >= pool, C]."""
    lack = -latent.shape[1] % pool
    return torch.cat([latent, silence[:, :lack].to(latent).expand(len(latent), -1, -1)], dim=1)


class Quantizer(nn.Module):
    """Finite scalar quantisation: project to Q numbers, round each to its levels, project back. In float32 always.

    As ResidualFSQ of vector-quantize-pytorch with one quantizer and hard clamp: with c = 1 + 1/(L - 1),
    z = clamp(c*tanh(y/c), -1, 1), n = floor((L - 1)*(z + 1)/2 + 1/2), q = 2n/(L - 1) - 1, and the index is the sum
    of n times the product of the levels before it. Type float32: a half would move codes that lie near a boundary.
    """

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.levels = spec.levels
        self.project_in = nn.Linear(spec.block.width, len(spec.levels))
        self.project_out = nn.Linear(len(spec.levels), spec.block.width)

    def forward(self, h: Tensor) -> Codes:
        """`h` [B, N, W] -> codes. The rounding passes gradients through as if it were not there."""
        y = _in_float32(self.project_in, h)
        steps = self._steps(y)
        soft = 1 + 1 / steps
        z = ((y / soft).tanh() * soft).clamp(-1, 1)
        level = (z + 1) * steps / 2
        rounded = level + ((level + 0.5).floor() - level).detach()
        indices = (rounded.detach().round().long() * self._basis(y)).sum(-1)
        return Codes(self._project(rounded, steps).to(h.dtype), indices)

    def states(self, indices: Tensor) -> Tensor:
        """`indices` [B, N] -> the states [B, N, W] that `forward` gives for them, in the weights' type."""
        basis, levels = self._basis(indices), torch.tensor(self.levels, device=indices.device)
        level = (indices[..., None] // basis) % levels
        return self._project(level.float(), self._steps(level)).to(self.project_out.weight.dtype)

    def _project(self, level: Tensor, steps: Tensor) -> Tensor:
        return _in_float32(self.project_out, 2 * level / steps - 1)

    def _steps(self, like: Tensor) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.float32, device=like.device) - 1

    def _basis(self, like: Tensor) -> Tensor:
        return torch.tensor([prod(self.levels[:i]) for i in range(len(self.levels))], device=like.device)


def _in_float32(linear: nn.Linear, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return nn.functional.linear(x.float(), linear.weight.float(), linear.bias.float())


class AttentionPooler(nn.Module):
    """The frames of each code to one state: a special token goes first and looks at them."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        width = spec.block.width
        self.embed_tokens = nn.Linear(width, width)
        self.norm = RMSNorm(width, spec.block.norm_eps)
        self.special_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.layers = EncoderLayers(spec.block, spec.layers)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, P, W] -> [B, N, W]."""
        return torch.cat([self._pooled(some) for some in x.flatten(0, 1).split(GROUPS)]).unflatten(0, x.shape[:2])

    def _pooled(self, x: Tensor) -> Tensor:
        x = self.embed_tokens(x)
        x = torch.cat([self.special_token.expand(len(x), -1, -1), x], dim=1)
        return self.norm(self.layers(x)[:, 0])


class AudioTokenizer(nn.Module):
    """Latent frames to codes."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.pool = spec.pool
        self.audio_acoustic_proj = nn.Linear(spec.latent_channels, spec.block.width)
        self.attention_pooler = AttentionPooler(spec)
        self.quantizer = Quantizer(spec)

    def forward(self, latent: Tensor) -> Codes:
        """`latent` [B, T, C] with T a multiple of `pool` (see `whole_codes`) -> T / pool codes."""
        x = self.audio_acoustic_proj(latent.to(self.audio_acoustic_proj.weight.dtype))
        return self.quantizer(self.attention_pooler(x.unflatten(1, (-1, self.pool))))


class AudioDetokenizer(nn.Module):
    """Codes to latent frames, `pool` a code."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        width = spec.block.width
        self.embed_tokens = nn.Linear(width, width)
        self.norm = RMSNorm(width, spec.block.norm_eps)
        self.special_tokens = nn.Parameter(torch.randn(1, spec.pool, width) * 0.02)
        self.proj_out = nn.Linear(width, spec.latent_channels)
        self.layers = EncoderLayers(spec.block, spec.layers)

    def forward(self, states: Tensor) -> Tensor:
        """`states` [B, N, W], from `Codes.states` or `Quantizer.states` -> latent [B, N*pool, C]."""
        frames = torch.cat([self._unpooled(some) for some in states.flatten(0, 1).split(GROUPS)])  # [B * N, P, C]
        return frames.unflatten(0, states.shape[:2]).flatten(1, 2)

    def _unpooled(self, states: Tensor) -> Tensor:
        x = self.embed_tokens(states)[:, None] + self.special_tokens  # [some, P, W]
        return self.proj_out(self.norm(self.layers(x)))
