"""Scores on General MIDI instruments, through fluidsynth and a soundfont: sound that no synthesiser of ours makes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mido
import numpy as np
import torch
from torch import Tensor

from punchin.protocol.errors import Refused
from punchin.protocol.limits import MODEL_HZ
from punchin.training import state
from punchin.training.recipes.score import HAT, KICK, OPEN_HAT, RIDE, SNARE, STEMS, TOM, Score, Stem
from punchin.training.recipes.songs import song

PROGRAMS: Final = {  # General MIDI, counted from 0
    "piano": 0, "electric piano": 4, "organ": 16, "plucked guitar": 24, "strings": 48, "synth lead": 80,
    "bells": 9, "brass": 61, "finger bass": 33, "synth bass": 38, "sub bass": 39,
}  # fmt: skip
DRUMS: Final = {KICK: 36, SNARE: 38, HAT: 42, OPEN_HAT: 46, TOM: 45, RIDE: 51}
# What `drawn` chooses from.
PITCHED: Final = range(112)  # those after them are drums, and noises
BASSES: Final = range(32, 40)
KITS: Final = (0, 8, 16, 24, 25, 32, 40)
HITS: Final = {
    KICK: (35, 36), SNARE: (38, 40, 39), HAT: (42, 44), OPEN_HAT: (46, 49), TOM: (41, 45, 48), RIDE: (51, 59, 53),
}  # fmt: skip
LOUDER: Final = (1.0, 2.5)  # fluidsynth is softer than our synthesiser
AT_ONCE: Final = 4  # songs played by one call of it
_TICKS_A_SECOND: Final = 1920
_BEAT_S: Final = 0.5  # of the file, which knows seconds alone
_DRUM_CHANNEL: Final = 9
_REST_S: Final = 2.0  # between stems that are played one after the other, for the room to fall silent


@dataclass(frozen=True, slots=True)
class Part:
    """One stem on one instrument."""

    score: Score
    stem: Stem
    program: int
    hits: dict[int, int]  # our drums as notes of General MIDI


def plain(score: Score, stem: Stem) -> Part:
    """A stem on the instrument that the score names."""
    return Part(score, stem, 0 if stem == "drums" else PROGRAMS[score.instruments[stem]], DRUMS)


def drawn(rng: np.random.Generator, score: Score, stem: Stem) -> Part:
    """A stem on any instrument that can play it."""
    hits = {ours: int(rng.choice(notes)) for ours, notes in HITS.items()}
    bass = stem == "bass" and rng.random() < 0.5
    return Part(score, stem, int(rng.choice(KITS if stem == "drums" else BASSES if bass else PITCHED)), hits)


def check(soundfont: Path) -> None:
    """Load every sample, which playing a few notes does not. Raises Refused as `render` does."""
    _raw(_file(), soundfont, "synth.dynamic-sample-loading=0")


def sha256(soundfont: Path) -> str:
    """What is in the file, as hex digits."""
    with soundfont.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def render(score: Score, seconds: float, soundfont: Path, stems: tuple[Stem, ...] = STEMS) -> Tensor:
    """A score on the instruments it names: [2, n] at 48 kHz, from its first bar on, over and over where `seconds` is
    longer.

    Raises Refused where fluidsynth or the soundfont is missing, or where fluidsynth fails.
    """
    file = _file()
    for number, stem in enumerate(stems):
        _add(file, plain(score, stem), seconds, 0.0, number)
    return _played(file, seconds, soundfont)


def render_apart(parts: Sequence[Part], seconds: float, soundfont: Path) -> Tensor:
    """Each part for itself, as `render` does: [parts, 2, n]. Raises what `render` raises."""
    file = _file()
    for number, part in enumerate(parts):
        _add(file, part, seconds, number * (seconds + _REST_S), 0)
    each, whole = round(seconds * MODEL_HZ), round((seconds + _REST_S) * MODEL_HZ)
    played = _played(file, len(parts) * (seconds + _REST_S), soundfont)
    return torch.stack([played[:, first : first + each] for first in range(0, len(parts) * whole, whole)])


class Band:
    """The first songs of each batch, by number, on any instruments of a soundfont; the next batch is played ahead."""

    def __init__(self, soundfont: Path, seconds: float, batch: int, count: int, workers: int) -> None:
        self.soundfont, self.seconds, self.size, self.count = soundfont, seconds, batch, count
        self._pool = ThreadPoolExecutor(max(1, workers))
        self._coming: dict[int, list[Future[Tensor]]] = {}

    def batch(self, number: int) -> Tensor:
        """The songs `number * size` and on, each stem apart, [count, 4, 2, n]. Raises what `render` raises."""
        for each in (number, number + 1):
            if each not in self._coming:
                songs = range(each * self.size, each * self.size + self.count)
                few = [songs[first : first + AT_ONCE] for first in range(0, self.count, AT_ONCE)]
                self._coming[each] = [self._pool.submit(self._play, some) for some in few]
        return torch.cat([future.result() for future in self._coming.pop(number)])

    def _play(self, numbers: range) -> Tensor:
        rng = np.random.default_rng([numbers.start, 5])
        parts = [drawn(rng, song(each).score, stem) for each in numbers for stem in STEMS]
        louder = torch.from_numpy(rng.uniform(*LOUDER, (len(numbers), 1, 1, 1))).float()
        return render_apart(parts, self.seconds, self.soundfont).unflatten(0, (-1, len(STEMS))) * louder

    def close(self) -> None:
        """End what is played ahead."""
        self._pool.shutdown(cancel_futures=True)


def _file() -> mido.MidiFile:
    file = mido.MidiFile(ticks_per_beat=round(_TICKS_A_SECOND * _BEAT_S))
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=round(1e6 * _BEAT_S))]))
    return file


def _add(file: mido.MidiFile, part: Part, seconds: float, first_s: float, channel: int) -> None:
    """A track that plays `seconds` of a part from `first_s` on, and ends all its notes there."""
    channel = _DRUM_CHANNEL if part.stem == "drums" else channel
    beat_s = 60 / part.score.bpm
    begin, end = round(first_s * _TICKS_A_SECOND), round((first_s + seconds) * _TICKS_A_SECOND)
    events = [(begin, 0, mido.Message("program_change", channel=channel, program=part.program))]
    for note in part.score.notes[part.stem]:
        pitch = part.hits[note.pitch] if part.stem == "drums" else note.pitch
        start_s = note.start_beats * beat_s
        while start_s < seconds:
            on = round((first_s + start_s) * _TICKS_A_SECOND)
            off = min(end, round((first_s + start_s + note.length_beats * beat_s) * _TICKS_A_SECOND))
            force = max(1, min(127, round(127 * note.velocity)))
            events.append((on, 2, mido.Message("note_on", channel=channel, note=pitch, velocity=force)))
            events.append((off, 1, mido.Message("note_off", channel=channel, note=pitch)))
            start_s += part.score.bars * part.score.bar_beats * beat_s
    events.append((end, 3, mido.Message("control_change", channel=channel, control=120)))  # all sound off
    track, at = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):
        track.append(message.copy(time=tick - at))
        at = tick
    file.tracks.append(track)


def _played(file: mido.MidiFile, seconds: float, soundfont: Path) -> Tensor:
    """What fluidsynth makes of a file, cut or filled up with silence to `seconds`, [2, n]."""
    raw = _raw(file, soundfont, "synth.dynamic-sample-loading=1")  # half the time goes into samples that nobody plays
    audio = np.frombuffer(raw, "<f4").reshape(-1, 2)[: round(seconds * MODEL_HZ)]
    whole = torch.zeros(2, round(seconds * MODEL_HZ))
    whole[:, : len(audio)] = torch.from_numpy(audio.T.copy())
    return whole


def _raw(file: mido.MidiFile, soundfont: Path, loading: str) -> bytes:
    """Stereo frames of 32-bit floats, by way of a pipe: a kill leaves no audio behind."""
    program = shutil.which("fluidsynth")
    if program is None:
        raise Refused("fluidsynth is not installed", "apt-get install fluidsynth", code="fluidsynth")
    if not soundfont.is_file():
        raise Refused(f"there is no soundfont {soundfont}", code="soundfont")
    with tempfile.TemporaryDirectory() as folder:
        midi = Path(folder) / "score.mid"
        written = io.BytesIO()
        file.save(file=written)
        state.write_bytes(midi, written.getvalue())  # which tells of a full disk
        flags = ["-ni", "-q", "-f", os.devnull, "-o", loading]  # none of a user's own settings
        flags += ["-g", "0.5", "-r", str(MODEL_HZ), "-T", "raw", "-O", "float", "-E", "little", "-F", "/dev/stdout"]
        command = [program, *flags, str(soundfont), str(midi)]
        done = subprocess.run(command, capture_output=True, check=False, start_new_session=True)  # Ctrl-C is for us
    said = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
    if done.returncode or "error:" in said:  # it plays the system's own in place of one that it cannot read
        raise Refused(f"fluidsynth cannot play {soundfont}: {'; '.join(said.splitlines())[:300]}", code="fluidsynth")
    return done.stdout
