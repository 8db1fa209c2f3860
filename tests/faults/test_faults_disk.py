"""A full disk: a clear no, and nothing that was acknowledged is lost; work goes on when there is space again."""

import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faults.lives import check_events, kill_daemon, order, run, wait_until

from punchin.clients.cli import main
from punchin.clients.client import Client
from punchin.clients.connect import connect
from punchin.protocol.errors import Refused, Unreachable


def daemon_with(monkeypatch, faults):
    """A client of a daemon in which these faults happen."""
    monkeypatch.setenv("PUNCHIN_FAULTS", faults)
    client = connect(name="test")
    monkeypatch.delenv("PUNCHIN_FAULTS")
    return client


@pytest.mark.parametrize("point", ["store.write", "store.sync", "store.rename", "store.folder"])
def test_no_space_for_a_blob(point, monkeypatch):
    data = os.urandom(2_500_000)
    with daemon_with(monkeypatch, f"{point}=full:1") as client:
        with pytest.raises(Refused, match="the blob store cannot be written: No space left on device") as error:
            client.put(data)
        assert (error.value.code, error.value.exit_code) == ("disk_full", 4)
        assert re.search(r"the disk of .+ has [\d,]+ bytes free", str(error.value))
        assert "punchin gc" in error.value.hint
        assert client.get(client.put(data)) == data  # there is space again
        assert run(client)[0].state == "done"


@pytest.mark.parametrize("nth", [1, 2])
def test_no_space_for_a_submit(nth, monkeypatch):
    with daemon_with(monkeypatch, f"journal.submit=full:{nth}") as client:
        for _ in range(nth - 1):
            run(client)
        with pytest.raises(Refused, match="the journal cannot be written") as error:
            client.submit(order(), job_id="wanted-0001")
        assert error.value.code == "disk_full"
        with pytest.raises(Refused, match="unknown here"):
            client.job("wanted-0001")
        client.submit(order(), job_id="wanted-0001")
        assert list(client.follow("wanted-0001"))[-1].state == "done"


@pytest.mark.parametrize("nth", [1, 2, 3, 4])
def test_no_space_for_a_move_waits_and_goes_on(nth, monkeypatch):
    """Each of lease, run, store and done is refused once; a second later the same decision is committed."""
    with daemon_with(monkeypatch, f"journal.move=full:{nth}") as client:
        job = client.submit(order("steps=2"))
        wait_until(lambda: client.status().trouble, 5, "the trouble")
        assert "No space left on device" in client.status().trouble
        events = [event for event in client.follow(job.id) if event.seq]
        check_events(events)
        assert [event.state for event in events] == ["queued", "leased", "running", "storing", "done"]
        wait_until(lambda: not client.status().trouble, 5, "the end of the trouble")


def test_who_waits_is_told_of_a_full_journal(monkeypatch):
    """The `done` move is refused; the follower asks what it missed and hears why it waits."""
    monkeypatch.setattr("punchin.clients.client.CATCH_UP_S", 0.1)
    with daemon_with(monkeypatch, "journal.move=full:4") as client:
        job = client.submit(order("steps=2"))
        phases = {event.phase for event in client.follow(job.id)}
    assert "waiting: the journal cannot be written: [Errno 28] No space left on device" in phases


def test_a_kill_while_the_journal_is_full_loses_nothing(monkeypatch):
    with daemon_with(monkeypatch, "journal.move=full") as client:
        job = client.submit(order("steps=2"))
        wait_until(lambda: client.status().trouble, 5, "the trouble")
        kill_daemon()
        assert [event.state for event in client.follow(job.id) if event.seq][-1] == "done"


def test_a_stop_does_not_wait_for_the_disk(monkeypatch, capsys):
    with daemon_with(monkeypatch, "journal.move=full") as client:
        job = client.submit(order("steps=2")).id
        wait_until(lambda: client.status().trouble, 5, "the trouble")
    began_s = time.monotonic()
    assert main(["stop"]) == 0
    assert time.monotonic() - began_s < 5
    assert "the daemon has ended" in capsys.readouterr().err
    assert main(["stop"]) == 0
    assert "no daemon runs" in capsys.readouterr().err
    with connect() as client:  # with space again
        assert list(client.follow(job))[-1].state == "done"


