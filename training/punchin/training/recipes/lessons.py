"""What a step of music is asked: for each item a song, a task, a window, a prompt. From the step's number alone.

Tasks as ACE-Step knows them, with what they show and what they want: text2music (nothing), repaint (the target with a
hole), cover (the notes on other instruments, through the codes), lego (the rest), extract (the mix), complete (a stem).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from punchin.engine.prompts import caption_prompt, instruction, metas
from punchin.engine.text import CAPTION_TOKENS
from punchin.protocol.limits import LATENT_HZ
from punchin.protocol.order import Task
from punchin.training.recipes.library import Library, Version, heard_in
from punchin.training.recipes.score import TRACKS, caption
from punchin.training.recipes.songs import Song

SEED: Final = 303
# Shares of the tasks; text2music only for songs that begin with their first bar at a whole tempo: then it says it all.
ALIGNED: Final[dict[Task, float]] = {
    "text2music": 0.60, "repaint": 0.12, "cover": 0.18, "lego": 0.05, "extract": 0.02, "complete": 0.03,
}  # fmt: skip
ANYWHERE: Final[dict[Task, float]] = {"repaint": 0.38, "cover": 0.34, "lego": 0.16, "extract": 0.05, "complete": 0.07}
OWN: Final = 0.4  # of the covers through codes hear their target's own, as the original's training does
UNTOLD: Final = 0.1  # of the items get no condition at all, so that the model can be guided
OUTSIDE: Final = 0.2  # how much the frames that repaint keeps count beside those it makes
REFERENCE_EVERY: Final = 8  # steps, of which one has reference audio
FAST_BPM: Final = 135.0  # a quarter of the songs are faster: those are what comes out at half its tempo
FAST: Final = 4.0  # times as often as others are they drawn


@dataclass(frozen=True, slots=True)
class Lesson:
    """One item."""

    song: Song
    task: Task
    target: Version
    source: Version | None
    coded: bool  # the source is shown through the codes
    start: int  # latent frames, of the window in the song
    region: tuple[int, int] | None  # latent frames in the window that are to be new


@dataclass(frozen=True, slots=True)
class Said:
    """A prompt, and what it says."""

    text: str
    genre: str
    instruments: tuple[str, ...]  # that play; one of several may be left out of the words
    bpm: float | None
    key: str | None
    signature: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The items of a step as tensors: B items, T latent frames, L tokens. All on the CPU."""

    newest: int
    frames: int
    target: Tensor  # [B] versions
    source: Tensor  # [B]; where `shown` is False, of no meaning
    shown: Tensor  # [B] bool: a source is shown
    coded: Tensor  # [B] bool
    place: Tensor  # [B]
    start: Tensor  # [B]
    mask: Tensor  # [B, T]: 1 where the result is new
    hole: Tensor  # [B, T]: 1 where the source is silenced
    counts: Tensor  # [B, T]: what the loss weighs
    ids: Tensor  # [B, L] tokens of the prompts, padded at the right
    told: Tensor  # [B, L] bool
    untold: Tensor  # [B] bool: without any condition
    referenced: bool  # each item hears its target as reference audio


