"""Tempo maps against arithmetic done another way: numeric integration, counted bars, mido's own clock."""

import struct
from pathlib import Path

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchin.protocol.errors import Refused
from punchin.session import rpp
from punchin.session.rpp_project import from_document
from punchin.session.tempo import Grid, Signature, Stretch, TempoMap


def project(*points, tempo="120 4 4", approximate=False):
    body = "".join(f"    PT {p}\n" for p in points)
    text = f'<REAPER_PROJECT 0.1 "7.0" 1\n  TEMPO {tempo}\n  <TEMPOENVEX\n    ACT 1 -1\n{body}  >\n>\n'
    return from_document(Path("song.rpp"), rpp.parse(text.encode()), approximate).tempo


def integrated_beats(points, until_s, step_s=1e-4):
    """Beats by the midpoint rule over tempo as a function of time. points: (time, bpm, shape)."""
    t = np.arange(0, until_s, step_s) + step_s / 2
    times = np.array([p[0] for p in points])
    bpm = np.empty_like(t)
    for k, at in enumerate(t):
        i = np.searchsorted(times, at, side="right") - 1
        if points[i][2] == 1 or i + 1 == len(points):
            bpm[k] = points[i][1]
        else:
            x = (at - times[i]) / (times[i + 1] - times[i])
            bpm[k] = points[i][1] * (1 - x) + points[i + 1][1] * x
    return float(bpm.sum() * step_s / 60)


def test_ramps_and_holds_are_the_integral_of_tempo():
    points = [(0, 120, 0), (4, 60, 1), (7, 97.35, 0), (9, 174, 1)]
    tempo = project(*(f"{t} {v} {s}" for t, v, s in points))
    for until in (1.0, 4.0, 5.5, 8.0, 11.0):
        assert tempo.seconds_to_beats(until) == pytest.approx(integrated_beats(points, until), abs=1e-5)


def test_a_ramp_in_closed_form():
    tempo = project("0 120 0", "10 60 1")
    assert tempo.seconds_to_beats(10) == pytest.approx(15.0, abs=1e-12)  # mean 90 bpm for 10 s
    assert tempo.seconds_to_beats(20) == pytest.approx(25.0, abs=1e-12)
    assert tempo.bpm_at(5) == 90


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(30, 300), st.floats(30, 300)), min_size=1, max_size=6),
    st.floats(-5, 100),
)
def test_beats_and_seconds_are_inverses(pieces, at_s):
    starts = np.concatenate([[0], np.cumsum([p[0] for p in pieces])[:-1]])
    tempo = TempoMap(tuple(Stretch(float(s), p[1], p[2]) for s, p in zip(starts, pieces, strict=True)))
    assert tempo.beats_to_seconds(tempo.seconds_to_beats(at_s)) == pytest.approx(at_s, abs=1e-9)


def test_a_bar_at_a_step_has_the_new_tempo_whatever_its_time_is_rounded_to():
    bpms = [97.35 + bar / 7 for bar in range(40)]
    starts = [0.0, *np.cumsum([240 / bpm for bpm in bpms])]
    tempo = TempoMap(tuple(Stretch(float(start), bpm, bpm) for start, bpm in zip(starts, bpms, strict=False)))
    assert [tempo.bpm_at(tempo.bars_to_seconds(bar, bar)[0]) for bar in range(1, 41)] == bpms


def test_bars_of_a_fractional_tempo():
    tempo = TempoMap.at_bpm(97.35)
    start, end = tempo.bars_to_seconds(5, 8)
    assert start == pytest.approx(16 * 60 / 97.35, abs=1e-12)
    assert end == pytest.approx(32 * 60 / 97.35, abs=1e-12)
    assert tempo.bar_at(start) == 5
    assert tempo.bar_at(end) == 9


def test_signature_changes_start_bars():
    tempo = project("0 120 1 262148 0 1", "4 120 1 524295 0 1", "7.5 120 1 262147 0 1")
    # 4/4: bars 1-2 (8 beats in 4 s); 7/8: 3.5 beats, bars 3 and 4; 3/4 from 7.5 s on
    assert tempo.bars_to_seconds(3, 4) == (4.0, 7.5)
    assert tempo.signature_at(3.99) == (4, 4)
    assert tempo.signature_at(4) == (7, 8)
    assert tempo.signature_at(7.5) == (3, 4)
    np.testing.assert_allclose(tempo.bar_lines(3, 9.1), [4, 5.75, 7.5, 9.0], atol=1e-9)


