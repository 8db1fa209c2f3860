"""Takes into projects: what the new text says, what the new files hold, and that nothing else moved."""

import base64
import difflib
import json
import os
import re

import numpy as np
import pytest
import rpp as oracle
import soundfile
from rppmaker import HEAD, item, media, noise, project, source_of, track

from punchin.protocol.errors import PunchinError, Refused
from punchin.session import audiofile
from punchin.session.document import LandingTake, land, land_all, open_session

RATE = 48_000
KEYS = r"Media\keys.wav"


def aimed(path, region=(2.0, 4.0), how="take", name="Keys"):
    session = open_session(path)
    return session.target(name, session.region(time=region), how)


def window(target):
    lead_s = target.lead_frames / target.rate_hz
    start_s = target.origin_s + target.start_frame / target.rate_hz
    return target.heard(start_s - lead_s, target.origin_s + target.end_frame / target.rate_hz)


def landed(target, *, change=1.0, names=("punchin 7",), out=None, provenance=None):
    placed = target.place((window(target) * np.float32(change)).astype(np.float32))
    return land(target, [LandingTake(placed, name, provenance or {}) for name in names], out)


def played(path, seconds, rate_hz=RATE, name="Keys"):
    """What a track of a project plays, by a reading of it that shares nothing with the code under test."""
    tree = oracle.loads(path.read_text("utf-8").replace("\r\n", "\n"))
    out = np.zeros((2, round(seconds * rate_hz)))
    tracks = [t for t in tree.findall("TRACK") if next(c for c in t.children if c[0] == "NAME")[1].startswith(name)]
    for one in (i for t in tracks for i in t.findall("ITEM")):
        takes, active = [[]], 0
        for child in one.children:
            words = [child] if isinstance(child, str) else child  # a line of one word is a string
            if isinstance(words, list) and words[0] == "TAKE":
                takes.append([])
                active = len(takes) - 1 if "SEL" in words else active
            takes[-1].append(child)
        own = {c[0]: c[1:] for c in takes[0] if isinstance(c, list)}
        lines = {c[0]: c[1:] for c in takes[active] if isinstance(c, list)}
        if own["MUTE"][0] == "1":
            continue
        source = next(c for c in takes[active] if not isinstance(c, list) and c.tag == "SOURCE")
        file = path.parent / next(c for c in source.children if c[0] == "FILE")[1].replace("\\", "/")
        audio = soundfile.read(file, dtype="float64", always_2d=True)[0].T
        start, length = float(own["POSITION"][0]), float(own["LENGTH"][0])
        offset, gain = float(lines.get("SOFFS", ["0"])[0]), float(own["VOLPAN"][0])
        gain *= float(lines["VOLPAN"][2] if active == 0 else lines["TAKEVOLPAN"][1])
        first, n = round(start * rate_hz), round((start + length) * rate_hz) - round(start * rate_hz)
        piece = audio[:, round(offset * rate_hz) :][:, :n] * gain
        t = np.arange(piece.shape[1]) / rate_hz
        for line, into in (("FADEIN", t), ("FADEOUT", length - t)):
            fade = max(float(own[line][1]), float(own[line][2]))
            if fade:
                piece = piece * np.clip(into / fade, 0, 1)
        out[:, first : first + piece.shape[1]] += piece
    return out


