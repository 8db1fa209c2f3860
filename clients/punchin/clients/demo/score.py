"""The demo's music: three parts over 16 bars, each written as one line a bar.

`python -m punchin.clients.demo.score OUT` renders it into a session folder. It needs FluidSynth and a General MIDI
soundfont: `apt-get install fluidsynth musescore-general-soundfont-small` (both are free; the soundfont is MIT).

Form: four bars of A minor groove, four bars of answer on other chords and with arpeggios, the groove with more on
top, and a turn home. A bar is 16 steps. Every even step lies on the grid; odd ones swing a little late.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from punchin.protocol.errors import PunchinError

BPM = 97.35
BARS = 16
STEPS = 16  # in a bar of 4/4
SWING_STEPS = 0.08  # how late odd steps are: 12 ms


@dataclass(frozen=True, slots=True)
class Note:
    """One key stroke. `key` is a MIDI number, `velocity` 1 to 127, `pan` -1 to 1; times in quarter notes."""

    start_beats: float
    key: int
    velocity: int
    length_beats: float
    pan: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """One track: its General MIDI program (None: the drum channel), how it is stored, and its notes."""

    name: str
    program: int | None
    channels: int
    peak_db: float
    notes: tuple[Note, ...]


# Drums: a digit is how hard (1 to 9) a step is played. The kit is recorded as one microphone hears it: mono.
GROOVE = {"kick": "9..5..8...6.....", "snare": "....8..2.2..9..3", "hat": "7364736473647354"}
GROOVE_PUSH = {
    "kick": "9..5..8...6..5..",
    "snare": "....8..2.2..9.3.",
    "hat": "73647364736473.4",
    "open": "..............6.",
}
ANSWER = {"kick": "9.....8.5.7.....", "side": "....8..4....8...", "ride": "7.3.5.3.7.3.5.4."}
ANSWER_PUSH = {"kick": "9.....8.5.7...6.", "side": "....8..4....8..5", "ride": "7.3.5.3.7.3.5.4."}
FILL = {
    "kick": "9.....8.........",
    "snare": "....8.......5678",
    "ride": "7.3.5.3.........",
    "high": "........7.7.....",
    "low": "..........7.8...",
}
LAST = {"kick": "9..5..8.........", "snare": "....8.........67", "hat": "7364736464......", "low": "..........78.7.."}
CRASH = {"crash": "5..............."}
DRUM_BARS = (
    GROOVE | CRASH, GROOVE, GROOVE, GROOVE_PUSH,
    ANSWER, ANSWER_PUSH, ANSWER, FILL,
    GROOVE | CRASH, GROOVE, GROOVE, GROOVE_PUSH,
    ANSWER, ANSWER_PUSH, GROOVE, LAST,
)  # fmt: skip
DRUM_KEYS = {"kick": 36, "side": 37, "snare": 38, "hat": 42, "low": 45, "open": 46, "crash": 49, "high": 50, "ride": 51}

# Bass and melody: `step:note*length_in_steps`, a note as a name with its octave (C4 is MIDI 60).
BASS_BARS = (
    "0:A1*3 3:A1*1 6:A1*3 10:E2*2 12:G2*2 14:A2*1 15:G2*1",
    "0:F1*3 3:F1*1 6:F1*3 10:C2*2 12:F2*2 14:E2*1 15:C2*1",
    "0:C2*3 3:C2*1 6:C2*3 10:G1*2 12:C2*2 14:D2*1 15:E2*1",
    "0:G1*3 3:G1*1 6:G1*3 10:D2*2 12:B1*2 14:G1*2",
    "0:A1*6 6:A1*2 8:C2*2 10:E2*4 14:C2*2",
    "0:D2*6 6:D2*2 8:F2*2 10:A2*4 14:F2*2",
    "0:F1*6 6:F1*2 8:A1*2 10:C2*4 14:A1*2",
    "0:E1*6 6:E2*2 8:D2*2 10:B1*2 12:G#1*2 14:E1*2",
    "0:A1*3 3:A1*1 6:A2*1 7:G2*1 8:E2*2 10:D2*2 12:C2*2 14:E2*2",
    "0:F1*3 3:F1*1 6:F2*1 7:E2*1 8:C2*2 10:A1*2 12:F1*2 14:A1*2",
    "0:C2*3 3:C2*1 6:C2*3 10:G1*2 12:C2*2 14:D2*1 15:E2*1",
    "0:G1*3 3:G1*1 6:G2*1 7:F2*1 8:D2*2 10:B1*2 12:G1*2 14:F1*2",
    "0:D2*6 6:D2*2 8:F2*2 10:A2*4 14:F2*2",
    "0:E2*6 6:E2*2 8:G2*2 10:B2*4 14:G2*2",
    "0:F1*3 3:F1*1 6:F1*2 8:G1*3 11:G1*1 14:G#1*2",
    "0:A1*4 6:A1*1 7:A1*1 8:A1*8",
)

# Keys: chords low and soft as `step:chord*length`, then single notes on top.
CHORDS = {
    "Am9": "A3 C4 E4 B4", "Fmaj7": "A3 C4 E4 G4", "Cadd9": "G3 C4 D4 E4", "G6": "G3 B3 D4 E4",
    "Dm9": "A3 C4 E4 F4", "E7sus": "A3 B3 D4 E4", "E7": "G#3 B3 D4 E4", "Em7": "G3 B3 D4 E4", "Gsus": "G3 C4 D4 F4",
}  # fmt: skip
COMP = "0:{0}*5 6:{0}*2 11:{0}*1 12:{0}*3"
CHORD_BARS = (
    *(COMP.format(name) for name in ("Am9", "Fmaj7", "Cadd9", "G6")),
    "0:Am9*7 8:Am9*7", "0:Dm9*7 8:Dm9*7", "0:Fmaj7*7 8:Fmaj7*7", "0:E7sus*7 8:E7*7",
    *(COMP.format(name) for name in ("Am9", "Fmaj7", "Cadd9", "G6")),
    "0:Dm9*7 8:Dm9*6", "0:Em7*7 8:Em7*6", "0:Fmaj7*7 8:Gsus*4 12:E7*4", "0:Am9*16",
)  # fmt: skip
MELODY_BARS = (
    "14:E5*2", "0:D5*3 6:C5*2", "14:G5*2", "0:E5*3 6:D5*4",
    "2:E5*2 4:C5*2 6:B4*2 8:E5*2 10:A5*4 14:G5*2", "0:F5*2 2:E5*2 4:C5*2 6:A4*2 8:F5*2 10:A5*4 14:G5*2",
    "0:E5*2 2:C5*2 4:A4*2 6:C5*2 8:G5*2 10:E5*2 12:C5*4", "0:D5*2 2:E5*2 4:B4*4 8:G#4*2 10:B4*2 12:D5*2 14:E5*2",
    "0:C5*3 6:B4*2 14:E5*2", "0:G5*3 6:E5*2 10:C5*4", "2:D5*1 3:E5*3 14:G5*2", "0:E5*3 6:D5*2 10:B4*4",
    "0:A4*2 2:C5*2 4:F5*4 10:E5*4", "0:B4*2 2:D5*2 4:G5*4 10:E5*4", "0:A5*4 6:G5*2 8:F5*4 12:E5*2 14:D5*2",
    "0:C5*4 4:B4*4 8:A4*8",
)  # fmt: skip

NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def parts() -> tuple[Part, ...]:
    """The three tracks, from top to bottom."""
    keys = (*_lines(CHORD_BARS, velocity=58), *_lines(MELODY_BARS, velocity=76))
    return (
        Part("Drums", None, 1, -9.5, tuple(_drums())),
        Part("Bass", 33, 1, -15.0, tuple(_lines(BASS_BARS, velocity=92))),
        Part("Keys", 4, 2, -19.0, keys),
    )


def _beats(bar: int, step: int) -> float:
    return bar * 4 + (step + SWING_STEPS * (step % 2)) / 4


def _drums() -> Iterator[Note]:
    for bar, played in enumerate(DRUM_BARS):
        for drum, steps in played.items():
            for step, strength in enumerate(steps):
                if strength != ".":
                    yield Note(_beats(bar, step), DRUM_KEYS[drum], 10 + 12 * int(strength), 1.0)


def _lines(bars: tuple[str, ...], velocity: int) -> Iterator[Note]:
    for bar, line in enumerate(bars):
        for word in line.split():
            at, sound = word.split(":")
            name, steps = sound.split("*")
            step = int(at)
            accent = (8 if step == 0 else 0) - (10 if step % 2 else 0)
            for note in CHORDS.get(name, name).split():
                key = _key(note)
                pan = (key - 66) / 60  # as at the keyboard: low left, high right
                yield Note(_beats(bar, step), key, velocity + accent, int(steps) / 4, pan)


def _key(name: str) -> int:
    """`C4` is 60, `G#3` is 56."""
    return NAMES.index(name[:-1]) + 12 * (int(name[-1]) + 1)


def main(arguments: list[str] | None = None) -> int:
    """Render the session into a folder. Returns the exit code."""
    from punchin.clients.demo import project, studio

    parser = argparse.ArgumentParser(prog="python -m punchin.clients.demo.score", description="render the demo session")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for demo.rpp and media/")
    parser.add_argument("--soundfont", type=Path, default=studio.SOUNDFONT, help="General MIDI soundfont [%(default)s]")
    chosen = parser.parse_args(arguments)
    try:
        for part in parts():
            path = studio.record(part, chosen.out / "media", chosen.soundfont)
            print(f"{path}  {path.stat().st_size / 1e6:.2f} MB", file=sys.stderr)
    except PunchinError as error:
        print(f"error: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    project.write(chosen.out / "demo.rpp")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
