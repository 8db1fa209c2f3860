"""The picture shows what it is given: its pixels tell the two sounds, the region and the fades apart."""

import struct

import numpy as np
import pytest

from punchin.session.measure import Before, Made, Span, report
from punchin.session.picture import alone, before_after, spectrogram_db
from punchin.session.splice import Fade, Fades
from punchin.session.tempo import TempoMap

RATE = 48_000


def png_size(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[:, :, :3]


@pytest.mark.parametrize("frames", [1, 300, 8 * RATE])
@pytest.mark.parametrize("channels", [1, 2])
def test_it_is_a_picture_of_any_length(tmp_path, frames, channels):
    audio = np.random.default_rng(0).uniform(-1, 1, (channels, frames)).astype(np.float32)
    fade = Fade(min(2400, frames // 4))
    span = Span(RATE, frames // 4, frames // 2 + 1, tuple(range(0, frames, 2 * RATE)))
    before_after(tmp_path / "a.png", audio, -audio, span, Fades(fade, fade), title="cost $5, then $6 " * 10)
    assert png_size(tmp_path / "a.png") == (1200, 640)


def test_only_the_take_is_orange_and_only_after(tmp_path):
    rng = np.random.default_rng(0)
    before = rng.uniform(-0.5, 0.5, (2, 8 * RATE)).astype(np.float32)
    span, fades = Span(RATE, 2 * RATE, 4 * RATE, tuple(range(0, 8 * RATE, RATE))), Fades(Fade(2400), Fade(2400))
    before_after(tmp_path / "a.png", before, before, span, fades)
    orange = np.abs(pixels(tmp_path / "a.png") - np.array([0xFF, 0xB4, 0x54]) / 255).max(axis=2) < 0.05
    columns = np.flatnonzero(orange[345:435, 90:1170].mean(axis=0) > 0.4) + 90  # the second waveform's rows
    width = 1200 * (0.985 - 0.068)
    assert columns.min() == pytest.approx(1200 * 0.068 + width * 2 / 8, abs=5)
    assert columns.max() == pytest.approx(1200 * 0.068 + width * 4 / 8, abs=5)
    assert (orange[66:150, 90:1170].mean(axis=0) > 0.4).sum() <= 4  # in the first only the two edges


def test_a_tone_lies_in_its_row():
    t = np.arange(2 * RATE) / RATE
    for hz in (110.0, 1000.0, 7000.0):
        spectrum = spectrogram_db(np.sin(2 * np.pi * hz * t).astype(np.float32)[None], RATE)
        assert spectrum.shape[0] == 160
        row = spectrum[:, spectrum.shape[1] // 2].argmax()
        assert row == pytest.approx(160 * np.log(hz / 40) / np.log(16_000 / 40), abs=1.5)


@pytest.mark.parametrize("gain", [1.0, 0.5])
def test_what_was_measured_stands_below(tmp_path, gain):
    """With a report the picture gets another footer, and beats where there is a grid."""
    rng = np.random.default_rng(0)
    before = rng.uniform(-0.5, 0.5, (2, 8 * RATE)).astype(np.float32)
    after, fades = before.copy(), Fades(Fade(2400), Fade(2400))
    after[:, 2 * RATE : 4 * RATE] *= np.float32(gain)
    span = Span(RATE, 2 * RATE, 4 * RATE, tuple(range(0, 8 * RATE, RATE)), TempoMap.at_bpm(120).grid(0, 8))
    found = report(Before.of(before, span), after, fades, Made(resampled=False, warped=False, window_s=8.0))
    before_after(tmp_path / "plain.png", before, after, span, fades)
    before_after(tmp_path / "told.png", before, after, span, fades, report=found)
    footer = pixels(tmp_path / "told.png")[612:, 300:]
    orange = np.abs(footer - np.array([0xFF, 0xB4, 0x54]) / 255).max(axis=2) < 0.1
    assert found.ok == (gain == 1.0)
    assert orange.any() == (not found.ok)
    assert np.abs(footer - pixels(tmp_path / "plain.png")[612:, 300:]).max() > 0.3


@pytest.mark.parametrize(
    ("first_s", "seconds", "first", "last", "at"),
    [(0.0, 4.0, "0 s", "3.5 s", 0.0), (10.3, 8.0, "11 s", "18 s", 0.7), (700.0, 60.0, "700 s", "755 s", 0.0)],
)
def test_seconds_are_of_project_time(tmp_path, monkeypatch, first_s, seconds, first, last, at):
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: shown.append(figure.axes[-1]))
    span = Span(1000, 1000, 2000, (0, 1000, 2000), first_s=first_s)
    audio = np.zeros((1, int(1000 * seconds)), np.float32)
    before_after(tmp_path / "a.png", audio, audio, span, Fades(Fade(0), Fade(0)))
    labels = [label.get_text() for label in shown[0].get_xticklabels()]
    assert (labels[0], labels[-1]) == (first, last)
    assert shown[0].get_xticks()[0] == pytest.approx(at)


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_music_that_replaced_nothing_is_one_waveform_and_one_spectrogram(tmp_path, level):
    """All of it is the take's, its bars and beats are lines; silence is black."""
    audio = np.random.default_rng(0).uniform(-level, level, (2, 4 * RATE)).astype(np.float32)
    span = Span(RATE, 0, 4 * RATE, (0, 2 * RATE), TempoMap.at_bpm(120).grid(0, 4))
    alone(tmp_path / "a.png", audio, span, title="generate 7: x")
    assert png_size(tmp_path / "a.png") == (1200, 640)
    shown = pixels(tmp_path / "a.png")
    orange = np.abs(shown - np.array([0xFF, 0xB4, 0x54]) / 255).max(axis=2) < 0.05
    columns = np.flatnonzero(orange[62:256, 90:1170].mean(axis=0) > 0.4)
    assert len(columns) == 0 if level == 0 else len(columns) > 1000
    assert (shown[280:580, 100:1100].mean() < 0.05) == (level == 0)