def test_a_take_on_the_one_item_only_adds_lines(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    second = "      TAKE SEL\n      NAME two\n      TAKEVOLPAN 0 1 -1\n      SOFFS 0\n" + source_of(KEYS)
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, takes=second, VOLPAN="0.7 0 1 -1")))
    before = path.read_bytes()
    result = landed(aimed(path), names=("punchin 7", 'say "8"'))
    assert path.read_bytes() == before
    assert result.output == tmp_path / "song-punchin.rpp"
    old, new = before.splitlines(keepends=True), result.output.read_bytes().splitlines(keepends=True)
    assert all(line.endswith(b"\r\n") for line in new)
    changes = [op for op in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if op[0] != "equal"]
    assert [op[0] for op in changes] == ["replace", "insert"]
    assert old[changes[0][1]] == b"      TAKE SEL\r\n"
    assert new[changes[0][3]] == b"      TAKE\r\n"
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    children = [[c] if isinstance(c, str) else c for c in tree.find("TRACK").find("ITEM").children]
    lines = [c for c in children if isinstance(c, list)]
    assert [c for c in lines if c[0] == "TAKE"] == [["TAKE"], ["TAKE", "SEL"], ["TAKE"]]
    assert [c[1] for c in lines if c[0] == "NAME"] == ["item one", "two", "punchin 7", 'say "8"']
    assert [f.name for f in result.take_files] == ["Keys-punchin-7.wav", "Keys-say-8.wav"]
    assert soundfile.info(result.take_files[0]).subtype == "PCM_24"


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_what_came_back_as_it_went_nulls_over_the_whole_file(tmp_path, subtype):
    a = media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE), subtype=subtype)
    path = project(tmp_path, track("Keys", item(0.5, 7, KEYS, SOFFS="0.25", VOLPAN="0.6 0.3 0.9 -1")))
    result = landed(aimed(path))
    take = soundfile.read(result.take_files[0], dtype="float64", always_2d=True)[0].T
    assert np.array_equal(take, a), "the item, and what its source has beside it"


def test_outside_stays_bit_exact_and_inside_is_the_take_without_the_gain(tmp_path):
    a = media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, VOLPAN="0.5 0 1 -1")))
    target = aimed(path)
    new = noise(1, 2 * RATE + target.lead_frames, 9)[[0, 0]].astype(np.float32)
    placed = target.place(new)
    result = land(target, [LandingTake(placed, "x")])
    take = soundfile.read(result.take_files[0], dtype="float64", always_2d=True)[0].T
    into, back = placed.fades.into.reach_frames, placed.fades.back.reach_frames
    assert take.shape == a.shape
    assert np.array_equal(take[:, : 2 * RATE - into], a[:, : 2 * RATE - into])
    assert np.array_equal(take[:, 4 * RATE :], a[:, 4 * RATE :])
    inside = take[0, 2 * RATE : 4 * RATE - back]
    np.testing.assert_allclose(inside, new[0, target.lead_frames :][: len(inside)] / 0.5, atol=2**-23)


def test_the_project_with_the_take_plays_what_was_heard(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0.5, 7, KEYS, SOFFS="0.25", VOLPAN="0.6 0 0.9 -1")))
    old = played(path, 8)
    result = landed(aimed(path), change=0.5)
    new = played(result.output, 8)
    inside = slice(round(2.01 * RATE), round(3.9 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)
    assert np.array_equal(new[:, : RATE * 19 // 10], old[:, : RATE * 19 // 10])
    assert np.array_equal(new[:, 4 * RATE :], old[:, 4 * RATE :])


def overlapped(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE, 1))
    media(tmp_path, "Media/b.wav", noise(2, 8 * RATE, 2))
    return project(
        tmp_path,
        track(
            "Keys",
            item(0, 3, KEYS, FADEOUT="0 0.01 0.5 0 0 0 0"),
            item(2.5, 5, r"Media\b.wav", FADEIN="0 0.01 0.5 0 0 0 0", VOLPAN="0.5 0 1 -1"),
        ),
    )


def test_several_items_are_split_and_muted_and_one_new_item_plays(tmp_path):
    path = overlapped(tmp_path)
    old = played(path, 8)
    target = aimed(path)
    assert "split and muted" in target.landing
    result = landed(target, change=0.5)
    new = played(result.output, 8)
    inside = slice(round(2.01 * RATE), round(3.9 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)
    for outside in (slice(0, round(1.94 * RATE)), slice(4 * RATE, 8 * RATE)):
        np.testing.assert_allclose(new[:, outside], old[:, outside], atol=1e-12)
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    items = tree.find("TRACK").findall("ITEM")
    muted = [i for i in items if ["MUTE", "1", "0"] in i.children]
    assert (len(items), len(muted)) == (5, 2)
    guids = re.findall(r"^\s+I?GUID (\{.*\})", result.output.read_text(), re.M)
    fresh = [guid for guid in guids if not guid.startswith("{11111111")]
    assert len(fresh) == len(set(fresh)) == 6  # three parts and an item more; the two first parts keep theirs


def test_identity_nulls_through_a_split(tmp_path):
    path = overlapped(tmp_path)
    new = played(landed(aimed(path)).output, 8)
    np.testing.assert_allclose(new, played(path, 8), atol=2**-23)


def test_a_fade_across_an_edge_moves_the_cut_past_it(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE, 1))
    media(tmp_path, "Media/b.wav", noise(1, 8 * RATE, 2))
    path = project(
        tmp_path,
        track(
            "Keys",
            item(0, 3, KEYS, FADEIN="0 2.5 0 0 0 0 0"),
            item(3, 1.25, r"Media\b.wav", FADEOUT="0 0.5 0 0 0 0 0"),
        ),
    )
    target = aimed(path, (2.0, 4.0))
    assert target.shown.first == 0
    assert target.shown.stop == round(4.25 * RATE)
    result = landed(target)
    np.testing.assert_allclose(played(result.output, 5), played(path, 5), atol=2**-22)


def test_a_neighbours_crossfade_does_not_keep_a_take_off_its_item(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE, 1), subtype="FLOAT")
    media(tmp_path, "Media/b.wav", noise(1, 8 * RATE, 2), subtype="FLOAT")
    fade = "0 0 0.02 0 0 0 0"
    path = project(
        tmp_path,
        track(
            "Keys",
            item(0, 2.01, KEYS, FADEOUT=fade),
            item(1.99, 2.02, r"Media\b.wav", FADEIN=fade, FADEOUT=fade),
            item(3.99, 4, KEYS, FADEIN=fade),
        ),
    )
    target = aimed(path)
    assert target.landing == "a take on the item"
    old, new = played(path, 8), played(landed(target, change=0.5).output, 8)
    inside = slice(2 * RATE, round(3.93 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)
    np.testing.assert_allclose(played(landed(target).output, 8), old, atol=1e-7)


def test_a_gain_too_low_to_divide_by_keeps_the_original_and_is_counted(tmp_path):
    a = media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, FADEIN="0 4 0 0 0 0 0")))
    target = aimed(path, (0.0, 2.0))
    placed = target.place(window(target) * np.float32(0.5))
    low = round(10 ** (-36 / 20) * 4 * RATE)
    assert placed.held_frames == pytest.approx(low, abs=1)
    assert np.array_equal(placed.after[0, 1 : low - 1], a[0, 1 : low - 1].astype(np.float32))