def test_a_bar_cut_short_by_a_change_counts_as_one():
    tempo = TempoMap((Stretch(0, 60, 60),), (Signature(0, 4, 4), Signature(6, 3, 4)))
    assert [tempo.bars_to_seconds(n, n) for n in (1, 2, 3)] == [(0, 4), (4, 6), (6, 9)]
    assert [tempo.bar_at(t) for t in (3.9, 4, 5.9, 6, 8.9, 9)] == [1, 2, 2, 3, 3, 4]


def test_bars_under_a_ramp_match_counting():
    tempo = project("0 120 0", "16 70 1", tempo="120 4 4")
    fine = np.arange(0, 30, 1e-4)
    beats = tempo.seconds_to_beats(fine)
    for bar in (2, 5, 9):
        crossing = fine[np.searchsorted(beats, (bar - 1) * 4)]
        assert tempo.bars_to_seconds(bar, bar)[0] == pytest.approx(crossing, abs=2e-4)


def test_points_without_tempo_change_only_the_signature():
    tempo = project("0 120 0 262148 0 1", "2 999 0 196611 0 3", "4 60 1")
    assert tempo.bpm_at(2) == 90
    assert tempo.signature_at(3)[0] == 3


def test_the_tempo_line_counts_where_there_are_no_points():
    tempo = project(tempo="97.35 7 8")
    assert tempo.bpm_at(100) == 97.35
    assert tempo.signature_at(0) == (7, 8)
    assert tempo.bars_to_seconds(2, 2)[0] == pytest.approx(3.5 * 60 / 97.35)


def test_bezier_is_refused_by_its_time_unless_it_does_not_move():
    with pytest.raises(Refused, match=r"2\.000 s has a Bezier shape") as refused:
        project("0 120 1", "2 100 5 0 0 0 0.5", "4 60 1")
    assert "--approximate" in refused.value.hint
    ramp = project("0 120 1", "2 100 5 0 0 0 0.5", "4 60 1", approximate=True)
    assert (ramp.bpm_at(2), ramp.bpm_at(3), ramp.bpm_at(4)) == (100, 80, 60)
    assert project("0 120 5", "4 120 1").bpm_at(3) == 120


@pytest.mark.parametrize("bad", ["0 0 1", "0 -3 1", "0 nan 1", "0 1e99 1", "0 abc 1", "0 120 1 4 0 1"])
def test_impossible_points_are_refused(bad):
    with pytest.raises(Refused):
        project(bad)


def test_grid_follows_steps_exactly_and_ramps_within_its_bound():
    tempo = project("0 120 0", "2.1 140 1", "5 87 1")
    grid = tempo.grid(0.3, 8.0)
    t = np.linspace(0.3, 8.0, 5000)
    off_ms = np.abs(grid.seconds_to_beats(t) - tempo.seconds_to_beats(t)) / (87 / 60) * 1000
    ramp = t < 2.1
    assert off_ms[~ramp].max() < 1e-6
    assert 0 < off_ms[ramp].max() <= tempo.grid_error_ms(0.3, 8.0) * 140 / 87
    assert tempo.grid_error_ms(0.3, 8.0) < 0.3
    assert tempo.grid_error_ms(3.0, 8.0) == 0


def test_the_published_error_of_a_ramp():
    """120 to 140 bpm over four beats: 2.6 ms at whole beats, 0.2 ms at quarters."""
    length = 4 * 60 / 130
    tempo = project("0 120 0", f"{length} 140 1")
    assert tempo.grid_error_ms(0, length, 1.0) == pytest.approx(2.6, rel=0.25)
    assert tempo.grid_error_ms(0, length) == pytest.approx(0.2, rel=0.25)


def test_a_constant_grid_is_two_points_and_varies_by_nothing():
    tempo = TempoMap.at_bpm(97.35)
    assert len(tempo.grid(1, 20).beats) == 2
    assert tempo.varies(0, 100) == 0
    assert project("0 100 1", "10 101 1").varies(0, 20) == pytest.approx(0.00995, rel=1e-3)
    assert project("0 100 1", "10 101 1").varies(0, 9.9) == 0


def test_grids_refuse_what_does_not_rise():
    with pytest.raises(ValueError, match="rising"):
        Grid(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0]))
    with pytest.raises(ValueError, match="3 beats but 2 times"):
        Grid(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0]))


def midi_file(path, *events, ticks=480):
    file = mido.MidiFile(ticks_per_beat=ticks)
    track = mido.MidiTrack(events)
    file.tracks.append(track)
    file.save(path)
    return path


