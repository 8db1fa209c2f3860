"""The first stage, the autoencoder from principal components on, and the last, its decoder alone.

Both learn from crops of mixes of our own renders.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from punchin.engine.codec import Posterior
from punchin.engine.vae import Vae
from punchin.protocol.limits import HOP, LATENT_HZ
from punchin.training.recipes.components import begin_as_components
from punchin.training.recipes.loop import Stage
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import STEMS
from punchin.training.recipes.songs import Composer, Song
from punchin.training.recipes.synth import render
from punchin.training.spectrum import distance, si_sdr_db

SEED: Final = 101
PEAK_LR, CROPS = 4e-4, 32  # the learning rate, and the batch that it is right for
KL: Final = 2e-3
SDR: Final = 0.03  # a decibel of SI-SDR is worth this much spectral distance
FITTED: Final = 16  # songs from which the components are made, at most


class Crops(NamedTuple):
    """What a step trains on: where to cut, how to mix, how to colour."""

    batch: int
    songs: list[Song] | None  # of the batch, where they are new
    song: Tensor  # [B]
    start: Tensor  # [B] audio frames
    gains: Tensor  # [B, 4] of the stems
    tilt: Tensor  # [B] of the spectrum: the share of the difference between neighbouring samples that is added


class AutoencoderStage(Stage[Crops]):
    """Spectral distance, SI-SDR and a small KL. Gives latents of about unit variance."""

    name = "vae"
    weight_decay = 0.0
    betas = (0.8, 0.99)
    first_song = 0

    def __init__(self, vae: Vae, plan: Plan, device: torch.device, workers: int) -> None:
        self.vae, self.plan, self.device = vae, plan, device
        self.peak_lr = PEAK_LR * (plan.crops / CROPS) ** 0.5  # small batches of Adam want small steps
        self.module: nn.Module = vae
        self._composer = Composer(plan.audio_songs, workers, self.first_song)
        self._prepared = self._rendered = -1
        self._stems = torch.zeros(0)

    def begin(self) -> None:
        """Set the first weights: principal components of the first songs."""
        songs = Composer(min(FITTED, self.plan.audio_songs)).batch(0)
        seconds = min(self.plan.audio_frames / LATENT_HZ, 8.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            begin_as_components(self.vae, render([each.score for each in songs], seconds).sum(1))

    def prepare(self, step: int) -> Crops:
        """The cuts and gains of a step, and its songs where they are new."""
        batch, plan = step // self.plan.audio_steps, self.plan
        new = batch != self._prepared
        self._prepared = batch
        rng = np.random.default_rng([SEED, step])
        room = (plan.audio_frames - plan.crop_frames) * HOP
        some = rng.random((plan.crops, len(STEMS))) < 0.6
        some |= (rng.random((plan.crops, 1)) < 0.6) | ~some.any(1, keepdims=True)
        gains = some * rng.uniform(0.5, 1.1, (plan.crops, len(STEMS))) * rng.uniform(0.4, 1.0, (plan.crops, 1))
        tilt = (rng.random(plan.crops) < 0.3) * rng.uniform(-0.4, 2.0, plan.crops)
        return Crops(
            batch,
            list(self._composer.batch(batch)) if new else None,
            torch.from_numpy(rng.integers(plan.audio_songs, size=plan.crops)),
            torch.from_numpy(rng.integers(room + 1, size=plan.crops)),
            torch.from_numpy(gains).float(),
            torch.from_numpy(tilt).float(),
        )

    def loss(self, step: int, prepared: Crops) -> Tensor:
        """Spectral distance, less SI-SDR, plus KL."""
        audio = self.audio(prepared)
        posterior = self._heard(audio)
        mean, std = posterior
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).mean()
        return self._unlike(self._played(posterior, step), audio) + KL * kl

    @torch.no_grad()
    def audio(self, prepared: Crops) -> Tensor:
        """The crops [B, 2, n], rendered first where their songs are new."""
        if prepared.batch != self._rendered:
            assert prepared.songs is not None
            scores, firsts = [s.score for s in prepared.songs], [s.first_s for s in prepared.songs]
            self._stems = render(scores, self.plan.audio_frames / LATENT_HZ, self.device, prepared.batch, firsts)
            self._rendered = prepared.batch
        frames = self.plan.crop_frames * HOP
        cut = torch.stack(
            [
                self._stems[song, :, :, start : start + frames]
                for song, start in zip(prepared.song.tolist(), prepared.start.tolist(), strict=True)
            ]
        )
        mix = torch.einsum("bscn,bs->bcn", cut, prepared.gains.to(self.device))
        slope = mix - nn.functional.pad(mix, (1, 0))[..., :-1]
        return mix + prepared.tilt.to(self.device)[:, None, None] * slope

    def _heard(self, audio: Tensor) -> Posterior:
        with self._halves():
            return self.vae.encode(audio, audio.shape[-1] // HOP)

    def _played(self, posterior: Posterior, step: int) -> Tensor:
        """Audio [B, 2, n] of a sample."""
        with self._halves():
            latent = posterior.sample(torch.Generator(self.device).manual_seed(SEED * 2**32 + step))
            return self.vae.decode(latent, tile=latent.shape[1])

    def _unlike(self, played: Tensor, audio: Tensor) -> Tensor:
        return distance(played, audio) - SDR * si_sdr_db(played, audio).mean()

    def _halves(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.crops_in_halves)

    def close(self) -> None:
        """End what composes ahead."""
        self._composer.close()


class DecoderStage(AutoencoderStage):
    """The decoder alone, at the end: latents keep their meaning for the music, what is made of them gets clearer."""

    name = "decoder"
    first_song = 2**20  # others than the autoencoder has heard

    def __init__(self, vae: Vae, plan: Plan, device: torch.device, workers: int) -> None:
        super().__init__(vae, plan, device, workers)
        self.module = vae.decoder.requires_grad_(True)

    def loss(self, step: int, prepared: Crops) -> Tensor:
        """Spectral distance, less SI-SDR."""
        audio = self.audio(prepared)
        with torch.no_grad():
            posterior = self._heard(audio)
        return self._unlike(self._played(posterior, step), audio)
