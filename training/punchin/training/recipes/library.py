"""Encoded songs in memory: the newest batches of an endless row, as latents of the mixes that the tasks need.

Axes: V versions, N songs, T latent frames, C latent channels.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import torch
from torch import Tensor, nn

from punchin.engine.codec import Codec
from punchin.engine.tokenizer import AudioDetokenizer, AudioTokenizer
from punchin.protocol.limits import LATENT_HZ
from punchin.training.recipes import hearing
from punchin.training.recipes.loop import halves
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import STEMS, Stem
from punchin.training.recipes.songs import Composer, Song
from punchin.training.recipes.synth import render

AT_ONCE: Final = {"cuda": 16, "cpu": 2}  # songs rendered and encoded together


class Version(IntEnum):
    """What of a song was mixed."""

    MIX = 0
    LONE = 1  # one stem of the mix
    REST = 2  # the mix without it
    OTHER_MIX = 3  # the mix on other instruments
    OTHER_LONE = 4


class Library:
    """The batches `newest - songs_kept + 1` to `newest`; older ones are forgotten."""

    def __init__(self, codec: Codec, plan: Plan, device: torch.device, workers: int) -> None:
        self.plan, self.device = plan, device
        self._codec = codec
        self._composer = Composer(plan.songs, workers)
        self._drafts: dict[int, Sequence[Song]] = {}
        self._lock = threading.Lock()
        self._held: list[int] = [-1] * plan.songs_kept
        shape = len(Version), plan.songs_kept * plan.songs, plan.song_frames, 64
        self.latents = torch.zeros(shape, dtype=torch.float16, device=device)  # [V, N, T, C]
        self.heard = torch.zeros(shape, dtype=torch.float16, device=device)  # the same of `hearing.frames`

    def newest(self, step: int) -> int:
        """The newest batch that step `step` may use."""
        return step // self.plan.song_steps

    def batches(self, newest: int) -> range:
        """The batches in use while `newest` is the newest."""
        return range(max(0, newest - self.plan.songs_kept + 1), newest + 1)

    def draft(self, batch: int) -> Sequence[Song]:
        """The songs of a batch, not yet sounding. Any thread may ask."""
        with self._lock:
            if batch not in self._drafts:
                self._drafts[batch] = self._composer.batch(batch)
                for old in [each for each in self._drafts if each < batch - self.plan.songs_kept]:
                    del self._drafts[old]
            return self._drafts[batch]

    def place(self, batch: int, song: int) -> int:
        """Where a song of a batch stands on the axis N."""
        return batch % self.plan.songs_kept * self.plan.songs + song

    @torch.no_grad()
    def fill(self, newest: int) -> None:
        """Render and encode what of the batches up to `newest` is not there yet."""
        for batch in self.batches(newest):
            if self._held[batch % self.plan.songs_kept] == batch:
                continue
            songs, each = self.draft(batch), AT_ONCE[self.device.type]
            for first in range(0, len(songs), each):
                some = songs[first : first + each]
                at = slice(self.place(batch, first), self.place(batch, first) + len(some))
                self.latents[:, at], self.heard[:, at] = self._encoded(some, batch * self.plan.songs + first)
            self._held[batch % self.plan.songs_kept] = batch

    def close(self) -> None:
        """End what composes ahead."""
        self._composer.close()

    def _encoded(self, songs: Sequence[Song], seed: int) -> tuple[Tensor, Tensor]:
        """Latents and levels of all versions, [V, songs, T, C]."""
        seconds, firsts = self.plan.song_frames / LATENT_HZ, [song.first_s for song in songs]
        own = render([song.score for song in songs], seconds, self.device, seed, firsts)
        other = render([song.other for song in songs], seconds, self.device, seed, firsts)
        latents: list[Tensor] = []
        heard: list[Tensor] = []
        for version in Version:
            audio = mixed(other if version >= Version.OTHER_MIX else own, songs, version)
            with halves(self.device):
                latents.append(self._codec.encode(audio, self.plan.song_frames).mean)
            heard.append(hearing.frames(audio))
        return torch.stack(latents).half(), torch.stack(heard).half()


def mixed(stems: Tensor, songs: Sequence[Song], version: Version) -> Tensor:
    """The sum of those stems [B, 4, 2, n] that a version has, [B, 2, n]."""
    gains = torch.zeros(len(songs), len(STEMS), device=stems.device)
    for row, song in enumerate(songs):
        for stem in heard_in(song, version):
            gains[row, STEMS.index(stem)] = 1
    return (stems * gains[:, :, None, None]).sum(1)


def heard_in(song: Song, version: Version) -> tuple[Stem, ...]:
    """The stems of a version."""
    if version in (Version.LONE, Version.OTHER_LONE):
        return (song.lone,)
    return song.rest if version == Version.REST else song.heard


class Codes(nn.Module):
    """Tokenizer, detokenizer, and a small ear that reads levels from what they give; the ear is for training alone."""

    def __init__(self, tokenizer: AudioTokenizer, detokenizer: AudioDetokenizer, channels: int) -> None:
        super().__init__()
        self.tokenizer, self.detokenizer = tokenizer, detokenizer
        self.ear = nn.Linear(channels, hearing.BANDS * hearing.STEPS)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, T, C], T a multiple of 5 -> through codes and back [B, T, C], and the levels heard in that."""
        back = self.detokenizer(self.tokenizer(latent).states)
        return back, self.ear(back)
