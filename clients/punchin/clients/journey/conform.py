"""Step 3 of a journey and its way back: what is heard at a moving tempo goes to the model at a steady one.

A `Way` says which part of the model's window is made anew and which must come back, and takes audio there and back.
At a steady tempo nothing is touched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from punchin.clients.journey.window import Window
from punchin.protocol.limits import HOP, MODEL_HZ
from punchin.session.splice import EARLY_S, FADES_S
from punchin.session.tempo import TempoMap
from punchin.session.warp import SAME_S, WORTH_IT, Conformed, Warp, plan, warp

Audio = NDArray[np.float32]

LEAD_S = FADES_S[0] + EARLY_S  # a window without context begins this much before its region
ROUNDED_FRAMES = 2  # a window's ends are sums of two rounded numbers: up to a frame beyond their bar lines
REACH_S = 1.0  # beyond what is wanted also comes back: the stretcher hears what it joins
TICK_HZ = 28_224_000  # of a clock that every usual rate's frames fall on


class Way(Protocol):
    """There and back. All frames are 48 kHz, or latent ones, from the window's start."""

    @property
    def bpm(self) -> float | None:
        """The steady tempo that the model hears; None where that is the session's own."""
        ...

    @property
    def grid_error_ms(self) -> float | None:
        """How far off the sampled tempo map is at most; None where it is not used."""
        ...

    @property
    def mask(self) -> tuple[int, int]:
        """Latent frames [first, last) that are made anew."""
        ...

    @property
    def wanted(self) -> tuple[int, int]:
        """Frames [first, last) of the model's window that must come back."""
        ...

    @property
    def first(self) -> int:
        """The session's frame at which what `back` gives begins; a frame of the target's rate too."""
        ...

    @property
    def points(self) -> bytes:
        """What the way depends on: another tempo map gives other bytes."""
        ...

    def there(self, audio: Audio) -> Audio:
        """[channels, window.model_frames] as the model hears it."""
        ...

    def back(self, made: Audio) -> Audio:
        """The wanted frames as the session needs them, from `first` on."""
        ...


def way(tempo: TempoMap, window: Window, origin_s: float) -> Way:
    """The way of a window whose frame 0 is at `origin_s` of project time: warped only where the tempo moves in it.

    A tempo that changes at the window's very edge, in the lead or where frames were rounded, is steady in it.
    """
    start_s, stop_s = (origin_s + frame / window.rate_hz for frame in (window.start, window.stop))
    edge_s = ROUNDED_FRAMES / window.rate_hz
    if tempo.varies(start_s + LEAD_S + edge_s, stop_s - edge_s) <= WORTH_IT:
        return Straight(window)
    conformed = plan(tempo.grid(start_s, stop_s), start_s, stop_s)
    return Bent(window, conformed, tempo.grid_error_ms(start_s, stop_s))


@dataclass(frozen=True)
class Straight:
    """The tempo is steady: audio goes and comes as it is."""

    window: Window
    bpm: None = None
    grid_error_ms: None = None
    points: bytes = b""

    @property
    def mask(self) -> tuple[int, int]:
        """See `Way`."""
        return self.window.mask

    @property
    def wanted(self) -> tuple[int, int]:
        """See `Way`."""
        return self.window.wanted

    @property
    def first(self) -> int:
        """See `Way`."""
        return self.window.wanted[0]

    def there(self, audio: Audio) -> Audio:
        """See `Way`."""
        return audio

    def back(self, made: Audio) -> Audio:
        """See `Way`."""
        return made


@dataclass(frozen=True)
class Bent:
    """The tempo moves: the window is warped to its mean tempo, which keeps its length, and what is made comes back."""

    window: Window
    conformed: Conformed
    grid_error_ms: float

    @property
    def bpm(self) -> float:
        """See `Way`."""
        return self.conformed.bpm

    @property
    def points(self) -> bytes:
        """See `Way`. In ticks, so that the same map gives the same bytes from whatever origin it was reckoned."""
        ticks = np.rint(np.concatenate([self.conformed.warp.from_s, self.conformed.warp.to_s]) * TICK_HZ)
        return ticks.astype("<i8").tobytes()

    @property
    def mask(self) -> tuple[int, int]:
        """See `Way`."""
        span = self.window.touched - self.window.start, self.window.end - self.window.start
        first, last = self.conformed.warp(np.array(span) / self.window.rate_hz) * MODEL_HZ / HOP
        return math.floor(first), math.ceil(last)

    @cached_property
    def span(self) -> tuple[int, int]:
        """The session's 48 kHz frames that come back, `REACH_S` more than is spliced on both sides."""
        step = MODEL_HZ // math.gcd(MODEL_HZ, self.window.rate_hz)
        first, last = self.window.wanted
        reach = round(REACH_S * MODEL_HZ)
        return max(first - reach, 0) // step * step, min(last + reach, self.window.model_frames)

    @property
    def first(self) -> int:
        """See `Way`."""
        return self.span[0]

    @property
    def wanted(self) -> tuple[int, int]:
        """See `Way`."""
        first, last = self.conformed.warp(np.array(self.span) / MODEL_HZ) * MODEL_HZ
        return math.floor(first), min(math.ceil(last), self.window.model_frames)

    def there(self, audio: Audio) -> Audio:
        """See `Way`."""
        made = warp(audio, MODEL_HZ, self.conformed.warp)
        missing = self.window.model_frames - made.shape[1]  # its length is rounded, the window's rounded up
        return np.pad(made, ((0, 0), (0, missing))) if missing > 0 else made[:, : self.window.model_frames]

    def back(self, made: Audio) -> Audio:
        """See `Way`."""
        forth = self.conformed.warp
        first_s, last_s = (frame / MODEL_HZ for frame in self.span)
        inside = forth.from_s[(forth.from_s > first_s + SAME_S) & (forth.from_s < last_s - SAME_S)]
        session_s = np.concatenate([[first_s], inside, [last_s]])
        model_s = forth(session_s) - self.wanted[0] / MODEL_HZ
        model_s[0], model_s[-1] = 0.0, made.shape[1] / MODEL_HZ  # less than a frame from where they are
        return warp(made, MODEL_HZ, Warp(model_s, session_s - first_s))
