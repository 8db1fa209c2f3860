"""Music from a prompt alone comes at the tempo that was asked for, whatever the model played."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from punchin.clients.cli.result import in_time
from punchin.clients.journey.grid import on_grid
from punchin.clients.journey.making import MadeFile
from punchin.clients.journey.plan import FilePlan
from punchin.protocol.order import Order

RATE, BPM, BARS = 48_000, 97.35, 8
FRAMES = round(BARS * 4 * 60 / BPM * RATE)


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
    made = on_grid(clicks(BPM * off, late_s, round(FRAMES * 1.065)), BPM, FRAMES)
    assert made.audio.shape == (2, FRAMES)
    assert made.warped is True
    beats = starts(made.audio) * BPM / 60
    worst_s = np.abs(beats - np.round(beats)).max() * 60 / BPM
    assert worst_s < 0.006
    assert abs(made.timing.ratio - 1) < 0.001
    assert made.played == pytest.approx(off, abs=0.0005), "what the model played is in the report"
    report = made.report(Order(task="text2music", frames=FRAMES), FilePlan(out="x.wav", bpm=BPM, frames=FRAMES))
    assert (report["ok"], report["failed"], report["tempo_ratio_played"]) == (True, [], made.played)
    assert in_time(MadeFile(Path("x.wav"), 1, report))[1].startswith(f"  tempo x {made.timing.ratio:.4f}")
    assert len(beats) >= 4 * BARS - 1, "no beat is lost at the end"


def test_a_take_in_time_is_only_cut():
    source = clicks(BPM, 0.0, round(FRAMES * 1.065))
    made = on_grid(source, BPM, FRAMES)
    assert made.warped is False
    fade = round(0.005 * RATE)
    assert np.array_equal(made.audio[:, : FRAMES - fade], source[:, : FRAMES - fade])


@pytest.mark.parametrize("sound", ["silence", "noise"])
def test_without_a_beat_nothing_is_done(sound):
    source = np.random.default_rng(1).normal(0, 0.1 if sound == "noise" else 0, (2, FRAMES + 999)).astype(np.float32)
    made = on_grid(source, BPM, FRAMES)
    assert made.warped is False
    assert np.array_equal(made.audio[:, :-999], source[:, : FRAMES - 999])
    report = made.report(Order(task="text2music", frames=FRAMES), FilePlan(out="x.wav", bpm=BPM, frames=FRAMES))
    assert (report["tempo_ratio"], report["ok"]) == (None, True)
    assert "no beat" in in_time(MadeFile(Path("x.wav"), 1, report))[1]


def test_a_tempo_that_stays_off_is_told():
    made = on_grid(clicks(BPM * 1.02, 0.0, round(FRAMES * 1.065)), BPM, FRAMES)
    off = replace(made, timing=replace(made.timing, ratio=1.02, ratio_error=0.001))
    report = off.report(Order(task="text2music", frames=FRAMES), FilePlan(out="x.wav", bpm=BPM, frames=FRAMES))
    assert (report["ok"], report["failed"]) == (False, ["tempo error is 1.8 %, allowed is at most 0.1"])
