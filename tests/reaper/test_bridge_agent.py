"""The bridge against a spool that is not friendly: strange files, strange requests, no file events, two at once."""

import json
import os
import resource
import subprocess
import sys
import threading
import time

import pytest
from fakereaper.desk import Desk, decode

from punchin.clients.bridge import agent as agents
from punchin.clients.bridge import spool as spools
from punchin.clients.bridge import work as works
from punchin.clients.bridge.agent import Agent
from punchin.protocol import lock
from punchin.protocol.errors import Cancelled, PunchinError

LONGEST_S = 30.0


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.host.quit()


@pytest.fixture
def begin(desk):
    """Starts a bridge in a thread of the test; no daemon is asked for in these tests."""
    begun = []

    def start(**options):
        agent = Agent(spools.make(desk.spool), **options)
        begun.append((agent, threading.Thread(target=agent.serve)))
        begun[-1][1].start()

    yield start
    for agent, thread in begun:
        agent.stop()
        thread.join(LONGEST_S)
        assert not thread.is_alive()


def asked(desk, change=None):
    """A good request, changed and put into the inbox anew; its id."""
    desk.simple()
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    request = desk.request()
    id = request["id"]
    (desk.spool / "inbox" / f"{id}.json").unlink()
    if change:
        change(request)
    put(desk, id, json.dumps(request, separators=(",", ":")).encode())
    return id


def put(desk, id, data):
    fresh = desk.spool / "inbox" / f"{id}.json.tmp"
    fresh.write_bytes(data)
    fresh.rename(desk.spool / "inbox" / f"{id}.json")


def answer(desk, job, kinds=("failed", "cancelled", "done", "told")):
    """The first event of that kind on this job."""
    until_s = time.monotonic() + LONGEST_S
    while time.monotonic() < until_s:
        if desk.stream.exists():
            for line in desk.stream.read_text().splitlines():
                event = decode(line)
                if event.get("job") == job and event["kind"] in kinds:
                    return event
        time.sleep(0.01)  # another thread writes the file
    raise AssertionError("no answer")


def gone(path):
    until_s = time.monotonic() + LONGEST_S
    while path.exists() and time.monotonic() < until_s:
        time.sleep(0.01)
    return not path.exists()


def test_a_request_that_is_no_request_is_answered_and_removed(desk, begin):
    job = asked(desk, lambda request: request["params"].update(seed="seven"))
    begin()
    event = answer(desk, job)
    assert event["kind"] == "failed"
    assert "seed" in event["text"]
    assert gone(desk.spool / "inbox" / f"{job}.json")


def test_a_request_that_lies_about_its_id_is_refused(desk, begin):
    job = asked(desk, lambda request: request.update(id="20990101-000000-0000000A"))
    begin()
    assert "calls itself" in answer(desk, job)["text"]


def test_a_media_folder_that_is_not_there_is_told(desk, begin):
    job = asked(desk, lambda request: request["project"].update(media_folder="/nowhere/at/all"))
    begin()
    event = answer(desk, job)
    assert "/nowhere/at/all does not exist" in event["text"]
    assert "save the project" in event["hint"]


@pytest.mark.parametrize("path", ["keys.wav", "{spool}/inbox/x.json", "{spool}/audio/../bridge.log"])
def test_sources_that_no_project_has_are_refused(desk, begin, path):
    def change(request):
        request["tracks"][0]["items"][0]["source"]["path"] = path.format(spool=desk.spool)

    job = asked(desk, change)
    begin()
    assert answer(desk, job)["kind"] == "failed"


def test_strange_files_in_the_inbox_are_left_alone_or_refused(desk, begin):
    job = asked(desk, lambda request: request["project"].update(media_folder="/nowhere"))
    begin()
    assert answer(desk, job)["kind"] == "failed"
    inbox = desk.spool / "inbox"
    (inbox / "notes.txt").write_text("mine")
    (inbox / "..json").write_text("{}")
    (inbox / "20990101-000000-0000000A.json").symlink_to("/etc/passwd")
    put(desk, "20990101-000000-0000000B", b"x" * (spools.REQUEST_BYTES + 1))
    put(desk, "20990101-000000-0000000C", b"\x00\xff")
    (inbox / "20990101-000000-0000000D.json").mkdir()
    for letter in "ABC":
        assert gone(inbox / f"20990101-000000-0000000{letter}.json")
        assert (desk.spool / "done" / f"20990101-000000-0000000{letter}.line").is_file()
    put(desk, "20990101-000000-0000000E", b"{}")
    assert gone(inbox / "20990101-000000-0000000E.json")  # it still serves
    assert (inbox / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        (b'"prompt":', b'"prompt":"caf\xe9.wav","":', '"caf\N{REPLACEMENT CHARACTER}.wav" is not UTF-8', "rename it"),
        (b'"params":', b'"":' + b"[" * 100_000 + b',"params":', "nested too deep", "punchin install reaper"),
    ],
)
def test_a_request_that_breaks_its_reader_is_answered_and_the_bridge_goes_on(desk, begin, old, new, says, hint):
    job = asked(desk)
    (path,) = (desk.spool / "inbox").glob("*.json")
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    begin()
    event = answer(desk, job)
    assert says in event["text"]
    assert hint in event["hint"]
    put(desk, "20990101-000000-0000000E", b"{}")
    assert gone(desk.spool / "inbox" / "20990101-000000-0000000E.json")


