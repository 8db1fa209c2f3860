"""Projects from files: what a request says of a live project sounds as the saved project does, bit for bit."""

import shutil
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import rppmaker
from fakereaper.desk import Desk
from fakereaper.text import load_project
from realparts import corpus

from punchin.clients.bridge.project import project_text
from punchin.clients.bridge.request import decode
from punchin.protocol.errors import Refused
from punchin.session.document import open_session

LAST = "Repaint selection (last preset)"


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "desk")
    yield desk
    desk.host.quit()


def open_in(desk, path):
    desk.host.projects[0] = load_project(path)
    desk.project.media_dir = str(path.parent / "Media")


def asked(desk, track, start_s, end_s, **words):
    """The request that a key press makes on one track. Raises ValueError when it is refused."""
    for each in desk.project.tracks:
        each.selected = each is track
    desk.project.time_selection = (start_s, end_s)
    desk.remember_words(**words)
    desk.press(LAST)
    desk.host.tick()
    (found,) = (desk.spool / "inbox").glob("*.json")
    request = decode(found.read_bytes())
    found.unlink()
    return request


def heard(path, track, start_s, end_s, how="take"):
    session = open_session(path)
    target = session.target(track, session.region(time=(start_s, end_s)), how)
    return target, target.heard(max(start_s - 20.0, 0.0), min(end_s + 20.0, session.end_s))


def same(desk, path, track, start_s, end_s):
    """A live request's project and the saved one, heard around the region."""
    request = asked(desk, track, start_s, end_s)
    copy = path.with_name("live.rpp")
    copy.write_text(project_text(request))
    saved, wanted = heard(path, track.guid, start_s, end_s)
    live, got = heard(copy, track.guid, start_s, end_s)
    assert (live.landing, live.rate_hz, live.channels, live.subtype) == (
        saved.landing,
        saved.rate_hz,
        saved.channels,
        saved.subtype,
    )
    frames = min(got.shape[1], wanted.shape[1])
    np.testing.assert_array_equal(got[:, :frames], wanted[:, :frames])
    assert np.abs(wanted).max() > 0


SECOND_TAKE = """      TAKE SEL
      NAME "second"
      TAKEVOLPAN 0 0.8 -1
      SOFFS 0.75
      PLAYRATE 1 1 0 -1 0 0.0025
      CHANMODE 0
      GUID {22222222-0000-4000-8000-000000000002}
      <SOURCE WAVE
        FILE "Media/b.wav"
      >
"""


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"SOFFS": 0.333333, "VOLPAN": "0.5 0 0.7 -1"},
        {"VOLPAN": "1 -0.3 -0.9 -1"},
        {"FADEIN": "0 0.5 0 0 0 0 0", "FADEOUT": "0 1.5 0 0 0 0 0"},
        {"FADEIN": "3 0.5 0 3 0 0.4 0"},
        {"CHANMODE": 3},
        {"LOOP": 1, "LENGTH": 14},
        {"takes": SECOND_TAKE},
        {"POSITION": 1.00001},
    ],
)
def test_an_items_values_sound_alike_live_and_saved(desk, tmp_path, fields):
    folder = tmp_path / "song"
    rppmaker.media(folder, "Media/a.wav", rppmaker.noise(2, 480_000), subtype="PCM_24")
    rppmaker.media(folder, "Media/b.wav", rppmaker.noise(2, 480_000, seed=2), subtype="PCM_24")
    takes = fields.pop("takes", "")
    item = rppmaker.item(fields.pop("POSITION", 1), fields.pop("LENGTH", 9), "Media/a.wav", takes=takes, **fields)
    other = rppmaker.item(12, 3, "Media/b.wav", IGUID="{33333333-0000-4000-8000-000000000001}")
    path = rppmaker.project(folder, rppmaker.track("Keys", item, other), tempo="97 7 8")
    open_in(desk, path)
    same(desk, path, desk.project.tracks[0], 2.5, 4.5)


def test_the_tempo_of_a_saved_project_arrives(desk, tmp_path):
    folder = tmp_path / "song"
    rppmaker.media(folder, "Media/a.wav", rppmaker.noise(2, 48_000 * 20))
    points = "  <TEMPOENVEX\n    PT 0 120 1 262148 0 1\n    PT 4 120 0 196611 0 1\n    PT 8 150 1\n  >\n"
    item = rppmaker.item(0, 20, "Media/a.wav")
    path = rppmaker.project(folder, rppmaker.track("Keys", item), extra=points)
    open_in(desk, path)
    copy = tmp_path / "live.rpp"
    copy.write_text(project_text(asked(desk, desk.project.tracks[0], 5.0, 9.0)))
    saved, live = open_session(path).tempo, open_session(copy).tempo
    for at_s in np.linspace(0, 19, 77):
        assert float(live.seconds_to_beats(at_s)) == pytest.approx(float(saved.seconds_to_beats(at_s)), abs=5e-4)
        if at_s < 4 or at_s > 8:
            assert live.bpm_at(at_s) == pytest.approx(saved.bpm_at(at_s), rel=1e-9)
        assert live.signature_at(at_s) == saved.signature_at(at_s)


@pytest.mark.slow
def test_real_projects_sound_alike_live_and_saved(desk, tmp_path):
    """Every track of the real projects that has sound: its first bars, with made-up media in place of theirs."""
    compared = refused = 0
    for source in sorted(corpus("rpp").glob("*.[rR][pP][pP]")):
        path = tmp_path / source.stem / source.name
        path.parent.mkdir()
        shutil.copy(source, path)
        project = load_project(path)
        files = {take.source.path for item in project.items() for take in item.takes if take.source}
        for number, file in enumerate(sorted(files)):
            if file and Path(file).suffix.lower() in (".wav", ".flac"):
                rppmaker.media(Path(file).parent, Path(file).name, rppmaker.noise(2, 480_000, seed=number))
        open_in(desk, path)
        for track in desk.project.tracks[:12]:
            plain = [i for i in track.items if i.takes and i.takes[i.active].source.type == "WAVE"]
            if not plain or plain[0].values["D_LENGTH"] < 1.0:
                continue
            start_s = plain[0].start_s + 0.1
            try:
                same(desk, path, track, start_s, start_s + 0.8)
                compared += 1
            except (Refused, ValueError):
                refused += 1
    assert compared >= 6, (compared, refused)


def test_windows_paths_of_a_saved_project_are_found(tmp_path):
    folder = tmp_path / "song"
    rppmaker.media(folder, "Media/a.wav", rppmaker.noise(1, 48_000))
    item = rppmaker.item(0, 1, str(PureWindowsPath("Media", "a.wav")))
    path = rppmaker.project(folder, rppmaker.track("Keys", item))
    source = load_project(path).items()[0].takes[0].source
    assert Path(source.path) == folder / "Media" / "a.wav"
    assert source.channels == 1
