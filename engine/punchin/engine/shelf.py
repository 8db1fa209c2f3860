"""Carries a memory plan out: weights wait at home, in host memory, and come to the device when they are called.

Nobody has to announce a stage. Each module that holds weights asks for them just before it runs, by a forward hook,
and inputs left on another device follow. The copy at home is the truth: what leaves the device is not written back,
so whoever changes weights first calls `all_home`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from punchin.engine.dit import Layer
from punchin.engine.fastvae import FastVae
from punchin.engine.int8 import quantise
from punchin.engine.memory import Name, Plan
from punchin.engine.model import AceStep
from punchin.engine.tokenizer import Quantizer

_ALIGNED: Final = 64  # bytes between tensors in a unit's memory


class Unit:
    """Weights that travel together: one stretch of memory at home, and while they are away one on the device."""

    def __init__(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        self._parameters = list(parameters)
        self._device = device
        sizes = [-(-each.nbytes // _ALIGNED) * _ALIGNED for each in self._parameters]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self.nbytes = sum(sizes)
        home = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        for parameter, view in zip(self._parameters, self._views(home), strict=True):
            view.copy_(parameter.data)
        self._home = home
        self._arrived: torch.Event | None = None
        self.here = True
        self.leave()

    def come(self, into: Tensor | None = None, stream: torch.cuda.Stream | None = None) -> None:
        """Copy to the device, `into` memory that is there already if given; on `stream` without waiting for it."""
        into = torch.empty(self.nbytes, dtype=torch.uint8, device=self._device) if into is None else into
        there = into[: self.nbytes]
        if stream is None:
            there.copy_(self._home, non_blocking=True)
        else:
            with torch.cuda.stream(stream):
                there.copy_(self._home, non_blocking=True)
                self._arrived = stream.record_event()
        self._point_to(there)
        self.here = True

    def wait(self) -> None:
        """Let the device's work from now on begin after the copy's end."""
        if self._arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(self._arrived)
            self._arrived = None

    def leave(self) -> None:
        """Give the device's memory back; the weights are those at home again."""
        if self.here:
            self.wait()
            self._point_to(self._home)
            self.here = False

    def _point_to(self, memory: Tensor) -> None:
        for parameter, view in zip(self._parameters, self._views(memory), strict=True):
            parameter.data = view

    def _views(self, memory: Tensor) -> Iterable[Tensor]:
        for parameter, start in zip(self._parameters, self._starts, strict=True):
            typed = memory[start : start + parameter.nbytes].view(parameter.dtype)
            yield typed.as_strided(parameter.shape, parameter.stride())  # a kernel may be channels last


class Stream:
    """Units that pass through two places on the device in turn; while one is used, the next one is on its way."""

    def __init__(self, units: list[Unit], device: torch.device) -> None:
        self._units, self._device = units, device
        self._copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._places: list[Tensor] = []
        self._in: list[Unit | None] = [None, None]

    @property
    def nbytes(self) -> int:
        """What it holds on the device now."""
        return sum(place.nbytes for place in self._places)

    def want(self, unit: Unit) -> None:
        """Have `unit` on the device, and begin to fetch the one after it."""
        if not self._places:
            size = max(each.nbytes for each in self._units)
            self._places = [torch.empty(size, dtype=torch.uint8, device=self._device) for _ in range(2)]
        if unit not in self._in:
            self._fetch(unit, 0 if self._in[0] is None or self._in[1] is not None else 1)
        unit.wait()
        following = self._units[(self._units.index(unit) + 1) % len(self._units)]
        if following not in self._in:
            self._fetch(following, 1 - self._in.index(unit))

    def _fetch(self, unit: Unit, place: int) -> None:
        former = self._in[place]
        if former is not None:
            former.leave()
        if self._copying is not None:  # what reads this place has been queued already, and must end first
            self._copying.wait_stream(torch.cuda.current_stream(self._device))
        unit.come(self._places[place], self._copying)
        self._in[place] = unit

    def leave(self) -> None:
        """Give the device's memory back."""
        for unit in self._in:
            if unit is not None:
                unit.leave()
        self._in, self._places = [None, None], []


class Shelf:
    """All components of one model under one plan."""

    def __init__(self, plan: Plan, parts: Mapping[Name, Iterable[nn.Module]], device: torch.device) -> None:
        """`parts`: each component's modules, on the host, with the names of the plan. They are hooked from here on."""
        self.plan, self._device = plan, device
        self._turns: dict[Name, Unit] = {}
        self._streams: dict[Name, Stream] = {}
        self.peak_bytes = 0  # of weights that take turns
        for placed in plan.placed:
            name = placed.component.name
            for module in parts[name]:
                if placed.precision == "int8":
                    quantise(module)
            if placed.where == "resident":
                for module in parts[name]:
                    module.to(device)
            else:
                self._take(name, list(parts[name]), placed.where == "streamed")

    def all_home(self) -> None:
        """Everything that travels leaves the device; changes to weights made now, in place, last."""
        for unit in self._turns.values():
            unit.leave()
        for stream in self._streams.values():
            stream.leave()

    def _take(self, name: Name, modules: list[nn.Module], streamed: bool) -> None:
        every = [child for module in modules for child in module.modules()]
        layers = [child for child in every if streamed and isinstance(child, Layer)]
        units = [Unit(layer.parameters(), self._device) for layer in layers]
        if units:
            self._streams[name] = Stream(units, self._device)
        for layer, unit in zip(layers, units, strict=True):
            for child in layer.modules():
                child.register_forward_pre_hook(self._calling(name, unit))
        # What a quantizer holds is read outside of any forward, and weighs nothing: it stays.
        quantizers = [child.to(self._device) for child in every if isinstance(child, Quantizer)]
        apart = {child for root in (*layers, *quantizers) for child in root.modules()}
        rest = [child for child in every if child not in apart]
        self._turns[name] = Unit([p for child in rest for p in child.parameters(recurse=False)], self._device)
        for child in rest:
            child.register_forward_pre_hook(self._calling(name, None))
        for child in every:
            for key, buffer in child.named_buffers(recurse=False):
                setattr(child, key, buffer.to(self._device))

    def _calling(self, name: Name, unit: Unit | None) -> Any:
        def before(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            with torch.inference_mode(False):  # memory made for weights outlives the caller's mode
                self._enter(name)
                if unit is not None:
                    self._streams[name].want(unit)
            return tuple(a.to(self._device) if isinstance(a, Tensor) else a for a in arguments)

        return before

    def _enter(self, name: Name) -> None:
        unit = self._turns[name]
        if not unit.here:
            self.all_home()
            unit.come()
        held = unit.nbytes + (self._streams[name].nbytes if name in self._streams else 0)
        self.peak_bytes = max(self.peak_bytes, held)


def shelve(plan: Plan, model: AceStep, vae: FastVae, text: nn.Module, device: torch.device) -> Shelf:
    """Put a loaded model, all of it in host memory and in the plan's type, under the plan.

    Afterwards call its modules as ever, from any stage, with inputs on `device`.
    """
    model.null_condition_emb.data = model.null_condition_emb.data.to(device)
    parts: dict[Name, list[nn.Module]] = {
        "text": [text],
        "condition": [model.encoder],
        "dit": [model.decoder],
        "codes": [model.tokenizer, model.detokenizer],
        "vae_encoder": [vae.encoder],
        "vae_decoder": [vae.decoder],
    }
    return Shelf(plan, parts, device)
