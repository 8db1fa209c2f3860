"""The whole way in real time: a key in REAPER, bridge, daemon, engine worker, and the take in the project."""

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakereaper.desk import tone
from fakereaper.live import LiveDesk
from fakereaper.text import item_text

from punchin.clients.connect import connect

pytestmark = pytest.mark.slow

LAST = "Repaint selection (last preset)"
WORKER = Path(__file__).parents[1] / "scriptedworker.py"


@pytest.fixture
def live(tmp_path):
    desk = LiveDesk(tmp_path)
    yield desk
    desk.close()


def read(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def landed_in():
    with connect(start=False) as client:
        return [job.landed for job in client.jobs()]


def press(live, **words):
    live.remember_words(**({"model": "identity"} | words))
    live.press(LAST)


def test_identity_comes_back_bit_equal_over_the_whole_item(live):
    _, item = live.simple()
    press(live)
    live.until(lambda: len(item.takes) == 2, "the take")
    take = item.takes[1]
    np.testing.assert_array_equal(read(take.source.path), read(item.takes[0].source.path))
    assert Path(take.source.path).parent == live.media
    assert take.values["D_STARTOFFS"] == 0.0
    assert '"model": "identity"' in take.ext["P_EXT:punchin"]
    assert live.project.undo_log == ["punchin: Keys bar 2"]
    assert live.open_jobs() == {}
    live.until(lambda: not list((live.spool / "work").iterdir()), "an empty work folder")
    assert list((live.spool / "inbox").iterdir()) == []
    live.until(lambda: landed_in() == [live.project.path], "the project's name in the journal")


def test_a_trimmed_items_take_has_a_bar_of_its_source_on_both_sides(live):
    """The item may be dragged over them, the new take beside the old one, sample by sample."""
    source = live.media / "long.wav"
    soundfile.write(source, np.random.default_rng(1).uniform(-0.2, 0.2, (48_000 * 20, 2)), 48_000, subtype="FLOAT")
    track = live.project.add_track("Keys", selected=True)
    item = track.add_item(1.0, 8.0, source)
    item.takes[0].values["D_STARTOFFS"] = 5.0
    live.project.time_selection = (2.0, 4.0)
    press(live)
    live.until(lambda: len(item.takes) == 2, "the take")
    take = item.takes[1]
    assert take.values["D_STARTOFFS"] == 2.0
    np.testing.assert_array_equal(read(take.source.path), read(source)[3 * 48_000 : 15 * 48_000])


def test_redo_of_a_take_finds_the_saved_project(live):
    """The session that the bridge writes for a journey is gone by then; it had the project's name."""
    track, item = live.simple()
    project = Path(live.project.path)
    text = f'<TRACK {track.guid}\nNAME "Keys"\n{item_text(item)}>\n'
    project.write_text(f'<REAPER_PROJECT 0.1 "7.42/linux-x86_64" 1770723931\nTEMPO 120 4 4\n{text}>\n')
    press(live)
    live.until(lambda: len(item.takes) == 2, "the take")
    command = [sys.executable, "-m", "punchin.clients.cli", "redo", item.takes[1].source.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "differs" not in done.stderr
    assert project.with_name("song-punchin.rpp").is_file()


def test_an_item_with_gain_and_fades_nulls_as_well(live):
    """The take file holds what is before gain and fades, since REAPER applies those to every take."""
    _, item = live.simple(D_VOL=0.5, D_FADEINLEN=3.0)
    press(live)
    live.until(lambda: len(item.takes) == 2, "the take")
    before, after = read(item.takes[0].source.path), read(item.takes[1].source.path)
    np.testing.assert_array_equal(after[192_000:], before[192_000:])
    assert np.abs(after - before).max() < 10 ** (-140 / 20)


def test_the_bundled_model_changes_the_region_alone(live):
    _, item = live.simple()
    press(live, model="punchin-tiny", seed="7")
    live.until(lambda: len(item.takes) == 2, "the take")
    before, after = read(item.takes[0].source.path), read(item.takes[1].source.path)
    assert before.shape == after.shape
    np.testing.assert_array_equal(after[192_000:], before[192_000:])
    np.testing.assert_array_equal(after[:90_000], before[:90_000])
    assert np.abs(after[96_000:192_000] - before[96_000:192_000]).max() > 1e-3
    assert "tiny" in item.takes[1].name


def test_two_presses_queue_two_takes(live):
    _, item = live.simple()
    press(live)
    live.host.tick()
    press(live)
    live.until(lambda: len(item.takes) == 3, "both takes")
    assert len(live.project.undo_log) == 2
    with connect(start=False) as client:
        assert len(client.jobs()) == 2


def test_several_tracks_and_regions_are_one_job_and_one_step(live):
    """Two near regions of one item and one of another track: two files, each with all of its regions."""
    track, item = live.simple()
    bass = live.project.add_track("Bass")
    other = bass.add_item(0.0, 8.0, tone(live.media / "bass.wav", 8.0, 55.0))
    track.razor, bass.razor = '1 2 "" 5 6 ""', '2 4 ""'
    press(live, variations="2")
    live.until(lambda: len(item.takes) == 3 and len(other.takes) == 3, "the takes")
    for each in (item, other):
        for take in each.takes[1:]:
            np.testing.assert_array_equal(read(take.source.path), read(each.takes[0].source.path))
    assert live.project.undo_log == ["punchin: Keys bar 1 and 2 more"]
    made_by = json.loads(item.takes[1].ext["P_EXT:punchin"])
    assert [each["request"]["time_s"] for each in (made_by, *made_by["also"])] == [[1.0, 2.0], [5.0, 6.0]]
    with connect(start=False) as client:
        (job,) = client.jobs()
        assert [len(passage.mask) for passage in job.order.passages] == [2, 1]
        assert [passage.name for passage in job.order.passages] == ["Keys 1-2 s, Keys 5-6 s", "Bass 2-4 s"]


def test_an_instrument_may_be_taken_out_of_several_tracks(live):
    live.simple()
    bass = live.project.add_track("Bass", selected=True)
    bass.add_item(0.0, 8.0, tone(live.media / "bass.wav", 8.0, 55.0))
    live.host.inputs.append({"Instrument:": "strings", "Model (empty: the best installed):": "identity"})
    live.press("Extract to new track (ask)")
    live.until(lambda: live.project.undo_log, "the takes")
    assert [each.name for each in live.project.tracks] == ["Keys", "strings bar 2", "Bass", "strings bar 2"]
    for heard, new in zip(live.project.tracks[::2], live.project.tracks[1::2], strict=True):
        original = read(heard.items[0].takes[0].source.path)
        (landed,) = new.items
        first = round((2.0 - landed.start_s + landed.takes[0].values["D_STARTOFFS"]) * 48_000)
        made = read(landed.takes[0].source.path)[first + 4_800 : first + 91_200]
        np.testing.assert_allclose(made, original[100_800:187_200], atol=2**-23)  # 24 bits


def test_split_landing_of_a_region_over_two_items(live):
    track, item = live.simple()
    track.add_item(8.0, 8.0, item.takes[0].source.path)
    live.project.time_selection = (7.0, 9.0)
    press(live, land="split")
    live.until(lambda: live.project.undo_log, "the take")
    new = track.items[-1]
    assert new.start_s < 7.0
    assert new.end_s == pytest.approx(9.0, abs=1e-4)
    muted = sorted((round(i.start_s, 6), round(i.end_s, 6)) for i in track.items if i.values["B_MUTE"])
    assert muted == [(round(new.start_s, 6), 8.0), (8.0, round(new.end_s, 6))]
    file, original = read(new.takes[0].source.path), read(item.takes[0].source.path)
    first = round((new.start_s - new.takes[0].values["D_STARTOFFS"]) * 48_000)
    around = np.concatenate([original, original])[first : first + len(file)]
    np.testing.assert_array_equal(file, around)


def test_a_layer_hears_the_session_and_lands_on_a_track_of_its_own(live):
    track, item = live.simple()
    bass = live.project.add_track("Bass")
    bass.add_item(0.0, 8.0, tone(live.media / "bass.wav", 8.0, 55.0))
    live.host.inputs.append({"Instrument:": "strings", "Model (empty: the best installed):": "identity"})
    live.press("Layer on new track (ask)")
    live.until(lambda: live.project.undo_log, "the layer")
    assert [each.name for each in live.project.tracks] == ["Keys", "strings bar 2", "Bass"]
    new = live.project.tracks[1].items[0]
    first = round((new.takes[0].values["D_STARTOFFS"] + 2.0 - new.start_s) * 48_000)
    heard = read(new.takes[0].source.path)[first + 4_800 : first + 91_200]
    both = sum(read(each.takes[0].source.path)[100_800:187_200] for each in (item, bass.items[0]))
    np.testing.assert_allclose(heard, both, atol=1e-6)
    assert [len(each.items) for each in (track, bass)] == [1, 1]


def test_a_track_heard_through_its_effects_lands_beside_it(live):
    track, item = live.simple()
    press(live, post_fx="yes")
    live.until(lambda: live.project.undo_log, "the take")
    new = live.project.tracks[1].items[0]
    file, original = read(new.takes[0].source.path), read(item.takes[0].source.path)
    first = round((new.start_s - new.takes[0].values["D_STARTOFFS"]) * 48_000)
    np.testing.assert_array_equal(file, 0.5 * original[first : first + len(file)])
    assert sum(each.values["B_MUTE"] for each in track.items) == 1


def test_a_faster_take_is_captured_by_reaper_and_lands_at_rate_one(live):
    _, item = live.simple()
    item.takes[0].values["D_PLAYRATE"] = 2.0
    press(live)
    live.until(lambda: len(item.takes) == 2, "the take")
    original = read(item.takes[0].source.path)
    np.testing.assert_array_equal(read(item.takes[1].source.path), np.tile(original, (2, 1))[::2])
    assert item.takes[1].values["D_PLAYRATE"] == 1.0


def test_a_model_that_is_not_there_is_told(live):
    live.simple()
    press(live, model="no-such-model")
    live.until(lambda: live.host.console, "the refusal")
    assert "no-such-model" in live.host.console[-1]
    assert live.open_jobs() == {}


@pytest.fixture
def held(live, tmp_path, monkeypatch):
    """A worker that begins and then waits for a gate to open."""
    folder = tmp_path / "gates"
    folder.mkdir()
    monkeypatch.setenv("PUNCHIN_WORKER", shlex.join([sys.executable, str(WORKER), "hold", str(folder)]))
    live.gate = folder / "gate"
    return live


def test_cancel_reaches_a_running_job(held):
    _, item = held.simple()
    press(held)
    held.until(lambda: any("diffusing" in text for text in held.host.help), "progress")
    held.press("Cancel")
    held.until(lambda: not held.open_jobs(), "the end")
    assert "nothing was changed" in held.host.console[-1]
    assert len(item.takes) == 1
    with connect(start=False) as client:
        assert client.jobs()[0].state == "cancelled"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_bridge_that_dies_costs_no_take(held, number):
    _, item = held.simple()
    press(held)
    held.until(lambda: any("diffusing" in text for text in held.host.help), "progress")
    held.kill_bridge(number)
    held.gate.touch()
    (held.spool / "bridge.beat").unlink(missing_ok=True)
    held.press("Free the GPU")  # any action starts the bridge again
    held.until(lambda: len(item.takes) == 2, "the take")
    held.until(lambda: not list((held.spool / "work").iterdir()), "an empty work folder")
    with connect(start=False) as client:
        assert len(client.jobs()) == 1
    assert len(list(held.media.glob("*.wav"))) == 2  # landed once


def test_cancel_reaches_a_job_of_a_bridge_that_died(held):
    _, item = held.simple()
    press(held)
    held.until(lambda: any("diffusing" in text for text in held.host.help), "progress")
    held.kill_bridge(signal.SIGKILL)
    (held.spool / "bridge.beat").unlink(missing_ok=True)
    held.press("Cancel")
    held.until(lambda: not held.open_jobs(), "the end")
    with connect(start=False) as client:
        held.until(lambda: client.jobs()[0].state == "cancelled", "the daemon's end of it")
    assert len(item.takes) == 1


def test_a_reaper_that_was_closed_meanwhile_collects_its_take(held):
    _, item = held.simple()
    press(held)
    held.until(lambda: any("diffusing" in text for text in held.host.help), "progress")
    held.host.quit()
    held.gate.touch()
    held.press("Collect finished")
    held.until(lambda: len(item.takes) == 2, "the take")
    assert held.open_jobs() == {}


def test_the_project_and_its_media_are_never_written(live):
    """Only new files appear beside them."""
    project = Path(live.project.path)
    project.write_bytes(b"<REAPER_PROJECT 0.1\r\n>\r\n")
    _, item = live.simple()
    media = Path(item.takes[0].source.path)
    before = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in (project, media)]
    press(live, land="split")
    live.until(lambda: live.project.undo_log, "the take")
    assert [(path, path.read_bytes(), path.stat().st_mtime_ns) for path, _, _ in before] == before
    assert sorted(path.name for path in project.parent.iterdir()) == ["Media", "song.rpp"]
