"""A training from its settings to its last checkpoint: steps, states, validation, samples, on one process or many."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object
from peft import LoraConfig
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from punchin.engine.released import Loaded
from punchin.protocol.errors import Cancelled, JobFailed, PunchinError, Refused
from punchin.training import adapters, outputs, state
from punchin.training.batches import Collator
from punchin.training.console import Line, length
from punchin.training.ema import Ema
from punchin.training.examples import Example
from punchin.training.objective import Objective, checkpointed
from punchin.training.settings import COMPONENTS, Settings, out
from punchin.training.supply import Order, Shelf, ahead

VALIDATION_TIMES: Final = tuple((i + 0.5) / 8 for i in range(8))
STATE_STEPS: Final = 200  # a state at least that often
_DIFFSYNTH_WARMUP: Final = 5  # steps at a third of the rate: torch's ConstantLR as DiffSynth-Studio uses it


@dataclass(slots=True)
class Progress:
    """How far a training is. JSON values."""

    step: int = 0
    seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)


def rate(settings: Settings, step: int, total: int) -> float:
    """The learning rate of step `step` (from 0) in parts of the peak."""
    if settings.lr_warmup_steps and step < settings.lr_warmup_steps:
        return (step + 1) / settings.lr_warmup_steps
    if settings.lr_scheduler == "diffsynth":  # with steps to the peak of its own, it stays there
        return 1 / 3 if step < _DIFFSYNTH_WARMUP and not settings.lr_warmup_steps else 1.0
    done = (step - settings.lr_warmup_steps) / max(total - settings.lr_warmup_steps, 1)
    if settings.lr_scheduler == "linear":
        return 1 - done
    return (1 + math.cos(math.pi * done)) / 2 if settings.lr_scheduler == "cosine" else 1.0


def prepared(loaded: Loaded, settings: Settings) -> LoraConfig | None:
    """Make the model ready: preset fused, adapters in, what is trained in its precision, the rest frozen."""
    model = loaded.model
    adapters.fuse_preset(model, settings)
    config, wanted = None, getattr(torch, settings.param_dtype)
    model.requires_grad_(False)
    if settings.kind == "lora":
        config = adapters.add(model, settings)
    else:
        for name in settings.trained:
            part = getattr(model, COMPONENTS[name])
            part.to(wanted).requires_grad_(True)
            if name == "conditioner":
                model.null_condition_emb.data = model.null_condition_emb.data.to(wanted)
                model.null_condition_emb.requires_grad_(True)
                clips = model.encoder.timbre_encoder
                clips.special_token.requires_grad_(clips.cls)  # else in the files alone: nothing uses it
    in_eighths(loaded, settings)
    if settings.use_gradient_checkpointing or settings.use_gradient_checkpointing_offload:
        checkpointed(model, offload=settings.use_gradient_checkpointing_offload)
    return config


def in_eighths(loaded: Loaded, settings: Settings) -> None:
    """Keep what is frozen of the parts that `fp8_models` names in 8 bits. Raises as `parts_in_eighths`."""
    for part in parts_in_eighths(settings, loaded.folders.dit):
        whole = {"model": loaded.model, "text_encoder": loaded.text}
        adapters.halve(whole[part] if part in whole else getattr(loaded.model, COMPONENTS[part]))


def parts_in_eighths(settings: Settings, dit: Path) -> list[str]:
    """The parts that `fp8_models` names: a component, text_encoder or model. `dit`: the model's folder.

    It may name a part, or as DiffSynth-Studio does a path or a model id. Raises Refused for a name that is neither.
    """
    parts = list[str]()
    for name in (each.strip() for each in (settings.fp8_models or "").split(",")):
        if name in COMPONENTS:
            parts.append(name)
        elif name == "text_encoder" or "Qwen3-Embedding" in name:
            parts.append("text_encoder")
        elif "acestep" in name or name.rstrip("/") == str(dit):
            parts.append("model")
        elif name:
            known = ", ".join(COMPONENTS)
            raise Refused(f"fp8_models names {name!r}", f"one of: {known}, text_encoder", code="weights")
    return parts


def held_out(settings: Settings, count: int) -> int:
    """How many of `count` items are held out for validation. Raises Refused where none would be left to train on."""
    held = settings.validation_count if settings.validation_metadata_path is None else 0
    if held >= count:
        raise Refused(f"validation_count is {held}, of {count} items none would be left", code="dataset")
    return held


class Trainer:
    """One training. `run` goes on from a state in the output folder where there is one."""

    def __init__(self, settings: Settings, loaded: Loaded, shelf: Shelf, numbers: Sequence[int], line: Line) -> None:
        self.settings, self.loaded, self.shelf, self.line = settings, loaded, shelf, line
        ddp = DistributedDataParallelKwargs(find_unused_parameters=settings.find_unused_parameters)
        self.accelerator = Accelerator(cpu=loaded.device.type == "cpu", kwargs_handlers=[ddp])
        held = held_out(settings, len(numbers))
        self.held, trained = list(numbers[len(numbers) - held :]), numbers[: len(numbers) - held]
        self.validation: Sequence[Example] = ()
        self.order = Order(
            trained, settings.seed, repeat=settings.dataset_repeat, batch=settings.batch_size,
            processes=self.accelerator.num_processes, accumulate=settings.gradient_accumulation_steps,
        )  # fmt: skip
        self.total = min(settings.num_epochs * self.order.steps_in_epoch, settings.max_steps or math.inf)
        self._preset = adapters.preset_sha256(settings)
        self.config = prepared(loaded, settings)
        self.objective = Objective(loaded.model, loaded.silence)
        self.collator = Collator(settings, loaded.silence)
        self.parameters = {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=settings.rate, weight_decay=settings.weight_decay
        )
        self.ema = Ema(loaded.model, settings.ema_decay) if settings.ema_decay else None
        self.progress = Progress()
        self._made_of = ""  # which only `run` looks at

    def run(self, stop: Callable[[], bool], sample: Callable[[int], object] = lambda step: None) -> None:
        """Train to the end.

        Raises Cancelled (after saving a state) where `stop` says so, JobFailed for a loss that is no number: the last
        state and the checkpoints stay.
        """
        self._made_of = self._looked_through(stop)
        going_on = self._resume()
        at, told = self.progress, self.settings
        if at.step >= self.total:
            self.line.say(f"{out(told)} is finished: {at.step} steps; give more epochs to go on")
            return
        if not going_on:
            self._save()  # from here on the folder is this training's, whenever it is killed; a full disk shows early
        # every process read the same frozen weights; sending them round takes time, and 8 bits cannot be sent
        frozen = [name for name, p in self.objective.named_parameters() if not p.requires_grad]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.objective, frozen)
        wrapped, optimizer = self.accelerator.prepare(self.objective, self.optimizer)
        self.loaded.model.train()
        process = self.accelerator.process_index
        steps = range(at.step, int(self.total))
        wanted: Iterator[list[int]] = (items for step in steps for items, _ in self.order.step(step, process))
        supply = ahead(self.shelf, wanted, told.dataset_num_workers)
        mark = time.monotonic()
        for step in steps:
            loss = self._step(wrapped, optimizer, step, supply)
            now = time.monotonic()
            at.step, at.seconds, mark = step + 1, at.seconds + now - mark, now
            at.losses.append((at.step, loss))
            self._show(loss)
            self._after(sample)
            if stop():
                self._save()
                raise Cancelled(f"stopped after step {at.step} of {self.total:.0f}; the same command goes on")
            mark = time.monotonic()
        self._save()

    def _step(self, wrapped: Any, optimizer: Any, step: int, supply: Iterator[list[Example]]) -> float:
        """One step of the optimizer; returns the mean loss over all processes."""
        groups = self.order.step(step, self.accelerator.process_index)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.rate * rate(self.settings, step, int(self.total))
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * 1_009 + self.accelerator.process_index)  # dropout
        total = torch.zeros((), device=self.loaded.device)
        for number, (_, keys) in enumerate(groups):
            batch = self.collator(next(supply), keys).to(self.loaded.device)
            last = number == len(groups) - 1
            with self.accelerator.no_sync(wrapped) if not last else nullcontext():
                loss = cast(Tensor, wrapped(batch)) / len(groups)
                self.accelerator.backward(loss)
            total += loss.detach()
        mean = float(cast(Tensor, self.accelerator.reduce(total, "mean")))
        most = self.settings.max_grad_norm or math.inf
        norm = float(self.accelerator.clip_grad_norm_(list(self.parameters.values()), most) or 0.0)
        for what, value in (("loss", mean), ("gradient", norm)):
            if not math.isfinite(value):
                hint = "the last state stays; lower learning_rate, then run the command with another output_path"
                raise JobFailed(f"the {what} of step {step + 1} is {value}", hint, code="not_finite")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(step)
        return mean

    def _after(self, sample: Callable[[int], object]) -> None:
        """What is due after a step: a checkpoint, validation, a sample, a state."""
        told, step = self.settings, self.progress.step
        ended = step % self.order.steps_in_epoch == 0
        stem = None
        if told.save_steps is not None:
            stem = f"step-{step}" if step % told.save_steps == 0 or step >= self.total else None
        elif ended or step >= self.total:
            stem = f"epoch-{(step - 1) // self.order.steps_in_epoch}"
        validated = self.validation and (step % (told.validation_steps or self.order.steps_in_epoch) == 0)
        if validated:
            self.progress.validation.append((step, self.validation_loss()))
            self.line.say(f"step {step}: validation loss {self.progress.validation[-1][1]:.4f}")
        if stem is not None:
            self.checkpoint(stem)
        if stem is not None or step % (told.state_steps or STATE_STEPS) == 0:
            self._save()
        if told.sample_steps is not None and step % told.sample_steps == 0 and self.accelerator.is_main_process:
            try:
                self._averaged(lambda: sample(step))
            except PunchinError as error:  # a take less is no reason to end a training
                self.line.say(f"step {step}: no sample: {error}")

    def checkpoint(self, stem: str) -> None:
        """Write what is trained (its average, where one is kept) as `stem`, by the main process."""
        if self.accelerator.is_main_process:
            weights = {name: p.detach() for name, p in self.parameters.items()}
            if self.ema is not None:
                weights = dict(self.ema.average)
            outputs.write(self.settings, stem, self.loaded.model, self.config, weights, self.loaded.folders)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def validation_loss(self) -> float:
        """The unweighted loss over the held-out examples at eight times, always with the same noise."""
        found: list[float] = []

        def measure() -> None:
            for number, example in enumerate(self.validation):
                for place, t in enumerate(VALIDATION_TIMES):
                    batch = self.collator.at([example], t, number * len(VALIDATION_TIMES) + place)
                    found.append(float(self.objective(batch.to(self.loaded.device))))

        self._averaged(measure)
        return sum(found) / len(found)

    def _averaged(self, act: Callable[[], object]) -> None:
        """Do something with the weights that a checkpoint would hold, in eval mode."""
        live = None if self.ema is None else self.ema.write()
        self.loaded.model.eval()
        try:
            act()
        finally:
            self.loaded.model.train()
            if self.ema is not None and live is not None:
                self.ema.unwrite(live)

    def _show(self, loss: float) -> None:
        if not self.accelerator.is_main_process:
            return
        at = self.progress
        each = at.seconds / at.step
        epoch = (at.step - 1) // self.order.steps_in_epoch
        self.line.show(
            f"step {at.step}/{self.total:.0f} · epoch {epoch} · loss {loss:.4f} · {1000 * each:.0f} ms a step"
            f" · {length(each * (self.total - at.step))} left",
            now=at.step >= self.total,
        )

    def _facts(self) -> dict[str, Any]:
        fixed = {**self.settings.fixed(), "processes": self.accelerator.num_processes, "model": self.loaded.sha256}
        fixed["items"], fixed["what the items are made of"] = len(self.order.numbers), self._made_of
        if self._preset:
            fixed["preset LoRA"] = self._preset
        if self.settings.lr_scheduler in ("linear", "cosine"):
            fixed["total_steps"] = int(self.total)
        return fixed

    def _looked_through(self, stop: Callable[[], bool]) -> str:
        """What tells the items from others, held-out ones too: that they are as many does not make them the same."""
        numbers, every = [*self.order.numbers, *self.held], hashlib.sha256()
        for place, number in enumerate(numbers, 1):
            if stop():
                raise Cancelled(f"stopped while item {place} of {len(numbers)} was looked through; nothing was written")
            if self.accelerator.is_main_process:
                self.line.show(f"looking through item {place} of {len(numbers)}")
            every.update(self.shelf.made_of(number).encode())
        return every.hexdigest()[:12]

    def _save(self) -> None:
        """Write the state that `_resume` goes on from, by the main process."""
        if self.accelerator.is_main_process:
            at = self.progress
            tensors = {f"model.{name}": p.detach() for name, p in self.parameters.items()}
            tensors |= state.optimizer_tensors("optimizer", self.optimizer)
            if self.ema is not None:
                tensors |= {f"average.{name}": each for name, each in self.ema.average.items()}
            progress = {"step": at.step, "seconds": at.seconds, "losses": at.losses, "validation": at.validation}
            state.save(out(self.settings) / outputs.STATE, tensors, {"settings": self._facts(), "progress": progress})
            outputs.write_history(self.settings, progress)
        self.accelerator.wait_for_everyone()

    def _there(self, path: Path) -> bool:
        """Whether a state is there, for all processes. They look before any goes on, and so before one is written."""
        found: list[bool] = gather_object([path.exists()])
        if any(found) and not all(found):
            raise Refused(
                f"{path} is there for {sum(found)} of {len(found)} processes",
                "output_path must be a folder that all processes share",
                code="conflict",
            )
        return found[0]

    def _resume(self) -> bool:
        """Go on from a state; False where there is none. Raises Refused for other settings; then nothing is written."""
        path = out(self.settings) / outputs.STATE
        outputs.check(self.settings)
        if self.accelerator.is_main_process:
            outputs.sweep(self.settings)
        if not self._there(path):
            return False
        tensors, facts = state.load(path)
        now = self._facts()
        before = {name: now[name] for name in ("preset LoRA",) if name in now} | facts["settings"]  # once it kept none
        outputs.check_same(path.parent, before, now)
        saved = state.under("model", tensors)
        with torch.no_grad():
            for name, p in self.parameters.items():
                p.copy_(saved[name])
        state.restore_optimizer(self.optimizer, state.under("optimizer", tensors))
        if self.ema is not None:
            self.ema.restore(state.under("average", tensors))
        told = facts["progress"]
        self.progress = Progress(told["step"], told["seconds"], *([tuple(row) for row in told[name]]
                                                                  for name in ("losses", "validation")))  # fmt: skip
        if self.accelerator.is_main_process:
            self.line.say(f"going on after step {self.progress.step}")
        return True
