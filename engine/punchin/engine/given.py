"""What callers give, as the engine's own types. NumPy's numbers and arrays are taken; what is neither is refused."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from punchin.protocol.errors import Refused

Audio = Tensor | NDArray[Any]


def text(value: str, name: str) -> str:
    """Text as it is. Refused for anything else."""
    if not isinstance(value, str):
        raise Refused(f"{name} is {value!r:.80}, it must be text")
    return value


def whole(value: int, name: str) -> int:
    """A whole number. Refused for any other, and for True and False."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            return operator.index(value)
    raise Refused(f"{name} is {value!r:.80}, it must be a whole number")


def real(value: float, name: str) -> float:
    """A number. Refused for anything else, and for True and False."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise Refused(f"{name} is {value!r:.80}, it must be a number")
    return value if isinstance(value, int | float) else float(value)


def seeds(value: int | Iterable[int]) -> tuple[int, ...]:
    """One seed or several. Refused for what is no whole number."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return tuple(whole(each, "seed") for each in (cast("Iterable[int]", value) if several else (cast(int, value),)))


def pairs(value: Iterable[Sequence[float]], name: str) -> list[tuple[float, float]]:
    """Pairs of numbers, in a list or an array [n, 2]. Refused for anything else."""
    try:
        return [(real(start, name), real(end, name)) for start, end in value]
    except (TypeError, ValueError):
        raise Refused(f"{name} is {value!r:.80}, it must be pairs of numbers", "like [(2, 4.5)]") from None


def tensor(value: Audio, what: str) -> Tensor:
    """A tensor, or an array as one. Refused for anything else, a path among it."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise Refused(
            f"{what} is {value!r:.80}, it must be a tensor or an array",
            "read the file first: soundfile.read(FILE, dtype='float32', always_2d=True)[0].T",
        )
    try:
        return torch.from_numpy(np.ascontiguousarray(value))
    except TypeError:
        raise Refused(f"{what} is an array of {value.dtype}, it must be float32") from None
