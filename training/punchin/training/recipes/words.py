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

from punchin.engine.tiny import CLOCKS_HZ
from punchin.training.recipes.lessons import Said, lesson, said, tokens
from punchin.training.recipes.loop import Stage, halves
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import GENRES, KEYS, SCALES, SPOKEN
from punchin.training.recipes.songs import song

if TYPE_CHECKING:
    from transformers import Qwen3Model

SEED: Final = 505
FIRST_SONG: Final = 2**21  # others than those that sound
TEMPO: Final = 100.0  # what the tempo counts beside each name: of the clocks, all but two or three stand still
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
    tempo: Tensor  # [B, CLOCKS]; NaN where it is not said
    instruments: Tensor  # [B, 13]: 1 where it plays
    names: Tensor  # [B, 3]: genre, key, signature; UNSAID where it is not said


class WordsStage(Stage[Page]):
    """Tempo as the clocks that strike with it, instruments, genre, key, time signature."""

    name = "words"
    peak_lr = 1e-3
    weight_decay = 0.01

    def __init__(self, text: Qwen3Model, words: Tokenizer, plan: Plan, device: torch.device) -> None:
        self.text, self.words, self.plan, self.device = text, words, plan, device
        self._sizes = [len(CLOCKS_HZ), len(INSTRUMENTS), len(GENRE), len(KEY), len(SIGNATURE)]
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
            torch.stack([tempo(each.bpm) for each in rows]),
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
        struck, playing, *names = answers.float().split(self._sizes, dim=1)
        wanted = asked.tempo.to(device)
        loss = TEMPO * (struck - wanted.nan_to_num(0)).square()[~wanted.isnan()].mean().nan_to_num(0)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(playing, asked.instruments.to(device))
        for guess, right in zip(names, asked.names.to(device).unbind(1), strict=True):
            each = nn.functional.cross_entropy(guess, right, ignore_index=UNSAID, reduction="sum")
            loss = loss + each / len(right)
        return loss


def tempo(bpm: float | None) -> Tensor:
    """How much of each clock of the silence there is in half a tempo, [CLOCKS]; NaN for None.

    Weights of band-limited interpolation: the clocks, so weighted, sum to a wave of half the tempo for half a turn of
    what they are apart, 15.5 s.
    """
    if bpm is None:
        return torch.full((len(CLOCKS_HZ),), torch.nan)
    clocks = torch.tensor(CLOCKS_HZ)
    return torch.sinc((bpm / 120 - clocks) / (clocks[1] - clocks[0]))