def batch(step: int, library: Library, words: Tokenizer) -> Batch:
    """What step `step` is asked."""
    plan, newest = library.plan, library.newest(step)
    rng = np.random.default_rng([SEED, step])
    referenced = step % REFERENCE_EVERY == REFERENCE_EVERY - 1
    frames = int(max(plan.windows) if referenced else rng.choice(plan.windows))
    count = max(1, min(plan.most_items, plan.batch_frames // frames))
    lessons, places = zip(*(_drawn(rng, library, newest, frames) for _ in range(count)), strict=True)
    texts = [said(rng, each, frames, quiet=referenced and rng.random() < 0.5).text for each in lessons]
    ids, told = tokens(texts, words)
    mask, hole, counts = torch.ones(count, frames), torch.zeros(count, frames), torch.ones(count, frames)
    for row, each in enumerate(lessons):
        if each.region is not None:
            inside = slice(*each.region)
            mask[row] = 0
            mask[row, inside] = 1
            counts[row] = OUTSIDE
            counts[row, inside] = 1
            if each.task == "repaint":
                hole[row, inside] = 1
    return Batch(
        newest=newest,
        frames=frames,
        target=torch.tensor([int(each.target) for each in lessons]),
        source=torch.tensor([int(each.source or 0) for each in lessons]),
        shown=torch.tensor([each.source is not None for each in lessons]),
        coded=torch.tensor([each.coded for each in lessons]),
        place=torch.tensor(places),
        start=torch.tensor([each.start for each in lessons]),
        mask=mask,
        hole=hole,
        counts=counts,
        ids=ids,
        told=told,
        untold=torch.from_numpy(rng.random(count) < UNTOLD),
        referenced=referenced,
    )


def tokens(texts: list[str], words: Tokenizer) -> tuple[Tensor, Tensor]:
    """Token ids [B, L], padded at the right, where a causal encoder never looks; and which of them are real."""
    rows = [encoding.ids[:CAPTION_TOKENS] for encoding in words.encode_batch(texts)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    told = torch.zeros(ids.shape, dtype=torch.bool)
    for row, each in enumerate(rows):
        ids[row, : len(each)] = torch.tensor(each)
        told[row, : len(each)] = True
    return ids, told


def _drawn(rng: np.random.Generator, library: Library, newest: int, frames: int) -> tuple[Lesson, int]:
    """A lesson on a song of the library, and the song's place."""
    number = int(rng.choice(library.batches(newest)))
    songs = library.draft(number)
    share = np.array([FAST if song.score.bpm > FAST_BPM else 1.0 for song in songs])
    index = int(rng.choice(len(songs), p=share / share.sum()))
    drawn = lesson(rng, songs[index], library.plan.song_frames, frames)
    return drawn, library.place(number, index)


def lesson(rng: np.random.Generator, song: Song, song_frames: int, frames: int) -> Lesson:
    """What is asked of a window of `frames` of a song of `song_frames`."""
    shares = ALIGNED if song.aligned else ANYWHERE
    task: Task = list(shares)[int(rng.choice(len(shares), p=np.array([*shares.values()]) / sum(shares.values())))]
    alone = rng.random() < (0.6 if task == "cover" else 0.25)
    coded = task == "cover" and rng.random() < 0.85
    target, source = {
        "text2music": (Version.LONE if alone else Version.MIX, None),
        "repaint": (Version.LONE if alone else Version.MIX,) * 2,
        "cover": (Version.LONE, Version.OTHER_LONE) if alone else (Version.MIX, Version.OTHER_MIX),
        "lego": (Version.LONE, Version.REST),
        "extract": (Version.LONE, Version.MIX),
        "complete": (Version.MIX, Version.LONE),
    }[task]
    if coded and rng.random() < OWN:
        source = target
    region = None
    if task == "repaint" or (task == "lego" and rng.random() < 0.3):
        region = _region(rng, frames)
    start = 0 if task == "text2music" else int(rng.integers(song_frames - frames + 1))
    return Lesson(song, task, target, source, coded, start, region)


def _region(rng: np.random.Generator, frames: int) -> tuple[int, int]:
    """A hole of 8 frames to three fifths of the window; now and then it reaches an end."""
    size = int(rng.integers(8, max(9, int(0.6 * frames))))
    first = int(rng.integers(frames - size + 1))
    if rng.random() < 0.15:
        first = int(rng.choice((0, frames - size)))
    return first, first + size


def said(rng: np.random.Generator, asked: Lesson, frames: int, *, quiet: bool = False) -> Said:
    """The released prompt of a lesson. `quiet`: without instruments, which the reference then tells."""
    score, stems = asked.song.score, heard_in(asked.song, asked.target)
    names: tuple[str, ...] = ()
    if asked.task in ("lego", "extract"):
        names = (TRACKS[score.instruments[asked.song.lone]],)
    elif asked.task == "complete":
        names = tuple(dict.fromkeys(TRACKS[score.instruments[stem]] for stem in asked.song.rest))
    words = score.genre.name if quiet else caption(score, stems, rng)
    bpm = score.bpm if rng.random() < 0.92 else None
    key = score.key if rng.random() < 0.7 else None
    signature = score.signature if rng.random() < 0.7 else None
    lines = metas(bpm, key, None if signature is None else str(signature), frames / LATENT_HZ)
    return Said(
        caption_prompt(instruction(asked.task, names), words, lines),
        score.genre.name,
        () if quiet else tuple(score.instruments[stem] for stem in stems),
        bpm,
        key,
        signature,
    )
