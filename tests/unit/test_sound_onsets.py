"""Attacks are found where they were put, and nothing is found where nothing begins."""

import tracemalloc

import numpy as np
import pytest

from punchin.session import onsets
from punchin.session.onsets import _strongest, find

RATE = 48_000


def notes(times_s, make, seconds):
    audio = np.zeros(round((seconds + 3) * RATE))
    for i, at in enumerate(times_s):
        sound = make(i)
        sound = sound * np.minimum(1, np.arange(len(sound))[::-1] / 500)  # no cut end: that would begin something
        audio[round(at * RATE) : round(at * RATE) + len(sound)] += sound
    return np.tile(audio[: round(seconds * RATE)].astype(np.float32), (2, 1))


def click(_):
    t = np.arange(1440) / RATE
    return 0.8 * np.sin(2 * np.pi * 1500 * t + 1) * np.exp(-300 * t)


def kick(_):
    t = np.arange(9600) / RATE
    return 0.8 * np.sin(2 * np.pi * (50 * t + 3 * (1 - np.exp(-40 * t)))) * np.exp(-12 * t)


def bass(i):
    t = np.arange(14_400) / RATE
    hz = 41 * 2 ** ((i * 5 % 12) / 12)
    return 0.4 * np.sin(2 * np.pi * hz * t) * np.minimum(1, t / 0.005) * np.cos(np.pi / 2 * t / 0.3) ** 2


def pluck(i):
    t = np.arange(RATE) / RATE
    hz = 110 * 2 ** ((i * 7 % 24) / 12)
    return (
        0.15
        * sum(np.sin(2 * np.pi * hz * h * t) / h * np.exp(-3 * t * h) for h in range(1, 9))
        * np.minimum(1, t / 0.002)
    )


@pytest.mark.parametrize(("make", "within_ms"), [(click, 0.1), (kick, 2), (bass, 2), (pluck, 8)])
def test_attacks_are_found_to_the_millisecond(make, within_ms):
    times = np.arange(0.31, 9.5, 0.47)
    found = find(notes(times, make, 10), RATE).frames / RATE
    assert len(found) == len(times)
    assert np.abs(found - times).max() * 1000 < within_ms


def test_level_does_not_matter():
    times = np.arange(0.31, 9.5, 0.47)
    for gain in (1e-3, 1.0):
        assert len(find(notes(times, click, 10) * np.float32(gain), RATE).frames) == len(times)


def test_nothing_begins_in_a_held_sound():
    t = np.arange(10 * RATE) / RATE
    held = 0.1 * sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277, 330, 440)) * (1 + 0.3 * np.sin(4 * t))
    assert len(find(held.astype(np.float32)[None], RATE).frames) == 0
    assert len(find(np.zeros((2, RATE), np.float32), RATE).frames) == 0
    assert len(find(np.ones((2, 10), np.float32), RATE).frames) == 0


def test_over_a_held_sound_attacks_are_still_heard():
    times = np.arange(0.31, 9.5, 0.47)
    t = np.arange(10 * RATE) / RATE
    held = 0.1 * np.sin(2 * np.pi * 220 * t).astype(np.float32)
    found = find(notes(times, kick, 10) + held, RATE).frames / RATE
    assert len(found) == len(times)
    assert np.abs(found - times).max() < 0.003


def test_within_counts_from_the_same_zero():
    found = find(notes([0.5, 1.5, 2.5], click, 4), RATE)
    inside = found.within(RATE, 2 * RATE)
    assert list(inside.frames / RATE) == [1.5]
    assert len(inside.strength) == 1


def test_of_two_attacks_too_near_the_stronger_stays():
    """What a stretcher leaves 12 ms before a drum is placed near it, and must not stand for it."""
    frames, strength = np.array([100, 5000, 5560, 9000, 9300, 9300]), np.array([1, 0.1, 2, 3, 1, 3.0])
    assert list(frames[_strongest(frames, strength, 720)]) == [100, 5560, 9000]
    assert list(_strongest(np.array([5]), np.array([1.0]), 720)) == [True]


@pytest.mark.parametrize(("channels", "rate_hz"), [(1, 44_100), (2, 48_000), (2, 96_000)])
def test_the_spectra_are_the_same_in_pieces(monkeypatch, channels, rate_hz):
    sound = np.random.default_rng(4).normal(0, 0.1, (channels, 20 * rate_hz + 17)).astype(np.float32)
    pieces, _ = onsets._band_flux(sound, rate_hz)
    assert len(pieces) > 2 * onsets._BLOCK_HOPS
    monkeypatch.setattr(onsets, "_BLOCK_HOPS", 10**6)
    whole, _ = onsets._band_flux(sound, rate_hz)
    assert np.array_equal(pieces, whole)


def test_a_long_sound_takes_little_room():
    sound = np.random.default_rng(4).normal(0, 0.1, (2, 90 * RATE)).astype(np.float32)
    tracemalloc.start()
    try:
        onsets._band_flux(sound, RATE)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * sound.nbytes, f"{peak_bytes / 1e6:.0f} MB for 90 s"
