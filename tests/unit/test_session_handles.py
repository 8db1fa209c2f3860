"""What a take holds of its source beyond the region, so that its edges can be dragged."""

import re
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from landings import KEYS, RATE, aimed, landed, played, window
from rppmaker import item, media, noise, project, source_of, track

from punchin.session.document import LandingTake, land, open_session


def test_a_split_item_holds_a_bar_more_on_both_sides(tmp_path):
    a = media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE))
    path = project(tmp_path, track("Keys", item(0, 16, KEYS)))
    result = landed(aimed(path, (4.0, 6.0), "split"))
    take = soundfile.read(result.take_files[0])[0]
    new = [line.split()[1] for line in result.output.read_text().splitlines() if "SOFFS" in line][-1]
    assert float(new) == pytest.approx(2.0, abs=1e-9)
    first = round((4 - 0.055 - 2) * RATE)
    np.testing.assert_array_equal(take, a[0, first : 8 * RATE])
    np.testing.assert_allclose(played(result.output, 16), played(path, 16), atol=1e-9)


@pytest.mark.parametrize("bars", [(1, 2), (-3, -3), (4, 4)])
def test_bars_are_those_that_the_projects_ruler_shows(tmp_path, bars):
    """A count-in of four bars before bar 1 (PROJOFFS) moves numbers, and nothing else."""
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE))
    keys = track("Keys", item(0, 16, KEYS))
    plain = open_session(project(tmp_path, keys, name="plain.rpp"))
    counted = open_session(project(tmp_path, keys, extra="  PROJOFFS 0 -4 0\n"))
    first, last = bars
    one, other = plain.region(bars=(first + 4, last + 4)), counted.region(bars=bars)
    assert replace(one, bars=bars) == other
    one, other = plain.target("Keys", one, "split"), counted.target("Keys", other, "split")
    assert one.file == other.file


def test_handles_stop_where_nothing_can_be_rendered(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    midi = item(0, 3.5, source_of("x.mid", "MIDI"))
    path = project(tmp_path, track("Keys", midi, item(3.5, 4, KEYS), item(7, 4, "Media/gone.wav")))
    target = aimed(path, (4.0, 6.0), "split")
    assert (target.time_at(target.file.first), target.time_at(target.file.stop)) == (3.5, 7.0)


def test_a_take_does_not_write_an_hour_for_a_bar(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 3600, KEYS)))
    target = aimed(path)
    assert target.item is None
    assert "over 1200 s long" in target.notes[0]
    assert soundfile.info(landed(target).take_files[0]).duration < 10


def dragged(path, **fields):
    """The project with other numbers in its first item, and in all takes of it where they say the same for all."""
    text = path.read_text("utf-8").replace("\r\n", "\n")
    for key, value in fields.items():
        text = re.sub(rf"(?m)^(\s+{key}) \S+", rf"\1 {value}", text, count=0 if key == "SOFFS" else 1)
    moved = path.with_name("dragged.rpp")
    moved.write_text(text)
    return moved