def test_a_region_without_an_item_gets_one(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(2, 2 * RATE))
    path = project(tmp_path, track("Keys", item(0, 1.5, KEYS), item(5, 1.5, KEYS)), track("Bass"))
    for how in ("take", "split"):
        target = aimed(path, how=how)
        new = noise(2, 2 * RATE + target.lead_frames, 5).astype(np.float32)
        result = land(target, [LandingTake(target.place(new), "x")])
        inside = slice(2 * RATE, round(3.9 * RATE))
        np.testing.assert_allclose(
            played(result.output, 8)[:, inside], new[:, target.lead_frames :][:, : inside.stop - 2 * RATE], atol=2**-23
        )
        np.testing.assert_array_equal(played(result.output, 8)[:, : 3 * RATE // 2], played(path, 8)[:, : 3 * RATE // 2])


def test_sums_over_full_scale_are_kept_as_float(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE, level=0.9), subtype="PCM_24")
    path = project(tmp_path, track("Keys", item(0, 8, KEYS), item(0, 8, KEYS)))
    result = landed(aimed(path))
    assert soundfile.info(result.take_files[0]).subtype == "FLOAT"
    np.testing.assert_allclose(played(result.output, 8), played(path, 8), atol=1e-6)


@pytest.mark.parametrize(
    ("subtype", "made"), [("PCM_16", "PCM_24"), ("FLOAT", "FLOAT"), ("DOUBLE", "DOUBLE"), ("PCM_32", "PCM_32")]
)
def test_take_files_keep_the_sources_depth_exactly(tmp_path, subtype, made):
    a = media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE), subtype=subtype)
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    file = landed(aimed(path)).take_files[0]
    assert soundfile.info(file).subtype == made
    take = soundfile.read(file, dtype="float64", always_2d=True)[0].T
    outside = np.r_[0 : round(1.94 * RATE), 4 * RATE : 8 * RATE]
    assert np.array_equal(take[:, outside], a[:, outside])
    np.testing.assert_allclose(take, a, atol=2**-25)  # the fades are made in float32


