"""The second stage: the audio tokenizer, taught to keep what the ear needs of 200 ms in 16 bits.

A waveform's phases do not fit in there and the mean over them is silence, so it is taught what fits and what a cover
must keep: when something starts, how high, how loud.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from punchin.training.recipes import envelope
from punchin.training.recipes.library import Codes, Library, Version
from punchin.training.recipes.loop import Stage, halves

SEED: Final = 202
FRAMES: Final = 125  # of a crop: 25 codes
LATENT: Final = 0.1  # how much the latent itself counts beside its envelope


class Spots(NamedTuple):
    """Where a step listens: all three [B]."""

    newest: int
    version: Tensor
    place: Tensor
    start: Tensor


class CodesStage(Stage[Spots]):
    """Envelopes, and a little the latents, of crops of all versions."""

    name = "codes"
    peak_lr = 1e-3
    weight_decay = 0.01

    def __init__(self, codes: Codes, library: Library, loud: Tensor) -> None:
        self.codes, self.library, self.device = codes, library, library.device
        self.module: nn.Module = codes
        self._weight = loud.sqrt().to(library.device)

    def prepare(self, step: int) -> Spots:
        """Where to listen, and the songs composed."""
        plan, newest = self.library.plan, self.library.newest(step)
        for batch in self.library.batches(newest):
            self.library.draft(batch)
        rng = np.random.default_rng([SEED, step])
        count = min(plan.most_items, plan.batch_frames // FRAMES)
        batches = rng.choice(self.library.batches(newest), count)
        songs = rng.integers(plan.songs, size=count)
        return Spots(
            newest,
            torch.from_numpy(rng.integers(len(Version), size=count)),
            torch.tensor([self.library.place(int(b), int(s)) for b, s in zip(batches, songs, strict=True)]),
            torch.from_numpy(rng.integers(plan.song_frames - FRAMES + 1, size=count)),
        )

    def loss(self, step: int, prepared: Spots) -> Tensor:
        """Mean squared error of the levels, plus a part of the latents'."""
        self.library.fill(prepared.newest)
        at = cut(prepared.version, prepared.place, prepared.start, FRAMES)
        latent = self.library.latents[at].float()
        with halves(self.device):
            back, levels = self.codes(latent)
        heard = envelope.groups(latent, self._weight)
        return (levels.float() - heard).square().mean() + LATENT * (back.float() - latent).square().mean()


def cut(version: Tensor, place: Tensor, start: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """The index of windows [start, start + frames) in a library's [V, N, T, C]; all [B]."""
    return version[:, None], place[:, None], start[:, None] + torch.arange(frames)
