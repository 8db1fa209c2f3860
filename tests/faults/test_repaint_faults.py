"""A region on its way survives killed processes, ctrl-C and an impatient user; nothing is half written."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import rpp
import soundfile
from punchinhere import Home

from punchin.clients.demo import session_folder

ASK = "--track", "Keys", "--bars", "5-8", "--prompt", "x", "--seed", "1", "--json"


@pytest.fixture
def session(tmp_path):
    shutil.copytree(session_folder(), tmp_path / "session")
    return tmp_path / "session" / "demo.rpp"


@pytest.fixture
def punchin(tmp_path):
    """A daemon whose worker waits for a gate in every job."""
    here = Home(tmp_path / "home", worker="hold")
    yield here
    (here.folder / "gate").touch()
    here.stop()


def files(session):
    return {path: path.read_bytes() for path in session.parent.rglob("*") if path.is_file()}


def start(punchin, session, *more):
    """A repaint whose job runs and waits at the gate: (the command, the job's id)."""
    running = punchin.start("repaint", session, *ASK, *more)
    job = running.wait_for("job ").split()[1]
    running.wait_for("diffusing")
    return running, job


def landed_well(session, output):
    made = json.loads(output)
    before, _ = soundfile.read(session.parent / "media" / "keys.flac", always_2d=True)
    after, _ = soundfile.read(made["takes"][0]["file"], always_2d=True)
    assert abs(after - before).max() == 0.0
    return made


def test_ctrl_c_cancels_the_job_and_writes_nothing(punchin, session):
    before = files(session)
    running, job = start(punchin, session)
    running.interrupt()
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (130, "")
    assert "cancelled; nothing was written" in ended.stderr
    assert punchin.json("show", job)["state"] == "cancelled"
    assert files(session) == before


def test_a_second_ctrl_c_does_not_wait(tmp_path, session):
    punchin = Home(tmp_path / "home", worker="stubborn")
    before = files(session)
    try:
        running, job = start(punchin, session)
        running.interrupt()
        running.wait_for("cancelling")
        running.interrupt()
        ended = running.end()
        assert ended.returncode == 130
        said = ended.stderr.partition("cancelling ...")[2]
        assert f"job {job} goes on" in said or f"job {job} is being cancelled; nothing was written" in said
        assert files(session) == before
    finally:
        punchin.stop()


def test_another_client_may_cancel(punchin, session):
    running, job = start(punchin, session)
    assert punchin.json("cancel", job)["state"] == "cancelled"
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (130, "")


def test_a_killed_daemon_is_started_again_and_the_take_lands(punchin, session):
    running, _ = start(punchin, session)
    os.kill(punchin.json("status")["pid"], signal.SIGKILL)
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert ended.returncode == 0, ended.stderr
    landed_well(session, ended.stdout)


def test_a_killed_worker_costs_no_job(punchin, session):
    running, _ = start(punchin, session)
    (worker,) = punchin.json("ps")
    os.kill(worker["pid"], signal.SIGKILL)
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert ended.returncode == 0, ended.stderr
    landed_well(session, ended.stdout)


def test_a_killed_client_is_no_loss_either(punchin, session):
    running, job = start(punchin, session)
    running.process.kill()
    running.end()
    (punchin.folder / "gate").touch()
    assert punchin.run("show", job, "--follow").returncode == 0
    made = landed_well(session, punchin.run("land", job, "--json").stdout)
    assert made["job"] == job


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_landing_that_is_ended_takes_away_what_it_wrote(punchin, session, number):
    """A terminal that closes while eight takes land."""
    before = files(session)
    running, job = start(punchin, session, "--variations", "8")
    (punchin.folder / "gate").touch()
    deadline = time.monotonic() + 60
    while len(list(session.parent.rglob("*-punchin-*.wav"))) + len(list(session.parent.rglob("*-punchin-*.flac"))) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    running.process.send_signal(number)
    ended = running.end()
    assert ended.returncode == -number
    assert files(session) == before
    assert len(json.loads(punchin.run("land", job, "--json").stdout)["takes"]) == 8


def test_a_session_saved_meanwhile_is_landed_on(punchin, session):
    """What was added elsewhere in the project while the job ran is in the output too."""
    running, _ = start(punchin, session)
    saved = session.read_bytes().replace(b"NAME Bass", b'NAME "Bass DI"')
    session.write_bytes(saved)
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert ended.returncode == 0, ended.stderr
    made = landed_well(session, ended.stdout)
    assert b'NAME "Bass DI"' in Path(made["output"]).read_bytes()
    assert session.read_bytes() == saved


def test_a_region_changed_meanwhile_is_refused(punchin, session):
    running, job = start(punchin, session)
    saved = session.read_bytes()
    quieter = saved.replace(b"VOLPAN 1 0 1 -1", b"VOLPAN 0.5 0 1 -1")
    assert quieter != saved
    session.write_bytes(quieter)
    before = files(session)
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "has changed since" in ended.stderr
    assert files(session) == before
    session.write_bytes(saved)
    landed_well(session, punchin.run("land", job, "--json").stdout)


def test_a_folder_gone_meanwhile_costs_no_take_which_lands_elsewhere(punchin, session, tmp_path):
    for folder in ("gone", "other"):
        (tmp_path / folder).mkdir()
    running, job = start(punchin, session, "-o", tmp_path / "gone" / "song.rpp")
    (tmp_path / "gone").rmdir()
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (4, "")
    assert f"or with -o elsewhere: punchin land {job}" in ended.stderr
    wrong = punchin.run("land", job, "-o", session)
    assert (wrong.returncode, wrong.stdout) == (4, "")
    assert "never written" in wrong.stderr
    made = landed_well(session, punchin.run("land", job, "-o", "other/song.rpp", "--json", cwd=tmp_path).stdout)
    assert made["output"] == str(tmp_path / "other" / "song.rpp") == punchin.json("show", job)["landed"]


def test_music_from_a_prompt_lands_elsewhere_too(punchin, tmp_path):
    (tmp_path / "gone").mkdir()
    asked = "--prompt", "x", "--bpm", "120", "--bars", "2", "-o", tmp_path / "gone" / "new.wav"
    running = punchin.start("generate", *asked)
    running.wait_for("diffusing")
    (tmp_path / "gone").rmdir()
    (punchin.folder / "gate").touch()
    job = running.end().stderr.split()[-1]  # that of the last roll
    wrong = punchin.run("land", job, "-o", tmp_path / "new.mp3")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    made = punchin.json("land", job, "-o", tmp_path / "new.wav")
    assert made["output"] == made["takes"][0]["file"] == str(tmp_path / "new.wav")
    assert soundfile.info(tmp_path / "new.wav").frames == 4 * 48_000


TRACKS = "--track", "Bass", "--track", "Drums", "--variations", "2"


def test_several_tracks_are_one_job_and_one_cancel(punchin, session):
    before = files(session)
    running, job = start(punchin, session, *TRACKS)
    assert [(each["job"], each["state"]) for each in punchin.json("jobs")] == [(job, "running")]
    assert punchin.json("status")["jobs"] == {"running": 1}
    assert punchin.json("cancel", job)["state"] == "cancelled"
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (130, "")
    assert [each["state"] for each in punchin.json("jobs")] == ["cancelled"]
    assert files(session) == before


@pytest.mark.parametrize("victim", ["worker", "daemon", "client"])
def test_several_tracks_land_whole_whoever_is_killed(punchin, session, victim):
    running, job = start(punchin, session, *TRACKS)
    pids = {"worker": punchin.json("ps")[0]["pid"], "daemon": punchin.json("status")["pid"]}
    os.kill(pids.get(victim, running.process.pid), signal.SIGKILL)
    (punchin.folder / "gate").touch()
    ended = running.end()
    if victim == "client":
        assert punchin.run("show", job, "--follow").returncode == 0
        ended = punchin.run("land", job, "--json")
    assert ended.returncode == 0, ended.stderr
    made = json.loads(ended.stdout)
    (project,) = set(session.parent.glob("*.rpp")) - {session}
    assert (made["job"], made["output"]) == (job, str(project))
    assert [(take["track"], take["seed"]) for take in made["takes"]] == [
        (track, seed) for track in ("Keys", "Bass", "Drums") for seed in (1, 2)
    ]  # fmt: skip
    for track in rpp.loads(project.read_text()).findall("TRACK"):
        (item,) = track.findall("ITEM")
        original, *takes = (project.parent / source.find("FILE")[1] for source in item.findall(".//SOURCE"))
        assert [take.resolve() for take in takes] == [
            Path(take["file"]).resolve() for take in made["takes"] if take["track"] == track.find("NAME")[1]
        ]  # fmt: skip
        for take in takes:
            before, after = (soundfile.read(path, always_2d=True)[0] for path in (original, take))
            assert abs(after - before).max() == 0.0


def test_several_tracks_land_not_at_all_where_one_has_changed(punchin, session):
    running, job = start(punchin, session, *TRACKS)
    saved = session.read_bytes()
    last = saved.rindex(b"VOLPAN 1 0 1 -1")  # of one track's item
    session.write_bytes(saved[:last] + b"VOLPAN 0.5 0 1 -1" + saved[last + 15 :])
    before = files(session)
    (punchin.folder / "gate").touch()
    ended = running.end()
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "has changed since: track" in ended.stderr
    assert files(session) == before
    session.write_bytes(saved)
    assert len(json.loads(punchin.run("land", job, "--json").stdout)["takes"]) == 6


def test_an_engine_that_returns_too_little_fails_the_job(tmp_path, session):
    punchin = Home(tmp_path / "home", worker="short")
    before = files(session)
    try:
        done = punchin.run("repaint", session, *ASK)
    finally:
        punchin.stop()
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: " in done.stderr
    assert files(session) == before