def test_a_take_on_a_trimmed_item_has_a_bar_of_its_source_on_both_sides(tmp_path):
    """The item's edges may be dragged over the handles: what comes is the source's own, bit for bit."""
    a = media(tmp_path, "Media/keys.wav", noise(2, 20 * RATE), subtype="PCM_24")
    path = project(tmp_path, track("Keys", item(5, 4, KEYS, SOFFS="6", VOLPAN="0.5 0 1 -1")))
    target = aimed(path, (6.0, 8.0))
    assert target.file == (-2 * RATE, 6 * RATE)
    new = noise(2, 2 * RATE + target.lead_frames, 9).astype(np.float32)
    placed = target.place(new)
    result = land(target, [LandingTake(placed, "x")])
    take = soundfile.read(result.take_files[0], dtype="float64", always_2d=True)[0].T
    into = placed.fades.into.reach_frames
    assert take.shape == (2, 8 * RATE)
    assert np.array_equal(take[:, : 3 * RATE - into], a[:, 4 * RATE : 7 * RATE - into])
    assert np.array_equal(take[:, 5 * RATE :], a[:, 9 * RATE : 12 * RATE])
    assert "SOFFS 2\n" in result.output.read_text().replace("\r\n", "\n")
    was, now = played(path, 12), played(result.output, 12)
    assert np.array_equal(now[:, 8 * RATE :], was[:, 8 * RATE :])
    wider = {"POSITION": 3, "LENGTH": 8}
    was, now = played(dragged(path, SOFFS=4, **wider), 12), played(dragged(result.output, SOFFS=0, **wider), 12)
    assert np.abs(was[:, 3 * RATE : 5 * RATE]).max() > 0.1
    assert np.array_equal(now[:, : 6 * RATE - into], was[:, : 6 * RATE - into])
    assert np.array_equal(now[:, 8 * RATE :], was[:, 8 * RATE :])


@pytest.mark.parametrize(
    ("start_s", "fields", "expected_s"),
    [
        (5, {"SOFFS": "0.5"}, (-0.5, 6.0)),  # half a second is all that the source has before it
        (5, {"SOFFS": "15.5"}, (-2.0, 4.5)),
        (5, {"SOFFS": "18", "LOOP": 1}, (-2.0, 6.0)),  # it loops under the item already, so it goes on
        (5, {"SOFFS": "18", "LOOP": 0}, (-2.0, 4.0)),  # past its end there is nothing
        (5, {"SOFFS": "6", "PLAYRATE": "2 0 0 -1 0 0.0025"}, (0.0, 4.0)),
        (0, {"SOFFS": "6"}, (-2.0, 6.0)),  # before the project's start too
        (7, {"SOFFS": "6"}, (-2.0, 6.0)),
    ],
)
def test_handles_are_what_the_source_has(tmp_path, start_s, fields, expected_s):
    media(tmp_path, "Media/keys.wav", noise(1, 20 * RATE))
    path = project(tmp_path, track("Keys", item(start_s, 4, KEYS, **fields)))
    target = aimed(path, (start_s + 1.0, start_s + 3.0))
    assert tuple(frame / RATE for frame in target.file) == expected_s
    assert target.plays == (0, 4 * RATE)
    result = landed(target)
    placed = target.place(window(target))
    assert np.array_equal(placed.after, placed.before)
    assert soundfile.info(result.take_files[0]).frames == target.file.stop - target.file.first


@pytest.mark.parametrize("neighbour", [False, True])
def test_a_take_from_the_items_start_on_fades_in_before_it(tmp_path, neighbour):
    """In the handle, where nothing of it is heard: its first attack is whole, and the dragged edge does not click."""
    a = media(tmp_path, "Media/keys.wav", noise(1, 20 * RATE), subtype="FLOAT")
    before = [item(3, 2, KEYS, SOFFS="12")] if neighbour else []
    path = project(tmp_path, track("Keys", *before, item(5, 4, KEYS, SOFFS="6")))
    target = aimed(path, (5.0, 7.0))
    assert target.lead_frames > 0.05 * RATE
    new = noise(1, 2 * RATE + target.lead_frames, 9)[[0, 0]].astype(np.float32)
    placed = target.place(new)
    into = placed.fades.into.reach_frames
    assert into >= 0.02 * RATE
    assert np.array_equal(placed.after[:, : 2 * RATE - into], a[:, 4 * RATE : 6 * RATE - into].astype(np.float32))
    faded = placed.after[0, 2 * RATE - into : 2 * RATE]
    np.testing.assert_allclose(faded[-8:], new[0, target.lead_frames - 8 : target.lead_frames], atol=0.01)
    np.testing.assert_allclose(placed.after[0, 2 * RATE : 3 * RATE], new[0, target.lead_frames :][:RATE], atol=1e-6)
    same = target.place(window(target))
    assert np.array_equal(same.after, same.before)
