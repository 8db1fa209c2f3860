"""One stage of the recipe, from its checkpoint or from the beginning to its end, however often it is stopped.

The learning rate rises over a warm-up, stays, and falls linearly over the last quarter. Where the end is a matter of
time, the quarter begins when three quarters of the time are spent and lasts a third of the steps so far; that choice
is written into the checkpoint, so that going on from it is as exact as going on with a fixed number of steps. Where it
goes on with so much more time that the quarter would not have begun yet, the choice is made anew, also at the end.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor, nn

from punchin.protocol.errors import JobFailed, Refused
from punchin.training import state
from punchin.training.console import Line, length
from punchin.training.ema import Ema
from punchin.training.recipes.plan import Plan

T = TypeVar("T")
_DECAY: Final = 0.25  # the last part of a stage, in which the learning rate falls
_LAST_LR: Final = 0.02  # of the peak, at the very end
_CLIP: Final = 1.0


def halves(device: torch.device) -> torch.autocast:
    """Where networks compute in bfloat16 on a GPU; on a CPU, nothing changes. Sound is never computed in it."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


class Stage(ABC, Generic[T]):
    """What one stage trains, and its loss. `module` holds every parameter that the stage trains."""

    name: str
    module: nn.Module
    device: torch.device
    peak_lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.999

    def muon_parameters(self) -> list[nn.Parameter]:
        """Matrices, and kernels as matrices of their first axis by the others, that Muon trains (Jordan et al., 2024);
        AdamW trains the rest.
        """
        return []

    @abstractmethod
    def prepare(self, step: int) -> T:
        """What step `step` needs and needs no device: a function of the step alone, run in another thread."""

    @abstractmethod
    def loss(self, step: int, prepared: T) -> Tensor:
        """The loss of step `step`, a scalar with a gradient; a function of the weights and of the step alone."""


