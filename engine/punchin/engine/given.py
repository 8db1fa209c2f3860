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


def flag(value: bool, name: str) -> bool:
    """True or False. Refused for anything else."""
    if not isinstance(value, bool | np.bool):
        raise Refused(f"{name} is {value!r:.80}, it must be True or False")
    return bool(value)


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
    return value if isinstance(value, int) else float(value)


def seeds(value: int | Iterable[int]) -> tuple[int, ...]:
    """One seed or several. Refused for what is no whole number."""
    several: tuple[Any, ...]
    try:
        several = (value,) if isinstance(value, str) else tuple(cast("Iterable[int]", value))
    except TypeError:  # one: a number, or an array that is one
        several = (value,)
    return tuple(whole(each, "seed") for each in several)


def pair(value: Sequence[float], name: str) -> tuple[float, float]:
    """Two numbers. Refused for anything else."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise Refused(f"{name} is {value!r:.80}, it must be two numbers", "like (2, 4.5)") from None
    return real(first, name), real(second, name)


def pairs(value: Iterable[Sequence[float]], name: str) -> list[tuple[float, float]]:
    """Pairs of numbers, in a list or an array [n, 2]. Refused for anything else."""
    try:
        every = list(value)
    except TypeError:
        raise Refused(f"{name} is {value!r:.80}, it must be pairs of numbers", "like [(2, 4.5)]") from None
    return [pair(each, f"a pair of {name}") for each in every]


def strengths(value: Iterable[tuple[Any, float]]) -> list[tuple[Any, float]]:
    """LoRAs with their strengths. Refused for anything else."""
    try:
        return [(lora, real(strength, "a LoRA's strength")) for lora, strength in value]
    except (TypeError, ValueError):
        hint = "like [('style.safetensors', 0.8)]"
        raise Refused(f"LoRAs are {value!r:.80}, they must be pairs of a file and its strength", hint) from None


def device(value: torch.device | str, name: str = "the device") -> torch.device:
    """A device that this machine has, cpu or cuda. Refused where it has not."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise Refused(f"there is no device {value!r:.80}", "cpu, cuda, or cuda:1") from error
    if found.type == "cpu":
        return found
    if found.type != "cuda":
        raise Refused(f"{name} is {found}, it must be cpu or cuda")
    if not torch.cuda.is_available():
        raise Refused(f"{found} was asked for, and torch finds no GPU here", "cpu, or install a torch with CUDA")
    if (found.index or 0) >= (count := torch.cuda.device_count()):
        raise Refused(f"{found} was asked for, and torch finds {count} GPUs here", "they count from cuda:0")
    return found


def tensor(value: Audio, what: str) -> Tensor:
    """A tensor, or an array as one. Refused for anything else, a path among it."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray):
        raise Refused(
            f"{what} is {value!r:.80}, it must be a tensor or an array",
            "read the file first: soundfile.read(FILE, dtype='float32', always_2d=True)[0].T",
        )
    own = value.astype(value.dtype.newbyteorder("="), copy=False)  # torch knows no other order of bytes
    try:
        return torch.from_numpy(np.require(own, requirements=("C", "W")))
    except TypeError:
        raise Refused(f"{what} is an array of {value.dtype}, it must be float32") from None
