"""The stage before the music: the DiT's first layers, taught to count.

From a prompt's tempo and the clocks in the silence they learn where in the beat and in the bar a frame is. No song is
needed for it: what is asked has no noise, and so a thousand steps teach what the music alone would hide for days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.model import AceStep
from punchin.engine.tasks import silence_for
from punchin.protocol.limits import LATENT_HZ
from punchin.training.recipes.conditions import conditioned, instrumental
from punchin.training.recipes.lessons import lesson, said, tokens
from punchin.training.recipes.loop import Stage, halves
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import Score
from punchin.training.recipes.songs import song

if TYPE_CHECKING:
    from transformers import Qwen3Model

SEED: Final = 606
FIRST_SONG: Final = 2**22  # others than those that sound
DEPTH: Final = 3  # layers
RATES: Final = 4  # of what is counted: a beat, its half and quarter, where nearly all notes begin, and a bar


@dataclass(frozen=True, slots=True)
class Count:
    """The prompts of a step and where their beats are: B prompts, L tokens, T latent frames."""

    ids: Tensor  # [B, L]
    told: Tensor  # [B, L] bool
    where: Tensor  # [B, T, 8]


class MetreStage(Stage[Count]):
    """Cosines and sines of the beat, its half, its quarter and the bar, read from the DiT's states by a linear map."""

    name = "metre"
    peak_lr = 1e-3
    weight_decay = 0.01
    betas = (0.9, 0.98)

    def __init__(
        self, model: AceStep, text: Qwen3Model, words: Tokenizer, silence: Tensor, plan: Plan, device: torch.device
    ) -> None:
        self.model, self.text, self.words, self.plan, self.device = model, text, words, plan, device
        self.silence, self._lyrics = silence.to(device), instrumental(words)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.read = nn.Linear(model.spec.dit.block.width, 2 * RATES * model.spec.dit.patch)
        parts = {"model": model.requires_grad_(True), "text": text.requires_grad_(True), "read": self.read}
        self.module: nn.Module = nn.ModuleDict(parts).to(device)

    def prepare(self, step: int, share: float = 1.0) -> Count:
        """The prompts of a step, each of a new song with a whole tempo; it says tempo and signature.

        `share`: of a batch's length.
        """
        rng, plan = np.random.default_rng([SEED, step]), self.plan
        frames = int(rng.choice(plan.windows))
        texts: list[str] = []
        scores: list[Score] = []
        while len(texts) < max(1, min(plan.most_items, int(share * plan.batch_frames) // frames)):
            each = song(FIRST_SONG + int(rng.integers(2**30)))
            words = said(rng, lesson(rng, each, plan.song_frames, frames), frames)
            if words.bpm is not None and words.signature is not None and each.score.whole:
                texts.append(words.text)
                scores.append(each.score)
        return Count(*tokens(texts, self.words), torch.stack([beats(score, frames) for score in scores]))

    def loss(self, step: int, prepared: Count) -> Tensor:
        """Mean squared error; 0.5 where nothing is known."""
        asked, device = prepared, self.device
        where = asked.where.to(device)
        shape = *where.shape[:2], self.silence.shape[-1]
        noise = torch.randn(shape, generator=torch.Generator(device).manual_seed(SEED * 2**32 + step), device=device)
        t = torch.rand(len(where), generator=torch.Generator().manual_seed(SEED * 2**32 + step)).to(device)
        shown = silence_for(self.silence, shape[1]).expand(shape)
        with halves(device):
            condition, valid = conditioned(self.model, self.text, asked.ids, asked.told, self.silence, self._lyrics)
            dit = self.model.decoder
            context = torch.cat([shown, torch.ones_like(shown)], -1)
            states = dit.states(noise, dit.modulation(t), context, dit.prepare(condition, valid), DEPTH)
            counted = self.read(states).unflatten(-1, (-1, 2 * RATES)).flatten(1, 2)[:, : shape[1]]
        return (counted.float() - where).square().mean()


def beats(score: Score, frames: int) -> Tensor:
    """Cosines, then sines, of the beat, its half and quarter, and the bar, from the first bar on, [T, 8]."""
    rates_hz = score.bpm / 60 * torch.tensor([1.0, 2.0, 4.0, 1 / score.bar_beats])
    angle = 2 * torch.pi * rates_hz * torch.arange(frames)[:, None] / LATENT_HZ
    return torch.cat([angle.cos(), angle.sin()], dim=1)
