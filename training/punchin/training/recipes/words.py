"""The stage before the music: the text encoder, taught to read in a prompt what it means for the music.

Prompts cost nothing, songs that sound do. A text encoder that learns from the flow's error alone has heard a few
hundred songs when it should tell 127 bpm from 128. Here it reads a hundred thousand prompts first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.spec import DitSpec
from punchin.protocol.limits import LATENT_HZ
from punchin.training.recipes.lessons import Said, lesson, said, tokens
from punchin.training.recipes.loop import Stage, halves
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import GENRES, KEYS, SCALES, SPOKEN
from punchin.training.recipes.songs import song

if TYPE_CHECKING:
    from transformers import Qwen3Model

SEED: Final = 505
FIRST_SONG: Final = 2**21  # others than those that sound
BEATS: Final = (0.5, 1.0, 2.0, 4.0)
TURNS: Final = 5  # of the DiT's rotary frequencies, from the fastest on; the next one takes 38 s for a turn
TEMPO: Final = 4.0  # what the tempo counts beside each name
INSTRUMENTS: Final = tuple(SPOKEN)
GENRE: Final = [genre.name for genre in GENRES]
KEY: Final = [f"{key} {mode}" for key in KEYS for mode in SCALES]
SIGNATURE: Final = [4, 3, 6]
UNSAID: Final = -100  # what cross_entropy leaves out


class Reader(nn.Module):
    """Answers from a prompt's states, through attention as the DiT's. For training alone."""

    def __init__(self, width: int, answers: int, looks: int = 8) -> None:
        super().__init__()
        self.look = nn.Linear(width, looks, bias=False)
        self.answer = nn.Linear(looks * width, answers)

    def forward(self, states: Tensor, told: Tensor) -> Tensor:
        """States [B, L, W], of which `told` [B, L] are real -> answers [B, A]."""
        weights = self.look(states).masked_fill(~told[..., None], -torch.inf).softmax(1)
        return self.answer((weights.transpose(1, 2) @ states).flatten(1))


@dataclass(frozen=True, slots=True)
class Page:
    """The prompts of a step and what they say: B prompts, L tokens."""

    ids: Tensor  # [B, L]
    told: Tensor  # [B, L] bool
    tempo: Tensor  # [B, 2 * 4 * TURNS]; NaN where it is not said
    instruments: Tensor  # [B, 13]: 1 where it plays
    names: Tensor  # [B, 3]: genre, key, signature; UNSAID where it is not said


class WordsStage(Stage[Page]):
    """Tempo as the turns of a few beats, instruments, genre, key, time signature."""

    name = "words"
    peak_lr = 1e-3
    weight_decay = 0.01

    def __init__(self, text: Qwen3Model, words: Tokenizer, dit: DitSpec, plan: Plan, device: torch.device) -> None:
        self.text, self.words, self.plan, self.device = text, words, plan, device
        self._turns = turns(dit)
        self._sizes = [len(BEATS) * TURNS * 2, len(INSTRUMENTS), len(GENRE), len(KEY), len(SIGNATURE)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            reader = Reader(text.config.hidden_size, sum(self._sizes))
        self.module: nn.Module = nn.ModuleDict({"text": text.requires_grad_(True), "reader": reader}).to(device)

    def prepare(self, step: int) -> Page:
        """The prompts of a step, each of a new song."""
        rng, count = np.random.default_rng([SEED, step]), self.plan.prompts
        rows = [self._row(rng, FIRST_SONG + step * count + number) for number in range(count)]
        ids, told = tokens([each.text for each in rows], self.words)
        return Page(
            ids,
            told,
            torch.stack([tempo(each.bpm, self._turns) for each in rows]),
            torch.tensor([[float(name in each.instruments) for name in INSTRUMENTS] for each in rows]),
            torch.tensor(
                [
                    [
                        GENRE.index(each.genre),
                        UNSAID if each.key is None else KEY.index(each.key),
                        UNSAID if each.signature is None else SIGNATURE.index(each.signature),
                    ]
                    for each in rows
                ]
            ),
        )

    def _row(self, rng: np.random.Generator, number: int) -> Said:
        frames = int(rng.choice(self.plan.windows))
        return said(rng, lesson(rng, song(number), self.plan.song_frames, frames), frames)

    def loss(self, step: int, prepared: Page) -> Tensor:
        """How much of what the prompts say cannot be read from their states."""
        asked, device = prepared, self.device
        told = asked.told.to(device)
        with halves(device):
            states = self.text(input_ids=asked.ids.to(device), use_cache=False).last_hidden_state
            answers = self.module.get_submodule("reader")(states, told)
        turned, playing, *names = answers.float().split(self._sizes, dim=1)
        wanted = asked.tempo.to(device)
        loss = TEMPO * (turned - wanted.nan_to_num(0)).square()[~wanted.isnan()].mean().nan_to_num(0)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(playing, asked.instruments.to(device))
        for guess, right in zip(names, asked.names.to(device).unbind(1), strict=True):
            each = nn.functional.cross_entropy(guess, right, ignore_index=UNSAID, reduction="sum")
            loss = loss + each / len(right)
        return loss


def turns(dit: DitSpec) -> Tensor:
    """The fastest rotary frequencies of the DiT, radians a latent frame, [TURNS]."""
    half = torch.arange(TURNS) * 2 / dit.block.head_dim
    return dit.block.rope_theta**-half / dit.patch


def tempo(bpm: float | None, rates: Tensor) -> Tensor:
    """How far `rates` turn in half a beat to four, as cosines and sines [2 * 4 * TURNS]; NaN for None.

    Attention that looks a beat back multiplies its query by just this.
    """
    if bpm is None:
        return torch.full((2 * len(BEATS) * len(rates),), torch.nan)
    angle = (torch.tensor(BEATS)[:, None] * 60 / bpm * LATENT_HZ * rates).flatten()
    return torch.cat([angle.cos(), angle.sin()])
