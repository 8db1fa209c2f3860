"""Conform and un-conform: from a moving tempo to a steady one and back, attacks kept as attacks.

A stretcher smears what is sudden. So the sound is cut at its attacks: each attack is copied as it is to where it
belongs, and only what rings on after it is stretched, up to the next attack. Nothing rings into an attack from its
future, and every attack lies where the grid says, to the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from punchin.protocol.errors import PunchinError
from punchin.session import onsets
from punchin.session.splice import correlation
from punchin.session.tempo import Grid

Audio = NDArray[np.float32]
Floats = NDArray[np.float64]

WORTH_IT = 0.001  # a grid that moves by less than 0.1 % inside the window is left alone: design's rule
SAME_S = 1e-9  # moments that rounding alone set apart: a warp, which must rise, has no room for both

_ATTACK_S = 0.04  # copied as it is from each attack on, at most ...
_ATTACK_SHARE = 0.4  # ... this part of the way to the next one, as it was or as it will be
_BEFORE_S = 0.002  # and this much before it: an attack begins before it is found
_JOIN_S = 0.012  # crossfade from attack to ring
_BLEND_S = 0.05  # crossfade between two pieces where nothing begins
_APART_S = 0.04  # attacks nearer than this move as one, with the strongest of them
_BEND_S = 0.0015  # a piece whose path is less straight than this is cut in two
_SHORTEST_S = 0.25  # and no piece without an attack is shorter
_AFTER_ATTACK = 0.75  # of the copied part: what is stretched after an attack begins no earlier than the last of these
_SLIDE_S = 0.005  # how far a ring may move to meet what it joins
_AROUND_S = 0.13  # of sound on both sides of what is stretched: more than the stretcher's block
_SEED = 1  # the stretcher's; fixed, so that the same sound warps the same way


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """A path through time: the moment `from_s[i]` of a sound goes to `to_s[i]`, linear between.

    Both [P] float64, P >= 2, strictly rising, from 0.0 on; the last ones are the lengths before and after.
    """

    from_s: Floats
    to_s: Floats

    def __post_init__(self) -> None:
        if (
            len(self.from_s) != len(self.to_s)
            or not (np.diff(self.from_s) > 0).all()
            or not (np.diff(self.to_s) > 0).all()
        ):
            raise ValueError(f"a warp must rise in both times, got {self.from_s} and {self.to_s}")

    @property
    def inverse(self) -> Warp:
        """The way back."""
        return Warp(self.to_s, self.from_s)

    def __call__(self, at_s: ArrayLike) -> Floats:
        """Where moments go, in the shape of `at_s`; beyond the ends at the ends' own speed (1)."""
        at = np.asarray(at_s, dtype=np.float64)
        inside = np.interp(at, self.from_s, self.to_s)
        return inside + np.minimum(at - self.from_s[0], 0.0) + np.maximum(at - self.from_s[-1], 0.0)

    def frames(self, rate_hz: int) -> int:
        """The length after, in frames."""
        return round(float(self.to_s[-1]) * rate_hz)


@dataclass(frozen=True, slots=True)
class Conformed:
    """What a steady tempo makes of a span: `warp` leads there, `warp.inverse` back, `bpm` is the steady tempo."""

    warp: Warp
    bpm: float


def plan(grid: Grid, start_s: float, end_s: float) -> Conformed:
    """The warp of the span [start_s, end_s] of project time to one tempo, its mean: the length stays the same.

    Times in the warp count from `start_s`.
    """
    inside = grid.seconds[(grid.seconds > start_s + SAME_S) & (grid.seconds < end_s - SAME_S)]
    points_s = np.concatenate([[start_s], inside, [end_s]])
    beats = grid.seconds_to_beats(points_s)
    bpm = 60 * float(beats[-1] - beats[0]) / (end_s - start_s)
    to_s = (beats - beats[0]) * 60 / bpm
    return Conformed(Warp(points_s - start_s, to_s), bpm)


def warp(audio: Audio, rate_hz: int, path: Warp) -> Audio:
    """The sound along the path: [channels, path.frames(rate_hz)] float32, pitch as it was.

    audio: [channels, n] float32, n = from_s[-1] * rate_hz to within a frame (else PunchinError). Each attack keeps its
    samples and lands on its mapped moment, to the nearest frame; what lies between is stretched (Signalsmith Stretch).
    Where the path is the identity the samples are the same.
    """
    length = float(path.from_s[-1]) * rate_hz
    if abs(audio.shape[1] - length) > 1.5:
        raise PunchinError(f"the sound is {audio.shape[1]} frames long, its path {length:.0f}")
    frames = path.frames(rate_hz)
    if not frames:
        return np.zeros((len(audio), 0), np.float32)
    pieces = _pieces(audio, rate_hz, path)
    out = np.zeros((len(audio), frames), np.float32)
    for piece in pieces:
        _lay(out, audio, piece, rate_hz)
    return out


