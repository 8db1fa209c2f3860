"""Takes on a lane or a track of their own: what plays afterwards, and what has no lanes."""

import numpy as np
import pytest
import rpp as oracle
from landings import KEYS, RATE, aimed, landed, overlapped, played
from rppmaker import item, media, noise, project, source_of, track

from punchin.protocol.errors import Refused
from punchin.session.document import open_session


def lane_of(one):
    words = next(c for c in one.children if c[0] == "YPOS")
    return round(float(words[1]) / float(words[2]))


@pytest.mark.parametrize("lanes", [0, 2])
def test_a_new_lane_plays_the_whole_track_alone(tmp_path, lanes):
    path = overlapped(tmp_path)
    if lanes:
        text = path.read_text().replace("\n    <ITEM", "\n    FREEMODE 2\n    LANESOLO 3 0 0 0 0 0 0 0\n    <ITEM", 1)
        parts = text.split("      IGUID")
        path.write_text(
            "      YPOS 0 0.5 2\n      IGUID".join(parts[:2]) + "      YPOS 0.5 0.5 2\n      IGUID" + parts[2]
        )
    old = played(path, 8)
    result = landed(aimed(path, how="lane"), change=0.5)
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    track_lines = tree.find("TRACK").children
    new_lane = max(lanes, 1)
    assert ["FREEMODE", "2"] in track_lines
    assert ["ITEMLANES", str(new_lane + 1)] in track_lines
    assert ["LANESOLO", str(1 << new_lane), "0", "0", "0", "0", "0", "0", "0"] in track_lines
    items = tree.find("TRACK").findall("ITEM")
    assert [lane_of(one) for one in items] == [0, lanes // 2] + [new_lane] * 3
    assert not any(["MUTE", "1", "0"] in one.children for one in items)
    session = open_session(result.output)
    target = session.target("Keys", session.region(time=(2, 4)))
    new = target.heard(0, 8)
    inside = slice(round(2.01 * RATE), round(3.9 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)
    for outside in (slice(0, round(1.94 * RATE)), slice(4 * RATE, 8 * RATE)):
        np.testing.assert_allclose(new[:, outside], old[:, outside], atol=1e-7)


@pytest.mark.parametrize(
    ("items", "plays", "expected"),
    [([(0, 8, 1)], 2, 1), ([(0, 3, 2), (3, 5, 2)], 4, 2), ([(0, 8, 0), (0, 8, 2)], 5, 2), ([(5, 3, 1)], 2, 1)],
    ids=["one", "two", "in two lanes", "where nothing plays"],
)
def test_a_split_lies_in_a_lane_that_plays(tmp_path, items, plays, expected):
    """An item that names no lane lies in the first, and would replace what is heard by silence."""
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE))
    made = [item(start, length, KEYS, YPOS=f"{lane / 3} {1 / 3} 2") for start, length, lane in items]
    lanes = f"    FREEMODE 2\n    LANESOLO {plays} 0 0 0 0 0 0 0\n    ITEMLANES 3\n"
    path = project(tmp_path, track("Keys", *made, extra=lanes))
    target = aimed(path, how="split")
    (now,) = open_session(landed(target).output).project.tracks
    new = now.items[-1]
    assert new.lane == expected
    assert new in tuple(now.sounding())


def test_the_33rd_lane_is_a_bit_of_the_second_word(tmp_path):
    path = overlapped(tmp_path)
    text = path.read_text().replace("\n    <ITEM", "\n    FREEMODE 2\n    ITEMLANES 32\n    <ITEM", 1)
    path.write_text(text)
    text = landed(aimed(path, how="lane")).output.read_text()
    assert "LANESOLO 0 1 0 0 0 0 0 0" in text
    assert open_session(tmp_path / "song-punchin.rpp").project.tracks[0].playing_lanes == {32}


def test_lanes_that_mask_each_other_are_refused(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    items = (item(0, 8, KEYS, YPOS="0 0.5 2"), item(3, 2, KEYS, YPOS="0.5 0.5 2"))
    for masks, solo in ((0, 3), (1, 1)):
        lanes = f"    FREEMODE 2\n    FIXEDLANES 9 0 0 {masks} 0\n    LANESOLO {solo} 0 0 0 0 0 0 0\n    ITEMLANES 2\n"
        assert aimed(project(tmp_path, track("Keys", *items, extra=lanes))).landing
    lanes = "    FREEMODE 2\n    FIXEDLANES 9 0 0 1 0\n    ITEMLANES 2\n"
    with pytest.raises(Refused, match="higher ones mask the lower"):
        aimed(project(tmp_path, track("Keys", *items, extra=lanes)))


def test_lanes_are_refused_where_items_lie_freely(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS), extra="    FREEMODE 1\n"))
    with pytest.raises(Refused, match="positions its items freely"):
        aimed(path, how="lane")


def test_a_new_track_plays_what_was_muted(tmp_path):
    path = overlapped(tmp_path)
    old = played(path, 8)
    result = landed(aimed(path, how="track"), change=0.5)
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    assert len(tree.findall("TRACK")) == 2
    new = played(result.output, 8)  # both tracks are called Keys...
    inside = slice(round(2.01 * RATE), round(3.9 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)


ENVELOPE = "      <VOLENV\n        ACT {act} -1\n        PT 0 1 0\n        PT 3 0.5 0\n      >\n"
COUNTED = {
    "take 2 has stretch markers": {"takes": "      TAKE\n" + source_of(KEYS) + "      SM 0 0 + 4 4.4\n"},
    "take 2 has envelope points": {"takes": "      TAKE\n" + source_of(KEYS) + ENVELOPE.format(act=1)},
    "take 1 has envelope points": {"extra": ENVELOPE.format(act=0)},
}


@pytest.mark.parametrize("how", ["split", "lane", "track"])
@pytest.mark.parametrize("says", COUNTED)
def test_an_item_is_not_cut_where_something_in_it_counts_from_its_start(tmp_path, how, says):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    one = item(0, 8, KEYS, **COUNTED[says])
    path = project(tmp_path, track("Keys", one))
    with pytest.raises(
        Refused, match=rf"item 1 of track 'Keys' \(at 0\.000 s\) would be cut, but its {says}"
    ) as refused:
        aimed(path, how=how)
    assert "Glue items" in refused.value.hint
    assert aimed(path).landing == "a take on the item", "nothing is cut there"


def test_an_envelope_of_one_point_and_an_item_muted_whole_are_no_hindrance(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    still = item(0, 8, KEYS, extra=ENVELOPE.format(act=0).replace("        PT 3 0.5 0\n", ""))
    assert "split and muted" in aimed(project(tmp_path, track("Keys", still)), how="split").landing
    inside = item(2, 2, KEYS, extra=ENVELOPE.format(act=0))
    assert "split and muted" in aimed(project(tmp_path, track("Keys", inside)), how="split").landing
