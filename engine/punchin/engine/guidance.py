"""Guidance: how far to go from the unconditional velocity towards, and past, the conditional one.

The original guides base and sft models with APG; DiffSynth with plain CFG. Both are here by name. A guidance holds
the state of one run (APG's momentum), so make a new one for each.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from punchin.engine.sampler import Velocity

Guidance = Callable[[Tensor, Tensor], Tensor]

APG_MOMENTUM = -0.75
APG_NORM = 2.5
ROUNDED = 1e-6  # times are float32: 0.9 is 0.89999998


class PlainCfg:
    """v_u + scale * (v_c - v_u)."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Both [B, T, C] -> same."""
        return unconditional + self.scale * (conditional - unconditional)


class Apg:
    """Adaptive projected guidance as in the original: momentum, a bounded norm, and only the orthogonal part.

    With d = v_c - v_u: m = d + momentum * m of the step before; d' = m, shortened to `norm` over time in each
    channel; what of d' is orthogonal to v_c over time, times (scale - 1), is added to v_c.
    """

    def __init__(self, scale: float, momentum: float = APG_MOMENTUM, norm: float = APG_NORM) -> None:
        self.scale, self.momentum, self.norm = scale, momentum, norm
        self._average: Tensor | None = None

    def __call__(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """Both [B, T, C] -> same. Call once a step, in order."""
        step = conditional - unconditional
        self._average = step if self._average is None else step + self.momentum * self._average
        length = self._average.norm(dim=1, keepdim=True)
        bounded = self._average * (self.norm / length).clamp(max=1.0)
        along = _parallel(bounded.double(), conditional.double())
        return conditional + (self.scale - 1) * (bounded - along.to(bounded))


def _parallel(x: Tensor, direction: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(direction, dim=1)
    return (x * unit).sum(1, keepdim=True) * unit


def guided(
    conditional: Velocity, unconditional: Velocity, guidance: Guidance, start: float = 0.0, stop: float = 1.0
) -> Velocity:
    """The velocity that follows `guidance` while start <= t <= stop, and `conditional` alone outside.

    The interval is of t itself, as in the original; diffusers has its mirror image, of 1 - t.
    """

    def velocity(x: Tensor, t: float) -> Tensor:
        if not start - ROUNDED <= t <= stop + ROUNDED:
            return conditional(x, t)
        return guidance(conditional(x, t), unconditional(x, t))

    return velocity
