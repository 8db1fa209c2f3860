"""Songs in memory: the newest batches of an endless row, as latents of the mixes that the tasks need.

Axes: V versions, N songs, T latent frames, C latent channels.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor, nn

from punchin.engine.tokenizer import AudioDetokenizer, AudioTokenizer
from punchin.training.recipes import envelope
from punchin.training.recipes.oneshots import OneShots
from punchin.training.recipes.plan import Plan
from punchin.training.recipes.score import STEMS, Stem
from punchin.training.recipes.songs import Composer, Song


class Version(IntEnum):
    """What of a song was mixed."""

    MIX = 0
    LONE = 1  # one stem of the mix
    REST = 2  # the mix without it
    OTHER_MIX = 3  # the mix on other instruments
    OTHER_LONE = 4


class Library:
    """The batches `newest - songs_kept + 1` to `newest`; older ones are forgotten."""

    def __init__(self, shots: OneShots, plan: Plan, device: torch.device, workers: int) -> None:
        self.plan, self.device = plan, device
        self._shots = shots
        self._composer = Composer(plan.songs, workers)
        self._drafts: dict[int, Sequence[Song]] = {}
        self._lock = threading.Lock()
        self._held: list[int] = [-1] * plan.songs_kept
        shape = len(Version), plan.songs_kept * plan.songs, plan.song_frames, 64
        self.latents = torch.zeros(shape, dtype=torch.float16, device=device)  # [V, N, T, C]

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
        """Play what of the batches up to `newest` is not there yet."""
        for batch in self.batches(newest):
            if self._held[batch % self.plan.songs_kept] == batch:
                continue
            songs = self.draft(batch)
            first = self.place(batch, 0)
            self.latents[:, first : first + len(songs)] = self._played(songs).to(self.latents)
            self._held[batch % self.plan.songs_kept] = batch

    def close(self) -> None:
        """End what composes ahead."""
        self._composer.close()

    def _played(self, songs: Sequence[Song]) -> Tensor:
        """Latents of all versions, [V, songs, T, C]."""
        frames, firsts = self.plan.song_frames, [song.first_s for song in songs]
        own = self._shots.play([song.score for song in songs], firsts, frames)
        other = self._shots.play([song.other for song in songs], firsts, frames)
        mixes = [mixed(other if version >= Version.OTHER_MIX else own, songs, version) for version in Version]
        return self._shots.latents(torch.stack(mixes))


def mixed(stems: Tensor, songs: Sequence[Song], version: Version) -> Tensor:
    """The sum of the parts of those stems [B, 4, T, C] that a version has, [B, T, C]."""
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
        self.ear = nn.Linear(channels, channels // envelope.GROUP)

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, T, C], T a multiple of 5 -> through codes and back [B, T, C], and the levels heard in that."""
        back = self.detokenizer(self.tokenizer(latent).states)
        return back, self.ear(back)