@dataclass(slots=True)
class Progress:
    """Where a stage is. JSON values, so that it travels in a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    decay_from: int | None = None
    end: int | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)  # (step, mean of the losses up to it)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the stage has come to its end."""
        return self.end is not None and self.step >= self.end

    def rate(self, warmup: int) -> float:
        """The learning rate of the next step, in parts of the peak."""
        rise = min(1.0, (self.step + 1) / warmup)
        if self.decay_from is None or self.end is None or self.step < self.decay_from:
            return rise
        left = (self.end - self.step) / max(self.end - self.decay_from, 1)
        return rise * max(left, _LAST_LR)

    def facts(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {name: getattr(self, name) for name in ("step", "seconds", "decay_from", "end", "losses", "settings")}


class Run(Generic[T]):
    """A stage being trained. `go` runs it to the end, or until `stop` says so; the checkpoint is at `path`."""

    def __init__(self, stage: Stage[T], path: Path, plan: Plan, seconds: float, settings: dict[str, Any]) -> None:
        self.stage, self.path, self.plan, self.budget_s = stage, path, plan, seconds
        self.parameters = [p for p in stage.module.parameters() if p.requires_grad]
        self.kernels = [(p, nn.Parameter(p.detach().flatten(1))) for p in stage.muon_parameters()]
        self.optimizers = _optimizers(stage, [flat for _, flat in self.kernels])
        self.ema = Ema(stage.module, stage.ema_decay)
        self.progress = Progress(settings=settings)
        self.pending = torch.zeros((), dtype=torch.float64, device=stage.device)  # losses since the last record
        if plan.steps is not None:
            end = plan.steps[stage.name]
            self.progress.end, self.progress.decay_from = end, end - max(1, round(end * _DECAY))
        if path.exists():
            self._resume()

    def go(self, line: Line, stop: Callable[[], bool]) -> bool:
        """Train on. True when the stage is done, False when `stop` ended it; both leave a checkpoint.

        Raises JobFailed where a loss is not finite: the checkpoint before it stays.
        """
        at = self.progress
        if at.done:
            return True
        self.stage.module.train()
        saved = mark = time.monotonic()
        with ThreadPoolExecutor(1) as ahead:
            coming: Future[T] = ahead.submit(self.stage.prepare, at.step)
            while not at.done:
                prepared = coming.result()
                coming = ahead.submit(self.stage.prepare, at.step + 1)
                self._step(prepared)
                now = time.monotonic()
                at.seconds, mark = at.seconds + now - mark, now
                stopping = stop()
                if at.step % self.plan.record_steps == 0 or at.done:
                    self._record(line)
                    if at.done or now - saved >= self.plan.checkpoint_s:
                        self.save()
                        saved = time.monotonic()
                if stopping and not at.done:
                    self.save()
                    return False
        return True

    def finish(self) -> None:
        """Leave the average of the weights in the module, frozen, in eval mode."""
        self.ema.write()
        self.stage.module.requires_grad_(False).eval()

    def save(self) -> None:
        """Write the checkpoint: weights, averages, optimizer, progress."""
        tensors = state.module_tensors("model", self.stage.module)
        tensors |= {f"average.{name}": each for name, each in self.ema.average.items()}
        for name, optimizer in self.optimizers.items():
            tensors |= state.optimizer_tensors(name, optimizer)
        tensors["pending"] = self.pending
        state.save(self.path, tensors, self.progress.facts())

    def _step(self, prepared: T) -> None:
        at, stage = self.progress, self.stage
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = stage.peak_lr * at.rate(self.plan.warmup)
        loss = stage.loss(at.step, prepared)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, _CLIP)
        for kernel, flat in self.kernels:
            flat.grad, kernel.grad = None if kernel.grad is None else kernel.grad.flatten(1), None
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.ema.update(at.step)
        self.pending += loss.detach()
        at.step += 1

    def _record(self, line: Line) -> None:
        at = self.progress
        since = at.step - (at.losses[-1][0] if at.losses else 0)
        loss = float(self.pending) / since
        if not math.isfinite(loss):
            hint = "the last good checkpoint stays; run the same command to go on from it"
            raise JobFailed(f"{self.stage.name}: the loss at step {at.step} is {loss}", hint, code="not_finite")
        self.pending.zero_()
        at.losses.append((at.step, round(loss, 6)))
        if at.decay_from is None and at.seconds >= (1 - _DECAY) * self.budget_s:
            at.decay_from, at.end = at.step, at.step + max(1, round(at.step * _DECAY / (1 - _DECAY)))
        each = at.seconds / at.step
        left = each * (at.end - at.step) if at.end else max(self.budget_s - at.seconds, 0)
        end = f"/{at.end}" if at.end else ""
        line.show(
            f"{self.stage.name:<6} step {at.step}{end} · loss {loss:.4f} · {1000 * each:.0f} ms a step"
            f" · {length(left)} left",
            now=at.done,
        )

    def _resume(self) -> None:
        tensors, facts = state.load(self.path, self.stage.device)
        if facts["settings"] != self.progress.settings:
            raise Refused(
                f"{self.path} was made with {facts['settings']}, now it is {self.progress.settings}",
                "give the same options, or another folder",
                code="conflict",
            )
        self.stage.module.load_state_dict(state.under("model", tensors))
        self.ema.restore(state.under("average", tensors))
        for name, optimizer in self.optimizers.items():
            state.restore_optimizer(optimizer, state.under(name, tensors))
        self.pending = tensors["pending"]
        end, decay_from = self.progress.end, self.progress.decay_from
        self.progress = Progress(**{**facts, "losses": [(step, loss) for step, loss in facts["losses"]]})
        if self.plan.steps is not None:
            self.progress.end, self.progress.decay_from = end, decay_from
        elif self.progress.seconds < (1 - _DECAY) * self.budget_s:
            self.progress.end = self.progress.decay_from = None


def _optimizers(stage: Stage[Any], orthogonal: list[nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
    """By the name of their state. Matrices decay; norms, biases and tokens do not. orthogonal: Muon's own views."""
    apart = {id(each) for each in stage.muon_parameters()}
    trained = [p for p in stage.module.parameters() if p.requires_grad and id(p) not in apart]
    matrices, rest = [p for p in trained if p.ndim == 2], [p for p in trained if p.ndim != 2]
    groups = [{"params": matrices, "weight_decay": stage.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    lr, decay = stage.peak_lr, stage.weight_decay
    made: dict[str, torch.optim.Optimizer] = {
        "adamw": torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=stage.betas, eps=1e-8)
    }
    if orthogonal:  # steps as long as AdamW's are, so that one learning rate is right for both
        made["muon"] = torch.optim.Muon(orthogonal, lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
    return made