@dataclass(frozen=True, slots=True)
class _Piece:
    """Frames [start, stop) of the sound that go to [to, to_stop). `attack`: it begins with one, which is copied.

    `shut`: the next one begins with an attack, which this one's stretcher must not hear. `held`: frames from its own
    attack to the last one that moves with it.
    """

    start: int
    stop: int
    to: int
    to_stop: int
    attack: bool
    shut: bool
    held: int = 0


def _pieces(audio: Audio, rate_hz: int, path: Warp) -> list[_Piece]:
    """The sound cut at its attacks, and between them where the path bends."""
    frames, to_frames = audio.shape[1], path.frames(rate_hz)
    found = onsets.find(audio, rate_hz)
    far = _APART_S * rate_hz
    cuts = [_Cut(0, 0, 0.0)]
    for frame, strength in zip(found.frames.tolist(), found.strength.tolist(), strict=True):
        to = round(float(path(frame / rate_hz)) * rate_hz)
        last = cuts[-1]
        if min(frames - frame, to_frames - to) < far:
            continue
        if min(frame - last.at, to - last.to) >= far:
            cuts.append(_Cut(frame, to, strength))
        elif last.strength and frame - last.at < far:
            cuts[-1] = last.with_next(frame, to, strength, least_to=cuts[-2].to + round(far))
        elif last.strength and strength > last.strength:  # too near only where they go to: there is room for one
            cuts[-1] = _Cut(frame, to, strength)
    cuts.append(_Cut(frames, to_frames, 0.0))
    pieces: list[_Piece] = []
    for one, following in pairwise(cuts):
        attack, shut = one.strength > 0, following.strength > 0
        piece = _Piece(one.at, following.at, one.to, following.to, attack, shut, one.held)
        pieces += _straight(piece, rate_hz, path)
    return pieces


@dataclass(frozen=True, slots=True)
class _Cut:
    """Frame `at` of the sound goes to `to`. strength: of the strongest attack that moves with it, 0 without one."""

    at: int
    to: int
    strength: float
    held: int = 0

    def with_next(self, frame: int, to: int, strength: float, least_to: int) -> _Cut:
        """With an attack soon after it: where that one is stronger, it is the one that lies where the path says.

        A ghost before a drum, or what a stretcher left of one, must not carry the drum away.
        """
        held = frame - self.at
        if strength > self.strength and to - held >= least_to:
            return _Cut(self.at, to - held, strength, held)
        return _Cut(self.at, self.to, self.strength, held)


def _straight(piece: _Piece, rate_hz: int, path: Warp) -> list[_Piece]:
    """The piece, or its halves where a straight line would leave the path."""
    if piece.stop - piece.start < 2 * _SHORTEST_S * rate_hz:
        return [piece]
    at = np.linspace(piece.start, piece.stop, 33)
    line = np.interp(at, (piece.start, piece.stop), (piece.to, piece.to_stop)) / rate_hz
    if np.abs(path(at / rate_hz) - line).max() <= _BEND_S:
        return [piece]
    middle = (piece.start + piece.stop) // 2
    to_middle = round(float(path(middle / rate_hz)) * rate_hz)
    first = _Piece(piece.start, middle, piece.to, to_middle, piece.attack, False, piece.held)
    second = _Piece(middle, piece.stop, to_middle, piece.to_stop, False, piece.shut)
    return _straight(first, rate_hz, path) + _straight(second, rate_hz, path)


