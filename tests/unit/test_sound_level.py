"""Loudness, true peak and the level match, against tones whose values are known."""

import numpy as np
import pytest

from punchin.session.level import Aim, match
from punchin.session.loudness import loudness_db, rms_db, true_peak_db

RATE = 48_000
NONE = np.zeros((2, 0), np.float32)


def tone(hz=997.0, db=-20.0, seconds=3.0, rate=RATE, phase=0.0):
    t = np.arange(round(seconds * rate)) / rate
    return np.tile((10 ** (db / 20) * np.sin(2 * np.pi * hz * t + phase)).astype(np.float32), (2, 1))


def test_a_stereo_tone_of_minus_23_dbfs_is_minus_23_lufs():
    """EBU Tech 3341, case 1: 1 kHz stereo at -23 dBFS peak reads -23 LUFS, within 0.1."""
    assert loudness_db(tone(1000.0, -23.0, 20.0), RATE) == pytest.approx(-23.0, abs=0.1)


def test_short_sounds_are_measured_by_rms():
    assert loudness_db(tone(1000.0, -20.0, 0.3), RATE) == pytest.approx(-23.01, abs=0.01)
    assert loudness_db(tone(100.0, -20.0, 3.0), RATE, frames=1000) == pytest.approx(-23.01, abs=0.01)


@pytest.mark.parametrize("rate", [11_025, 44_056, 44_100, 48_000, 48_048])
def test_at_any_rate_a_sound_of_four_tenths_of_a_second_has_a_loudness(rate):
    """A block of BS.1770 is no whole number of frames at each rate (44,056 and 48,048 Hz are film's)."""
    for frames in range(round(0.4 * rate) - 2, round(0.4 * rate) + 3):
        audio = tone(997.0, -23.0, 1.0, rate)[:, :frames]
        assert loudness_db(audio, rate) == pytest.approx(-23.0 if frames >= 0.4 * rate else -26.01, abs=1)


