"""Weights in eight bits: half of bfloat16's memory, for a small and stated loss. Never used unless asked for.

Each row of a matrix is whole numbers from -127 to 127 times one factor. The numbers are exact in the activations'
type, so products are made as before, and the factor is applied to the result. Activations stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class Int8Linear(nn.Module):
    """A Linear whose weight is int8 [outputs, inputs] with a factor per output, float32 [outputs]."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        weight = plain.weight.detach()
        factor = (weight.float().abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        self.weight = nn.Parameter((weight.float() / factor[:, None]).round().to(torch.int8), requires_grad=False)
        self.factor = nn.Parameter(factor, requires_grad=False)
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs], in x's type."""
        y = (linear(x, self.weight.to(x.dtype)) * self.factor).to(x.dtype)
        return y if self.bias is None else y + self.bias


def quantise(module: nn.Module) -> None:
    """Replace every Linear inside the transformer layers of `module` by an Int8Linear, in place.

    Projections outside the layers (embeddings, time, the quantizer's) keep their type: they are small, and their
    types are asked for.
    """
    for path, parent in list(module.named_modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and ".layers." in f".{path}.":
                setattr(parent, name, Int8Linear(child))
