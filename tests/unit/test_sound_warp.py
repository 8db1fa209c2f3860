"""Conform and un-conform: clicks stay where the grid says and as loud as they were; held sounds stay smooth."""

import numpy as np
import pytest

from punchin.protocol.errors import PunchinError
from punchin.session.tempo import Signature, Stretch, TempoMap
from punchin.session.warp import Warp, plan, warp

RATE = 48_000
LENGTH_S = 20.0
MAPS = {
    "ritardando 120 to 60": TempoMap((Stretch(0, 120, 60), Stretch(20, 60, 60))),
    "jumps": TempoMap((Stretch(0, 174, 174), Stretch(6, 87, 87), Stretch(13, 131.7, 131.7))),
    "7/8 to 4/4": TempoMap((Stretch(0, 140, 140), Stretch(9, 120, 120)), (Signature(0, 7, 8), Signature(21, 4, 4))),
    "a little": TempoMap((Stretch(0, 97.35, 97.35), Stretch(10, 103, 103))),
}


def clicks(times_s, seconds=LENGTH_S):
    """A decaying 1.5 kHz click at each moment: what it sounds like to the sample is known."""
    audio = np.zeros(round(seconds * RATE))
    t = np.arange(round(0.03 * RATE)) / RATE
    shape = 0.8 * np.sin(2 * np.pi * 1500 * t + 1) * np.exp(-300 * t)
    for at in times_s:
        first = round(at * RATE)
        part = shape[: len(audio) - first]
        audio[first : first + len(part)] += part
    return np.tile(audio.astype(np.float32), (2, 1))


def begins_s(audio, near_s):
    """Where the sound first has a third of its peak near a moment: no onset detector in this."""
    first = max(round(near_s * RATE) - 1500, 0)
    span = np.abs(audio[0, first : first + 3000])
    return (first + int(np.argmax(span > span.max() / 3))) / RATE, 20 * np.log10(span.max())


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("step_beats", [0.5])
def test_clicks_stay_in_time_and_as_loud(name, step_beats):
    tempo = MAPS[name]
    beats = np.arange(step_beats, tempo.seconds_to_beats(LENGTH_S - 0.1), step_beats)
    times = tempo.beats_to_seconds(beats)
    audio = clicks(times)
    conformed = plan(tempo.grid(0, LENGTH_S), 0, LENGTH_S)
    steady = warp(audio, RATE, conformed.warp)
    back = warp(steady, RATE, conformed.warp.inverse)
    assert steady.shape == audio.shape  # the mean tempo keeps the length
    assert back.shape == audio.shape
    even = beats * 60 / conformed.bpm  # the oracle of where they belong: equally spaced
    for heard, wanted in ((steady, even), (back, times)):
        for at, was in zip(wanted, times, strict=True):
            began, peak_db = begins_s(heard, at)
            source, source_db = begins_s(audio, was)
            assert abs((began - at) - (source - was)) < 0.002
            assert peak_db - source_db > (-2 if name in ("a little", "7/8 to 4/4") else -4)


@pytest.mark.parametrize("before_s", [0.02, 0.032, 0.039, 0.047, 0.056])
def test_a_ghost_before_a_drum_does_not_carry_it_away(before_s):
    """A soft click a little before each loud one: the loud ones stay in time, whichever of the two is found."""
    tempo = MAPS["ritardando 120 to 60"]
    times = tempo.beats_to_seconds(np.arange(1.0, tempo.seconds_to_beats(LENGTH_S - 0.1)))
    audio = clicks(times) + 0.1 * clicks(times - before_s)
    conformed = plan(tempo.grid(0, LENGTH_S), 0, LENGTH_S)
    even = conformed.warp(times)
    steady = warp(audio, RATE, conformed.warp)
    back = warp(steady, RATE, conformed.warp.inverse)
    for heard, wanted in ((steady, even), (back, times)):
        for at, was in zip(wanted, times, strict=True):
            began, peak_db = begins_s(heard, at)
            source, source_db = begins_s(audio, was)
            assert abs((began - at) - (source - was)) < 0.002
            assert abs(peak_db - source_db) < 1


def test_a_steady_path_changes_no_bit():
    audio = np.random.default_rng(0).standard_normal((2, RATE)).astype(np.float32)
    path = Warp(np.array([0.0, 0.4, 1.0]), np.array([0.0, 0.4, 1.0]))
    assert warp(audio, RATE, path).tobytes() == audio.tobytes()
    conformed = plan(TempoMap.at_bpm(97.35).grid(0, 1), 0, 1)
    assert conformed.bpm == pytest.approx(97.35)
    assert warp(audio, RATE, conformed.warp).tobytes() == audio.tobytes()


def test_a_held_chord_stays_smooth_and_in_tune():
    t = np.arange(round(LENGTH_S * RATE)) / RATE
    chord = 0.1 * sum(np.sin(2 * np.pi * hz * t + hz) for hz in (220.0, 277.2, 329.6, 440.0))
    audio = np.tile(chord.astype(np.float32), (2, 1))
    conformed = plan(MAPS["ritardando 120 to 60"].grid(0, LENGTH_S), 0, LENGTH_S)
    out = warp(audio, RATE, conformed.warp)
    spectrum = np.abs(np.fft.rfft(out[0] * np.hanning(out.shape[1])))
    hz = np.fft.rfftfreq(out.shape[1], 1 / RATE)
    for tone in (220.0, 277.2, 329.6, 440.0):
        near = np.abs(hz - tone) < 5
        assert hz[near][spectrum[near].argmax()] == pytest.approx(tone, abs=0.5)
    splatter = np.fft.rfft(out[0])
    splatter[: np.searchsorted(hz, 4000)] = 0
    assert np.abs(np.fft.irfft(splatter, out.shape[1]))[500:-500].max() < 0.001  # no click at any join
    rms = np.sqrt(np.square(out[0].reshape(-1, RATE // 10)).mean(axis=1) / np.square(chord).mean())
    assert np.abs(20 * np.log10(rms)).max() < 2.5  # no hole at any join; the chord's own beating is in this


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [22_050, 44_100, 96_000])
def test_every_rate_and_channel_count_keeps_its_length(rate, channels):
    audio = np.random.default_rng(1).uniform(-0.5, 0.5, (channels, rate * 3)).astype(np.float32)
    for seconds in (0.7, 2.9, 3.0, 4.1):
        out = warp(audio, rate, Warp(np.array([0.0, 3.0]), np.array([0.0, seconds])))
        assert out.shape == (channels, round(seconds * rate))
        assert np.isfinite(out).all()
        assert np.sqrt(np.square(out).mean()) == pytest.approx(np.sqrt(np.square(audio).mean()), rel=0.25)


def test_the_same_sound_warps_the_same_way():
    audio = clicks([0.5, 1.5, 2.2], 3.0)
    path = Warp(np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.3, 3.0]))
    assert warp(audio, RATE, path).tobytes() == warp(audio, RATE, path).tobytes()


def test_a_path_knows_its_way_back_and_its_ends():
    path = Warp(np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.5, 3.2]))
    at = np.linspace(-1, 4, 50)
    np.testing.assert_allclose(path.inverse(path(at)), at, atol=1e-12)
    assert path(-0.5) == -0.5
    assert path(4.0) == pytest.approx(4.2)


def test_what_cannot_be_is_refused():
    with pytest.raises(PunchinError, match="48000 frames"):
        warp(np.zeros((1, 48_000), np.float32), RATE, Warp(np.array([0.0, 2.0]), np.array([0.0, 1.0])))
    with pytest.raises(ValueError, match="rise"):
        Warp(np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0, 2.0]))
