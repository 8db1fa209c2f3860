"""Music from a prompt alone comes at the tempo that was asked for, whatever the model played, or is rolled again."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.cli.result import measured
from punchin.clients.journey import Prompt, grid, land, making, redoing
from punchin.clients.journey.making import MadeFile
from punchin.clients.journey.request import Making
from punchin.protocol.errors import PunchinError
from punchin.session import audiofile
from punchin.session.takefiles import note_file

RATE, BPM, BARS = 48_000, 97.35, 8
FRAMES = round(BARS * 4 * 60 / BPM * RATE)


def on_grid(audio):
    return grid.on_grid(audio, BPM, FRAMES, window_s=audio.shape[1] / RATE)


def told(made):
    return measured(MadeFile(Path("x.wav"), "punchin generate 1", 1, 1, made.report))


def clicks(bpm, late_s, frames, level=0.5):
    """A burst at each beat."""
    at = np.arange(round(0.04 * RATE)) / RATE
    burst = level * np.sin(2 * np.pi * 1_200 * at) * np.exp(-at / 0.01)
    audio = np.zeros((2, frames), np.float32)
    beat = 0
    while (first := round((late_s + beat * 60 / bpm) * RATE)) < frames - len(burst):
        if first >= 0:
            audio[:, first : first + len(burst)] += burst.astype(np.float32)
        beat += 1
    return audio


def starts(audio):
    loud = np.flatnonzero(np.abs(audio[0]) > 0.1 * np.abs(audio).max())
    return loud[np.r_[True, np.diff(loud) > 0.2 * RATE]] / RATE


@pytest.mark.parametrize(("off", "late_s"), [(1.02, 0.03), (0.97, 0.0), (1.004, -0.02), (1.05, 0.04)])
def test_a_take_off_tempo_is_brought_onto_the_grid(off, late_s):
    made = on_grid(clicks(BPM * off, late_s, round(FRAMES * 1.065)))
    assert made.audio.shape == (2, FRAMES)
    beats = starts(made.audio) * BPM / 60
    worst_s = np.abs(beats - np.round(beats)).max() * 60 / BPM
    assert worst_s < 0.006
    assert abs(made.report.tempo_ratio - 1) < 0.001
    assert made.report.tempo_ratio_played == pytest.approx(off, abs=0.0005), "what the model played is in the report"
    assert (made.report.warped, made.report.ok, made.report.failed) == (True, True, ())
    assert told(made)[2].startswith(f"  tempo x {made.report.tempo_ratio:.4f}")
    assert len(beats) >= 4 * BARS - 1, "no beat is lost at the end"


@pytest.mark.parametrize("late_s", [0.09, 0.11, 0.125, 0.2, 0.25, 0.3, 0.4])
def test_a_take_that_begins_anywhere_in_a_beat_is_brought_onto_it(late_s):
    made = on_grid(clicks(BPM, late_s, round(FRAMES * 1.065)))
    beats = starts(made.audio) * BPM / 60
    assert np.abs(beats - np.round(beats)).max() * 60 / BPM < 0.006
    assert abs(made.report.phase_ms) < 5
    assert made.report.ok


def test_what_is_cut_at_the_start_does_not_click():
    seconds = np.arange(round(FRAMES * 1.065)) / RATE
    held = (0.2 * np.cos(2 * np.pi * 110 * seconds)).astype(np.float32)
    made = on_grid(clicks(BPM, 0.03, len(held)) + held)
    assert made.report.phase_ms == pytest.approx(0, abs=5)
    assert made.audio[0, 0] == 0
    assert np.abs(made.audio[:, :4]).max() < 0.1 * np.abs(made.audio).max()


def test_a_take_in_time_is_only_cut():
    source = clicks(BPM, 0.0, round(FRAMES * 1.065))
    made = on_grid(source)
    assert (made.report.warped, made.report.gain_db) == (False, 0.0)
    fade = round(0.005 * RATE)
    assert np.array_equal(made.audio[:, : FRAMES - fade], source[:, : FRAMES - fade])


def test_the_cut_at_the_end_does_not_click():
    steady = np.full((2, FRAMES + RATE), 0.25, np.float32)
    made, fade = on_grid(steady).audio, round(0.005 * RATE)
    np.testing.assert_array_equal(made[:, :-fade], steady[:, : FRAMES - fade])
    assert made[0, -1] == 0
    assert np.abs(np.diff(made)).max() < 0.25 / (fade - 2)


@pytest.mark.parametrize("level", [0.0, 0.1])
def test_without_a_beat_nothing_is_done(level):
    source = np.random.default_rng(1).normal(0, level, (2, FRAMES + 999)).astype(np.float32)
    made = on_grid(source)
    assert np.array_equal(made.audio[:, :-999], source[:, : FRAMES - 999])
    assert (made.report.warped, made.report.tempo_ratio) == (False, None)
    assert made.report.failed == (() if level else ("the take is silent",))
    assert "no beat" in told(made)[2]


def test_what_is_over_the_ceiling_is_turned_down_and_that_is_told():
    source = clicks(BPM, 0.0, round(FRAMES * 1.065), level=2.0)
    made = on_grid(source)
    assert made.report.true_peak_dbfs == pytest.approx(-1, abs=0.01)
    assert made.report.gain_db == pytest.approx(-1 - 20 * np.log10(np.abs(source).max()), abs=0.1)
    assert made.report.ok
    assert f"turned down by {-made.report.gain_db:.1f} dB" in told(made)[2]


def test_a_tempo_that_stays_off_is_told(monkeypatch):
    monkeypatch.setattr(grid, "_stretched", lambda audio, ratio: audio)
    made = on_grid(clicks(BPM * 1.02, 0.0, round(FRAMES * 1.065)))
    assert made.report.failed[0] == "tempo error is 2 %, allowed is at most 0.1"
    assert told(made)[3] == "  over its limit: tempo error is 2 %, allowed is at most 0.1"


def silent_unless(*good):
    """An engine whose takes are silent, which no limit allows, unless their seed is one of these."""
    return lambda source, order, seed: clicks(BPM, 0.0, order.frames) if seed in good else np.zeros_like(source)


def go(make, out, model="direct", trained=True, **more):
    client, heard = DirectClient(make, model, trained), Heard()
    asked = Making(prompt=Prompt(text="x"), bpm=BPM, bars=BARS, signature=(4, 4), out=out, seed=10, **more)
    return client, heard, making.go(client, asked, heard)


def test_a_bad_take_is_rolled_with_the_next_seed(tmp_path):
    client, heard, result = go(silent_unless(12), tmp_path / "new.wav")
    assert [order.seeds for order in client.orders] == [(10,), (11,), (12,)]
    (take,) = result.takes
    assert (take.file, take.name, take.seed, take.attempts) == (tmp_path / "new.wav", "punchin generate 12", 12, 3)
    assert take.report.ok
    assert heard.warned[0] == "take 10: the take is silent; rolled again with seed 11 (attempt 2 of 3)"
    assert client.where == {"direct-0002": str(tmp_path / "new.wav")}
    assert measured(take)[0] == "punchin generate 12, rolled 3 times"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.wav", "new.wav.punchin.json"]


def test_only_the_bad_variations_are_rolled_again_and_a_later_landing_gives_the_same(tmp_path):
    client, heard, result = go(silent_unless(10, 12, 13), tmp_path / "new.wav", variations=3)
    assert [order.seeds for order in client.orders] == [(10, 11, 12), (13,)]
    assert [(take.seed, take.attempts) for take in result.takes] == [(10, 1), (13, 2), (12, 1)]
    assert [take.file.name for take in result.takes] == ["new.wav", "new-13.wav", "new-12.wav"]
    assert set(client.where) == {"direct-0000", "direct-0001"}
    again = land(client, result.job, heard)
    assert [(take.seed, take.attempts) for take in again.takes] == [(10, 1), (13, 2), (12, 1)]
    for old, new in zip(result.takes, again.takes, strict=True):
        assert np.array_equal(soundfile.read(old.file)[0], soundfile.read(new.file)[0])


def test_variations_that_cannot_all_be_written_leave_nothing(tmp_path, monkeypatch):
    write, tries = audiofile.write, []

    def full(*args):
        tries.append(args)
        if len(tries) == 2:
            raise PunchinError("no room", "make room")
        return write(*args)

    client = DirectClient(silent_unless(10, 11, 12))
    asked = Making(
        prompt=Prompt(text="x"), bpm=BPM, bars=BARS, signature=(4, 4), out=tmp_path / "idea.wav", seed=10, variations=3
    )
    with monkeypatch.context() as patch:
        patch.setattr(audiofile, "write", full)
        with pytest.raises(PunchinError, match="no room") as told:
            making.go(client, asked, Heard())
    assert "punchin land direct-0000" in told.value.hint
    assert list(tmp_path.iterdir()) == []
    landed = land(client, "direct-0000", Heard())
    assert [take.file.name for take in landed.takes] == ["idea.wav", "idea-11.wav", "idea-12.wav"]


def test_in_the_end_it_lands_with_a_warning_in_its_name(tmp_path):
    client, heard, result = go(silent_unless(), tmp_path / "new.wav")
    assert len(client.orders) == 3
    (take,) = result.takes
    assert (take.seed, take.attempts, take.name) == (12, 3, "punchin generate 12 CHECK: the take is silent")
    assert json.loads(note_file(take.file).read_text())["name"] == take.name, "beside the file too"
    assert (result.to_json()["takes"][0]["name"], len(heard.warned)) == (take.name, 2)
    assert measured(take)[-1] == "  over its limit: the take is silent"


def test_max_attempts_bounds_it_and_noise_is_rolled_once(tmp_path):
    assert len(go(silent_unless(), tmp_path / "a.wav", max_attempts=1)[0].orders) == 1
    client, _, result = go(silent_unless(), tmp_path / "b.wav", "punchin-tiny", trained=False)
    assert (len(client.orders), result.takes[0].name) == (1, "punchin generate 10 demo model (tiny)")


def test_the_same_take_again_is_not_rolled_again(tmp_path):
    _, _, result = go(silent_unless(12), tmp_path / "new.wav", max_attempts=5)
    made = redoing.of_file(result.output)
    same = redoing.request_of(made, redoing.Change())
    assert (same.seed, same.max_attempts) == (12, 1)
    sister = redoing.request_of(made, redoing.Change(seed=3))
    assert (sister.seed, sister.max_attempts) == (3, 5)