def test_a_job_that_runs_at_a_stop_is_put_back_by_the_next_start_where_the_journal_cannot_be_told(client):
    job = client.submit(order("steps=600 pause=0.1")).id
    wait_until(lambda: client.job(job).state == "running", 10, "the run")
    resource.prlimit(client.status().pid, resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
    client.stop()  # raises where it takes 20 s; the job is given 5
    with connect() as again:
        assert again.job(job).state in ("queued", "leased", "running")
        again.cancel(job)


def test_a_stop_that_fails_is_not_taken_for_no_daemon(client, monkeypatch, capsys):
    def refuse(self, when_idle=False):
        raise Unreachable("the daemon (pid 7) did not end within 20 s", "kill 7")

    monkeypatch.setattr(Client, "stop", refuse)
    assert main(["stop"]) == 3
    assert "did not end within 20 s" in capsys.readouterr().err


@pytest.mark.parametrize("point", ["store.attempt", "store.adopt"])
def test_no_space_for_the_takes_pauses_the_queue_and_no_job_fails(point, monkeypatch):
    with daemon_with(monkeypatch, f"{point}=full:1") as client:
        first, second = (client.submit(order(f"steps={n}")).id for n in (1, 2))
        wait_until(lambda: client.status().paused, 10, "the pause")
        why = client.status().paused_why
        assert why.startswith("the disk is full: ")
        assert "No space left on device; the disk of" in why
        assert client.job(first).state == "queued"
        assert client.resume().paused is False  # there is space again
        for job in (first, second):
            events = [event for event in client.follow(job) if event.seq]
            check_events(events)
            assert events[-1].state == "done"
        assert client.job(first).attempts == 2
        assert "No space left on device" in next(e.text for e in list(client.follow(first))[1:] if e.state == "queued")


def test_what_the_disk_refuses_in_a_request_is_answered_and_the_daemon_goes_on(client, home):
    first = client.welcome.instance
    sha256 = client.put(b"old")
    blob = home / "state" / "blobs" / sha256[:2] / sha256[2:]
    blob.unlink()
    blob.mkdir()  # an unlink of it fails, also for root
    os.utime(blob, (1, 1))
    with pytest.raises(Refused, match=r"Collect: .*Is a directory") as error:
        client.gc()
    assert (error.value.code, error.value.hint) == ("disk", "punchin doctor")
    assert run(client)[0].state == "done"
    assert client.status().instance == first


def test_a_stray_file_in_the_store_is_nobodys_blob(client, home):
    sha256 = client.put(b"abc")
    (home / "state" / "blobs" / ".DS_Store").write_bytes(b"x" * 99)
    assert client.gc().kept_bytes == client.examine().store_bytes == 3
    assert client.get(sha256) == b"abc"


def test_no_space_for_the_log_is_no_screen_of_tracebacks(home):
    logs = home / "state" / "logs"
    logs.mkdir(parents=True)
    (logs / "daemon.log").symlink_to("/dev/full")
    serve = [sys.executable, "-m", "punchin.daemon"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        with connect(start=False) as client:
            assert run(client)[0].state == "done"
            client.stop()
        assert process.stderr.read() == b""


def test_no_space_for_the_workers_log_costs_the_log_alone(client, home):
    (home / "state" / "logs" / "worker.log").mkdir()  # nothing that can be appended to, also for root
    assert run(client)[0].state == "done"
    assert "the worker has no log" in (home / "state" / "logs" / "daemon.log").read_text()


def test_no_space_to_start_at_all(monkeypatch, home):
    """A limit of the system on the size of files, so that real writes fail."""
    (home / "runtime").mkdir()
    script = "import resource,runpy,sys; resource.setrlimit(resource.RLIMIT_FSIZE,(4096,4096)); sys.argv=['d']; "
    script += "runpy.run_module('punchin.daemon', run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr
    why, cure = ended.stdout.splitlines()
    assert ended.stderr.splitlines()[-2:] == [f"error: {why}", f"  {cure}"]
    assert cure.startswith("free some disk space")
    with connect() as client:  # with space again, the same folder
        assert run(client)[0].state == "done"


def test_who_starts_a_daemon_hears_why_it_did_not(home, monkeypatch):
    """Its stderr cannot be written either."""
    monkeypatch.setattr("punchin.clients.connect._stderr", lambda: Path("/dev/full"))
    monkeypatch.setattr("punchin.clients.connect._tail", lambda: "")  # there is no end to what can be read there
    (home / "state").mkdir(parents=True, exist_ok=True)
    (home / "state" / "journal.sqlite").mkdir()  # no file can be opened there
    with pytest.raises(Unreachable, match=r"the daemon did not start: .*journal"):
        connect(name="test")


def test_real_writes_that_fail_at_a_file_size_limit(client):
    """The limit is put on the running daemon: uploads and the growing journal hit it for real."""
    kept = client.put(b"x" * 10_000)
    before = run(client)[0]
    pid = client.status().pid
    unlimited = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
    with pytest.raises(Refused, match="cannot be written") as error:
        client.put(os.urandom(1_000_000))
    assert error.value.code == "disk_full"
    acknowledged = []
    client.pause()

    def submit_on():
        while len(acknowledged) < 200:
            acknowledged.append(client.submit(order(lyrics="la " * 6_000)).id)

    with pytest.raises(Refused, match="the journal cannot be written") as error:
        submit_on()
    assert error.value.code == "disk_full"
    assert acknowledged
    resource.prlimit(pid, resource.RLIMIT_FSIZE, unlimited)
    kill_daemon()
    assert client.get(kept) == b"x" * 10_000
    assert client.result(before.id).takes == before.takes
    assert {client.job(job).state for job in acknowledged} <= {"queued", "leased", "running", "storing", "done"}
    assert client.examine().journal == "ok"
    client.resume()
    for job in acknowledged:
        assert list(client.follow(job))[-1].state == "done"
