"""Songs as latents without a render: each note is encoded once, and a song is their sum.

Most latents are a linear map of the sound, so what the encoder makes of a mix is the sum of what it makes of the notes.
The rest are levels of bands: there the notes' powers are summed. A note that was played before costs an addition;
songs are then as good as free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from punchin.engine.tiles import encode_margin
from punchin.engine.vae import Vae
from punchin.protocol.limits import HOP, LATENT_HZ
from punchin.training.recipes import bands
from punchin.training.recipes.score import STEMS, Score
from punchin.training.recipes.synth import played, sides, voices

REACH: Final = 1  # latent frames before and behind one that its latent hears
PLACES: Final = 16  # in a latent frame where a note may begin: 2.5 ms apart
LENGTHS: Final = 1.4  # ratio of the lengths that notes have
SHORTEST_S: Final = 0.08
HISSES: Final = 4  # of each drum
VELOCITY: Final = 0.75  # at which a voice is taken; then it is as loud as it should be
EDGE: Final = 4  # latent frames on each side of the one whose kernel is taken


class Sample(NamedTuple):
    """What is encoded once."""

    stem: int
    instrument: str
    drum: int  # or -1
    pitch: int  # of a drum, the number of its hiss
    size: int  # held for SHORTEST_S * LENGTHS**size


@torch.enable_grad()
def kernel(vae: Vae) -> Tensor:
    """What of the encoder is linear, around silence: [C - 16, 2, (2*REACH + 1) * 1920]."""
    audio = torch.zeros(1, 2, (2 * EDGE + 1) * HOP, requires_grad=True)
    mean = vae.encode(audio, 2 * EDGE + 1).mean[0, EDGE, : -bands.COUNT]
    rows = [torch.autograd.grad(each, audio, retain_graph=True)[0][0] for each in mean]
    return torch.stack(rows)[..., (EDGE - REACH) * HOP : (EDGE + REACH + 1) * HOP].detach()


class OneShots:
    """Plays scores in parts that add up: of each latent frame the linear latents, then the bands' powers.

    Not for two threads at once.
    """

    def __init__(self, vae: Vae) -> None:
        both = kernel(vae)
        self._sides = sides("cpu")
        self._kernels = [torch.einsum("s,csn->cn", pan, both) for pan in self._sides]
        self._squared = torch.cat([torch.ones(len(both)), torch.full((bands.COUNT,), 2.0)])  # a power goes with loud^2
        with torch.no_grad():
            frames = 2 * encode_margin(vae.spec) + 1
            self._silence = vae.encode(torch.zeros(1, 2, frames * HOP), frames).mean[0, frames // 2]  # [C]
        self._made: dict[Sample, Tensor] = {}

    def play(self, scores: Sequence[Score], first_s: Sequence[float], frames: int) -> Tensor:
        """The parts of all stems of all scores, [B, 4, T, C]: sum them over stems, then ask for `latents`.

        As `synth.render`, with each note at the nearest 2.5 ms and in the nearest of its lengths.
        """
        rows = torch.zeros(len(scores) * len(STEMS), frames + 2 * REACH, len(self._silence))
        for (instrument, drum), notes in voices(scores, frames / LATENT_HZ, first_s).items():
            for number, (row, start_s, held_s, pitch, velocity) in enumerate(notes):
                stem = row % len(STEMS)
                at = round(start_s * LATENT_HZ * PLACES)
                frame, place = divmod(at, PLACES)
                sample = _sample(stem, instrument, drum, pitch, held_s, number)
                wave = self._of(sample)[place]
                low, high = max(frame, 0), min(frame + len(wave), rows.shape[1])  # REACH frames of it come before
                if low < high:
                    rows[row, low:high] += velocity**self._squared * wave[low - frame : high - frame]
        return rows[:, REACH:-REACH].unflatten(0, (len(scores), len(STEMS)))

    def latents(self, parts: Tensor) -> Tensor:
        """What the encoder makes of sounds whose parts are these, [..., C]."""
        linear, powers = parts[..., : -bands.COUNT], parts[..., -bands.COUNT :]
        return torch.cat([linear, bands.GAIN * bands.level(powers)], dim=-1) + self._silence

    def _of(self, sample: Sample) -> Tensor:
        """[PLACES, T, C], the first REACH frames before the note. Made when first asked for."""
        if sample not in self._made:
            held_s = SHORTEST_S * LENGTHS**sample.size
            wave = played(sample.instrument, sample.drum, sample.pitch, held_s, VELOCITY, sample.pitch)
            linear = _linear(wave, self._kernels[sample.stem])
            powers = _powers(VELOCITY * wave * self._sides[sample.stem][:, None]) / VELOCITY**2  # exact when so loud
            self._made[sample] = torch.cat([linear, powers], dim=-1)
        return self._made[sample]


def _rows(length: int) -> int:
    """Latent frames that a wave of `length` takes wherever in the first of them it begins."""
    return -(-(length + HOP) // HOP)


@torch.no_grad()
def _linear(wave: Tensor, weights: Tensor) -> Tensor:
    """[PLACES, T, C - 16] of a wave [n], the first REACH frames before it."""
    rows = torch.zeros(PLACES, (_rows(len(wave)) + 4 * REACH) * HOP)
    for place in range(PLACES):
        at = 2 * REACH * HOP + place * HOP // PLACES
        rows[place, at : at + len(wave)] = wave
    return rows.unfold(1, weights.shape[1], HOP) @ weights.T


@torch.no_grad()
def _powers(wave: Tensor) -> Tensor:
    """[PLACES, T, 16] of a wave [2, n], the first REACH frames before it."""
    frames, cell = _rows(wave.shape[1]) + 2 * REACH, HOP // PLACES
    padded = nn.functional.pad(wave, (REACH * HOP, frames * HOP - REACH * HOP - wave.shape[1]))
    cells = bands.rises(padded[None])[0].unflatten(-1, (-1, cell)).mean(-1)  # [4, frames * PLACES]
    moved = torch.stack([nn.functional.pad(cells, (place, -place)) for place in range(PLACES)])
    levels = moved.unflatten(-1, (frames, bands.PARTS, -1)).mean(-1)  # [PLACES, 4, frames, parts]
    return bands.power(levels.permute(0, 2, 1, 3).flatten(2))


def _sample(stem: int, instrument: str, drum: int, pitch: int, held_s: float, number: int) -> Sample:
    if drum >= 0:
        return Sample(stem, instrument, drum, number % HISSES, 0)
    size = max(0, round(math.log(held_s / SHORTEST_S, LENGTHS)))
    return Sample(stem, instrument, -1, pitch, size)
