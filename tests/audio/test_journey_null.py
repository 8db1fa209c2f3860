"""With an engine that returns its input, a region goes through the whole journey and comes back as it was.

Judged on what the project plays before and after, for items as people have them: gained, faded, panned, mono, split,
at other rates. Nulls to 0.0 where no gain is taken out and in again, else below -140 dBFS; other rates below -90.
"""

import numpy as np
import pytest
import rppmaker
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.journey import Prompt, Request
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.travel import go
from punchin.session import mix, rpp_session
from punchin.session.document import open_session

BARS = (3, 4)  # 4 to 8 s at 120 bpm


def sound(channels, rate_hz, seconds=20.0):
    """Content up to 16 kHz, or 0.36 of the rate, at about -20 dBFS."""
    at_s = np.arange(round(seconds * rate_hz)) / rate_hz
    top_hz = min(16_000, 0.36 * rate_hz)
    waves = [np.sin(2 * np.pi * hz * at_s + i) for i, hz in enumerate((82.4, 440.3, 1_900.0, 0.7 * top_hz, top_hz))]
    envelope = 0.6 + 0.4 * np.cos(3 * at_s)
    return 0.04 * np.stack([sum(waves) * envelope, sum(waves[::-1]) * envelope[::-1]])[:channels]


PLAIN, GAINED, RATE = 0.0, 10 ** (-140 / 20), 10 ** (-90 / 20)
CASES = {  # channels, rate, fields of the item, limit of the null
    "plain": (2, 48_000, {}, PLAIN),
    "mono": (1, 48_000, {}, PLAIN),
    "trimmed": (2, 48_000, {"SOFFS": 1.25}, PLAIN),
    "gained": (2, 48_000, {"VOLPAN": "0.5 0 1.7 -1"}, GAINED),
    "panned": (2, 48_000, {"VOLPAN": "1 0.3 0.8 -1"}, GAINED),
    "polarity": (1, 48_000, {"VOLPAN": "1 0 -1 -1"}, GAINED),
    "fading in over the region": (2, 48_000, {"FADEIN": "0 9 0 0 0 0 0"}, GAINED),
    "44.1 kHz": (2, 44_100, {}, RATE),
    "96 kHz": (2, 96_000, {}, RATE),
}


def null(path, how="take", rate_hz=48_000):
    """The largest difference in what the project plays at its media's rate, inside and outside, and the report."""
    request = Request(task="repaint", session=path, track="Keys", bars=BARS, prompt=Prompt(text="x"), seed=1, land=how)
    result = go(DirectClient(), [request], [capture(request, opened(request))], Heard())
    before, after = (mix.mixdown(rpp_session.open_project(each).project, rate_hz, 0.0, 16.0)
                     for each in (path, result.output))  # fmt: skip
    difference = np.abs(after.astype(np.float64) - before)
    start, end = 4 * rate_hz - round(0.055 * rate_hz), 8 * rate_hz
    inside = difference[:, start:end].max()
    outside = max(difference[:, :start].max(), difference[:, end:].max())
    return inside, outside, result.takes[0].report


@pytest.mark.parametrize("case", CASES)
def test_an_item_nulls(case, tmp_path):
    channels, rate_hz, fields, limit = CASES[case]
    rppmaker.media(tmp_path, "Media/a.wav", sound(channels, rate_hz), rate_hz, subtype="FLOAT")
    item = rppmaker.item(0, 18, "Media/a.wav", **fields)
    inside, outside, report = null(rppmaker.project(tmp_path, rppmaker.track("Keys", item)), rate_hz=rate_hz)
    assert inside <= limit
    assert outside == 0.0
    assert (report.length_error_samples, report.outside_max_abs_diff, report.ok) == (0, 0.0, True)
    assert report.resampled is (rate_hz != 48_000)


@pytest.mark.parametrize("how", ["take", "split"])
def test_a_region_over_two_items_nulls(how, tmp_path):
    rppmaker.media(tmp_path, "Media/a.wav", sound(2, 48_000), subtype="FLOAT")
    items = (
        rppmaker.item(0, 6, "Media/a.wav", VOLPAN="0.7 0 1 -1"),
        rppmaker.item(6, 10, "Media/a.wav", SOFFS=2.0, FADEIN="0 0.5 0 0 0 0 0"),
    )
    inside, outside, report = null(rppmaker.project(tmp_path, rppmaker.track("Keys", *items)), how)
    assert inside <= GAINED
    assert outside <= 2**-24, "items of float media at a gain, summed once more"
    assert report.outside_max_abs_diff == 0.0


@pytest.mark.parametrize("span_s", [(0.0, 2.0), (16.0, 18.0), (0.0, 18.0), (0.01, 0.3), (7.03, 7.3)])
@pytest.mark.parametrize("rate_hz", [48_000, 44_100])
def test_regions_at_the_edges_null(span_s, rate_hz, tmp_path):
    """At the start there is no room for a fade, at the end nothing comes after; both as short as a region may be."""
    rppmaker.media(tmp_path, "Media/a.wav", sound(2, rate_hz, 18.0), rate_hz, subtype="FLOAT")
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", rppmaker.item(0, 18, "Media/a.wav")))
    request = Request(task="repaint", session=path, track="Keys", time_s=span_s, prompt=Prompt(text="x"), seed=1)
    client = DirectClient()
    result = go(client, [request], [capture(request, opened(request))], Heard())
    before, _ = soundfile.read(tmp_path / "Media" / "a.wav", always_2d=True)
    after, _ = soundfile.read(result.takes[0].file, always_2d=True)
    assert after.shape == before.shape
    start, end = (round(at_s * rate_hz) for at_s in span_s)
    start = max(start - round(0.055 * rate_hz), 0)
    assert np.array_equal(after[:start], before[:start])
    assert np.array_equal(after[end:], before[end:])
    edge = round(0.01 * rate_hz) if rate_hz != 48_000 else 0  # where the file ends the resampler leans on silence
    inside = np.abs(after - before)[edge : len(before) - edge].max()
    assert inside <= (PLAIN if rate_hz == 48_000 else RATE)
    (order,) = client.orders
    assert order.mask[0][1] <= -(-order.frames // 1920)


MIDI = "      <SOURCE MIDI\n        HASDATA 1 960 QN\n      >\n"


@pytest.mark.parametrize("start_frame", [34_766.34, 34_766.66])
@pytest.mark.parametrize("before", ["", rppmaker.item(0, 2.00002, MIDI, LOOP=0)], ids=["nothing", "midi"])
def test_an_item_of_its_own_nulls_where_the_first_sound_begins_between_frames(start_frame, before, tmp_path):
    """At the project's start, and where something ends that cannot be heard, a frame before is no frame to land on."""
    rppmaker.media(tmp_path, "Media/a.wav", sound(2, 48_000, 18.0), 48_000, subtype="FLOAT")
    begins_s = start_frame / 48_000 + (2 if before else 0)
    keys = rppmaker.item(begins_s, 10, "Media/a.wav")
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", before, keys))
    span_s = (2.03, 4) if before else (0, 2)
    request = Request(
        task="repaint", session=path, track="Keys", time_s=span_s, prompt=Prompt(text="x"), seed=1, land="split"
    )
    result = go(DirectClient(), [request], [capture(request, opened(request))], Heard())
    placed = result.rolled[0].finished.placed
    assert np.array_equal(placed.after, placed.before)
    new = open_session(result.output).project.tracks[0].items[-1]
    assert 0 <= new.start_s <= span_s[0] + 1 / 48_000
    assert new.start_s >= (2.00002 - 0.5 / 48_000 if before else 0)
