"""Tempo and signatures out of a Standard MIDI File, in the shape of a tempo map."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from punchin.protocol.errors import Refused
from punchin.session.tempo import Signature, Stretch

MOST_WAIT: Final = 0x0FFF_FFFF  # ticks from one event to the next: the format has 28 bits for them


def read_tempo(path: Path, signature: tuple[int, int]) -> tuple[tuple[Stretch, ...], tuple[Signature, ...]]:
    """All tracks' tempo and signature events, 120 bpm and `signature` until the first; see TempoMap.from_midi."""
    import mido
    from mido.midifiles.meta import KeySignatureError

    if not path.is_file():
        raise Refused(f"tempo map is missing: {path}", "check the path")
    try:
        file = mido.MidiFile(path, clip=True)  # note data out of range does not concern the tempo
    except (OSError, EOFError, ValueError, IndexError, KeyError, KeySignatureError) as error:
        why = f": {error}" if str(error) else ""
        raise Refused(f"tempo map is not a MIDI file: {path}{why}", "export a Standard MIDI File") from error
    if file.type == 2:
        raise Refused(f"tempo map is a MIDI file of format 2, songs side by side: {path}", "export it as format 0 or 1")
    if file.ticks_per_beat == 0:
        raise Refused(f"tempo map has 0 ticks a beat: {path}", "export it again, with 96 to 960")
    if file.ticks_per_beat & 0x8000:  # of a negative number too
        raise Refused(f"tempo map counts in SMPTE frames, not in beats: {path}", "export it with ticks per beat")
    tempos: dict[int, int] = {0: 500_000}
    signatures: dict[int, tuple[int, int]] = {0: signature}
    told = False
    for track in file.tracks:
        tick = 0
        for message in track:
            if message.time > MOST_WAIT:
                text = f"tempo map has a wait of over {MOST_WAIT} ticks after tick {tick}, as no MIDI file may: {path}"
                raise Refused(text, "export it again")
            tick += message.time
            if message.type == "set_tempo":
                tempos[tick], told = message.tempo, True
            elif message.type == "time_signature":
                signatures[tick] = (message.numerator, message.denominator)
    if not told:
        raise Refused(f"tempo map holds no tempo: {path}", "use --bpm B, or a MIDI file with the song's tempo in it")
    stretches, at_s, last_tick, tempo = [], 0.0, 0, 500_000
    for tick in sorted(tempos):
        at_s += (tick - last_tick) * tempo / file.ticks_per_beat / 1e6
        last_tick, tempo = tick, tempos[tick]
        if tempo <= 0:
            raise Refused(f"tempo map has a tempo of 0 microseconds a beat at tick {tick}: {path}", "export it again")
        stretches.append(Stretch(at_s, 60e6 / tempo, 60e6 / tempo))
    meters = (Signature(tick / file.ticks_per_beat, *signatures[tick]) for tick in sorted(signatures))
    return tuple(stretches), tuple(meters)
