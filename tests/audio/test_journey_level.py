"""A take is as loud as what it replaces where it is heard: of a channel that the item does not play, nothing counts."""

import numpy as np
import pytest
import rppmaker
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.journey import Prompt, Request
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.travel import go

RATE = 48_000
PLAYS = {  # fields of the item: what of the file's left and right its two sides play
    "hard left": ({"VOLPAN": "1 -1 1 -1"}, [[1, 0], [0, 0]]),
    "hard right": ({"VOLPAN": "1 1 0.5 -1"}, [[0, 0], [0, 0.5]]),
    "right, and a trace of left": ({"VOLPAN": "1 0.99 1 -1"}, [[0.01, 0], [0, 1]]),
    "half left": ({"VOLPAN": "1 -0.5 1 -1"}, [[1, 0], [0, 0.5]]),
    "hard left, sides swapped": ({"VOLPAN": "1 -1 1 -1", "CHANMODE": 1}, [[0, 1], [0, 0]]),
    "both sides as one": ({"CHANMODE": 2}, [[0.5, 0.5], [0.5, 0.5]]),
    "left alone": ({"CHANMODE": 3}, [[1, 0], [1, 0]]),
    "right alone, polarity flipped": ({"CHANMODE": 4, "VOLPAN": "1 0 -1 -1"}, [[0, -1], [0, -1]]),
    "mono, hard left": ({"VOLPAN": "1 -1 1 -1"}, [[1], [0]]),
    "mono, mostly left": ({"VOLPAN": "1 -0.75 1 -1"}, [[1], [0.25]]),
    "mono": ({}, [[1], [1]]),
}


def wide(source, passage, seed):
    """A sound that is unlike in its two sides, and louder in the right one."""
    out = source.copy()
    for first, last in passage.mask:
        noise = np.random.default_rng(seed).standard_normal((2, (last - first) * 1920)) * [[0.02], [0.1]]
        out[:, first * 1920 : last * 1920] = noise[:, : out[:, first * 1920 : last * 1920].shape[1]]
    return out


@pytest.mark.parametrize("case", PLAYS)
def test_a_take_is_as_loud_as_the_source_where_both_are_heard(case, tmp_path):
    fields, plays = PLAYS[case][0], np.array(PLAYS[case][1], dtype=np.float64)
    source = 0.05 * np.random.default_rng(5).standard_normal((plays.shape[1], 9 * RATE))
    rppmaker.media(tmp_path, "Media/a.wav", source, subtype="FLOAT")
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", rppmaker.item(0, 9, "Media/a.wav", **fields)))
    request = Request(task="repaint", session=path, track="Keys", bars=(3, 3), prompt=Prompt(text="x"), seed=1)
    (take,) = go(DirectClient(wide), [request], [capture(request, opened(request))], Heard()).takes
    after = soundfile.read(take.file, always_2d=True)[0].T[:, : source.shape[1]]
    was, now = (plays @ audio[:, 4 * RATE : round(5.9 * RATE)] for audio in (source, after))
    assert not np.allclose(was, now, atol=0.01)
    assert 10 * np.log10(np.mean(now**2) / np.mean(was**2)) == pytest.approx(0.0, abs=0.2)  # both are noise
    assert take.report.lufs_delta == pytest.approx(0.0, abs=0.2)
    assert take.report.ok


@pytest.mark.parametrize("how", ["split", "file"])
def test_a_mono_file_of_its_own_is_as_loud(how, tmp_path):
    source = 0.05 * np.random.default_rng(5).standard_normal((1, 9 * RATE))
    rppmaker.media(tmp_path, "a.wav", source, subtype="FLOAT")
    prompt = Prompt(text="x")
    request = Request(task="repaint", session=tmp_path / "a.wav", bpm=120.0, bars=(3, 3), prompt=prompt, seed=1)
    if how == "split":
        path = rppmaker.project(tmp_path, rppmaker.track("Keys", rppmaker.item(0, 9, "a.wav")))
        request = Request(task="repaint", session=path, track="Keys", bars=(3, 3), prompt=prompt, seed=1, land=how)
    (take,) = go(DirectClient(wide), [request], [capture(request, opened(request))], Heard()).takes
    after = soundfile.read(take.file, always_2d=True)[0].T
    first = 4 * RATE if how == "file" else after.shape[1] - 4 * RATE  # a bar of two seconds lies after the region
    assert len(after) == 1
    now = after[:, first : first + round(1.9 * RATE)]
    assert 10 * np.log10(np.mean(now**2) / np.mean(source**2)) == pytest.approx(0.0, abs=0.2)
    assert take.report.ok


def test_the_report_tells_the_gain_and_what_was_held(tmp_path):
    rppmaker.media(tmp_path, "keys.wav", rppmaker.noise(2, 20 * 48_000), subtype="FLOAT")
    faded = rppmaker.item(0, 20, "keys.wav", FADEIN="0 9 0 0 0 0 0")
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", faded))
    request = Request(task="repaint", session=path, track="Keys", time_s=(0.0, 10.0), prompt=Prompt(text="x"), seed=1)
    engine = DirectClient(lambda source, passage, seed: source * np.float32(2))
    (take,) = go(engine, [request], [capture(request, opened(request))], Heard()).takes
    assert take.report.gain_db == pytest.approx(-6.02, abs=0.1)
    assert take.report.ungain_held_frames > 0


def test_the_report_tells_that_an_item_was_resampled(tmp_path):
    rppmaker.media(tmp_path, "keys.wav", rppmaker.noise(2, 20 * 48_000), subtype="FLOAT")
    fast = rppmaker.item(0, 10, "keys.wav", PLAYRATE="1.25 0 0 -1 0 0.0025")
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", fast))
    request = Request(task="repaint", session=path, track="Keys", time_s=(4.0, 6.0), prompt=Prompt(text="x"), seed=1)
    (take,) = go(DirectClient(), [request], [capture(request, opened(request))], Heard()).takes
    assert take.report.resampled