def test_a_cancel_that_comes_with_its_request_ends_it_unbegun(desk, begin):
    job = asked(desk)
    (desk.spool / "cancel" / job).touch()
    (desk.spool / "cancel" / "nonsense").touch()
    begin()
    assert answer(desk, job)["kind"] == "cancelled"
    assert gone(desk.spool / "cancel" / job)
    assert gone(desk.spool / "cancel" / "nonsense")


def test_a_folder_among_the_cancels_stops_no_cancel(desk, begin):
    job = asked(desk)
    for name in ("0", "zzz"):  # whichever way the folder is read, one of them comes before the job
        (desk.spool / "cancel" / name).mkdir()
    (desk.spool / "cancel" / job).touch()
    begin()
    assert answer(desk, job)["kind"] == "cancelled"


def test_answers_are_told_again_to_a_new_reaper(desk, begin):
    job = asked(desk, lambda request: request["project"].update(media_folder="/nowhere"))
    begin()
    answer(desk, job)
    desk.host.quit()
    desk.press("Collect finished")
    assert answer(desk, job)["text"].startswith("the project's media folder")


def test_a_job_that_has_just_been_answered_is_told_again(desk, begin, monkeypatch):
    """Its thread still writes down where it landed, when a new REAPER asks."""
    held = threading.Event()
    monkeypatch.setattr(works.Work, "_travel", lambda work: None)
    monkeypatch.setattr(works, "done", lambda request, result, seconds: {"kind": "done"})
    monkeypatch.setattr(works.Work, "_name_place", lambda work, result: held.wait(LONGEST_S))
    job = asked(desk)
    begin()
    answer(desk, job)
    desk.host.ext["PUNCHIN", "instance"] = "FEDCBA9876543210"
    collect = {"v": 2, "id": "20260101-000000-0000000D", "instance": "FEDCBA9876543210", "action": "collect"}
    put(desk, collect["id"], json.dumps(collect | {"jobs": [job]}).encode())
    try:
        assert answer(desk, job)["kind"] == "done"
    finally:
        held.set()


def test_a_job_that_nobody_knows_is_told(desk, begin):
    request = {"v": 2, "id": "20990101-000000-0000000A", "instance": "ABCDEFGH12", "action": "collect",
               "jobs": ["20990101-000000-0000000B"]}  # fmt: skip
    desk.host.ext["PUNCHIN", "instance"] = "ABCDEFGH12"
    begin()
    put(desk, request["id"], json.dumps(request).encode())
    assert "knows nothing" in answer(desk, "20990101-000000-0000000B")["text"]


def test_without_file_events_it_looks_twice_a_second(desk, begin, monkeypatch):
    class Exhausted(agents.Observer):
        def start(self):
            raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(agents, "Observer", Exhausted)
    monkeypatch.setattr(agents, "BEAT_S", 1000.0)
    begin()
    put(desk, "20990101-000000-0000000A", b"{}")
    assert gone(desk.spool / "inbox" / "20990101-000000-0000000A.json")


def test_a_disk_that_is_full_for_a_while_does_not_end_it(desk, begin, monkeypatch):
    beats, beat = [], spools.Spool.beat

    def full(spool):
        beats.append(1)
        if len(beats) < 3:
            raise OSError(28, "no space left on device")
        beat(spool)

    monkeypatch.setattr(spools.Spool, "beat", full)
    monkeypatch.setattr(agents, "BEAT_S", 0.05)
    job = asked(desk, lambda request: request["project"].update(media_folder="/nowhere"))
    begin()
    assert answer(desk, job)["kind"] == "failed"
    assert len(beats) >= 3