def test_flac_projects_get_flac_takes(tmp_path):
    a = media(tmp_path, "Media/keys.flac", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, source_of("Media/keys.flac", "FLAC"))))
    result = landed(aimed(path))
    assert result.take_files[0].suffix == ".flac"
    assert "<SOURCE FLAC" in result.output.read_text()
    assert np.array_equal(soundfile.read(result.take_files[0], always_2d=True)[0].T, a)


def test_names_never_collide_and_out_replaces(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    target = aimed(path)
    outputs = [landed(target) for _ in range(3)]
    assert [r.output.name for r in outputs] == ["song-punchin.rpp", "song-punchin-2.rpp", "song-punchin-3.rpp"]
    assert len({r.take_files[0] for r in outputs}) == 3
    named = tmp_path / "mine.rpp"
    named.write_text("old")
    assert landed(target, out=named).output == named
    assert named.read_bytes().startswith(b"<REAPER_PROJECT")


def test_two_landings_at_once_have_two_documents(tmp_path, monkeypatch):
    """The other one comes while the first writes its take file."""
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    target, write, others = aimed(path), audiofile.write, []

    def slow(*words):
        monkeypatch.setattr(audiofile, "write", write)
        others.append(landed(target).output)
        return write(*words)

    monkeypatch.setattr(audiofile, "write", slow)
    assert {landed(target).output, *others} == {tmp_path / "song-punchin.rpp", tmp_path / "song-punchin-2.rpp"}
    assert others[0].read_bytes().startswith(b"<REAPER_PROJECT")


def test_a_long_name_of_a_track_fits_into_a_file_name(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    name = "\U00020000" * 60  # four bytes each
    path = project(tmp_path, track(name, item(0, 8, KEYS)))
    result = landed(aimed(path, name=name), provenance={"seed": 1})
    assert result.take_files[0].stem == "\U00020000" * 45


def test_a_recording_path_that_is_a_file_is_named(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)), head=HEAD.replace('"Media"', '"Media/keys.wav"'))
    with pytest.raises(PunchinError, match=r"cannot write .*Media/keys.wav: File exists") as failed:
        landed(aimed(path))
    assert "recording path" in failed.value.hint


@pytest.mark.parametrize(
    "recorded", [r"C:\Recordings\song", "C:/Recordings", "D:takes", r"\\nas\music\song", "/nowhere/at/all"]
)
def test_takes_lie_by_their_media_where_the_recording_folder_is_another_machines(tmp_path, recorded):
    """A Windows path is no name of a folder beside the project, and what does not exist here is not made."""
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)), head=HEAD.replace('"Media"', f'"{recorded}"'))
    there = set(tmp_path.iterdir())
    result = landed(aimed(path))
    assert result.take_files[0].parent == tmp_path / "Media"
    assert set(tmp_path.iterdir()) == {*there, result.output}
    assert np.abs(played(result.output, 8.0)).max() > 0


