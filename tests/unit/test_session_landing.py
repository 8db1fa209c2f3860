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
from landings import KEYS, RATE, aimed, landed, overlapped, played, window
from rppmaker import HEAD, item, media, noise, project, source_of, track

from punchin.protocol.errors import PunchinError, Refused
from punchin.session import audiofile
from punchin.session.document import LandingTake, land, open_session
from punchin.session.render import find_media


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


@pytest.mark.parametrize("how", ["split", "lane", "track"])
def test_a_new_item_is_in_the_group_of_what_it_replaces(tmp_path, how):
    """Moved with its group, a muted original would leave its take behind."""
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, GROUP=72)), track("Bass", item(0, 8, KEYS)))
    for name, groups in (("Keys", 4), ("Bass", 1)):  # the old one or its parts, and what is new
        text = landed(aimed(path, how=how, name=name)).output.read_text()
        assert text.count("GROUP 72") == groups


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


@pytest.mark.parametrize("how", ["split", "lane", "track"])
def test_a_neighbour_that_meets_the_cut_between_two_frames_keeps_its_fade(tmp_path, how):
    """Bars at 127 bpm begin between frames. What ends or begins there plays on whole, in one item with its fades."""
    bar_s = 4 * 60 / 127
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE))
    items = [
        item(0, 3 * bar_s, KEYS, LOOP=0),  # its frames are the ones that count
        item(0, bar_s, KEYS, FADEOUT="0 0.01 0 0 0 0 0", LOOP=0),
        item(bar_s, bar_s, KEYS, FADEIN="0 0.1 0 0 0 0 0", LOOP=0),
        item(2 * bar_s, bar_s, KEYS, FADEIN="0 0.01 0 0 0 0 0", LOOP=0),
    ]
    path = project(tmp_path, track("Keys", *items), tempo="127 4 4")
    target = aimed(path, (bar_s + 0.12, 2 * bar_s), how)
    now = open_session(landed(target).output)
    _, first, _, last = open_session(path).project.tracks[0].items
    kept = [(i.start_s, i.end_s, i.fade_in, i.fade_out) for t in now.project.tracks for i in t.sounding()]
    for each in (first, last):
        assert (each.start_s, each.end_s, each.fade_in, each.fade_out) in kept
    assert len(kept) == 5, "the two, the take between them, and what is beside it of the item under all of them"


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


@pytest.mark.parametrize(("channels", "volpan", "gain"), [(2, "0.01 0 1 -1", 0.01), (1, "0.5 0 -0.03 -1", -0.015)])
def test_on_an_item_too_quiet_to_hold_a_take_it_is_an_item_of_its_own(tmp_path, channels, volpan, gain):
    """All of it would be under -36 dB: the take on it would be the source again."""
    a = media(tmp_path, "Media/keys.wav", noise(channels, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, VOLPAN=volpan)))
    target = aimed(path)
    result = landed(target, change=-0.5)
    quiet = f"item 1 plays at {20 * np.log10(abs(gain)):.1f} dB, a take on it needs -33 dB"
    assert target.notes == (f"{quiet}: the take is an item of its own",)
    new, old = played(result.output, 8), np.broadcast_to(a, (2, 8 * RATE)) * gain
    np.testing.assert_allclose(new[:, 2 * RATE : 3 * RATE], -0.5 * old[:, 2 * RATE : 3 * RATE], atol=1e-7)
    np.testing.assert_allclose(new[:, 4 * RATE :], old[:, 4 * RATE :], atol=1e-7)


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


def test_an_item_whose_active_take_is_the_empty_topmost_one_stays_silent(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    takes = "      TAKE\n      NAME b\n      SOFFS 0\n" + source_of(KEYS)
    target = aimed(project(tmp_path, track("Keys", item(0, 8, None, NAME=None, takes=takes))))
    assert not target.before.any()
    result = land(target, [LandingTake(target.place(noise(2, target.lead_frames + 2 * RATE, 9)), "punchin 7")])
    after = aimed(result.output)
    assert after.heard(2, 4).any()
    assert not after.heard(5, 7).any()


def test_a_take_plays_in_the_stead_of_a_soloed_item(tmp_path):
    """The part under it is muted without the item's solo, which the parts beside keep."""
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE, 1))
    media(tmp_path, "Media/b.wav", noise(2, 8 * RATE, 2))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, MUTE="1 -1"), item(0, 8, r"Media\b.wav", MUTE="0 1")))
    old = aimed(path).heard(0, 8)
    result = landed(aimed(path, how="split"), change=0.5)
    new = aimed(result.output).heard(0, 8)
    inside = slice(round(2.01 * RATE), round(3.9 * RATE))
    np.testing.assert_allclose(new[:, inside], old[:, inside] / 2, atol=1e-6)
    np.testing.assert_allclose(new[:, 4 * RATE :], old[:, 4 * RATE :], atol=1e-7)
    mutes = re.findall(r"^ +MUTE (.*?)\r?$", result.output.read_bytes().decode(), re.M)
    assert sorted(mutes) == ["0 0", "0 1", "1 -1", "1 -1", "1 0"]


@pytest.mark.parametrize("how", ["take", "split", "track"])
def test_a_locked_item_is_not_changed(tmp_path, how):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    locked = item(2, 6, KEYS, LOCK=1)
    path = project(tmp_path, track("Keys", item(0, 2, KEYS), locked))
    with pytest.raises(Refused, match=r"item 2 of track 'Keys' \(at 2\.000 s\) is locked") as refused:
        aimed(path, (3, 5), how)
    assert "--land lane" in refused.value.hint
    assert b"      LENGTH 6\r\n" in landed(aimed(path, (3, 5), "lane")).output.read_bytes(), "there it stays whole"
    result = landed(aimed(path, (0.5, 1.5), how))
    assert locked.replace("\n", "\r\n").encode() in result.output.read_bytes(), "beside the region it stays as it is"


