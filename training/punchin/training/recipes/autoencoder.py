"""The first stage: the autoencoder. Its encoder is fitted at once, its decoder learns from crops of our own mixes.

The encoder stays as it is fitted: a linear code and levels of bands, from which `oneshots` can add up songs.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from punchin.engine.vae import NormedConv, Vae
from punchin.protocol.limits import HOP, LATENT_HZ
from punchin.training.recipes.components import begin_as_components
from punchin.training.recipes.loop import Stage
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.rooms import driven, roomed
from punchin.training.recipes.score import STEMS
from punchin.training.recipes.songs import Composer, Song
from punchin.training.recipes.soundfont import Band
from punchin.training.recipes.synth import render
from punchin.training.spectrum import distance, low_distance, si_sdr_db

SEED: Final = 101
PEAK_LR, CROPS = 1e-3, 5  # the learning rate, and the smallest batch that it is right for
SDR: Final = 0.06  # a decibel of SI-SDR is worth this much spectral distance
LOW: Final = 0.2  # and the distance below 1.5 kHz once more
GATED: Final = 0.3  # of the crops begin and end with silence
SAMPLED: Final = 0.5  # of the songs are played on a soundfont, where one is given
ALL, ALONE = 0.4, 0.33  # of the crops have all stems, or one; the others some
DRIVEN, ROOMED = 0.2, 0.4  # of the crops are overdriven, or heard in a room or through a body
DRIVE: Final = (1.0, 6.0)
DECAY_S: Final = (0.003, 1.2)  # of rooms and bodies, to -60 dB
WET: Final = (0.1, 1.0)  # what comes back from one beside what goes in
FITTED: Final = 48  # songs to which the encoder is fitted, at most
AT_ONCE: Final = 4  # of them rendered together


class Crops(NamedTuple):
    """What a step trains on: where to cut, how to mix, how to colour."""

    batch: int
    songs: list[Song] | None  # of the batch, where they are new
    sampled: Tensor | None  # the first of them on a soundfont, [songs, 4, 2, n], where they are new and there is one
    song: Tensor  # [B]
    start: Tensor  # [B] audio frames
    gains: Tensor  # [B, 4] of the stems
    drive: Tensor  # [B] how loud it goes into a tanh; 0: past it
    room: Tensor  # [B, 2] seconds of decay, and how much of it is heard
    tilt: Tensor  # [B] of the spectrum: the share of the difference between neighbouring samples that is added
    gate: Tensor  # [B, 2] where sound begins and ends, in parts of the crop: silence must be silent


class AutoencoderStage(Stage[Crops]):
    """The decoder's spectral distances, less SI-SDR."""

    name = "vae"
    weight_decay = 0.0
    betas = (0.8, 0.99)
    ema_decay = 0.997

    def __init__(self, vae: Vae, plan: Plan, device: torch.device, workers: int, soundfont: Path | None = None) -> None:
        self.vae, self.plan, self.device = vae, plan, device
        self.peak_lr = PEAK_LR * min(1.0, plan.crops / CROPS) ** 2  # of two crops, eight steps at 0.4 of it lost ground
        vae.encoder.requires_grad_(False)
        self.module: nn.Module = vae
        self._composer = Composer(plan.audio_songs, workers)
        seconds, count = plan.audio_frames / LATENT_HZ, round(SAMPLED * plan.audio_songs)
        self._band = Band(soundfont, seconds, plan.audio_songs, count, workers) if soundfont else None
        self._prepared = self._rendered = -1
        self._stems = torch.zeros(0)

    def muon_parameters(self) -> list[nn.Parameter]:
        """The decoder's kernels, as directions; their lengths, the biases and the snakes are AdamW's."""
        return [layer.weight_v for layer in self.vae.decoder.modules() if isinstance(layer, NormedConv)]

    def begin(self) -> None:
        """Set the first weights, and the encoder's last."""
        songs = Composer(min(FITTED, 3 * self.plan.audio_songs)).batch(0)
        seconds = min(self.plan.audio_frames / LATENT_HZ, 8.0)
        few = [songs[first : first + AT_ONCE] for first in range(0, len(songs), AT_ONCE)]
        audio = torch.cat([render([each.score for each in part], seconds).sum(1) for part in few])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            begin_as_components(self.vae, audio)

    def prepare(self, step: int) -> Crops:
        """The cuts and gains of a step, and its songs where they are new."""
        batch, plan = step // self.plan.audio_steps, self.plan
        new = batch != self._prepared
        self._prepared = batch
        rng = np.random.default_rng([SEED, step])
        latest = (plan.audio_frames - plan.crop_frames) * HOP
        some = rng.random((plan.crops, len(STEMS))) < 0.6
        one = np.eye(len(STEMS), dtype=bool)[rng.integers(len(STEMS), size=plan.crops)]
        kind = rng.random((plan.crops, 1))
        some = np.where(kind < ALL, True, np.where(kind < ALL + ALONE, one, some | ~some.any(1, keepdims=True)))
        gains = some * rng.uniform(0.5, 1.1, (plan.crops, len(STEMS))) * rng.uniform(0.4, 1.0, (plan.crops, 1))
        tilt = (rng.random(plan.crops) < 0.3) * rng.uniform(-0.4, 2.0, plan.crops)
        drive = (rng.random(plan.crops) < DRIVEN) * _by_ratio(rng, DRIVE, plan.crops)
        decay = _by_ratio(rng, DECAY_S, plan.crops)
        wet = (rng.random(plan.crops) < ROOMED) * _by_ratio(rng, WET, plan.crops)
        gate = np.sort(rng.random((plan.crops, 2)), axis=1)
        gate[rng.random(plan.crops) >= GATED] = 0, 1
        return Crops(
            batch,
            list(self._composer.batch(batch)) if new else None,
            self._band.batch(batch) if new and self._band else None,
            torch.from_numpy(rng.integers(plan.audio_songs, size=plan.crops)),
            torch.from_numpy(rng.integers(latest + 1, size=plan.crops)),
            torch.from_numpy(gains).float(),
            torch.from_numpy(drive).float(),
            torch.from_numpy(np.stack([decay, wet], axis=1)).float(),
            torch.from_numpy(tilt).float(),
            torch.from_numpy(gate),
        )

    def loss(self, step: int, prepared: Crops) -> Tensor:
        """Spectral distance, and the low one, less SI-SDR, of what is played of a sample of the posterior."""
        draws = torch.Generator(self.device).manual_seed(SEED * 2**32 + step)
        audio = self.audio(prepared, draws)
        with self._halves():
            with torch.no_grad():
                posterior = self.vae.encode(audio, audio.shape[-1] // HOP)
                latent = posterior.sample(draws)
            played = self.vae.decode(latent, tile=latent.shape[1])
        unlike = distance(played, audio) + LOW * low_distance(played, audio)
        return unlike - SDR * si_sdr_db(played, audio).mean()

    @torch.no_grad()
    def audio(self, prepared: Crops, draws: torch.Generator) -> Tensor:
        """The crops [B, 2, n], rendered first where their songs are new. The walls of their rooms come from `draws`."""
        if prepared.batch != self._rendered:
            assert prepared.songs is not None
            scores, firsts = [s.score for s in prepared.songs], [s.first_s for s in prepared.songs]
            self._stems = render(scores, self.plan.audio_frames / LATENT_HZ, self.device, prepared.batch, firsts)
            if prepared.sampled is not None:
                self._stems[: len(prepared.sampled)] = prepared.sampled.to(self.device)
            self._rendered = prepared.batch
        frames = self.plan.crop_frames * HOP
        cut = torch.stack(
            [
                self._stems[song, :, :, start : start + frames]
                for song, start in zip(prepared.song.tolist(), prepared.start.tolist(), strict=True)
            ]
        )
        mix = torch.einsum("bscn,bs->bcn", cut, prepared.gains.to(self.device))
        mix = roomed(driven(mix, prepared.drive.to(self.device)), prepared.room.to(self.device), draws)
        slope = mix - nn.functional.pad(mix, (1, 0))[..., :-1]
        part = torch.arange(frames, device=self.device) / frames
        begins, ends = prepared.gate.to(self.device)[:, :, None, None].unbind(1)
        return (mix + prepared.tilt.to(self.device)[:, None, None] * slope) * ((part >= begins) & (part < ends))

    def _halves(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.crops_in_halves)

    def close(self) -> None:
        """End what composes and plays ahead."""
        self._composer.close()
        if self._band is not None:
            self._band.close()


def _by_ratio(rng: np.random.Generator, span: tuple[float, float], count: int) -> NDArray[np.float64]:
    """Draws from a span, each octave of it as likely as the others."""
    return np.exp(rng.uniform(math.log(span[0]), math.log(span[1]), count))
