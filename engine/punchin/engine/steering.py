"""What leads a request from noise to music: its times, what the DiT sees and reads at each of them, and guidance."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from punchin.engine import tasks
from punchin.engine.conditioner import Conditioner, Stage
from punchin.engine.dit import Prepared
from punchin.engine.guidance import Apg, PlainCfg, guided
from punchin.engine.released import Loaded
from punchin.engine.request import Request
from punchin.engine.sampler import Velocity
from punchin.engine.schedule import times, times_after_cover_noise, times_from_strength
from punchin.protocol.models import Model

PLAIN_SCALE: Final = 4.0  # as in DiffSynth-Studio's examples


class Course(NamedTuple):
    """How a request is sampled: the times, whether from noised audio, how guided, and what was not done as asked."""

    times: tuple[float, ...]
    from_audio: bool
    shift: float
    guidance: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Branch:
    """One way to steer: what the DiT sees and reads from a step on."""

    first: int  # the step it begins with
    context: Tensor
    condition: Prepared


def course(model: Model, request: Request) -> Course:
    """The course of a request: what it leaves open is the model's own. Turbo models have guidance in their weights."""
    steps = request.num_inference_steps or model.steps
    shift = model.shift if request.shift is None else request.shift
    scale = _guidance(model, request) if request.cfg_scale is None else request.cfg_scale
    notes: tuple[str, ...] = ()
    if model.turbo and scale != 1:
        notes = (f"guidance {scale:g} was not applied: {model.name} is distilled and takes none",)
        scale = 1.0
    if request.cover_noise_strength > 0:
        return Course(times_after_cover_noise(steps, shift, request.cover_noise_strength), True, shift, scale, notes)
    if request.denoising_strength < 1:
        return Course(times_from_strength(steps, shift, request.denoising_strength), True, shift, scale, notes)
    return Course(times(steps, shift), False, shift, scale, notes)


def _guidance(model: Model, request: Request) -> float:
    """The table's scale is for APG; plain CFG goes much farther with the same number."""
    return PLAIN_SCALE if request.guidance_mode == "cfg" and model.guidance != 1 else model.guidance


def branches(
    request: Request, clean: Tensor | None, steps: int, conditioner: Conditioner, silence: Tensor
) -> Generator[Stage, None, list[Branch]]:
    """What steers each step: the task, and from the step where a cover lets go, text2music.

    clean: the latent [1, T, C] of the source, silence: as released.
    """
    task = tasks.spoken_task(request)
    shown = tasks.silence_for(silence, request.latents)
    if request.codes:
        shown = tasks.padded(conditioner.spoken(request.codes)[:, : request.touched], silence, request.latents)
    elif request.source is not None and clean is not None:
        shown = clean
        if tasks.needs_codes(request):
            shown = tasks.padded(conditioner.heard(clean[:, : request.touched]), silence, request.latents)
    condition = yield from conditioner.condition(request, task)
    ways = [Branch(0, tasks.context(request, shown, silence), condition)]
    switch = tasks.cover_steps(request, steps)
    if switch < steps:
        condition = yield from conditioner.condition(request, "text2music")
        free = tasks.silence_for(silence, request.latents)
        ways.append(Branch(switch, tasks.context(request, free, silence), condition))
    return ways


def velocity(
    request: Request, ways: list[Branch], course: Course, loaded: Loaded, conditioner: Conditioner
) -> Velocity:
    """The velocity of a request, for one run. Each time's modulation is made once; conditions were prepared before."""
    decoder = loaded.model.decoder
    modulations = {t: decoder.modulation(torch.tensor([t], device=loaded.device)) for t in course.times}

    def toward(condition: Prepared | None) -> Velocity:
        def at(x: Tensor, t: float) -> Tensor:
            way = next(each for each in reversed(ways) if t <= course.times[each.first])
            return decoder.steered(x, modulations[t], way.context, condition or way.condition)

        return at

    if course.guidance == 1:
        return toward(None)
    act = Apg(course.guidance) if request.guidance_mode == "apg" else PlainCfg(course.guidance)
    nothing = conditioner.unconditional()
    return guided(toward(None), toward(nothing), act, request.cfg_interval_start, request.cfg_interval_end)
