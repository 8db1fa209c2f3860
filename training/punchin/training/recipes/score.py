"""Scores without end: drums, bass, chords and lead in several genres, keys, tempos and metres, from a seed.

Times are beats (quarter notes) from the start; in 6/8 a bar is three of them. Pitches are MIDI notes, velocities 0
to 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

Stem = Literal["drums", "bass", "chords", "lead"]
STEMS: Final[tuple[Stem, ...]] = ("drums", "bass", "chords", "lead")
KICK, SNARE, HAT, OPEN_HAT, TOM, RIDE = range(6)  # pitches of the drums stem

KEYS: Final = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SCALES: Final = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PITCHED: Final = ("piano", "electric piano", "organ", "plucked guitar", "strings", "synth lead", "bells", "brass")


@dataclass(frozen=True, slots=True)
class Note:
    """One note or drum hit."""

    start_beats: float
    length_beats: float
    pitch: int
    velocity: float


@dataclass(frozen=True, slots=True)
class Genre:
    """How a style plays: tempo range, drum grid by sixteenths, swing, how busy each stem is."""

    name: str
    bpm: tuple[float, float]
    kick: str
    snare: str
    hat: str
    swing: tuple[float, float] = (0.0, 0.0)  # share of an eighth by which off-beats come late
    bass: Literal["root", "walk", "offbeat", "riff"] = "root"
    chords: Literal["pad", "stab", "arpeggio", "comp"] = "pad"


# x is a hit, o a soft or likely one, - is none. A bar of 4/4 is 16 characters; other metres take what they need of it.
GENRES: Final = (
    Genre(
        "house", (118, 130), "x---x---x---x---", "----x-------x---", "--x---x---x---x-", bass="offbeat", chords="stab"
    ),
    Genre("rock", (95, 160), "x-----o-x-x-----", "----x-------x---", "x-x-x-x-x-x-x-x-", bass="root", chords="comp"),
    Genre(
        "hip hop", (70, 100), "x--o--x---x-o---", "----x-------x---", "x-x-x-xox-x-x-xo", (0.05, 0.2), "riff", "comp"
    ),
    Genre("jazz", (90, 180), "x-------o-------", "----o--o----o---", "x---x-xxx---x-xx", (0.2, 0.33), "walk", "comp"),
    Genre("funk", (92, 118), "x--x--x---x--o--", "----x--o-o--x--o", "xxxxxxxxxxxxxxxx", (0.0, 0.08), "riff", "stab"),
    Genre("drum and bass", (160, 180), "x---------x-----", "----x-------x---", "x-xxx-x-x-xxx-x-", bass="riff"),
    Genre("ballad", (70, 92), "x-------o-------", "--------x-------", "x---x---x---x---", chords="arpeggio"),
    Genre("reggae", (70, 95), "--------x-------", "--------x-------", "x-x-x-x-x-x-x-x-", bass="riff", chords="stab"),
)


@dataclass(frozen=True, slots=True)
class Score:
    """A piece that can be played: what the synthesiser needs, and what the prompt may say about it."""

    genre: Genre
    bpm: float
    signature: int  # 4, 3, or 6 (6/8)
    key: str  # "C# minor"
    swing: float
    bars: int
    instruments: dict[Stem, str]
    notes: dict[Stem, tuple[Note, ...]] = field(repr=False)

    @property
    def bar_beats(self) -> float:
        """Quarter notes a bar: 4, 3, or 3 for 6/8."""
        return 4.0 if self.signature == 4 else 3.0

    @property
    def whole(self) -> bool:
        """Whether a prompt, which has whole numbers, says its tempo: half a beat a minute is 40 ms after 15 s."""
        return self.bpm.is_integer()

    @property
    def seconds(self) -> float:
        """Length of all bars."""
        return self.bars * self.bar_beats * 60 / self.bpm


def compose(seed: int, bars: int = 8) -> Score:
    """A score from a seed; equal seeds give equal scores."""
    rng = np.random.default_rng(seed)
    genre = GENRES[rng.integers(len(GENRES))]
    signature = int(rng.choice((4, 4, 4, 4, 3, 6)))
    mode = str(rng.choice(tuple(SCALES)))
    tonic = int(rng.integers(12))
    swing = float(rng.uniform(*genre.swing))
    bar_beats = 4.0 if signature == 4 else 3.0
    degrees = _progression(rng, bars, mode)
    notes: dict[Stem, tuple[Note, ...]] = {
        "drums": _drums(rng, genre, bars, bar_beats),
        "bass": _bass(rng, genre, degrees, tonic, mode, bar_beats),
        "chords": _chords(rng, genre, degrees, tonic, mode, bar_beats),
        "lead": _lead(rng, degrees, tonic, mode, bar_beats),
    }
    chords, lead = rng.choice(PITCHED, 2, replace=False)
    bpm = float(np.round(rng.uniform(*genre.bpm), 2))
    return Score(
        genre=genre,
        bpm=float(round(bpm)) if rng.random() < 0.75 else bpm,  # the prompt says whole numbers
        signature=signature,
        key=f"{KEYS[tonic]} {mode}",
        swing=swing,
        bars=bars,
        instruments={
            "drums": str(rng.choice(("acoustic drums", "electronic drums"))),
            "bass": str(rng.choice(("finger bass", "synth bass", "sub bass"))),
            "chords": str(chords),
            "lead": str(lead),
        },
        notes={stem: _swung(played, swing) for stem, played in notes.items()},
    )


def _progression(rng: np.random.Generator, bars: int, mode: str) -> list[int]:
    """A scale degree (0 to 6) for each bar: four-bar loops that begin at home and end where they want to go back."""
    loops = {
        "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 0)),
        "minor": ((0, 5, 2, 6), (0, 3, 4, 0), (0, 6, 5, 4), (0, 5, 3, 4), (0, 0, 3, 6)),
    }[mode]
    loop = loops[rng.integers(len(loops))]
    return [loop[bar % 4] for bar in range(bars)]


def _pitch(degree: int, tonic: int, mode: str, octave: int) -> int:
    scale = SCALES[mode]
    return 12 * (octave + 1) + tonic + scale[degree % 7] + 12 * (degree // 7)


def _drums(rng: np.random.Generator, genre: Genre, bars: int, bar_beats: float) -> tuple[Note, ...]:
    sixteenths = int(bar_beats * 4)
    hits: list[Note] = []
    for bar in range(bars):
        fill = bar % 4 == 3 and rng.random() < 0.6
        for step in range(sixteenths):
            at = bar * bar_beats + step / 4
            if fill and step >= sixteenths - 4:
                hits.append(Note(at, 0.25, TOM if step % 2 else SNARE, rng.uniform(0.6, 0.9)))
                continue
            for drum, pattern in ((KICK, genre.kick), (SNARE, genre.snare), (HAT, genre.hat)):
                mark = pattern[step]
                if mark == "x" or (mark == "o" and rng.random() < 0.5):
                    accent = 1.0 if step % 4 == 0 else 0.8
                    soft = 0.6 if mark == "o" else 1.0
                    hits.append(Note(at, 0.25, drum, accent * soft * rng.uniform(0.85, 1.0)))
    return tuple(hits)


def _bass(
    rng: np.random.Generator, genre: Genre, degrees: list[int], tonic: int, mode: str, bar_beats: float
) -> tuple[Note, ...]:
    riff = [step for step in range(int(bar_beats * 2)) if step == 0 or rng.random() < 0.45]
    notes: list[Note] = []
    for bar, degree in enumerate(degrees):
        at = bar * bar_beats
        if genre.bass == "walk":
            steps = [
                (beat, 0.9, degree + int(rng.choice((0, 2, 4, 5)) if beat else 0)) for beat in range(int(bar_beats))
            ]
        elif genre.bass == "offbeat":
            steps = [(beat + 0.5, 0.4, degree) for beat in range(int(bar_beats))]
        elif genre.bass == "riff":
            steps = [(step / 2, 0.4, degree + (4 if step and rng.random() < 0.3 else 0)) for step in riff]
        else:
            steps = [(step / 2, 0.45, degree) for step in range(int(bar_beats * 2))]
        notes += [
            Note(at + beat, length, _pitch(d, tonic, mode, 1), rng.uniform(0.7, 0.95)) for beat, length, d in steps
        ]
    return tuple(notes)


def _chords(
    rng: np.random.Generator, genre: Genre, degrees: list[int], tonic: int, mode: str, bar_beats: float
) -> tuple[Note, ...]:
    rhythm = sorted({0.0, *(float(beat) for beat in rng.choice(np.arange(1, bar_beats * 2), 3) / 2)})
    notes: list[Note] = []
    for bar, degree in enumerate(degrees):
        at = bar * bar_beats
        tones = [_pitch(degree + step, tonic, mode, 3) for step in (0, 2, 4)]
        if genre.chords == "pad":
            notes += [Note(at, bar_beats * 0.98, tone, 0.6) for tone in tones]
        elif genre.chords == "arpeggio":
            order = [0, 1, 2, 1]
            notes += [Note(at + i / 2, 0.5, tones[order[i % 4]], 0.65) for i in range(int(bar_beats * 2))]
        else:
            length = 0.25 if genre.chords == "stab" else 0.7
            beats = [b + 0.5 for b in range(int(bar_beats))] if genre.chords == "stab" else rhythm
            notes += [Note(at + beat, length, tone, 0.7) for beat in beats for tone in tones]
    return tuple(notes)


def _lead(rng: np.random.Generator, degrees: list[int], tonic: int, mode: str, bar_beats: float) -> tuple[Note, ...]:
    """A motif that returns every second bar, moved to the chord; steps more often than leaps."""
    motif = [(step / 2, int(rng.integers(-2, 5))) for step in range(int(bar_beats * 2)) if rng.random() < 0.55]
    notes: list[Note] = []
    for bar, degree in enumerate(degrees):
        if bar % 2:
            motif_here = [(beat, shift + int(rng.integers(-1, 2))) for beat, shift in motif if rng.random() < 0.8]
        else:
            motif_here = motif
        for beat, shift in motif_here:
            length = float(rng.choice((0.4, 0.45, 0.9)))
            notes.append(
                Note(bar * bar_beats + beat, length, _pitch(degree + shift, tonic, mode, 4), rng.uniform(0.6, 0.9))
            )
    return tuple(notes)


def _swung(notes: tuple[Note, ...], swing: float) -> tuple[Note, ...]:
    """Off-beat eighths, and the sixteenths beside them, come late by `swing` of an eighth."""
    late = swing / 2
    return tuple(
        Note(n.start_beats + (late if n.start_beats % 1 > 0.25 else 0.0), n.length_beats, n.pitch, n.velocity)
        for n in notes
    )


SPOKEN: Final = {  # what else people call them
    "piano": ("grand piano", "acoustic piano", "upright piano", "keys"),
    "electric piano": ("rhodes", "dusty rhodes", "wurlitzer", "e-piano"),
    "organ": ("hammond organ", "drawbar organ", "church organ"),
    "plucked guitar": ("guitar", "acoustic guitar", "nylon guitar", "picked guitar"),
    "strings": ("string section", "violins", "orchestral strings", "warm strings"),
    "synth lead": ("lead synth", "square lead", "saw synth", "synth"),
    "bells": ("bell", "glockenspiel", "vibraphone", "celesta"),
    "brass": ("brass section", "trumpets", "horns", "trumpet"),
    "finger bass": ("electric bass", "bass guitar", "upright bass", "bass"),
    "synth bass": ("analog bass", "acid bass", "bass synth"),
    "sub bass": ("808 bass", "deep bass", "sub"),
    "acoustic drums": ("live drums", "drum kit", "brushed drums", "drums"),
    "electronic drums": ("drum machine", "808 drums", "programmed drums"),
}
TRACKS: Final = {  # what ACE-Step calls the track that an instrument plays
    "piano": "keyboard", "electric piano": "keyboard", "organ": "keyboard", "plucked guitar": "guitar",
    "strings": "strings", "synth lead": "synth", "bells": "percussion", "brass": "brass", "finger bass": "bass",
    "synth bass": "bass", "sub bass": "bass", "acoustic drums": "drums", "electronic drums": "drums",
}  # fmt: skip


def caption(score: Score, stems: tuple[Stem, ...], rng: np.random.Generator) -> str:
    """What a producer might type: genre, instruments of these stems, now and then tempo or feel in words.

    One stem alone is always named; of several, one may be left out.
    """
    named = [_spoken(score.instruments[stem], rng) for stem in stems]
    if len(named) == 1:
        return ", ".join([*([score.genre.name] if rng.random() < 0.7 else []), *_alone(named[0], rng)])
    if score.swing > 0.1:
        named.append("swung")
    if rng.random() < 0.3:
        named.append("slow" if score.bpm < 90 else "fast" if score.bpm > 140 else "mid-tempo")
    rng.shuffle(named)
    kept = named if rng.random() < 0.7 else named[: max(1, len(named) - 1)]
    return ", ".join([score.genre.name, *kept])


def _spoken(instrument: str, rng: np.random.Generator) -> str:
    return instrument if rng.random() < 0.5 else str(rng.choice(SPOKEN[instrument]))


def _alone(name: str, rng: np.random.Generator) -> list[str]:
    return [[name], [f"solo {name}"], [name, "alone"]][rng.integers(3)]
