"""How much of everything the recipe does at once, by what it runs on. The result differs in quality, not in kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Sizes of the data on the device and of the batches. Lengths in latent frames of 40 ms."""

    audio_songs: int  # rendered for the autoencoder at once
    audio_frames: int  # of each
    audio_steps: int  # trained on them before new ones are rendered
    crops: int  # in a batch of the autoencoder
    crop_frames: int
    crops_in_halves: bool  # the autoencoder computes in bfloat16: half the time where the processor knows it

    prompts: int  # read in a step of the words

    songs: int  # played for the codes and the music at once
    song_frames: int
    song_steps: int
    songs_kept: int  # batches of songs that stay in use, the newest and those before it
    batch_frames: int  # latent frames in a batch of music: the shorter its windows, the more of them
    windows: tuple[int, ...]
    most_items: int

    record_steps: int  # losses are averaged over these
    checkpoint_s: float
    share: Mapping[str, float]  # of the time, by stage
    warmup: int
    steps: Mapping[str, int] | None = None  # instead of time


SHARE: Final = {"vae": 0.40, "codes": 0.05, "words": 0.03, "metre": 0.07, "music": 0.45}
SLOW: Final = {"vae": 0.30, "codes": 0.04, "words": 0.02, "metre": 0.06, "music": 0.58}  # on a CPU

GPU: Final = Plan(
    audio_songs=128,
    audio_frames=384,
    audio_steps=100,
    crops=32,
    crop_frames=48,
    crops_in_halves=True,
    prompts=512,
    songs=64,
    song_frames=768,
    song_steps=8,
    songs_kept=32,
    batch_frames=49_152,
    windows=(128, 192, 256, 384, 512, 768),
    most_items=256,
    record_steps=25,
    checkpoint_s=60,
    share=SHARE,
    warmup=300,
)
CPU: Final = Plan(
    audio_songs=16,
    audio_frames=192,
    audio_steps=60,
    crops=5,
    crop_frames=24,
    crops_in_halves=True,
    prompts=64,
    songs=12,
    song_frames=384,
    song_steps=4,  # playing them takes as long as an eighth of a step
    songs_kept=16,
    batch_frames=3_072,
    windows=(160, 256, 384),
    most_items=24,
    record_steps=10,
    checkpoint_s=120,
    share=SLOW,
    warmup=100,
)
SMOKE: Final = Plan(  # a minute of music, in a minute of one core
    audio_songs=4,
    audio_frames=128,
    audio_steps=50,
    crops=2,
    crop_frames=12,
    crops_in_halves=False,
    prompts=8,
    songs=3,
    song_frames=256,
    song_steps=50,
    songs_kept=2,
    batch_frames=512,
    windows=(128, 256),
    most_items=4,
    record_steps=4,
    checkpoint_s=0,
    share=SHARE,
    warmup=4,
    steps={"vae": 8, "codes": 24, "words": 8, "metre": 8, "music": 24},
)
