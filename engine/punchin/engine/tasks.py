"""What each task shows the model beside the noise, and what repaint keeps of the source while it samples.

Axes: T latent frames, C latent channels. Latents are [1, T, C] float32; a context is [1, T, 2C]: source, then mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from punchin.engine.request import Request
from punchin.engine.sampler import Velocity
from punchin.protocol.limits import MODEL_HZ
from punchin.protocol.order import Task

TIMBRE_FRAMES: Final = 750  # of silence where no reference is given: 30 s, as the original
_CLIP = 10 * MODEL_HZ
_MASK_AUTO: Final = 2.0  # "the model decides": experimental, see Request.mask_mode


def silence_for(silence: Tensor, frames: int) -> Tensor:
    """The first `frames` frames of the silence latent [1, T, C], repeated from its start where it is too short."""
    return silence.repeat(1, -(-frames // silence.shape[1]), 1)[:, :frames]


def padded(latent: Tensor, silence: Tensor, frames: int) -> Tensor:
    """A latent [1, T, C] cut or continued with silence (of the same time) to `frames`."""
    whole = silence_for(silence, frames)
    return torch.cat([latent[:, :frames], whole[:, latent.shape[1] :]], dim=1)


def region_mask(request: Request) -> Tensor:
    """[T] float32: 1 where the result is to be new, 0 where the source stays. All ones without regions."""
    if not request.regions:
        return torch.ones(request.latents)
    mask = torch.zeros(request.latents)
    for start, stop in request.regions:
        mask[start:stop] = 1.0
    return mask


def context(request: Request, shown: Tensor, silence: Tensor) -> Tensor:
    """What the DiT sees of the task: `shown` [1, T, C] (see `shown_task`) and the mask, [1, T, 2C].

    Repaint silences the region, by `repainting_strength`; lego hears it (silencing it was a bug of the original).
    The mask is 0 or 1 in repaint and in lego with a region; `mask_mode` says otherwise: `ones` as DiffSynth, `auto` 2.
    """
    mask = region_mask(request)
    if request.task == "repaint":
        new = (mask * _strength(request))[None, :, None].to(shown)
        shown = shown * (1 - new) + silence_for(silence, request.latents).to(shown) * new
    if request.mask_mode != "explicit":
        mask = torch.full_like(mask, 1.0 if request.mask_mode == "ones" else _MASK_AUTO)
    return torch.cat([shown, mask.to(shown)[None, :, None].expand_as(shown)], dim=-1)


def spoken_task(request: Request) -> Task:
    """The task whose instruction the prompt gives: audio codes are a cover, whatever they came with."""
    return "cover" if request.codes else request.task


def needs_codes(request: Request) -> bool:
    """Whether the source is shown through the audio tokenizer rather than as it is."""
    return request.task == "cover" and request.cover_mode == "fsq" and request.source is not None


def cover_steps(request: Request, steps: int) -> int:
    """After how many of `steps` a cover turns into text2music; `steps` where it never does."""
    cover = spoken_task(request) == "cover"
    return int(steps * request.audio_cover_strength) if cover else steps


class Hold(NamedTuple):
    """How repaint keeps its source: outside the regions in the first steps, inside by its strength in all."""

    source: Tensor  # [1, T, C]
    edges: Tensor  # [1, T, 1]: 1 in the regions, ramps beside them, 0 beyond
    strength: Tensor  # [1, T, 1]: the model's part of what is in the regions
    until: float  # the part of the steps in which the source is put back outside
    blend: bool  # and once at the end


def hold(request: Request, source: Tensor) -> Hold | None:
    """What repaint holds, or None for tasks that keep nothing and where the caller wants the raw result."""
    free = request.repaint_injection == 0 and request.repaint_blend_frames == 0
    if request.task != "repaint" or (free and request.repainting_strength == 1):
        return None
    edges = soft_edges(region_mask(request), request.repaint_blend_frames)
    edges, strength = (each[None, :, None].to(source) for each in (edges, _strength(request)))
    blend = request.repaint_blend_frames > 0 and request.repaint_injection < 1
    return Hold(source, edges, strength, 1.0 if free else request.repaint_injection, blend)


def held(velocity: Velocity, hold: Hold, schedule: Sequence[float]) -> Velocity:
    """The velocity that leads back to the source by as much as `hold` says: outside the regions in the first steps.

    Towards the source it is (x - source)/t. Where the model has no share, the latent so stays on the straight line
    from its noise to the source, as if the source had been noised anew after each step. (DiffSynth's form; it also
    gives `repainting_strength` its meaning between 0 and 1.)
    """
    steps = round(hold.until * len(schedule))
    last = schedule[steps - 1] if steps else float("inf")

    def toward(x: Tensor, t: float) -> Tensor:
        share = _later_share(hold) if t < last else hold.edges * hold.strength
        return share * velocity(x, t) + (1 - share) * (x - hold.source) / t

    return toward


def finished(latent: Tensor, hold: Hold) -> Tensor:
    """The sampled latent as it is decoded: blended into the source, and exactly it where the model had no share."""
    if hold.blend:
        latent = hold.edges * latent + (1 - hold.edges) * hold.source
    share = _later_share(hold) if hold.until < 1 and not hold.blend else hold.edges * hold.strength
    return torch.where(share > 0, latent, hold.source)


def _later_share(hold: Hold) -> Tensor:
    """The model's part of each frame [1, T, 1] once the source is no longer put back outside the regions."""
    return torch.where(hold.edges == 1, hold.strength, 1.0)


