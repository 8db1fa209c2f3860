"""Bars at one steady tempo go to the model as they are, however near another tempo is."""

import mido
import numpy as np
import pytest
import rppmaker
import soundfile

from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.conform import Straight
from punchin.clients.journey.request import Prompt, Request

RATE = 48_000
LATENT = RATE // 25


def captured(folder, rate_hz, tempos, bars, context):
    """A capture of 40 s of noise. tempos: bpm by the first bar that has it, in 4/4."""
    noise = 0.1 * np.random.default_rng(1).standard_normal((40 * rate_hz, 2))
    soundfile.write(folder / "song.wav", noise, rate_hz, subtype="FLOAT")
    track, last = mido.MidiTrack(), 1
    for bar, bpm in tempos.items():
        track.append(mido.MetaMessage("set_tempo", tempo=round(6e7 / bpm), time=(bar - last) * 4 * 480))
        last = bar
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(folder / "map.mid")
    request = Request(
        task="repaint", session=folder / "song.wav", tempo_map=folder / "map.mid", prompt=Prompt(), seed=1, bars=bars,
        context=context,
    )  # fmt: skip
    return capture(request, opened(request))


STEADY = [
    ({1: 97, 9: 90}, (5, 6), 2),  # the window's end is rounded into the next tempo
    ({1: 133, 9: 90}, (7, 8), 0),
    ({1: 120, 5: 121}, (7, 8), 2),  # and its start lay a lead and a latent frame before the bar
    ({1: 120, 5: 97, 11: 90}, (7, 8), 2),
    ({1: 120, 5: 90}, (5, 6), 0),  # the lead alone lies in the earlier tempo
]


@pytest.mark.parametrize("rate_hz", [44_100, 48_000])
@pytest.mark.parametrize(("tempos", "bars", "context"), STEADY)
def test_bars_of_one_tempo_are_not_stretched(tmp_path, rate_hz, tempos, bars, context):
    found = captured(tmp_path, rate_hz, tempos, bars, context)
    assert isinstance(found.way, Straight)
    first, last = found.way.wanted
    assert np.array_equal(found.way.back(found.way.there(found.heard)[:, first:last]), found.heard[:, first:last])


@pytest.mark.parametrize("bpm", [97, 113, 120, 174])
@pytest.mark.parametrize("context", [1, 2, 4])
def test_a_context_in_bars_begins_at_its_bar_or_up_to_a_latent_frame_later(tmp_path, bpm, context):
    found = captured(tmp_path, RATE, {1: bpm}, (7, 8), context)
    bar = RATE * 4 * round(6e7 / bpm) / 1e6
    assert -0.5 <= found.window.start - (6 - context) * bar <= LATENT + 1
    assert (found.window.touched - found.window.start) % LATENT == 0
    assert abs(found.window.stop - (8 + context) * bar) <= 1


def test_the_mask_under_a_moving_tempo_holds_all_that_a_take_may_change(tmp_path):
    rppmaker.media(tmp_path, "keys.wav", rppmaker.noise(2, 20 * 48_000))
    moving = "  <TEMPOENVEX\n    PT 0 100 0\n    PT 12.3 131.7 0\n    PT 24 90 0\n  >\n"
    song = rppmaker.track("Keys", rppmaker.item(0, 20, "keys.wav"))
    path = rppmaker.project(tmp_path, song, extra=moving)
    request = Request(
        task="repaint", session=path, track="Keys", time_s=(8.013, 10.027), prompt=Prompt(text="x"), seed=1
    )
    captured = capture(request, opened(request))
    way, window = captured.way, captured.window
    edges_s = np.array([window.touched - window.start, window.end - window.start]) / window.rate_hz
    low, high = way.conformed.warp(edges_s) * 25  # latent frames
    assert way.mask[0] <= low < way.mask[0] + 1
    assert way.mask[1] - 1 < high <= way.mask[1]
