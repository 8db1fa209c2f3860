"""The times of the flow, from noise at t = 1 towards music at t = 0. Times are plain floats; 0 is never listed.

Formula of the original: u_i = 1 - i/n for i = 0..n-1, then t = s*u / (1 + (s - 1)*u) with shift s, in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor


def times(steps: int, shift: float) -> tuple[float, ...]:
    """`steps` times from 1 downwards, without the final 0."""
    return _shifted(torch.linspace(1.0, 0.0, steps + 1)[:-1], shift)


def times_from_strength(steps: int, shift: float, denoising_strength: float) -> tuple[float, ...]:
    """DiffSynth's `denoising_strength`: `steps` times that begin lower, as u runs from the strength instead of 1.

    At strength 1 this is `times`. Start from `noised(source, noise, times[0])`. Strength is in (0, 1].
    """
    return _shifted(torch.linspace(denoising_strength, 0.0, steps + 1)[:-1], shift)


def times_after_cover_noise(steps: int, shift: float, cover_noise_strength: float) -> tuple[float, ...]:
    """The original's `cover_noise_strength` c: the end of `times`, from the time nearest to 1 - c. Fewer steps.

    At c = 0 this is `times`. Start from `noised(source, noise, times[0])`. c is in [0, 1]; at 1 one step is left.
    """
    every = times(steps, shift)
    first = min(range(len(every)), key=lambda i: abs(every[i] - (1.0 - cover_noise_strength)))
    return every[first:]


def noised(clean: Tensor, noise: Tensor, t: float) -> Tensor:
    """The point of the flow between `clean` and `noise` at time t: t*noise + (1 - t)*clean."""
    return t * noise + (1.0 - t) * clean


def _shifted(u: Tensor, shift: float) -> tuple[float, ...]:
    return tuple((shift * u / (1.0 + (shift - 1.0) * u)).tolist())