def test_a_bridge_that_cannot_start_says_why_where_the_watcher_looks(desk):
    code = (
        "import sys, punchin.clients.bridge.agent as a\n"
        "a._warm_up = lambda: (_ for _ in ()).throw(ImportError('no numpy'))\n"
        "from punchin.clients.bridge.__main__ import main\n"
        f"main([{str(desk.spool)!r}, '--stay'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("ImportError: no numpy")
    assert not lock.is_held(desk.spool / "bridge.lock")
    (desk.spool / "bridge.stderr").write_text(done.stderr)
    (desk.spool / "bridge.beat").unlink()
    desk.simple()
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(11 * 30)
    assert "ImportError: no numpy" in desk.host.console[-1]


def test_it_ends_after_a_while_without_work(desk):
    agent = Agent(spools.make(desk.spool), idle_exit_s=0.0)
    agents.BEAT_S, old = 0.01, agents.BEAT_S
    try:
        agent.serve()
    finally:
        agents.BEAT_S = old
    assert not (desk.spool / "bridge.beat").exists()


def test_two_starts_are_one_bridge(desk):
    command = [sys.executable, "-m", "punchin.clients.bridge", str(desk.spool)]
    (desk.spool / "bridge.beat").unlink()
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait(LONGEST_S) == 0
    until_s = time.monotonic() + LONGEST_S
    while not (desk.spool / "bridge.beat").exists():
        assert time.monotonic() < until_s
        time.sleep(0.02)
    assert lock.is_held(desk.spool / "bridge.lock")
    pid = int((desk.spool / "bridge.beat").read_text().split("\t")[0].removeprefix("pid="))
    assert subprocess.run([*command, "--stay"], timeout=LONGEST_S, check=False).returncode == 0
    assert lock.is_held(desk.spool / "bridge.lock")
    assert os.getsid(pid) == pid  # it outlives who started it
    os.kill(pid, 15)
    while lock.is_held(desk.spool / "bridge.lock"):
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_an_answer_waits_for_room(desk, begin, monkeypatch):
    tries, keep = [], spools.Spool.keep_answer

    def full(spool, id, fields):
        tries.append(fields["kind"])
        if len(tries) < 3:
            raise OSError(28, "no space left on device")
        keep(spool, id, fields)

    monkeypatch.setattr(spools.Spool, "keep_answer", full)
    monkeypatch.setattr(works, "BEAT_S", 0.05)
    job = asked(desk, lambda request: request["project"].update(media_folder="/nowhere"))
    begin()
    assert "media folder /nowhere does not exist" in answer(desk, job)["text"]
    assert tries == ["failed"] * 3


def test_an_open_spool_is_closed_and_a_foreign_one_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    spools.make(tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(PunchinError, match="not a folder of this user"):
        spools.make(tmp_path / "link")


def test_events_are_whole_lines_whatever_is_said(tmp_path):
    spool = spools.make(tmp_path / "spool")
    said = {"text": "tab\there = 100 %\r\nnext ☂ \udcff", "n": 3}
    spool.say("ABCDEFGH", said)
    (line,) = (tmp_path / "spool" / "out" / "ABCDEFGH.events").read_bytes().decode().splitlines()
    assert decode(line) == {"text": "tab\there = 100 %\r\nnext ☂ ?", "n": "3"}


def test_a_full_disk_leaves_no_half_event(tmp_path):
    spool = spools.make(tmp_path / "spool")
    spool.say("ABCDEFGH", {"n": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="No space left"):
            spool.say("ABCDEFGH", {"text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    spool.say("ABCDEFGH", {"n": 2})
    assert (tmp_path / "spool" / "out" / "ABCDEFGH.events").read_bytes() == b"n=1\nn=2\n"


def test_an_answer_may_name_what_is_no_text(tmp_path):
    spool = spools.make(tmp_path / "spool")
    spool.keep_answer("20990101-000000-0000000A", {"file": "caf\udce9.wav"})
    assert spool.answer("20990101-000000-0000000A") == "file=caf?.wav\n"


def test_old_answers_go_and_young_ones_stay(tmp_path):
    spool = spools.make(tmp_path / "spool")
    for name, age_s in (("old", spools.KEEP_S + 10), ("young", 10)):
        spool.keep_answer(name, {"kind": "done"})
        os.utime(spool.path("done", f"{name}.line"), (time.time() - age_s,) * 2)
    spool.clean(time.time())
    assert (spool.answer("old"), spool.answer("young")) == (None, "kind=done\n")


def test_a_cancel_reaches_a_bridge_that_is_full(desk, begin, monkeypatch):
    def travel(work):
        assert work._wanted_cancel.wait(LONGEST_S)
        raise Cancelled("cancelled")

    monkeypatch.setattr(agents, "MOST_JOBS", 1)
    monkeypatch.setattr(works.Work, "_travel", travel)
    job = asked(desk)
    begin()
    answer(desk, job, ("accepted",))
    (desk.spool / "cancel" / job).touch()
    assert answer(desk, job)["kind"] == "cancelled"
