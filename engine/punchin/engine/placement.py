"""Where a model goes on this machine: device, precision, and a memory plan where memory is not plentiful."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from punchin.engine import given
from punchin.engine.device import free_memory
from punchin.engine.footprint import Work, activations
from punchin.engine.memory import GIB, Plan, Precision, components, from_diffsynth, ladder, named
from punchin.engine.spec import Spec, VaeSpec
from punchin.protocol.errors import Refused

_ROOMY: Final = 4  # times the weights: then all stays on the device, and predicting peaks would only cost time
_LARGE: Final = 500_000_000  # numbers, from which a CPU that multiplies bfloat16 itself does so
_PRECISION: Final[Mapping[torch.dtype, Precision]] = {torch.float32: "float32", torch.bfloat16: "bfloat16"}


@dataclass(frozen=True)
class Sizes:
    """What a placement depends on: the two specs, and how many numbers the text encoder and all parts have."""

    spec: Spec
    vae: VaeSpec
    text_numbers: int
    numbers: int


@dataclass(frozen=True)
class Placement:
    """Device and precision; `plan` is None where everything simply stays on the device."""

    device: torch.device
    dtype: torch.dtype
    plan: Plan | None = None
    rung: int = 0  # that was wished for

    @property
    def words(self) -> str:
        """The placement for people."""
        return self.plan.words() if self.plan else f"{self.device}: all stays ({_PRECISION[self.dtype]})"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a caller may say about placement. rung: how many below the best that fits; limit_bytes: of the device."""

    device: torch.device | str | None = None
    dtype: torch.dtype | None = None
    rung: int = 0
    allow_int8: bool = False
    limit_bytes: int | None = None
    vram_config: Mapping[str, Any] | None = None


def place(sizes: Sizes, wish: Wish) -> Placement:
    """The best placement that fits, or the wished number of rungs below it. Raises Refused (code `oom`) if none does.

    Without a wish: the first GPU in bfloat16; else the CPU in float32, or for large models in bfloat16 where the CPU
    multiplies that itself (3 to 5 times faster). Lower rungs trade time for memory, and on a CPU precision.
    """
    if wish.dtype is not None and wish.dtype not in _PRECISION:
        raise Refused(f"weights cannot be {wish.dtype}", "float32 or bfloat16")
    if wish.rung < 0:
        raise Refused(f"rung is {wish.rung}, it counts down from the best plan: at least 0")
    if wish.vram_config is not None:
        return _by_config(sizes, wish, wish.vram_config)
    device = given.device(wish.device or _first())
    room = _room(device, wish)
    dtype = wish.dtype or _preferred(device, sizes.numbers)
    if wish.rung == 0 and room >= _ROOMY * sizes.numbers * dtype.itemsize + GIB:
        return Placement(device, dtype)
    plans = _plans(sizes, device, dtype, wish.allow_int8)
    fitting = [number for number, plan in enumerate(plans) if plan.needs_bytes <= room]
    if not fitting:
        least = min(plan.needs_bytes for plan in plans) / GIB
        hint = "choose a smaller model" + ("" if wish.allow_int8 else ", or allow int8 weights")
        raise Refused(f"at least {least:.1f} GiB are needed, {device} has {room / GIB:.1f} free", hint, code="oom")
    chosen = fitting[0] + wish.rung
    if chosen >= len(plans):
        raise Refused(f"memory ran out on {device} with the last plan too", "choose a smaller model", code="oom")
    return Placement(device, _dtype(plans[chosen]), plans[chosen], wish.rung)


def _by_config(sizes: Sizes, wish: Wish, config: Mapping[str, Any]) -> Placement:
    """What a `vram_config` asks for, on the device that it names; what it leaves open is as wished."""
    for name, wished in (("device", wish.device), ("dtype", wish.dtype)):
        theirs = config.get(f"computation_{name}")
        if wished is not None and theirs is not None and named(wished) != named(theirs):
            raise Refused(f"{name} is {wished}, but vram_config computes with {theirs}", "give one of them")
    device = given.device(config.get("computation_device") or wish.device or _first())
    asked = {"computation_dtype": wish.dtype, **config, "computation_device": str(device)}
    plan = from_diffsynth(
        asked, sizes.spec, sizes.vae, _room(device, wish), rung=wish.rung, text_numbers=sizes.text_numbers
    )
    return Placement(device, _dtype(plan), plan, wish.rung)


def _first() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _room(device: torch.device, wish: Wish) -> int:
    """Bytes that may be used on the device."""
    free = free_memory(device)
    return free if wish.limit_bytes is None else min(free, wish.limit_bytes)


def _plans(sizes: Sizes, device: torch.device, dtype: torch.dtype, allow_int8: bool) -> Sequence[Plan]:
    parts = components(sizes.spec, sizes.vae, sizes.text_numbers)
    acts = activations(sizes.spec, sizes.vae, dtype, Work(latents=1500))
    return ladder(parts, acts, str(device), _PRECISION[dtype], allow_int8=allow_int8)


def _preferred(device: torch.device, numbers: int) -> torch.dtype:
    native = numbers > _LARGE and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native or device.type != "cpu" else torch.float32


def _dtype(plan: Plan) -> torch.dtype:
    """The type that a plan's activations have."""
    return torch.float32 if any(each.precision == "float32" for each in plan.placed) else torch.bfloat16
