"""Songs as latents without a render: each note is encoded once, and a song is their sum.

The encoder begins as principal components and stays a linear map to one percent, so what it makes of a mix is the sum
of what it makes of the notes. A note that was played before costs an addition; songs are then as good as free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from punchin.engine.tiles import encode_margin
from punchin.engine.vae import Vae
from punchin.protocol.limits import HOP, LATENT_HZ
from punchin.training.recipes.score import STEMS, Score
from punchin.training.recipes.synth import played, sides, voices

REACH: Final = 1  # latent frames before and behind one that its latent hears: 99.99 % of the kernel's energy
PLACES: Final = 16  # in a latent frame where a note may begin: 2.5 ms apart
LENGTHS: Final = 1.4  # ratio of the lengths that notes have
SHORTEST_S: Final = 0.08
HISSES: Final = 4  # of each drum
VELOCITY: Final = 0.75  # at which a voice is taken; then it is as loud as it should be
EDGE: Final = 4  # latent frames on each side of the one whose kernel is taken; what comes from further is below 1e-5


class Sample(NamedTuple):
    """What is encoded once."""

    stem: int
    instrument: str
    drum: int  # or -1
    pitch: int  # of a drum, the number of its hiss
    size: int  # held for SHORTEST_S * LENGTHS**size


def kernel(vae: Vae) -> Tensor:
    """The encoder as one linear map around silence: [C, 2, (2*REACH + 1) * 1920]."""
    audio = torch.zeros(1, 2, (2 * EDGE + 1) * HOP, requires_grad=True)
    mean = vae.encode(audio, 2 * EDGE + 1).mean[0, EDGE]
    rows = [torch.autograd.grad(each, audio, retain_graph=True)[0][0] for each in mean]
    return torch.stack(rows)[..., (EDGE - REACH) * HOP : (EDGE + REACH + 1) * HOP].detach()


class OneShots:
    """Plays scores in latents. Not for two threads at once."""

    def __init__(self, vae: Vae) -> None:
        both = kernel(vae)
        self._kernels = [torch.einsum("s,csn->cn", pan, both) for pan in sides("cpu")]
        with torch.no_grad():
            frames = 2 * encode_margin(vae.spec) + 1
            self.silence = vae.encode(torch.zeros(1, 2, frames * HOP), frames).mean[0, frames // 2]  # [C]
        self._made: dict[Sample, Tensor] = {}

    def play(self, scores: Sequence[Score], first_s: Sequence[float], frames: int) -> Tensor:
        """All stems of all scores, [B, 4, T, C], silence left out: sum stems and add `silence`.

        As `synth.render`, with each note at the nearest 2.5 ms and in the nearest of its lengths.
        """
        rows = torch.zeros(len(scores) * len(STEMS), frames + 2 * REACH, len(self.silence))
        for (instrument, drum), notes in voices(scores, frames / LATENT_HZ, first_s).items():
            for number, (row, start_s, held_s, pitch, velocity) in enumerate(notes):
                stem = row % len(STEMS)
                at = round(start_s * LATENT_HZ * PLACES)
                frame, place = divmod(at, PLACES)
                sample = _sample(stem, instrument, drum, pitch, held_s, number)
                wave = self._of(sample)[place]
                low, high = max(frame, 0), min(frame + len(wave), rows.shape[1])  # REACH frames of it come before
                if low < high:
                    rows[row, low:high] += velocity * wave[low - frame : high - frame]
        return rows[:, REACH:-REACH].unflatten(0, (len(scores), len(STEMS)))

    def _of(self, sample: Sample) -> Tensor:
        """[PLACES, T, C], the first REACH frames before the note. Made when first asked for."""
        if sample not in self._made:
            held_s = SHORTEST_S * LENGTHS**sample.size
            wave = played(sample.instrument, sample.drum, sample.pitch, held_s, VELOCITY, sample.pitch)
            self._made[sample] = self._encoded(wave, self._kernels[sample.stem])
        return self._made[sample]

    @staticmethod
    @torch.no_grad()
    def _encoded(wave: Tensor, weights: Tensor) -> Tensor:
        frames = -(-(len(wave) + HOP) // HOP)
        rows = torch.zeros(PLACES, (frames + 4 * REACH) * HOP)
        for place in range(PLACES):
            at = 2 * REACH * HOP + place * HOP // PLACES
            rows[place, at : at + len(wave)] = wave
        return rows.unfold(1, weights.shape[1], HOP) @ weights.T


def _sample(stem: int, instrument: str, drum: int, pitch: int, held_s: float, number: int) -> Sample:
    if drum >= 0:
        return Sample(stem, instrument, drum, number % HISSES, 0)
    size = max(0, round(math.log(held_s / SHORTEST_S, LENGTHS)))
    return Sample(stem, instrument, -1, pitch, size)
