"""An instrument that joins: what it hears of the session, and where it lands."""

import difflib

import numpy as np
import pytest
from landings import RATE, played
from rppmaker import HEAD, item, media, noise, project, source_of, track

from punchin.protocol.errors import Refused
from punchin.session import rpp, rpp_project
from punchin.session.document import LandingTake, land, land_all, open_session


def session_of_three(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    b = media(tmp_path, "Media/b.wav", noise(2, 8 * RATE, 2))
    path = project(
        tmp_path,
        track("Drums", item(0, 8, "Media/a.wav"), extra="    VOLPAN 0.5 0.5 -1 -1 1\n"),
        track("Bass", item(0, 8, "Media/b.wav"), item(0, 8, source_of("x.mid", "MIDI"))),
        track("Off", item(0, 8, "Media/gone.wav"), extra="    MUTESOLO 1 0 0\n"),
    )
    return path, a, b


def test_a_layer_hears_all_unmuted_tracks_through_their_faders(tmp_path):
    path, a, b = session_of_three(tmp_path)
    session = open_session(path)
    target = session.layer(session.region(time=(2, 4)), "Strings")
    np.testing.assert_allclose(target.heard(0, 8), a * np.array([[0.25], [0.5]]) + b, atol=1e-6)
    assert target.notes[0].startswith("not heard: item 2 of track 'Bass'")
    only = session.layer(session.region(time=(2, 4)), "Strings", ["Drums"])
    np.testing.assert_allclose(only.heard(0, 8), a * np.array([[0.25], [0.5]]), atol=1e-6)
    with pytest.raises(Refused, match="MIDI"):
        session.layer(session.region(time=(2, 4)), "Strings", ["Bass"])


def test_a_muted_folder_mutes_what_is_in_it(tmp_path):
    path = project(
        tmp_path,
        track("Refs", extra="    MUTESOLO 1 0 0\n    ISBUS 1 1\n"),
        track("Inner", extra="    ISBUS 1 1\n"),
        track("Deep", extra="    ISBUS 2 -2\n"),
        track("Band", extra="    ISBUS 1 1\n"),
        track("Bass", extra="    ISBUS 2 -1\n"),
        track("Keys"),
    )
    found = rpp_project.from_document(path, rpp.read(path))
    assert [each.name for each in found.tracks if each.muted] == ["Refs", "Inner", "Deep"]


def test_a_layer_lands_on_a_new_track_and_touches_nothing_else(tmp_path):
    path, _, _ = session_of_three(tmp_path)
    session = open_session(path)
    target = session.layer(session.region(time=(2, 4)), "Strings")
    new = noise(2, target.lead_frames + 2 * RATE, 9).astype(np.float32)
    result = land(target, [LandingTake(target.place(new), "punchin 7")])
    old, out = path.read_bytes().splitlines(keepends=True), result.output.read_bytes().splitlines(keepends=True)
    ops = [op for op in difflib.SequenceMatcher(None, old, out, autojunk=False).get_opcodes() if op[0] != "equal"]
    assert [op[0] for op in ops] == ["insert"]
    inside = slice(2 * RATE, round(3.9 * RATE))
    heard = played(result.output, 8, name="Strings")
    np.testing.assert_allclose(heard[:, inside], new[:, target.lead_frames :][:, : inside.stop - 2 * RATE], atol=2**-23)
    assert not heard[:, 4 * RATE :].any()


def test_a_layer_says_what_it_approximates_of_each_track(tmp_path):
    """As much as a take on each of these tracks would, by the track's name; nothing of what lies elsewhere."""
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    curved = {"FADEIN": "1 3 0 1 0 0 0"}
    slow = {"VOLPAN": "1 0.5 1 -1", "PLAYRATE": "0.9 0 0 -1 0 0.0025"}
    path = project(
        tmp_path,
        track("Keys", *(item(0, 8, "Media/a.wav", **curved) for _ in range(3)), extra="    PLAYOFFS 0.03 0\n"),
        track("Bass", item(1, 6, "Media/a.wav", **slow), item(7, 1, "Media/a.wav", **curved)),
        track("Later", item(6, 2, "Media/a.wav", **curved), extra="    PLAYOFFS 0.03 0\n    VOLPAN 1 0.5 -1 -1 1\n"),
        head=HEAD.replace("PANLAW 1", "PANLAW 0.5"),
    )
    session = open_session(path)
    region = session.region(time=(2, 4))
    keys = [
        "track 'Keys': the fade-in of item 1 (and 2 more) has shape 1; its curve is approximated",
        "track 'Keys' plays 0.03 s off; it is heard in place",
    ]
    bass = [
        "track 'Bass': item 1 is panned under a pan law; it is heard as a balance",
        "track 'Bass': item 1 plays at rate 0.9; it is resampled",
    ]
    assert session.layer(region, "Strings", ["Keys"]).notes == tuple(keys)
    assert list(session.layer(region, "Strings").notes[1:]) == keys + bass
    for name, notes in (("Keys", keys), ("Bass", bass)):
        assert [note.removeprefix(f"track '{name}': ") for note in notes] == list(session.target(name, region).notes)


@pytest.mark.parametrize(
    ("law", "pan", "own", "noted"),
    [
        ("0.5", 0.5, -1, True),
        ("1", 0.5, -1, False),
        ("1", -0.5, 0.7, True),
        ("0.5", 0.5, 1, False),
        ("0.5", 0, -1, False),
    ],
)
def test_a_track_panned_under_a_pan_law_is_noted_in_a_layer(tmp_path, law, pan, own, noted):
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    keys = track("Keys", item(0, 8, "Media/a.wav"), extra=f"    VOLPAN 1 {pan} {own} -1 1\n")
    session = open_session(project(tmp_path, keys, head=HEAD.replace("PANLAW 1", f"PANLAW {law}")))
    notes = session.layer(session.region(time=(2, 4)), "Strings", ["Keys"]).notes
    assert notes == (("track 'Keys' is panned under a pan law; it is heard as a balance",) if noted else ())


def folders(path):
    """Each track's name, with the folders that it is in."""
    opened, found = [], []
    document = rpp.read(path)
    for each in rpp_project.from_document(path, document).tracks:
        found.append("/".join([*opened, each.name]))
        depth = int((document.find(each.chunk, "ISBUS") or ["ISBUS", "0", "0"])[2])
        opened = [*opened, each.name] if depth > 0 else opened[: len(opened) + depth]
    return found


def folders_of_a_band(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    return project(
        tmp_path,
        track("Band", extra="    ISBUS 1 1\n"),
        track("Rhythm", extra="    ISBUS 1 1\n"),
        track("Bass", item(0, 8, "Media/a.wav"), extra="    ISBUS 2 -2\n"),
    )


@pytest.mark.parametrize("hear", [["Bass"], []])
def test_a_layer_keeps_to_the_folder_of_what_it_is_named_to_hear(tmp_path, hear):
    """The folder's effects and fader are on it, as on a track that REAPER inserts there. What hears all is in none."""
    session = open_session(folders_of_a_band(tmp_path))
    target = session.layer(session.region(time=(2, 4)), "Strings", hear)
    result = land(target, [LandingTake(target.place(noise(2, target.lead_frames + 2 * RATE, 9)), "punchin 7")])
    where = "Band/Rhythm/Strings" if hear else "Strings"
    assert folders(result.output) == ["Band", "Band/Rhythm", "Band/Rhythm/Bass", where]


@pytest.mark.parametrize("last", ["    ISBUS 2 -1\n", "    ISBUS 0 0\n", "", "    ISBUS 1 1\n"])
def test_a_layer_of_all_lies_outside_folders_that_the_last_track_leaves_open(tmp_path, last):
    """REAPER itself writes one closed there, however many are open."""
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    path = project(
        tmp_path,
        track("Outer", extra="    VOLPAN 0.1 0 -1 -1 1\n    ISBUS 1 1\n"),
        track("Inner", extra="    ISBUS 1 1\n"),
        track("Keys", item(0, 8, "Media/a.wav"), extra=last),
    )
    session = open_session(path)
    places = []
    for name in ("Strings", "Horns"):
        target = session.layer(session.region(time=(2, 4)), name)
        places.append((target, [LandingTake(target.place(noise(2, target.lead_frames + 2 * RATE, 9)), "punchin 7")]))
    result, _ = land_all(places)
    assert folders(result.output) == ["Outer", "Outer/Inner", "Outer/Inner/Keys", "Strings", "Horns"]
    old, out = (p.read_bytes().splitlines(keepends=True) for p in (path, result.output))
    changes = [op for op in difflib.SequenceMatcher(None, old, out, autojunk=False).get_opcodes() if op[0] != "equal"]
    assert b"".join(line for _, i, j, _, _ in changes for line in old[i:j]) == last.replace("\n", "\r\n").encode()
    assert [line for _, _, _, i, j in changes for line in out[i:j] if b"ISBUS" in line] == [b"    ISBUS 2 -2\r\n"]


def test_a_layer_of_all_lies_outside_a_last_folder_that_is_empty(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    keys, bus = track("Keys", item(0, 8, "Media/a.wav")), track("Bus", extra="    ISBUS 1 1\n")
    session = open_session(project(tmp_path, keys, bus))
    target = session.layer(session.region(time=(2, 4)), "Strings")
    result = land(target, [LandingTake(target.place(noise(2, target.lead_frames + 2 * RATE, 9)), "punchin 7")])
    assert folders(result.output) == ["Keys", "Bus", "Strings"]


def test_several_new_tracks_close_their_folder_once(tmp_path):
    session = open_session(folders_of_a_band(tmp_path))
    places = []
    for span in ((1, 2), (5, 6)):
        target = session.target("Bass", session.region(time=span), "track")
        places.append((target, [LandingTake(target.place(noise(2, target.lead_frames + RATE, 9)), f"take {span}")]))
    result, _ = land_all(places)
    assert folders(result.output)[2:] == ["Band/Rhythm/" + n for n in ("Bass", "Bass take (1, 2)", "Bass take (5, 6)")]


def test_what_cannot_be_rendered_may_touch_what_a_layer_hears(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE, 1))
    midi = item(0, 2 + 1e-9, source_of("x.mid", "MIDI"))
    session = open_session(project(tmp_path, track("Keys", midi, item(2, 6, "Media/a.wav"))))
    target = session.layer(session.region(time=(2, 4)), "Strings", ["Keys"])
    assert target.lead_frames == 0
    assert target.heard(*target.hearable(0, 8)).any()
