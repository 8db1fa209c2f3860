"""The memory plan: where each component's weights are, and in which precision, so that a request fits the device.

Components take turns. One that is `resident` stays on the device; one that is `swapped` is there while its stage
runs; a `streamed` one passes through, layer by layer, twice a layer's memory at a time. All three give the same
numbers. `int8` weights do not, so they are planned only when asked for, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, Literal

import torch
from torch import nn

from punchin.engine import given
from punchin.engine.codec import Codec
from punchin.engine.fastvae import FastVae
from punchin.engine.footprint import Activations, Work, activations
from punchin.engine.model import AceStep
from punchin.engine.spec import Spec, VaeSpec
from punchin.engine.vae import Vae
from punchin.protocol.errors import Refused

Name = Literal["text", "condition", "dit", "codes", "vae_encoder", "vae_decoder"]
Where = Literal["resident", "swapped", "streamed"]
Precision = Literal["float32", "bfloat16", "int8"]

TEXT_NUMBERS: Final = 595_776_512  # of Qwen3-Embedding-0.6B
GIB: Final = 2**30
HEADROOM_BYTES: Final = 192 * 2**20  # kernels' own workspaces and the allocator's rounding

_STATES: Final = ("offload", "onload", "preparing", "computation")
_DIFFSYNTH: Final = (*(f"{state}_{what}" for state in _STATES for what in ("dtype", "device")), "vram_limit")

STAGES: Final[Mapping[str, tuple[Name, ...]]] = {
    "words": ("text", "condition"),
    "listening": ("vae_encoder",),
    "codes": ("codes",),
    "diffusing": ("dit",),
    "decoding": ("vae_decoder",),
}
_SPOKEN: Final[Mapping[Name, str]] = {
    "text": "text encoder",
    "condition": "condition encoder",
    "dit": "DiT",
    "codes": "audio tokenizer",
    "vae_encoder": "VAE encoder",
    "vae_decoder": "VAE decoder",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """How many numbers a component's weights are: in all, in its layers' matrices; and its layers, if it can stream."""

    name: Name
    numbers: int
    products: int = 0
    layer: int = 0  # numbers in one
    layers: int = 0

    def weight_bytes(self, precision: Precision) -> int:
        """Its weights in memory."""
        if precision == "int8":
            return 2 * self.numbers - self.products
        return self.numbers * (4 if precision == "float32" else 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where one component is, and what that costs: `always` on the device, and `in_turn` while its stage runs."""

    component: Component
    where: Where
    precision: Precision
    always_bytes: int
    in_turn_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A placement for all components. `rung` counts from the best; `peaks`: what each stage is predicted to hold."""

    device: str
    rung: int
    placed: tuple[Placed, ...]
    peaks: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @property
    def peak_bytes(self) -> int:
        """The most that tensors are predicted to hold on the device at once, weights included."""
        return max(self.peaks.values())

    @property
    def needs_bytes(self) -> int:
        """What should be free for it: the peak, and room for what kernels take."""
        return self.peak_bytes + HEADROOM_BYTES

    def of(self, name: Name) -> Placed:
        """The placement of one component."""
        return next(each for each in self.placed if each.component.name == name)

    def words(self) -> str:
        """The plan in one line, for people."""
        groups: dict[tuple[Where, Precision], list[str]] = {}
        for each in self.placed:
            groups.setdefault((each.where, each.precision), []).append(_SPOKEN[each.component.name])
        verbs = {"resident": "stay", "swapped": "take turns", "streamed": "pass through layer by layer"}
        said = [f"{', '.join(names)} {verbs[where]} ({kind})" for (where, kind), names in groups.items()]
        worst = max(self.peaks, key=lambda stage: self.peaks[stage])
        notes = "".join(f"; {note}" for note in self.notes)
        return f"{self.device}: {'; '.join(said)}; peak about {self.peak_bytes / GIB:.1f} GiB while {worst}{notes}"


def components(spec: Spec, vae_spec: VaeSpec, text_numbers: int = TEXT_NUMBERS) -> tuple[Component, ...]:
    """The components of a model, counted on the meta device."""
    with torch.device("meta"):
        model = AceStep(spec)
        vae: Codec = FastVae(Vae(vae_spec))
    parts: dict[Name, list[nn.Module]] = {
        "condition": [model.encoder],
        "dit": [model.decoder],
        "codes": [model.tokenizer, model.detokenizer],
        "vae_encoder": [vae.get_submodule("encoder")],
        "vae_decoder": [vae.get_submodule("decoder")],
    }
    counted = [
        Component(
            name=name,
            numbers=sum(map(_count, modules)),
            products=sum(map(_products, modules)),
            layer=_count(model.decoder.layers[0]) if name == "dit" else 0,
            layers=spec.dit.layers if name == "dit" else 0,
        )
        for name, modules in parts.items()
    ]
    # Of the text encoder only the size is known here; its embedding, a quarter, is not a product.
    return (Component(name="text", numbers=text_numbers, products=text_numbers * 11 // 15), *counted)


def ladder(
    parts: Sequence[Component],
    acts: Activations,
    device: str,
    precision: Precision,
    *,
    allow_int8: bool = False,
) -> tuple[Plan, ...]:
    """All plans for a device, best first: fastest first among the exact ones, then, if allowed, those with int8.

    On a CPU there is nowhere to swap to: what is left to give up is precision, float32 for bfloat16 (and int8).
    """
    rungs: list[dict[Name, Where]] = [{part.name: "resident" for part in parts}]
    if not device.startswith("cpu"):
        turns: dict[Name, Where] = {part.name: "swapped" for part in parts}
        words: dict[Name, Where] = {"text": "swapped", "condition": "swapped"}
        rungs += [rungs[0] | words, turns | {"dit": "resident"}, turns, turns | {"dit": "streamed"}]
    kinds: list[tuple[dict[Name, Where], Precision]] = [(rung, precision) for rung in rungs]
    if len(rungs) == 1 and precision == "float32":
        kinds.append((rungs[0], "bfloat16"))
    for rung in (rungs[2:] or rungs) if allow_int8 else ():
        kinds.append((rung, "int8"))
    return tuple(
        _plan(parts, acts, device, number, wheres, precision, layers) for number, (wheres, layers) in enumerate(kinds)
    )


def plan(
    spec: Spec,
    vae_spec: VaeSpec,
    device: str,
    free_bytes: int,
    *,
    precision: Precision = "bfloat16",
    work: Work | None = None,
    rung: int = 0,
    allow_int8: bool = False,
    text_numbers: int = TEXT_NUMBERS,
) -> Plan:
    """The best plan that fits `free_bytes` on `device`, or `rung` rungs below it.

    work: what is to be made; by default a minute. Raises Refused (code `oom`) with what the last plan needs and what
    there is.
    """
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    parts = components(spec, vae_spec, text_numbers)
    acts = activations(spec, vae_spec, dtype, work or Work(latents=1500))
    plans = ladder(parts, acts, device, precision, allow_int8=allow_int8)
    fitting = [each for each in plans if each.needs_bytes <= free_bytes]
    if not fitting:
        least = min(plans, key=lambda each: each.needs_bytes)
        hint = "choose a smaller model or a shorter window" + ("" if allow_int8 else ", or allow int8 weights")
        needed, there = least.needs_bytes / GIB, free_bytes / GIB
        raise Refused(f"at least {needed:.1f} GiB are needed, {device} has {there:.1f} free", hint, code="oom")
    below = plans.index(fitting[0]) + rung
    if below >= len(plans):
        raise Refused(f"memory ran out on {device} with the last plan too", "choose a smaller model", code="oom")
    return plans[below]


def from_diffsynth(
    config: Mapping[str, Any],
    spec: Spec,
    vae_spec: VaeSpec,
    free_bytes: int,
    *,
    work: Work | None = None,
    rung: int = 0,
    text_numbers: int = TEXT_NUMBERS,
) -> Plan:
    """The plan that DiffSynth-Studio's `vram_config` asks for, by its effect on weights, or `rung` rungs below it.

    config: `offload_`, `onload_`, `preparing_` and `computation_` with `dtype` and `device`, and `vram_limit` in GiB.
    Offloaded to where it computes: resident. Onloaded there: swapped. Prepared or computed there: the DiT streams and
    the rest takes turns. With a `vram_limit`, the best plan not above the one asked for that fits it. What has no
    equal is said in the plan's notes. Raises Refused where nothing fits, for other names, a limit that is no number,
    and a `computation_dtype` other than bfloat16 (the default) and float32.
    """
    _check_names(config)
    device = _device(config, "computation_device", None)
    here = [named(_device(config, f"{state}_device", device)) == named(device) for state in ("offload", "onload")]
    parts = components(spec, vae_spec, text_numbers)
    dtype = _computed(config)
    acts = activations(spec, vae_spec, dtype, work or Work(latents=1500))
    every = ladder(parts, acts, device, "float32" if dtype == torch.float32 else "bfloat16")
    plans = [each for each in every if not each.notes]  # those that compute in another type have one
    asked = 0 if here[0] else 3 if here[1] else len(plans) - 1
    limit = _limit(config)
    room = free_bytes if limit is None else min(free_bytes, int(limit * GIB))
    # DiffSynth's wrappers move weights in for good while there is room, so a limit may also mean a better plan.
    begin = 0 if limit is not None else min(asked, len(plans) - 1)
    fitting = [number for number, each in enumerate(plans) if number >= begin and each.needs_bytes <= room]
    if not fitting:
        needed = plans[-1].needs_bytes / GIB
        raise Refused(f"at least {needed:.1f} GiB are needed, {room / GIB:.1f} are allowed on {device}", code="oom")
    below = fitting[0] + rung
    if below >= len(plans):
        raise Refused(f"memory ran out on {device} with the last plan too", "choose a smaller model", code="oom")
    chosen = plans[below]
    return Plan(
        device=chosen.device, rung=chosen.rung, placed=chosen.placed, peaks=chosen.peaks, notes=_unmapped(config)
    )


def _check_names(config: Mapping[str, Any]) -> None:
    if unknown := sorted(str(name) for name in config if name not in _DIFFSYNTH):
        raise Refused(f"vram_config has an unknown {', '.join(unknown)}", f"it may have {', '.join(_DIFFSYNTH)}")


def _limit(config: Mapping[str, Any]) -> float | None:
    """Its `vram_limit` in GiB."""
    if config.get("vram_limit") is None:
        return None
    limit = given.real(config["vram_limit"], "vram_limit")
    if not isfinite(limit):
        raise Refused(f"vram_limit is {limit}, it must be a number of GiB", "e.g. 3.5, or None for no limit")
    return limit


def _device(config: Mapping[str, Any], name: str, default: str | None) -> str:
    value = config.get(name, default)
    if value is None:
        raise Refused(f"vram_config has no {name}", "name the device that computes, e.g. cuda")
    return str(value)


def named(device_or_dtype: object) -> str:
    """A device or type in one way: cuda is cuda:0."""
    said = str(device_or_dtype)
    return f"{said}:0" if said == "cuda" else said


def _computed(config: Mapping[str, Any]) -> torch.dtype:
    """The type that all is computed in; not float16, in which guided turbo models give numbers that are not finite."""
    dtype = config.get("computation_dtype") or torch.bfloat16
    if dtype not in (torch.float32, torch.bfloat16):
        hint = "give torch.bfloat16, or torch.float32 with twice the memory"
        raise Refused(f"vram_config computes in {dtype}; it can be torch.bfloat16 or torch.float32", hint)
    return dtype


def _unmapped(config: Mapping[str, Any]) -> tuple[str, ...]:
    notes: list[str] = []
    if "disk" in (str(config.get(f"{state}_device")) for state in ("offload", "onload", "preparing")):
        notes.append("weights wait in memory, not on disk")
    computed = config.get("computation_dtype")
    other = {
        str(config[f"{state}_dtype"]).removeprefix("torch.")
        for state in ("offload", "onload", "preparing")
        if config.get(f"{state}_dtype") not in (None, computed, "disk")
    }
    if other:
        notes.append(f"weights wait in the type they compute in, not in {', '.join(sorted(other))}")
    return tuple(notes)


def _plan(
    parts: Sequence[Component],
    acts: Activations,
    device: str,
    rung: int,
    wheres: Mapping[Name, Where],
    asked: Precision,
    layers: Precision,
) -> Plan:
    other: Precision = "bfloat16" if layers == "int8" else layers
    placed = tuple(_placed(part, wheres[part.name], layers if part.products else other) for part in parts)
    always = sum(each.always_bytes for each in placed)
    by_name = {each.component.name: each for each in placed}
    peaks = {
        stage: always + max(by_name[name].in_turn_bytes for name in names) + getattr(acts, stage)
        for stage, names in STAGES.items()
    }
    notes = (f"{layers} weights change the result slightly",) if layers != asked else ()
    return Plan(device=device, rung=rung, placed=placed, peaks=peaks, notes=notes)


def _placed(part: Component, where: Where, precision: Precision) -> Placed:
    whole = part.weight_bytes(precision)
    if where == "resident":
        always, in_turn = whole, 0
    elif where == "swapped":
        always, in_turn = 0, whole
    else:
        layer = Component(name=part.name, numbers=part.layer, products=part.layer).weight_bytes(precision)
        always, in_turn = 0, 2 * layer + whole - layer * part.layers
    return Placed(component=part, where=where, precision=precision, always_bytes=always, in_turn_bytes=in_turn)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _products(module: nn.Module) -> int:
    return sum(
        child.weight.numel()
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and ".layers." in f".{name}."
    )