@pytest.mark.parametrize("side", [1, -1, 0])
def test_sums_over_full_scale_are_kept_as_float(tmp_path, side):
    """Whichever way they go over: a kick that begins downwards, too."""
    both = noise(1, 8 * RATE, level=0.9)
    media(tmp_path, "Media/keys.wav", side * np.abs(both) if side else both, subtype="PCM_24")
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


@pytest.mark.parametrize("how", ["split", "lane", "track"])
def test_parts_that_were_cut_still_find_their_media_elsewhere(tmp_path, how):
    media(tmp_path, "song/Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path / "song", track("Keys", item(0, 8, KEYS)))
    (tmp_path / "away").mkdir()
    out = landed(aimed(path, how=how), out=tmp_path / "away" / "new.rpp").output
    files = re.findall(r'FILE "(.*)"', out.read_text())
    assert files.count(str(tmp_path / "song/Media/keys.wav")) == 3
    assert len(files) == 4


@pytest.mark.parametrize("named", ["keys.wav", r"D:\takes\keys.wav"])
def test_media_that_is_not_where_it_says_is_still_found_elsewhere(tmp_path, named):
    """In the recording folder, or beside the project that came with it from another machine."""
    place = {"keys.wav": "song/audio/keys.wav"}.get(named, "song/keys.wav")
    media(tmp_path, place, noise(1, 8 * RATE))
    media(tmp_path, "song/audio/in full.wav", noise(1, 8 * RATE))
    other = item(9, 1, str(tmp_path / "song/audio/in full.wav")) + item(10, 1, "gone.wav")
    head = HEAD.replace('"Media"', '"audio"')
    path = project(tmp_path / "song", track("Keys", item(0, 8, named), other), head=head)
    (tmp_path / "away").mkdir()
    out = landed(aimed(path), out=tmp_path / "away" / "new.rpp").output
    files = re.findall(r'FILE "(.*)"', out.read_text())
    assert files[:1] + files[2:] == [str(tmp_path / place), str(tmp_path / "song/audio/in full.wav"), "gone.wav"]
    assert find_media(open_session(out).project, files[0]) == tmp_path / place


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
        landed(aimed(path), names=("a", "b"), provenance={"seed": 7})
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


def test_a_take_of_the_wrong_length_is_an_error(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    target = aimed(project(tmp_path, track("Keys", item(0, 8, KEYS))))
    with pytest.raises(PunchinError, match="2 x 100 samples, 2 x 98640 are wanted"):
        target.place(np.zeros((2, 100), dtype=np.float32))


@pytest.mark.parametrize("pan", [1.0, -0.5])
@pytest.mark.parametrize("how", ["split", "lane", "track"])
def test_a_panned_mono_item_keeps_its_pan_in_an_item_of_its_own(tmp_path, how, pan):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, VOLPAN=f"1 {pan} 1 -1")))
    target = aimed(path, how=how)
    was = target.heard(2, 4)
    result = landed(target, change=0.5)
    assert soundfile.info(result.take_files[0]).channels == 2
    take = soundfile.read(result.take_files[0], always_2d=True)[0].T
    inside = slice(round((2 - target.time_at(target.file.first)) * RATE), None)
    np.testing.assert_allclose(take[:, inside][:, : round(1.9 * RATE)], was[:, : round(1.9 * RATE)] / 2, atol=2**-23)


def test_a_stereo_neighbour_in_the_handle_keeps_both_its_channels(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    b = media(tmp_path, "Media/b.wav", noise(2, 8 * RATE, 2), subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(0, 4.5, KEYS), item(4.5, 3, r"Media\b.wav")))
    target = aimed(path, how="split")
    take = landed(target).take_files[0]
    assert (soundfile.info(take).channels, soundfile.info(take).subtype) == (2, "FLOAT")
    held = soundfile.read(take, always_2d=True)[0].T[:, round((4.5 - target.time_at(target.file.first)) * RATE) :]
    np.testing.assert_array_equal(held, b[:, : held.shape[1]])


@pytest.mark.parametrize(("subtype", "made"), [("PCM_24", "FLOAT"), ("PCM_32", "DOUBLE")])
def test_a_take_over_full_scale_in_its_file_is_not_clipped_there(tmp_path, subtype, made):
    a = media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE, level=0.9), subtype=subtype)
    result = landed(aimed(project(tmp_path, track("Keys", item(0, 8, KEYS, VOLPAN="0.1 0 1 -1")))), change=2.0)
    assert soundfile.info(result.take_files[0]).subtype == made
    take = soundfile.read(result.take_files[0], always_2d=True)[0].T
    assert np.abs(take).max() == pytest.approx(1.8, abs=0.01)
    assert np.array_equal(take[:, :RATE], a[:, :RATE])


def test_an_item_that_plays_all_its_takes_gets_none_beside_its_one(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, KEYS, ALLTAKES=1)))
    result = landed(aimed(path), change=0.5)
    items = oracle.loads(result.output.read_text().replace("\r\n", "\n")).find("TRACK").findall("ITEM")
    assert not any(
        "TAKE" in (child, child[0]) for one in items for child in one.children if isinstance(child, list | str)
    )
    inside = slice(2 * RATE, round(3.9 * RATE))
    np.testing.assert_allclose(played(result.output, 8)[:, inside], played(path, 8)[:, inside] / 2, atol=2**-22)


def test_a_split_between_two_milliseconds_is_where_it_was_asked_for(tmp_path):
    path = overlapped(tmp_path)
    new = played(landed(aimed(path, (2.00031, 4.00017))).output, 8)
    np.testing.assert_allclose(new, played(path, 8), atol=2**-23)
