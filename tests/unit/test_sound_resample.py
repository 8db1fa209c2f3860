"""Resampling keeps time and phase, by what is heard: tones against the tones they should be."""

import numpy as np
import pytest

from punchin.session.resample import MARGIN_S, frames_at, resample, resample_span


def tone(hz, rate, first, frames, phase=0.3):
    """A sine by definition: frame i of a clock that starts at 0."""
    t = (first + np.arange(frames)) / rate
    return np.stack([np.sin(2 * np.pi * hz * t + phase), 0.5 * np.cos(2 * np.pi * hz * t)]).astype(np.float32)


def db(x):
    return 20 * np.log10(max(np.abs(x).max(), 1e-12))


def test_equal_rates_are_the_same_bits():
    audio = np.random.default_rng(0).standard_normal((2, 1001)).astype(np.float32)
    assert resample(audio, 44_100, 44_100) is audio
    assert resample(audio, 48_000, 48_000, 900).tobytes() == audio[:, :900].tobytes()
    longer = resample(audio, 48_000, 48_000, 1100)
    assert longer.shape == (2, 1100)
    assert not longer[:, 1001:].any()


@pytest.mark.parametrize(("a", "b"), [(44_100, 48_000), (48_000, 44_100), (96_000, 48_000), (48_000, 32_000)])
@pytest.mark.parametrize("hz", [100.0, 997.0, 8000.0])
def test_a_tone_stays_in_phase(a, b, hz):
    audio = tone(hz, a, 0, a)
    out = resample(audio, a, b)
    assert out.shape == (2, b)
    margin = round(MARGIN_S * b)
    assert db((out - tone(hz, b, 0, b))[:, margin:-margin]) < -110


@pytest.mark.parametrize("first", [0, 1, 7, 12_345, 44_099])
def test_a_piece_from_anywhere_keeps_its_phase(first):
    """The piece starts between two frames of the other rate."""
    audio = tone(5000.0, 44_100, first, 44_100)
    start = int(np.ceil((first / 44_100 + 0.1) * 48_000))
    out = resample_span(audio, 44_100, 48_000, first, start, start + 30_000)
    assert db(out - tone(5000.0, 48_000, start, 30_000)) < -110


def test_rounding_to_the_nearest_frame_instead_would_be_heard_by_that_check():
    off = resample(tone(5000.0, 44_100, 7, 44_100), 44_100, 48_000)[:, 4800:34_800]
    assert db(off - tone(5000.0, 48_000, round(7 * 48 / 44.1) + 4800, 30_000)) > -40


@pytest.mark.parametrize("rate", [44_100, 88_200, 96_000, 22_050])
def test_there_and_back_is_under_90_db(rate):
    rng = np.random.default_rng(5)
    spectrum = np.fft.rfft(rng.standard_normal((2, rate)))
    spectrum[:, int(min(16_000, 0.75 * rate / 2)) :] = 0  # content up to 16 kHz
    audio = np.fft.irfft(spectrum, rate).astype(np.float32)
    audio /= np.abs(audio).max()
    back = resample(resample(audio, rate, 48_000), 48_000, rate, rate)
    assert back.shape == audio.shape
    margin = round(MARGIN_S * rate)
    assert db((back - audio)[:, margin:-margin]) < -90


@pytest.mark.parametrize(
    ("n", "a", "b", "frames"),
    [(44_100, 44_100, 48_000, 48_000), (1, 48_000, 44_100, 1), (147, 44_100, 48_000, 160), (441, 44_100, 8000, 80)],
)
def test_length_is_exact(n, a, b, frames):
    assert frames_at(n, a, b) == frames
    assert resample(np.zeros((1, n), np.float32), a, b).shape == (1, frames)


def test_beyond_the_sound_is_silence():
    audio = np.ones((1, 4800), np.float32)
    out = resample_span(audio, 48_000, 48_000, 100, 0, 6000)
    assert not out[:, :100].any()
    assert (out[:, 100:4900] == 1).all()
    assert not out[:, 4900:].any()
    assert not resample_span(audio, 48_000, 44_100, 0, 50_000, 51_000).any()
