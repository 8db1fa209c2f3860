"""Several regions and tracks in one document."""

import json

import numpy as np
import pytest
import rpp as oracle
import soundfile
from landings import KEYS, RATE, played, window
from rppmaker import item, media, noise, project, track

from punchin.protocol.errors import PunchinError, Refused
from punchin.session.document import LandingTake, land, land_all, open_session


def several(session, *places, how="take", change=0.5):
    out = []
    for name, region in places:
        target = session.target(name, session.region(time=region), how)
        placed = target.place((window(target) * np.float32(change)).astype(np.float32))
        out.append((target, [LandingTake(placed, "punchin 7", {"region": list(region)})]))
    return out


@pytest.mark.parametrize("how", ["take", "split", "track"])
def test_several_regions_and_tracks_land_in_one_document(tmp_path, how):
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE, 1), subtype="FLOAT")
    media(tmp_path, "Media/bass.wav", noise(2, 16 * RATE, 2), subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(0, 16, KEYS)), track("Bass", item(1, 14, r"Media\bass.wav")))
    old = {name: played(path, 16, name=name) for name in ("Keys", "Bass")}
    session = open_session(path)
    places = [("Keys", (2, 4)), ("Bass", (2, 4)), ("Keys", (8, 9)), ("Keys", (11, 12))]
    results = land_all(several(session, *places, how=how))
    assert len({result.output for result in results}) == 1
    assert len({file for result in results for file in result.take_files}) == (2 if how == "take" else 4)
    for name in ("Keys", "Bass"):
        new = played(results[0].output, 16, name=name)
        outside = np.ones(16 * RATE, dtype=bool)
        for start, end in (region for place, region in places if place == name):
            inside = slice(round((start + 0.01) * RATE), round((end - 0.1) * RATE))
            np.testing.assert_allclose(new[:, inside], old[name][:, inside] / 2, atol=1e-6)
            outside[round((start - 0.06) * RATE) : round((end + 0.001) * RATE)] = False
        np.testing.assert_allclose(new[:, outside], old[name][:, outside], atol=1e-7)
    oracle.loads(results[0].output.read_text().replace("\r\n", "\n"))


def test_provenance_of_several_regions_stands_together(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE, 1))
    session = open_session(project(tmp_path, track("Keys", item(0, 16, KEYS))))
    results = land_all(several(session, ("Keys", (2, 4)), ("Keys", (8, 9)), ("Keys", (11, 12))))
    note = json.loads(results[0].take_files[0].with_name(results[0].take_files[0].name + ".punchin.json").read_text())
    assert note == {"region": [2, 4], "also": [{"region": [8, 9]}, {"region": [11, 12]}]}


@pytest.mark.parametrize("how", ["take", "split", "lane"])
def test_regions_that_touch_are_refused(tmp_path, how):
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE, 1))
    session = open_session(project(tmp_path, track("Keys", item(0, 16, KEYS))))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Refused, match=r"touch each other|one lane each"):
        land_all(several(session, ("Keys", (2, 4)), ("Keys", (4, 6)), how=how))
    assert sorted(tmp_path.rglob("*")) == before


def test_landings_must_be_of_one_session_and_as_many_takes(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE, 1))
    path = project(tmp_path, track("Keys", item(0, 16, KEYS)))
    one, two = (several(open_session(path), ("Keys", region))[0] for region in ((2, 4), (8, 9)))
    with pytest.raises(PunchinError, match="opened once"):
        land_all([one, two])
    with pytest.raises(PunchinError, match="same number of takes"):
        land_all([one, (one[0], one[1] * 2)])
    with pytest.raises(PunchinError, match="at least one"):
        land(one[0], [])


def test_each_region_of_an_item_lies_with_its_fades(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 16 * RATE, 1), subtype="FLOAT")
    session = open_session(project(tmp_path, track("Keys", item(0, 16, KEYS))))
    targets = [session.target("Keys", session.region(time=region)) for region in ((2, 4), (8, 9))]
    placed = [target.place((window(target) * np.float32(0.5)).astype(np.float32)) for target in targets]
    takes = [(target, [LandingTake(each, "x")]) for target, each in zip(targets, placed, strict=True)]
    (file,) = {file for landing in land_all(takes) for file in landing.take_files}
    audio = soundfile.read(file, dtype="float32", always_2d=True)[0].T
    for each in placed:
        span = slice(each.start_frame - each.fades.into.reach_frames, each.end_frame)
        np.testing.assert_array_equal(audio[:, span], each.after[:, span])
