"""Euler integration of the flow, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor

Velocity = Callable[[Tensor, float], Tensor]
Amend = Callable[[Tensor, float], Tensor]


class Step(NamedTuple):
    """A point on the way. In the last step `latent` is the result."""

    done: int  # steps taken so far, 1 to total
    total: int
    t: float  # the time that `latent` is at; 0 in the last step
    latent: Tensor  # [B, T, C]


def sample(velocity: Velocity, noise: Tensor, times: Sequence[float], amend: Amend | None = None) -> Iterator[Step]:
    """Integrate the flow from noise at times[0] to music at t = 0, one Euler step a yield.

    velocity: (latent [B, T, C], t) -> noise minus data, same shape. noise: float32, on the model's device.
    times: falling, without the final 0; one step each. amend: (latent, its time) -> latent, after each step and
    before the yield; repaint puts the source back outside its region with it. To cancel, stop iterating. A step
    costs one call of `velocity`; nothing runs between yields.
    """
    x = noise
    for done, (t, t_next) in enumerate(pairwise([*times, 0.0]), start=1):
        x = x + (t_next - t) * velocity(x, t)
        if amend is not None:
            x = amend(x, t_next)
        yield Step(done, len(times), t_next, x)
