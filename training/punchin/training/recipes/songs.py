"""Songs by number, without end: a score, a second set of instruments for it, and what of it is heard.

No torch here, so that songs can be composed by other processes while this one trains.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from punchin.training.recipes.score import PITCHED, STEMS, Score, Stem, compose

HELD_OUT: Final = 2**40  # songs from this number on are never trained on
BASSES: Final = ("finger bass", "synth bass", "sub bass")
KITS: Final = ("acoustic drums", "electronic drums")
CHOICES: Final[dict[Stem, tuple[str, ...]]] = {"drums": KITS, "bass": BASSES, "chords": PITCHED, "lead": PITCHED}
_ALIGNED: Final = 0.85  # share of songs that begin with their first bar: the only ones for text2music


@dataclass(frozen=True, slots=True)
class Song:
    """One song as the recipe uses it."""

    score: Score
    other: Score  # the same notes, each stem on another instrument: what a cover starts from
    first_s: float  # where in it the sound begins; 0: with the first bar
    heard: tuple[Stem, ...]  # the stems of the mix, two or more
    lone: Stem  # one of them

    @property
    def aligned(self) -> bool:
        """Whether it begins with its first bar at a whole tempo, so that its prompt says where each beat is."""
        return self.first_s == 0 and self.score.whole

    @property
    def rest(self) -> tuple[Stem, ...]:
        """The mix without the lone stem."""
        return tuple(stem for stem in self.heard if stem != self.lone)


def song(number: int) -> Song:
    """The song with this number; equal numbers give equal songs."""
    rng = np.random.default_rng([number, 7])
    score = compose(number)
    others = dict(score.instruments)
    for stem, choice in CHOICES.items():
        others[stem] = str(rng.choice([each for each in choice if each != score.instruments[stem]]))
    first_s = 0.0 if rng.random() < _ALIGNED else float(rng.uniform(0, score.seconds))
    count = len(STEMS) if rng.random() < 0.6 else int(rng.integers(2, len(STEMS)))
    heard = tuple(STEMS[i] for i in sorted(rng.choice(len(STEMS), count, replace=False).tolist()))
    return Song(score, replace(score, instruments=others), first_s, heard, heard[int(rng.integers(count))])


def _die_with_parent() -> None:
    """End this process when the one that started it is gone, also by a kill: the pool's queue would wait for ever."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class Composer:
    """Batches of songs by number, composed ahead by other processes where `workers` is above 0."""

    def __init__(self, size: int, workers: int = 0, first: int = 0) -> None:
        self.size, self.first = size, first
        self._coming: dict[int, list[Future[Song]]] = {}
        spawn = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_die_with_parent) if workers else None

    def batch(self, number: int) -> Sequence[Song]:
        """Songs `number * size` up to the next batch; the batch after it is begun."""
        if self._pool is None:
            return [song(each) for each in self._numbers(number)]
        for each in (number, number + 1):
            if each not in self._coming:
                self._coming[each] = [self._pool.submit(song, n) for n in self._numbers(each)]
        return [future.result() for future in self._coming.pop(number)]

    def close(self) -> None:
        """End the other processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _numbers(self, number: int) -> range:
        return range(self.first + number * self.size, self.first + (number + 1) * self.size)
