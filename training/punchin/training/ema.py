"""The moving average of weights: what is kept of a training, steadier than its last step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class Ema:
    """Averages of a module's parameters in float32. `decay` is approached from below, so that the start is forgotten.

    After step n (from 0) the decay is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().float().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after step `step`."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        live = [p.detach().float() for p in self._live.values()]
        torch._foreach_lerp_([*self.average.values()], live, share)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def restore(self, average: Mapping[str, Tensor]) -> None:
        """Go on from averages saved before."""
        for name, mine in self.average.items():
            mine.copy_(average[name])

    @torch.no_grad()
    def write(self) -> dict[str, Tensor]:
        """Put the averages into the module; returns the live weights, for `unwrite`."""
        live = {name: p.detach().clone() for name, p in self._live.items()}
        for name, p in self._live.items():
            p.copy_(self.average[name])
        return live

    @torch.no_grad()
    def unwrite(self, live: Mapping[str, Tensor]) -> None:
        """Put live weights back that `write` returned."""
        for name, p in self._live.items():
            p.copy_(live[name])
