"""The loss of flow matching: which times are drawn, what is predicted, how each time counts.

x_t = t*noise + (1 - t)*data, and the model predicts noise - data. Axes: B batch, T latent frames, C latent channels.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from punchin.protocol.errors import BadUsage

Times = Literal["diffsynth", "logit_normal"]

STEPS: Final = 1_000  # of DiffSynth's training schedule
SHIFT: Final = 3.0
MU, SIGMA = -0.4, 1.0  # of the original's logit-normal


@cache
def diffsynth_times() -> Tensor:
    """[1000] float32: t = s*u / (1 + (s - 1)*u) with shift s = 3, u = 1 - i/1000."""
    u = torch.linspace(1.0, 0.0, STEPS + 1)[:-1]
    return SHIFT * u / (1 + (SHIFT - 1) * u)


@cache
def diffsynth_weights() -> Tensor:
    """[1000]: exp(-2*((1000t - 500)/1000)^2), less its minimum, scaled to a mean of 1: 0 at t = 1, most at t = 0.5."""
    bell = (-2 * ((1000 * diffsynth_times() - 500) / 1000).square()).exp()
    bell = bell - bell.min()
    return bell * (STEPS / bell.sum())


def draw(
    kind: Times, count: int, generator: torch.Generator, first: float = 0.0, last: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Times [count] in (0, 1] and their weights [count], from the CPU's generator.

    `diffsynth`: one of 1,000 shifted times, weighted by a bell around 0.5, as DiffSynth-Studio trains; from the part
    of its schedule between `first` and `last`, which begins with noise: DiffSynth's min and max_timestep_boundary.
    `logit_normal`: sigmoid of N(-0.4, 1), the larger of two draws as the original's `forward` takes, unweighted.
    """
    if kind == "diffsynth":
        low = int(first * STEPS)
        index = torch.randint(low, max(int(last * STEPS), low + 1), (count,), generator=generator)
        return diffsynth_times()[index], diffsynth_weights()[index]
    if kind == "logit_normal":
        if (first, last) != (0.0, 1.0):
            raise BadUsage("min_timestep_boundary and max_timestep_boundary go with the diffsynth timesteps")
        both = torch.sigmoid(MU + SIGMA * torch.randn(2, count, generator=generator))
        return both.amax(0), torch.ones(count)
    raise BadUsage(f"timesteps are {kind!r}, allowed is {', '.join(get_args(Times))}")


def noised(data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The flow at times t [B] between data and noise [B, T, C]."""
    at = t[:, None, None].to(data)
    return at * noise + (1 - at) * data


def loss(velocity: Tensor, data: Tensor, noise: Tensor, weights: Tensor, counts: Tensor | None = None) -> Tensor:
    """The mean of `errors`."""
    return errors(velocity, data, noise, weights, counts).mean()


def errors(velocity: Tensor, data: Tensor, noise: Tensor, weights: Tensor, counts: Tensor | None = None) -> Tensor:
    """Mean squared error of velocities [B, T, C] against noise - data, in float32, times weights [B]: [B].

    counts [B, T]: how much a frame counts, 0 where it is padding. Each item's mean is over what counts in it.
    """
    error = (velocity.float() - (noise - data).float()).square().mean(-1)  # [B, T]
    counts = torch.ones_like(error) if counts is None else counts
    each = (error * counts).sum(1) / counts.sum(1).clamp(min=1e-8)
    return each * weights.to(each)