def test_silence_has_no_loudness():
    quiet = np.full((2, RATE), 1e-5, np.float32)
    for audio in (NONE, np.zeros((2, RATE), np.float32), np.zeros((2, 100), np.float32), quiet):
        assert loudness_db(audio, RATE) is None
        assert rms_db(audio) is None
    assert true_peak_db(NONE, RATE) is None
    assert true_peak_db(np.zeros((1, 10), np.float32), RATE) is None


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_a_cut_is_no_peak(rate):
    """A region that begins and ends at the top of a bass note: half a second of it peaks where all of it does."""
    note = 0.5 * np.cos(2 * np.pi * 40 * np.arange(rate) / rate, dtype=np.float32)
    assert true_peak_db(note[None, : rate // 2 + 1], rate) == pytest.approx(-6.02, abs=0.02)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000])
def test_true_peak_sees_between_the_samples(rate):
    """A quarter of the rate at 45 degrees: every sample is 3 dB under the wave's top (EBU Tech 3341, cases 15-19)."""
    audio = tone(rate / 4, -6.0, 0.5, rate, phase=np.pi / 4)
    ramp = np.minimum(1, np.minimum(np.arange(audio.shape[1]), np.arange(audio.shape[1])[::-1]) / 2000)
    audio *= ramp.astype(np.float32)
    assert 20 * np.log10(np.abs(audio).max()) == pytest.approx(-9.0, abs=0.05)
    assert true_peak_db(audio, rate) == pytest.approx(-6.0, abs=0.2)


def test_a_take_gets_the_sources_loudness():
    out, level = match(tone(db=-32.0), tone(db=-32.0), Aim.at(tone(db=-20.0), NONE, RATE), RATE)
    assert level.gain_db == pytest.approx(12.0, abs=0.05)
    assert loudness_db(out, RATE) == pytest.approx(loudness_db(tone(db=-20.0), RATE), abs=0.05)
    assert out.dtype == np.float32


def test_what_came_back_as_it_went_keeps_its_bits():
    rng = np.random.default_rng(0)
    for peak in (0.3, 1.0, 1.7):  # also over full scale
        source = (peak * rng.uniform(-1, 1, (2, RATE))).astype(np.float32)
        out, level = match(source.copy(), source, Aim.at(source, NONE, RATE), RATE)
        assert level.gain_db == 0.0
        assert out.tobytes() == source.tobytes()


def test_what_is_not_heard_is_turned_up_but_not_measured():
    take = np.concatenate([tone(db=0.0, seconds=1.0), tone(db=-32.0)], axis=1)
    out, level = match(take, take[:, RATE:], Aim.at(tone(db=-20.0), NONE, RATE), RATE)
    assert level.gain_db == pytest.approx(12.0, abs=0.05)
    np.testing.assert_allclose(out[:, :RATE], take[:, :RATE] * 10 ** (level.gain_db / 20), rtol=1e-6)


def test_a_silent_source_takes_the_contexts_loudness():
    silent = np.zeros((2, 3 * RATE), np.float32)
    _, level = match(tone(db=-10.0), tone(db=-10.0), Aim.at(silent, tone(db=-25.0), RATE), RATE)
    assert level.gain_db == pytest.approx(-15.0, abs=0.05)
    for context in (NONE, silent):
        assert match(tone(db=-10.0), tone(db=-10.0), Aim.at(silent, context, RATE), RATE)[1].gain_db == 0.0


def test_a_silent_take_stays():
    silent = np.zeros((2, 3 * RATE), np.float32)
    out, level = match(silent, silent, Aim.at(tone(), NONE, RATE), RATE)
    assert level.gain_db == 0.0
    assert not out.any()


def test_the_ceiling_wins_over_the_level():
    rng = np.random.default_rng(1)
    take = tone(db=-30.0)
    take[:, 5000:5040] = 0.2 * rng.uniform(-1, 1, 40).astype(np.float32)  # one peak far over the body
    out, level = match(take, take, Aim.at(tone(db=-6.0), NONE, RATE), RATE)
    assert level.held_by_ceiling
    assert level.gain_db < 20
    assert true_peak_db(out, RATE) == pytest.approx(-1.0, abs=0.1)


def test_the_ceiling_is_the_sources_own_peak_where_that_is_higher():
    out, _ = match(tone(db=-20.0), tone(db=-20.0), Aim.at(tone(db=2.0), NONE, RATE), RATE)
    assert true_peak_db(out, RATE) == pytest.approx(2.0, abs=0.1)


def test_no_sample_clips_where_the_source_peaks_between_its_own():
    """A master whose true peak is over 0 dBTP, though no sample of it is: its takes may not clip for that."""
    source = tone(RATE / 4, 1.0, phase=np.pi / 4)
    take = tone(db=-30.0)
    take[:, 5000] = 0.5  # its peak is a sample
    for loud, level, held in (take, True, True), (take * np.float32(2.004), False, False), (2 * take, True, True):
        out, told = match(loud, loud, Aim.at(source, NONE, RATE), RATE, level=level)
        assert 0.99 < np.abs(out).max() < 1.0
        assert told.held_by_ceiling is held


def test_without_level_match_only_the_ceiling_acts():
    out, level = match(tone(db=-32.0), tone(db=-32.0), Aim.at(tone(db=-20.0), NONE, RATE), RATE, level=False)
    assert level.gain_db == 0.0
    out, level = match(tone(db=6.0), tone(db=6.0), Aim.at(tone(db=-20.0), NONE, RATE), RATE, level=False)
    assert level.held_by_ceiling
    assert true_peak_db(out, RATE) == pytest.approx(-1.0, abs=0.1)


def test_noise_is_not_lifted_without_end():
    _, level = match(tone(db=-62.0), tone(db=-62.0), Aim.at(tone(db=-20.0), NONE, RATE), RATE)
    assert level.gain_db == 24.0
    assert not level.held_by_ceiling, "so the report judges the difference that is left"