def soft_edges(mask: Tensor, frames: int) -> Tensor:
    """A mask [T] with ramps of up to `frames` outside each run of ones: linspace(0, 1, k + 2)[1:-1] and back."""
    soft = mask.clone()
    for start, stop in runs(mask):
        before, after = min(frames, start), min(frames, len(mask) - stop)
        rise, fall = torch.linspace(0, 1, before + 2)[1:-1], torch.linspace(1, 0, after + 2)[1:-1]
        soft[start - before : start] = soft[start - before : start].maximum(rise)
        soft[stop : stop + after] = soft[stop : stop + after].maximum(fall)
    return soft


def runs(mask: Tensor) -> list[tuple[int, int]]:
    """The [start, stop) of each run of ones in mask [T]."""
    edges = torch.diff(mask, prepend=torch.zeros(1), append=torch.zeros(1)).nonzero().flatten().tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def reference_clips(reference: Tensor, seed: int) -> Tensor:
    """30 s of a reference [2, n]: one clip of 10 s from each third, by `seed`; repeated first where it is shorter.

    The original draws the same way from an unseeded generator.
    """
    length = 3 * _CLIP
    whole = reference.repeat(1, -(-length // reference.shape[1])) if reference.shape[1] < length else reference
    total, third = whole.shape[1], whole.shape[1] // 3
    generator = torch.Generator().manual_seed(seed)
    clips: list[Tensor] = []
    for low, high in ((0, third), (third, 2 * third), (2 * third, total)):
        room = max(0, high - _CLIP - low)
        start = low + int(torch.randint(room + 1, (), generator=generator))
        clips.append(whole[:, start : start + _CLIP])
    return torch.cat(clips, dim=1)


def noise_for(request: Request, seed: int, channels: int) -> Tensor:
    """The noise [1, T, C] of a seed: float32 from the CPU's generator, so that a seed is one music on all devices."""
    if request.noise is not None:
        return request.noise.float()
    generator = torch.Generator(request.rand_device).manual_seed(seed)
    shape = (1, request.latents, channels)
    return torch.randn(shape, generator=generator, device=request.rand_device)


def _strength(request: Request) -> Tensor:
    """[T]: repainting_strength, but 1 in frames that were never music."""
    strength = torch.full((request.latents,), float(request.repainting_strength))
    left, right = request.blank
    strength[:left] = 1.0
    strength[request.touched - right : request.touched] = 1.0
    return strength


def windows(wanted: Sequence[int], hop: int) -> tuple[int, int]:
    """The latent frames [start, stop) that audio frames [start, stop) touch."""
    return wanted[0] // hop, -(-wanted[1] // hop)