def test_whether_an_item_is_resampled_is_known(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    for playrate, expected in (("1 1 0 -1 0 0.0025", False), ("1.25 0 0 -1 0 0.0025", True)):
        path = project(tmp_path, track("Keys", item(0, 6, KEYS, PLAYRATE=playrate)))
        assert aimed(path).resamples(0, 4 * RATE) is expected


def test_an_output_elsewhere_still_finds_its_media(tmp_path):
    media(tmp_path, "song/Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path / "song", track("Keys", item(0, 8, KEYS)))
    (tmp_path / "away").mkdir()
    out = landed(aimed(path), out=tmp_path / "away" / "new.rpp").output
    files = re.findall(r'FILE "(.*)"', out.read_text())
    assert files == [str(tmp_path / "song/Media/keys.wav"), str(tmp_path / "song/Media/Keys-punchin-7.wav")]
    assert open_session(out).end_s == 8


def test_a_read_only_project_lands_elsewhere(tmp_path, monkeypatch):
    media(tmp_path, "song/Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path / "song", track("Keys", item(0, 8, KEYS)))
    (tmp_path / "away").mkdir()
    before = sorted((tmp_path / "song").rglob("*"))
    monkeypatch.setattr(os, "access", lambda folder, _: tmp_path / "song" not in (folder, *folder.parents))
    result = landed(aimed(path), out=tmp_path / "away" / "new.rpp")
    assert result.take_files == (tmp_path / "away/Media/Keys-punchin-7.wav",)
    assert sorted((tmp_path / "song").rglob("*")) == before
    assert f'FILE "{result.take_files[0]}"' in result.output.read_text()


def test_the_session_itself_and_wrong_names_are_refused(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    before = sorted(tmp_path.rglob("*")), path.read_bytes()
    for out, says in (
        (path, "never written"),
        (tmp_path / "x.wav", "is no .rpp"),
        (tmp_path / "no/x.rpp", "does not exist"),
    ):
        with pytest.raises(Refused, match=says):
            landed(aimed(path), out=out)
    assert (sorted(tmp_path.rglob("*")), path.read_bytes()) == before


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    before = sorted(tmp_path.rglob("*")), path.read_bytes()

    def full(path, data):
        raise audiofile.disk_error(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(audiofile, "write_bytes", full)
    with pytest.raises(PunchinError, match="No space left on device") as failed:
        landed(aimed(path), names=("a", "b"))
    assert failed.value.exit_code == 1
    assert "make room" in failed.value.hint
    assert (sorted(tmp_path.rglob("*")), path.read_bytes()) == before


def test_provenance_lies_in_the_take_and_beside_the_file(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS)))
    made = {"prompt": 'it\'s "warm" `keys`\n\u2192 slow ' * 40, "seed": 7}
    result = landed(aimed(path), provenance=made)
    beside = result.take_files[0].with_name(result.take_files[0].name + ".punchin.json")
    assert json.loads(beside.read_text()) == made
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    store = tree.find("TRACK").find("ITEM").find("EXT").find("BIN")
    assert list(store.attrib) == ["punchin"]
    assert max(len(line) for line in store.children) == 128
    assert json.loads(base64.b64decode("".join(store.children))) == made


def test_a_resampled_take_starts_where_its_item_does(tmp_path):
    t = np.arange(8 * RATE) / RATE
    media(tmp_path, "Media/keys.wav", 0.5 * np.sin(2 * np.pi * 300 * t)[None], subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(1, 6, KEYS, SOFFS="0.2", PLAYRATE="0.5 0 0 -1 0 0.0025", LOOP=0)))
    result = landed(aimed(path))
    take = soundfile.read(result.take_files[0])[0]
    middle = np.arange(RATE, 5 * RATE)
    np.testing.assert_allclose(take[middle], 0.5 * np.sin(2 * np.pi * 300 * (0.2 + 0.5 * middle / RATE)), atol=1e-5)
    assert "PLAYRATE 1 1 0" in result.output.read_text()


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


def test_split_parts_of_a_slow_item_start_where_they_were(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    second = "      TAKE\n      NAME two\n      PLAYRATE 2 0 0 -1 0 0.0025\n" + source_of(KEYS)
    rate = {"PLAYRATE": "0.5 0 0 -1 0 0.0025", "SOFFS": "0.25", "MUTE": None}
    path = project(tmp_path, track("Keys", item(1, 7, KEYS, takes=second, **rate)))
    result = landed(aimed(path, how="split"))
    tree = oracle.loads(result.output.read_text().replace("\r\n", "\n"))
    items = tree.find("TRACK").findall("ITEM")
    offsets = [[float(c[1]) for c in one.children if c[0] == "SOFFS"] for one in items[:3]]
    assert offsets == [[0.25], pytest.approx([0.25 + 0.945 / 2, 0.945 * 2]), pytest.approx([0.25 + 1.5, 6.0])]
    assert [["MUTE", "1", "0"] in one.children for one in items] == [False, True, False, False]


def test_a_take_begins_where_its_items_part_of_a_frame_does(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0.5 + 0.3 / RATE, 7, KEYS, SOFFS=str(100.4 / RATE))))
    text = landed(aimed(path)).output.read_text()
    new = [line.split()[1] for line in text.splitlines() if "SOFFS" in line][-1]
    assert float(new) * RATE == pytest.approx(100.4, abs=1e-6), "the file begins where the source does"


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


def test_a_take_of_the_wrong_length_is_an_error(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    target = aimed(project(tmp_path, track("Keys", item(0, 8, KEYS))))
    with pytest.raises(PunchinError, match="2 x 100 samples, 2 x 98640 are wanted"):
        target.place(np.zeros((2, 100), dtype=np.float32))
