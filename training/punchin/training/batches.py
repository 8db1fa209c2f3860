"""Examples of different length as one batch, and what a step decides about each of them.

Axes: B items, T latent frames of the longest, L tokens, R references, C latent channels, D text width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import torch
from torch import Tensor

from punchin.engine.tasks import TIMBRE_FRAMES, silence_for
from punchin.protocol.limits import WINDOW
from punchin.protocol.order import Task
from punchin.training import flow
from punchin.training.examples import Example
from punchin.training.settings import Settings

LEAST_FRAMES: Final = int(WINDOW.low)
_HOLE: Final = (0.1, 0.6)  # of the length: how much a repaint makes anew
_OUTSIDE: Final = 0.2  # how much the frames that repaint keeps count
_STRIDE: Final = 0x9E3779B1  # from one training's seed to the next; odd, so no two seeds share one


@dataclass(frozen=True, eq=False)
class Batch:
    """What the objective needs; every field a tensor with the items on its first axis, but `clips` with its owners."""

    data: Tensor  # [B, T, C]
    noise: Tensor  # [B, T, C]
    t: Tensor  # [B]
    weights: Tensor  # [B]
    counts: Tensor  # [B, T]: how much a frame counts, 0 where it is padding
    shown: Tensor  # [B, T, C]: the source as it is, silence where there is none
    coded: Tensor  # [B] bool: the source passes through the audio codes
    hole: Tensor  # [B, T] bool: silenced in the source
    mask: Tensor  # [B, T]: what the DiT is told is new
    caption: Tensor  # [B, L, D]
    caption_valid: Tensor  # [B, L] bool
    lyrics: Tensor  # [B, L, D]
    lyrics_valid: Tensor
    clips: Tensor  # [N, 750, C] of references
    owners: Tensor  # [N]
    untold: Tensor  # [B] bool: without any condition

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return replace(self, **{each.name: getattr(self, each.name).to(device) for each in fields(self)})


@dataclass(frozen=True, eq=False)
class _Choice:
    """What a step decides about one item."""

    task: Task
    t: Tensor
    weight: Tensor
    noise: Tensor  # [T, C], of the padding too
    hole: tuple[int, int] | None
    untold: bool
    reference: Tensor | None


class Collator:
    """Makes batches. What is decided about an item depends on the seed, the step and the item's place alone."""

    def __init__(self, settings: Settings, silence: Tensor) -> None:
        self.settings, self.silence = settings, silence.cpu()

    def __call__(self, examples: Sequence[Example], keys: Sequence[int]) -> Batch:
        """The batch of these examples; `keys`: a number for each item of each step, never used twice in a training."""
        frames = _longest(examples)
        choices = [self._choice(each, key, frames) for each, key in zip(examples, keys, strict=True)]
        return self._joined(examples, choices)

    def at(self, examples: Sequence[Example], t: float, key: int) -> Batch:
        """A batch for validation: text2music at time t, nothing taken away, noise of `key`, whatever the seed."""
        calm = replace(self.settings, seed=0, cover_share=0, repaint_share=0, reference_share=0, condition_dropout=0)
        judge = Collator(calm, self.silence)
        fixed = [
            replace(judge._choice(each, key + n, _longest(examples)), t=torch.tensor(t), weight=torch.tensor(1.0))
            for n, each in enumerate(examples)
        ]
        return judge._joined(examples, fixed)

    def _choice(self, example: Example, key: int, window: int) -> _Choice:
        told = self.settings
        # 32 bits are all that a generator on the CPU looks at
        generator = torch.Generator().manual_seed((told.seed * _STRIDE + key) % 2**32)
        chances = torch.rand(4, generator=generator).tolist()
        frames = len(example.latents)
        t, weight = flow.draw(
            told.timesteps, 1, generator, told.min_timestep_boundary, told.max_timestep_boundary
        )  # fmt: skip
        task: Task = example.task or "text2music"
        if example.task is None and chances[0] < told.cover_share:
            task = "cover"
        elif example.task is None and chances[0] < told.cover_share + told.repaint_share:
            task = "repaint"
        hole = None
        if task == "repaint":
            low, high = (max(1, round(share * frames)) for share in _HOLE)
            size = int(torch.randint(low, high + 1, (), generator=generator))
            first = int(torch.randint(frames - size + 1, (), generator=generator))
            hole = first, first + size
        reference = None
        if chances[1] < told.reference_share and not example.references:
            reference = _clip(example.latents, generator)
        noise = torch.randn(example.latents.shape, generator=generator)
        # the whole window is noise at inference, so what pads an item is as well; drawn last, of any length alike
        padding = torch.randn(window - frames, noise.shape[1], generator=generator)
        noise = torch.cat([noise, padding])
        return _Choice(task, t[0], weight[0], noise, hole, chances[2] < told.dropout, reference)

    def _joined(self, examples: Sequence[Example], choices: Sequence[_Choice]) -> Batch:
        count = len(examples)
        frames = _longest(examples)
        quiet = silence_for(self.silence, frames)[0]
        data, shown = (quiet.repeat(count, 1, 1) for _ in range(2))
        noise = torch.stack([each.noise for each in choices])
        counts, hole = torch.zeros(count, frames), torch.zeros(count, frames, dtype=torch.bool)
        mask = torch.ones(count, frames)
        for row, (each, choice) in enumerate(zip(examples, choices, strict=True)):
            length = len(each.latents)
            data[row, :length] = each.latents
            counts[row, :length] = 1
            if choice.task != "text2music":
                shown[row, :length] = each.latents if each.source is None else each.source
            if choice.hole is not None:
                inside = slice(*choice.hole)
                hole[row, inside] = True
                mask[row] = hole[row].float()
                counts[row, :length] = _OUTSIDE
                counts[row, inside] = 1
        caption = _padded([each.captions[choice.task] for each, choice in zip(examples, choices, strict=True)])
        lyrics = _padded([each.lyrics for each in examples])
        clips, owners = self._references(examples, choices)
        return Batch(
            data, noise, torch.stack([each.t for each in choices]), torch.stack([each.weight for each in choices]),
            counts, shown, torch.tensor([each.task == "cover" for each in choices]), hole, mask,
            *caption, *lyrics, clips, owners, torch.tensor([each.untold for each in choices]),
        )  # fmt: skip

    def _references(self, examples: Sequence[Example], choices: Sequence[_Choice]) -> tuple[Tensor, Tensor]:
        """Every item's clips; silence where it has none, as the released models expect."""
        clips: list[Tensor] = []
        owners: list[int] = []
        for row, (each, choice) in enumerate(zip(examples, choices, strict=True)):
            own = [*each.references] or ([choice.reference] if choice.reference is not None else [])
            own = own or [silence_for(self.silence, TIMBRE_FRAMES)[0]]
            clips += own
            owners += [row] * len(own)
        return torch.stack(clips), torch.tensor(owners)


def _longest(examples: Sequence[Example]) -> int:
    """The latent frames of a batch's window."""
    return max(LEAST_FRAMES, *(len(each.latents) for each in examples))


def _clip(latents: Tensor, generator: torch.Generator) -> Tensor:
    """30 s of an example's own latents from a random place on, repeated where it is shorter."""
    start = int(torch.randint(len(latents), (), generator=generator))
    turned = latents.roll(-start, 0)
    return turned.repeat(-(-TIMBRE_FRAMES // len(turned)), 1)[:TIMBRE_FRAMES]


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Sequences [L, D] as [B, L, D], zeros at their ends, and which entries are real."""
    longest = max(len(each) for each in rows)
    whole = torch.zeros(len(rows), longest, rows[0].shape[1])
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, each in enumerate(rows):
        whole[row, : len(each)], valid[row, : len(each)] = each, True
    return whole, valid
