"""A part as audio, each note exactly where the score has it.

FluidSynth starts notes on blocks of 64 samples and after a latency of its own. So each different note is recorded once,
alone in a slot, cut where its sound begins, and laid onto the grid at the nearest sample.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import mido
import numpy as np
import soundfile
from numpy.typing import NDArray

from punchin.clients.demo.score import BARS, BPM, Note, Part
from punchin.protocol.errors import Refused

SOUNDFONT = Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3")
CURE = "apt-get install fluidsynth musescore-general-soundfont-small"
RATE_HZ = 48_000
SLOT_S = 5  # a note with its decay; anything longer fades out in its last EDGE_FRAMES
EDGE_FRAMES = 2_400
ONSET = 0.003  # a note begins where it first passes this share of its peak (-50 dB)
SOFTEN = np.array((1, 6, 15, 20, 15, 6, 1)) / 64  # a dark, tape-like top (-3 dB at 5 kHz), and a third off the files
TICKS = 480  # a quarter note of the slot file, at 120 bpm

Stroke = tuple[int, int, float]  # key, velocity, length in beats: what makes two notes sound the same


def frame(beats: float) -> int:
    """The sample at 48 kHz that is nearest to a beat of the score."""
    return round(beats * 60 / BPM * RATE_HZ)


def record(part: Part, folder: Path, soundfont: Path = SOUNDFONT) -> Path:
    """Write the part as 16-bit FLAC of exactly 16 bars. Returns its path; raises Refused when a tool is missing."""
    sounds = _one_shots(part, soundfont)
    track = np.zeros((2, frame(BARS * 4)))
    for note in part.notes:
        start = frame(note.start_beats)
        sound = sounds[_stroke(note)][: track.shape[1] - start]
        track[:, start : start + len(sound)] += np.outer(_sides(note.pan), sound)
    track[:, -EDGE_FRAMES:] *= np.linspace(1, 0, EDGE_FRAMES)  # the last chord rings past the end
    audio = track.mean(axis=0, keepdims=True) if part.channels == 1 else track
    audio = audio * (10 ** (part.peak_db / 20) / np.abs(audio).max())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part.name.lower()}.flac"
    pcm = np.round(audio * 32767).astype(np.int16)
    soundfile.write(path, pcm.T, RATE_HZ, format="FLAC", subtype="PCM_16", compression_level=1.0)
    return path


def _sides(pan: float) -> tuple[float, float]:
    """Gains left and right of equal power, 1 and 1 in the middle."""
    angle = (1 + pan) * math.pi / 4
    return math.sqrt(2) * math.cos(angle), math.sqrt(2) * math.sin(angle)


def _stroke(note: Note) -> Stroke:
    return note.key, note.velocity, note.length_beats


def _one_shots(part: Part, soundfont: Path) -> dict[Stroke, NDArray[np.float64]]:
    """Each different note of the part, [frames], beginning where its sound does."""
    strokes = sorted({_stroke(note) for note in part.notes})
    slots = _play(_slot_file(strokes, part.program), soundfont)
    width = SLOT_S * RATE_HZ
    fade = np.ones(width)
    fade[-EDGE_FRAMES:] = np.linspace(1, 0, EDGE_FRAMES)
    sounds: dict[Stroke, NDArray[np.float64]] = {}
    for number, stroke in enumerate(strokes):
        slot = np.convolve(slots[number * width : (number + 1) * width], SOFTEN)[:width] * fade
        loud = np.abs(slot)
        sounds[stroke] = slot[int(np.argmax(loud > ONSET * loud.max())) :]
    return sounds


def _slot_file(strokes: list[Stroke], program: int | None) -> mido.MidiFile:
    """A MIDI file with one note at the beginning of each slot. Slots are whole numbers of FluidSynth's blocks."""
    channel = 9 if program is None else 0
    track = mido.MidiTrack([mido.Message("program_change", channel=channel, program=program or 0)])
    slot_ticks, now = SLOT_S * 2 * TICKS, 0
    for number, (key, velocity, length_beats) in enumerate(strokes):
        start = number * slot_ticks
        stop = start + round(length_beats * 60 / BPM * 2 * TICKS)
        for at, kind in ((start, "note_on"), (stop, "note_off")):
            track.append(mido.Message(kind, channel=channel, note=key, velocity=velocity, time=at - now))
            now = at
    track.append(mido.MetaMessage("end_of_track", time=len(strokes) * slot_ticks - now))
    return mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])


def _play(midi: mido.MidiFile, soundfont: Path) -> NDArray[np.float64]:
    """What FluidSynth makes of the file, dry and mono: [frames] at 48 kHz."""
    program = shutil.which("fluidsynth")
    if program is None:
        raise Refused("fluidsynth is not installed", CURE)
    if not soundfont.is_file():
        raise Refused(f"no soundfont at {soundfont}", CURE)
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "slots.mid"), Path(temporary, "slots.wav")
        midi.save(source)
        sparing = ["-o", "synth.dynamic-sample-loading=1"]  # half the time goes into samples that nobody plays
        options = ["-ni", "-q", "-f", os.devnull, *sparing]  # none of a user's own settings
        options += ["-R", "0", "-C", "0", "-g", "0.4", "-r", str(RATE_HZ), "-O", "float", "-T", "wav"]
        command = [program, *options, "-F", str(target), str(soundfont), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # It plays the system's own in place of one that it cannot read.
        if done.returncode or "error:" in done.stderr or not target.is_file():
            raise Refused(f"fluidsynth failed: {done.stderr.strip() or done.returncode}", " ".join(command))
        return soundfile.read(target, always_2d=True)[0].mean(axis=1)
