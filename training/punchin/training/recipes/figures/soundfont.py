"""The same scores on instruments the model never heard: General MIDI through fluidsynth and a soundfont."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import mido
import torch
from torch import Tensor

from punchin.protocol.errors import Refused
from punchin.protocol.limits import MODEL_HZ
from punchin.session import audiofile
from punchin.training.recipes.score import HAT, KICK, OPEN_HAT, RIDE, SNARE, STEMS, TOM, Score, Stem

PROGRAMS: Final = {  # General MIDI, counted from 0
    "piano": 0, "electric piano": 4, "organ": 16, "plucked guitar": 24, "strings": 48, "synth lead": 80,
    "bells": 9, "brass": 61, "finger bass": 33, "synth bass": 38, "sub bass": 39,
}  # fmt: skip
DRUMS: Final = {KICK: 36, SNARE: 38, HAT: 42, OPEN_HAT: 46, TOM: 45, RIDE: 51}
_TICKS: Final = 480
_DRUM_CHANNEL: Final = 9


def render(score: Score, seconds: float, soundfont: Path, stems: tuple[Stem, ...] = STEMS) -> Tensor:
    """A score on a soundfont: [2, n] at 48 kHz, from its first bar on, over and over where `seconds` is longer.

    Raises Refused where fluidsynth or the soundfont is missing, or where fluidsynth fails.
    """
    program = shutil.which("fluidsynth")
    if program is None:
        raise Refused("fluidsynth is not installed", "apt-get install fluidsynth", code="fluidsynth")
    if not soundfont.is_file():
        raise Refused(f"there is no soundfont {soundfont}", code="soundfont")
    with tempfile.TemporaryDirectory() as folder:
        midi, wav = Path(folder) / "score.mid", Path(folder) / "score.wav"
        write_midi(score, seconds, midi, stems)
        flags = ["-ni", "-q", "-g", "0.5", "-r", str(MODEL_HZ), "-T", "wav", "-O", "float", "-F", str(wav)]
        done = subprocess.run([program, *flags, str(soundfont), str(midi)], capture_output=True, text=True, check=False)
        if done.returncode or not wav.is_file():
            raise Refused(f"fluidsynth failed: {done.stderr.strip()[-300:]}", code="fluidsynth")
        audio, _ = audiofile.read(wav)
    frames = round(seconds * MODEL_HZ)
    whole = torch.zeros(2, frames)
    kept = torch.from_numpy(audio[:, :frames])
    whole[:, : kept.shape[1]] = kept
    return whole


def write_midi(score: Score, seconds: float, path: Path, stems: tuple[Stem, ...] = STEMS) -> None:
    """A Standard MIDI File of the score, one track a stem."""
    file = mido.MidiFile(ticks_per_beat=_TICKS)
    head = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(60e6 / score.bpm))])
    file.tracks.append(head)
    beats = seconds * score.bpm / 60
    for number, stem in enumerate(stems):
        channel = _DRUM_CHANNEL if stem == "drums" else number
        events: list[tuple[int, int, mido.Message]] = []
        if stem != "drums":
            events.append((0, 0, mido.Message("program_change", channel=channel, program=_program(score, stem))))
        for note in score.notes[stem]:
            pitch = DRUMS[note.pitch] if stem == "drums" else note.pitch
            start = note.start_beats
            while start < beats:
                on, off = round(start * _TICKS), round((start + note.length_beats) * _TICKS)
                force = max(1, min(127, round(127 * note.velocity)))
                events.append((on, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=force)))
                events.append((off, 1, mido.Message("note_off", channel=channel, note=pitch)))
                start += score.bars * score.bar_beats
        file.tracks.append(_track(events))
    file.save(path)


def _program(score: Score, stem: Stem) -> int:
    return PROGRAMS[score.instruments[stem]]


def _track(events: list[tuple[int, int, mido.Message]]) -> mido.MidiTrack:
    """Events (tick, order within a tick, message) as a track: times become distances."""
    track, at = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - at))
        at = tick
    return track