def test_midi_files_give_tempo_and_signature(tmp_path):
    path = midi_file(
        tmp_path / "map.mid",
        mido.MetaMessage("time_signature", numerator=7, denominator=8, time=0),
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(174), time=0),
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(87), time=480 * 7),
        mido.MetaMessage("time_signature", numerator=4, denominator=4, time=0),
        mido.Message("note_on", note=60, time=480 * 8),
    )
    tempo = TempoMap.from_midi(path)
    assert tempo.beats_to_seconds(15) == pytest.approx(mido.MidiFile(path).length, abs=1e-6)
    assert tempo.signature_at(0.1) == (7, 8)
    start, end = tempo.bars_to_seconds(3, 3)
    assert start == pytest.approx(7 * 60 / 174, abs=1e-5)
    assert end - start == pytest.approx(4 * 60 / 87, abs=1e-5)
    assert TempoMap.from_midi(path, (3, 4)).bars_to_seconds(3, 3) == (start, end), "the file's own signature wins"


def test_a_midi_file_without_a_signature_is_counted_in_the_one_given(tmp_path):
    path = midi_file(tmp_path / "map.mid", mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120), time=0))
    assert TempoMap.from_midi(path).bars_to_seconds(3, 3) == (4.0, 6.0)
    assert TempoMap.from_midi(path, (3, 4)).bars_to_seconds(3, 3) == (3.0, 4.5)


def test_a_midi_file_that_says_no_tempo_is_no_tempo_map(tmp_path):
    path = midi_file(tmp_path / "notes.mid", mido.Message("note_on", note=60, time=480))
    with pytest.raises(Refused, match=r"holds no tempo: .*notes\.mid"):
        TempoMap.from_midi(path)


TEMPO = b"\0\xff\x51\x03\x07\xa1\x20"


def smf(form, division, events):
    track = events + b"\0\xff\x2f\0"
    head = b"MThd" + struct.pack(">IHHH", 6, form, 1, division)
    return head + b"MTrk" + struct.pack(">I", len(track)) + track


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (smf(2, 480, TEMPO), "format 2, songs side by side"),
        (smf(1, 0, TEMPO), "has 0 ticks a beat"),
        (smf(1, 0xE728, TEMPO), "counts in SMPTE frames"),
        (smf(1, 480, b"\0\xff\x51\x03\0\0\0"), "a tempo of 0 microseconds a beat at tick 0"),
        (smf(1, 480, b"\0\xff\x51\x03\0\0\1"), "a tempo of 6e"),
        (smf(1, 480, TEMPO + b"\0\xff\x58\x04\4\x1e\x18\x08"), "4/1073741824, allowed is 1 and up over 1 to 255"),
        (smf(1, 480, TEMPO + b"\0\xff\x58\x04\0\2\x18\x08"), "a time signature of 0/4"),
        (smf(1, 480, TEMPO + b"\xff" * 400 + b"\x7f" + TEMPO[1:]), "a wait of over 268435455 ticks"),
        (smf(1, 480, TEMPO + b"\xff" * 8 + b"\x7f" + TEMPO[1:] + b"\1" + TEMPO[1:]), "a wait of over 268435455 ticks"),
    ],
)
def test_midi_files_that_tell_no_tempo_of_a_song_are_refused(data, says, tmp_path):
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    with pytest.raises(Refused, match=says) as caught:
        TempoMap.from_midi(path)
    assert caught.value.hint


@pytest.mark.parametrize("data", [b"", b"MThd", b"RIFF....", b"MThd\0\0\0\6\0\1\0\1\0\x60MTrk\0\0\0\x40\0"])
def test_broken_midi_files_are_refused(tmp_path, data):
    path = tmp_path / "bad.mid"
    path.write_bytes(data)
    with pytest.raises(Refused, match=r"bad\.mid"):
        TempoMap.from_midi(path)


def test_midi_files_that_lie_are_refused_or_read(tmp_path):
    events = [
        mido.MetaMessage("key_signature", key="C"),
        mido.MetaMessage("time_signature", numerator=7, denominator=8),
        mido.MetaMessage("set_tempo", tempo=500_000, time=10),
        mido.Message("note_on", note=60, time=100),
    ]
    good = midi_file(tmp_path / "lies.mid", *events).read_bytes()
    rng = np.random.default_rng(1)
    read = 0
    for _ in range(1500):
        data = bytearray(good)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        (tmp_path / "lies.mid").write_bytes(bytes(data[: rng.integers(1, 2 * len(data))]))
        try:
            read += TempoMap.from_midi(tmp_path / "lies.mid").bar_at(10.0) > 0
        except Refused:
            continue
    assert 50 < read < 1400


def test_smpte_and_missing_midi_files_are_refused(tmp_path):
    path = midi_file(tmp_path / "smpte.mid")
    data = bytearray(path.read_bytes())
    data[12:14] = b"\xe8\x28"
    path.write_bytes(bytes(data))
    with pytest.raises(Refused, match="SMPTE"):
        TempoMap.from_midi(path)
    with pytest.raises(Refused, match="missing"):
        TempoMap.from_midi(tmp_path / "none.mid")
