"""What made a take, and which take files nobody uses."""

import base64
import json
import os
import time

import numpy as np
import pytest
from rppmaker import item, media, noise, project, track

from punchin.protocol.errors import Refused
from punchin.session import takefiles
from punchin.session.document import LandingTake, land, open_session

RATE = 48_000
MADE = {"seed": 7, "prompt": "it's `warm`"}


def landed(tmp_path, name="song.rpp"):
    media(tmp_path, "Media/keys.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, r"Media\keys.wav")), name=name)
    session = open_session(path)
    target = session.target("Keys", session.region(time=(2, 4)))
    new = np.zeros((2, target.lead_frames + 2 * RATE), dtype=np.float32)
    return land(target, [LandingTake(target.place(new), "punchin 7", MADE)])


def test_what_made_a_take_is_read_beside_it_and_else_from_a_project_that_plays_it(tmp_path):
    take = landed(tmp_path).take_files[0]
    assert takefiles.provenance(take) == MADE
    takefiles.note_file(take).unlink()
    (tmp_path / "broken.rpp").write_text("no project")
    assert takefiles.provenance(take) == MADE
    (tmp_path / "song-punchin.rpp").unlink()
    with pytest.raises(Refused, match="is missing, and no project near it knows"):
        takefiles.provenance(take)


def test_a_take_without_a_note_or_with_a_broken_one_is_refused(tmp_path):
    result = landed(tmp_path)
    note = takefiles.note_file(result.take_files[0])
    for text in ("{", "[1]"):
        note.write_text(text)
        with pytest.raises(Refused, match="not readable"):
            takefiles.provenance(result.take_files[0])
    note.unlink()
    result.output.unlink()
    with pytest.raises(Refused, match="is missing"):
        takefiles.provenance(result.take_files[0])


def test_what_made_a_whole_file_is_beside_it_and_the_file_is_nobodys_to_remove(tmp_path):
    media(tmp_path, "loop.wav", noise(1, 8 * RATE))
    session = open_session(tmp_path / "loop.wav", bpm=120)
    target = session.target(None, session.region(bars=(2, 3)))
    placed = target.place(np.zeros((2, target.lead_frames + 4 * RATE), dtype=np.float32))
    takes = [LandingTake(placed, "punchin 7", MADE), LandingTake(placed, "punchin 8", {**MADE, "seed": 8})]
    files = land(target, takes).take_files
    assert [takefiles.provenance(file)["seed"] for file in files] == [7, 8]
    assert takefiles.unused(tmp_path) == ()
    land(target, [LandingTake(placed, "punchin 9", {**MADE, "seed": 9})], files[0])
    assert takefiles.provenance(files[0])["seed"] == 9
    land(target, [LandingTake(placed, "who knows")], files[0])
    with pytest.raises(Refused, match="is missing"):
        takefiles.provenance(files[0])


def test_takes_that_no_project_names_are_found_and_removed(tmp_path):
    first, second = landed(tmp_path), landed(tmp_path)
    foreign = media(tmp_path, "Media/mine.wav", noise(1, 100))
    assert takefiles.unused(tmp_path) == ()
    second.output.unlink()
    found = takefiles.unused(tmp_path)
    assert [take.file for take in found] == list(second.take_files)
    assert found[0].size_bytes == second.take_files[0].stat().st_size
    takefiles.remove(found[0])
    assert takefiles.unused(tmp_path) == ()
    assert first.take_files[0].exists()
    assert not found[0].note.exists()
    assert (tmp_path / "Media/mine.wav").exists()
    assert foreign.any()


def test_a_take_of_the_last_hour_is_young(tmp_path):
    """A landing at work names its takes last."""
    result = landed(tmp_path)
    (take,) = result.take_files
    result.output.write_bytes(b"")  # as a landing leaves it that is killed
    project(tmp_path, track("Keys"), name="song.rpp")
    (found,) = takefiles.unused(tmp_path)
    assert (found.file, found.young) == (take, True)
    os.utime(take, (1, time.time() - takefiles.YOUNG_S - 60))
    (found,) = takefiles.unused(tmp_path)
    assert not found.young


def test_a_take_that_only_a_backup_or_another_folder_names_is_used(tmp_path):
    result = landed(tmp_path)
    (tmp_path / "Backups").mkdir()
    text = result.output.read_text().replace("Media\\Keys", "..\\Media\\Keys")
    result.output.unlink()
    (tmp_path / "Backups" / "song.rpp-bak").write_text(text)
    assert takefiles.unused(tmp_path) == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_take_that_a_sampler_keeps_in_its_state_is_used(tmp_path, encoding):
    result = landed(tmp_path)
    (take,) = result.take_files
    result.output.unlink()
    assert [each.file for each in takefiles.unused(tmp_path)] == [take]
    state = b"\xef\xbe\xad\xde" + bytes(77) + str(take).encode(encoding) + bytes(200)
    lines = [base64.b64encode(state[at : at + 96]).decode() for at in range(0, len(state), 96)]
    vst = ["<FXCHAIN", '<VST "VSTi: ReaSamplOmatic5000" reasamplomatic.dll 0 "" 1920167789', *lines, ">", ">\n"]
    project(tmp_path, track("Sampler", "\n".join(vst)), name="sampler.rpp")
    assert takefiles.unused(tmp_path) == ()


def test_an_unreadable_project_stops_the_search(tmp_path):
    landed(tmp_path)
    (tmp_path / "broken.rpp").write_text("<REAPER_PROJECT 0.1\n")
    with pytest.raises(Refused, match=r"broken\.rpp is cut short"):
        takefiles.unused(tmp_path)
    with pytest.raises(Refused, match="there is no folder"):
        takefiles.unused(tmp_path / "none")


def test_the_note_is_plain_json(tmp_path):
    assert json.loads(takefiles.note_file(landed(tmp_path).take_files[0]).read_bytes()) == MADE


def test_a_take_that_a_project_plays_by_another_machines_path_is_used(tmp_path):
    """The file came along with its project, which still names it where it lay."""
    result = landed(tmp_path)
    text = result.output.read_bytes()
    moved = text.replace(b"Media\\Keys-punchin-7.wav", b"D:\\Songs\\Media\\Keys-punchin-7.wav")
    assert moved != text
    result.output.write_bytes(moved)
    session = open_session(result.output)
    target = session.target("Keys", session.region(time=(2, 4)))
    assert np.any(target.heard(1, 2)), "it plays here too"
    assert takefiles.unused(tmp_path) == ()