def _lay(out: Audio, audio: Audio, piece: _Piece, rate_hz: int) -> None:
    """Put one piece into `out`, joined to what lies there already before it.

    Each piece also brings a little more than its own end, for the next one to join to.
    """
    join, blend = round(_JOIN_S * rate_hz), round(_BLEND_S * rate_hz)
    length, to_length = piece.stop - piece.start, piece.to_stop - piece.to
    spare = min(blend, out.shape[1] - piece.to_stop)
    fade = _fade_in(join, rate_hz) if piece.attack else (0, blend)
    lead = join if piece.attack else blend
    if length == to_length:
        _join(out, _cut(audio, piece.start - lead, piece.stop + spare), piece.to - lead, fade)
        return
    own, copied, head = 0, 0, blend
    if piece.attack:
        own = round(min(_ATTACK_S * rate_hz, _ATTACK_SHARE * (min(length, to_length) - piece.held)))
        copied = piece.held + own
        _join(out, _cut(audio, piece.start - lead, piece.start + copied), piece.to - lead, fade)
        head = min(join, own)
    frames = head + to_length - copied + spare
    slide = round(_SLIDE_S * rate_hz)
    speed = (length - copied) / (to_length - copied)
    around = round(_AROUND_S * rate_hz + blend) * max(speed, 1.0)
    heard_before = min((head + slide) * speed, own * _AFTER_ATTACK) if piece.attack else around
    body = _mirrored(
        audio,
        round(piece.start + copied - heard_before),
        piece.stop if piece.shut else round(piece.stop + around),
        piece.start + copied - round(around),
        piece.stop + round(around),
    )
    ring = _stretched(body, speed, rate_hz)[:, round(round(around) / speed) - head - slide :]
    ring = ring[:, : frames + 2 * slide]
    at = piece.to + copied - head
    there = out[:, at : at + head] if at >= 0 else out[:, :0]
    best = _best_slide(there, ring, slide)
    _join(out, ring[:, best : best + frames], at, (0, head))


def _fade_in(join: int, rate_hz: int) -> tuple[int, int]:
    """The fade into an attack whose copy begins `join` frames early: short, and over before the attack begins."""
    stop = join - round(_BEFORE_S * rate_hz)
    return max(stop - round(_JOIN_S / 3 * rate_hz), 0), stop


def _join(out: Audio, sound: Audio, at: int, fade: tuple[int, int]) -> None:
    """Lay `sound` into `out` from frame `at` on, fading from what lies there over `fade` (frames of `sound`)."""
    skip = max(-at, 0)
    begin, stop = max(fade[0], skip), max(fade[1], skip)
    end = min(at + sound.shape[1], out.shape[1])
    if stop > begin:
        old, new = out[:, at + begin : at + stop], sound[:, begin:stop]
        x = (np.arange(stop - begin) + 0.5) / (stop - begin)
        law = np.sqrt(1 - 2 * x * (1 - x) * (1 - correlation(old, new)))
        out[:, at + begin : at + stop] = (old + x * (new.astype(np.float64) - old)) / law
    out[:, at + stop : end] = sound[:, stop : end - at]


def _mirrored(audio: Audio, start: int, stop: int, first: int, last: int) -> Audio:
    """Frames [first, last); before `start` and from `stop` on they are the sound between in a mirror."""
    start, stop = max(start, 0), min(stop, audio.shape[1])
    return np.pad(audio[:, start:stop], ((0, 0), (max(start - first, 0), max(last - stop, 0))), mode="symmetric")


def _stretched(body: Audio, speed: float, rate_hz: int) -> Audio:
    """`body` at another speed (2 is half as long), pitch kept; its frame i comes to i / speed."""
    from python_stretch.Signalsmith import Stretch

    stretcher = Stretch(_SEED)
    stretcher.preset(len(body), rate_hz)
    stretcher.setTimeFactor(speed)
    return np.asarray(stretcher.process(np.ascontiguousarray(body)))


def _best_slide(there: Audio, ring: Audio, slide: int) -> int:
    """How far into `ring` its head is most like what it joins: 0 to 2 * slide, the middle (in time) for silence."""
    head = there.shape[1]
    if not head or not there.any():
        return slide
    span = ring[:, : head + 2 * slide].astype(np.float64)
    size = 1 << (span.shape[1] + head).bit_length()
    likeness = np.zeros(2 * slide + 1)
    for a, b in zip(there.astype(np.float64), span, strict=True):
        likeness += np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)[: 2 * slide + 1]
    power = np.cumsum(np.pad(np.square(span).sum(axis=0), (1, 0)))
    energy = power[head : head + 2 * slide + 1] - power[: 2 * slide + 1]
    return int(np.argmax(likeness / np.sqrt(energy + 1e-12 + 1e-3 * energy.max())))


def _cut(audio: Audio, start: int, stop: int) -> Audio:
    """Frames [start, stop), silence where there are none."""
    frames = audio.shape[1]
    inside = audio[:, min(max(start, 0), frames) : min(max(stop, 0), frames)]
    return np.pad(inside, ((0, 0), (max(-start, 0), max(stop - frames, 0))))
