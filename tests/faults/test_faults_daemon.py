"""The daemon killed: nothing acknowledged is lost, and who waits gets the takes."""

import contextlib
import os
import signal
import sqlite3
import threading

import pytest
from faults.fake_worker import take_bytes
from faults.lives import check_events, daemon_pid, kill_daemon, order, run, wait_until

from punchin.clients import doctor, line
from punchin.clients.cli import main
from punchin.clients.connect import connect
from punchin.protocol import connection, lock
from punchin.protocol.errors import JobFailed, PunchinError, Refused, Unreachable
from punchin.protocol.order import Blob, Order


def test_a_waiting_client_restarts_the_daemon_and_gets_its_takes(client):
    asked = order("steps=20 pause=0.03")
    job = client.submit(asked, plan=b"plan")
    events, first = [], client.welcome.instance
    for event in client.follow(job.id):
        if event.phase == "diffusing" and client.welcome.instance == first and event.done >= 3:
            kill_daemon()
        if event.seq:
            events.append(event)
    check_events(events)
    assert client.welcome.instance != first
    record = client.result(job.id)
    assert (record.attempts, record.plan) == (2, b"plan")
    assert client.get(record.takes[0].audio.sha256) == take_bytes(asked, 1)
    assert "the daemon was killed" in next(event.text for event in events[2:] if event.state == "queued")


@pytest.mark.parametrize("at", ["queued", "running", "diffusing"])
def test_a_call_made_while_a_job_is_followed_may_meet_the_next_daemon(client, at):
    """It gives the client another line than the one that is followed."""
    job, killed, events = client.submit(order("steps=20 pause=0.03")), False, []
    for event in client.follow(job.id):
        if not killed and at in (event.state, event.phase):
            kill_daemon()
            killed = client.status().pid  # of the next one
        if event.seq:
            events.append(event)
    check_events(events)
    assert killed == client.status().pid
    assert events[-1].state == "done"


def test_previews_go_on_where_a_call_met_the_next_daemon(client):
    job, met = client.submit(order("parts=3")), []
    for preview in client.listen(job.id):
        if not met:
            kill_daemon()
        met.append(client.get(preview.sha256))
    assert b"".join(met) == take_bytes(order("parts=3"), 1)


def test_after_a_daemon_that_could_not_be_started_the_client_can_be_asked_again():
    connect(name="starts").close()
    with connect(start=False, name="test") as client:
        job = client.submit(order("steps=1000 pause=0.02")).id
        following = client.follow(job)
        next(following)
        kill_daemon()
        with pytest.raises(Unreachable):
            client.status()
        with pytest.raises(Unreachable):  # nor does the generator know of sockets that were closed
            list(following)
        with connect(name="starts again") as other:
            assert client.status().pid == other.status().pid
            client.cancel(job)


def test_a_call_goes_on_with_the_next_daemon(client):
    first = client.status().pid
    kill_daemon()
    assert client.status().pid != first
    kill_daemon()
    assert client.get(client.put(b"abc" * 1_000_000)) == b"abc" * 1_000_000


def test_waiting_jobs_survive_in_order_and_so_does_a_pause(client):
    client.pause()
    ids = [client.submit(order(f"steps={n}")).id for n in range(1, 6)]
    kill_daemon()
    assert client.status().paused_why == "by the user"
    assert {client.job(job).state for job in ids} == {"queued"}
    client.resume()
    kill_daemon()
    assert client.status().paused is False
    for job in ids:
        list(client.follow(job))
    ended = [list(client.follow(job))[-1] for job in ids]
    assert [event.state for event in ended] == ["done"] * 5
    assert [event.at_ns for event in ended] == sorted(event.at_ns for event in ended)


def test_a_cancel_survives_the_kill(client):
    job = client.submit(order("steps=1000 pause=0.02 deaf"))
    for event in client.follow(job.id):
        if event.phase == "diffusing":
            break
    client.cancel(job.id)
    kill_daemon()
    events = [event for event in client.follow(job.id) if event.seq]
    check_events(events)
    assert events[-1].state == "cancelled"
    assert client.job(job.id).attempts == 1


def test_a_stop_puts_the_running_job_back(client):
    job = client.submit(order("steps=1000 pause=0.02"))
    for event in client.follow(job.id):
        if event.phase == "diffusing":
            break
    client.stop()
    assert not lock.is_held(connection.daemon_lock())
    with connect() as later:
        record = later.job(job.id)
        assert record.state in ("queued", "leased", "running")
        later.cancel(job.id)


@pytest.fixture
def terminal():
    """SIGHUP as a terminal's programs have it; where tests run under nohup, daemons would not hear it either."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_stop(terminal, client, number):
    run(client)
    os.kill(daemon_pid(), number)
    wait_until(lambda: not lock.is_held(connection.daemon_lock()), 8, "the daemon's end")
    assert not connection.file().exists()


def test_after_a_crash_loop_the_queue_waits(client):
    job = client.submit(order("steps=1000 pause=0.02"))
    for _ in range(3):
        for event in client.follow(job.id):
            if event.phase == "diffusing":
                break
        kill_daemon()
    status = client.status()
    assert "killed 3 times in a row" in status.paused_why
    assert client.job(job.id).state == "queued"
    kill_daemon()  # nothing is at work now
    assert "killed 3 times in a row" in client.status().paused_why
    client.stop()
    wait_until(lambda: daemon_pid() is None, 8, "the daemon's end")
    assert "killed 3 times in a row" in client.status().paused_why
    client.resume()
    for event in client.follow(job.id):
        if event.phase == "diffusing":
            break
    client.cancel(job.id)


def test_a_pause_that_the_journal_does_not_take_is_refused(client, home):
    file = next(home.rglob("journal.sqlite"))
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PunchinError, match="journal"):
            client.pause()
        assert not client.status().paused
        other.execute("ROLLBACK")
    client.pause()
    kill_daemon()
    assert client.status().paused
    client.resume()


def test_stretches_of_an_attempt_that_ended_are_not_the_next_ones(client, tmp_path):
    """They were still on their way to the disk."""
    job = client.submit(order(f"die-parted={tmp_path / 'died'} parts=2"))
    list(client.follow(job.id))
    assert client.job(job.id).state == "done"
    previews = client.previews(job.id)
    assert [(each.index, each.start_frame, each.frames) for each in previews] == [(0, 0, 2_400), (1, 2_400, 2_400)]


def test_a_client_whose_daemon_is_gone_is_told_so_however_often_it_asks(monkeypatch):
    monkeypatch.setattr(line, "LOOK_S", 0.001)
    connect(name="starts").close()
    with connect(start=False, name="test") as client:
        client.status()
        kill_daemon()
        for _ in range(1_100):  # a socket holds a thousand messages
            with pytest.raises(Unreachable):
                client.status()


def test_a_bug_in_the_data_thread_ends_the_daemon_and_the_call_goes_on_with_the_next(monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAULTS", "store.write=bug:1")
    with connect(name="test") as client:
        monkeypatch.delenv("PUNCHIN_FAULTS")
        first = client.welcome.instance
        assert client.get(client.put(b"abc" * 1_000_000)) == b"abc" * 1_000_000
        assert client.welcome.instance != first
    log = (connection.folder().parent / "state" / "logs" / "daemon.log").read_text()
    assert "RuntimeError: planned at store.write" in log


def test_a_bug_while_takes_are_stored_fails_the_job_alone(monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAULTS", "store.adopt=bug:1")
    with connect(name="test") as client:
        record, events = run(client)
        check_events(events)
        assert (record.state, record.error_code) == ("failed", "bug")
        assert record.error_text == "RuntimeError: planned at store.adopt"
        assert run(client)[0].state == "done"


def change(home, statement, *values):
    """What a disk that forgets bits would do to the journal of a living daemon."""
    with contextlib.closing(sqlite3.connect(home / "state" / "journal.sqlite")) as db:
        db.execute(statement, values)
        db.commit()


def test_a_damaged_job_is_named_and_the_others_are_listed(client, home, capsys):
    records = [run(client)[0] for _ in range(5)]
    bad = records[1]
    change(home, "UPDATE jobs SET request = x'c1ff', takes = x'c1ff' WHERE id = ?", bad.id)
    before = client.status().pid
    good = [record.id for record in reversed(records) if record is not bad]
    assert [record.id for record in client.jobs()] == good
    for most in (1, 2, 3):  # pages that end before it, at it, and after it
        pages = list(client.pages(most))
        assert [record.id for page in pages for record in page.records] == good[:most]
    assert set(*(page.damaged for page in client.pages())) == {bad.id}
    assert client.examine().damaged_jobs == (bad.id,)
    assert client.examine().journal == "ok"
    assert any(bad.id in finding.text for finding in doctor._store(client.examine()))
    with pytest.raises(Refused, match=f"job {bad.id} is damaged in the journal: .*malformed") as error:
        client.job(bad.id)
    assert error.value.hint == "ask for its takes again; punchin jobs lists the others"
    assert [event.state for event in client.follow(records[0].id)][-1] == "done"
    assert main(["jobs"]) == 0
    told = capsys.readouterr()
    assert all(job in told.out for job in good)
    assert f"job {bad.id} can no longer be read" in told.err
    assert main(["show", bad.id]) == 4
    assert "is damaged in the journal" in capsys.readouterr().err
    assert run(client)[0].state == "done"
    assert client.status().pid == before


def test_all_jobs_are_damaged(client, home):
    jobs = [run(client)[0].id for _ in range(3)]
    change(home, "UPDATE jobs SET request = x'c1ff'")
    assert [(page.records, page.damaged, page.more) for page in client.pages()] == [((), tuple(reversed(jobs)), False)]


@pytest.mark.parametrize("how", ["lives on", "is killed"])
def test_a_waiting_job_that_is_damaged_fails_alone(client, home, how):
    client.pause()
    bad, good = (client.submit(order(f"steps={n}")).id for n in (1, 2))
    change(home, "UPDATE jobs SET request = x'c1ff' WHERE id = ?", bad)
    before = client.status().pid
    if how == "is killed":
        kill_daemon()
    client.resume()
    ends = [[event for event in client.follow(job) if event.seq][-1] for job in (bad, good)]
    assert [event.state for event in ends] == ["failed", "done"]
    assert f"job {bad} is damaged in the journal" in ends[0].text
    assert (client.status().pid == before) == (how == "lives on")


def test_bytes_that_the_disk_changed_are_told_and_the_next_put_brings_them_again(client, home):
    data = os.urandom(4_000)
    asked = Order(
        task="repaint",
        frames=500,
        model="identity",
        source=Blob(sha256=client.put(data), channels=2, frames=500),
    )
    blob = home / "state" / "blobs" / asked.source.sha256[:2] / asked.source.sha256[2:]
    blob.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert client.put(data) == asked.source.sha256  # it is there, and of the right size
    job = client.submit(asked).id
    list(client.follow(job))
    with pytest.raises(JobFailed, match="was damaged on the daemon's disk, and is removed") as error:
        client.result(job)
    assert (error.value.code, error.value.hint) == (
        "damaged_blob",
        "run the same command again: what is missing is sent anew",
    )
    assert client.put(data) == asked.source.sha256
    assert blob.read_bytes() == data
    again = client.submit(asked).id
    assert list(client.follow(again))[-1].state == "done"


@pytest.mark.parametrize("then", ["gone", "unreadable"])
def test_bytes_that_the_disk_does_not_give_a_job_are_told(client, home, then):
    client.pause()
    source = Blob(sha256=client.put(bytes(4_000)), channels=2, frames=500)
    job = client.submit(Order(task="repaint", frames=500, model="identity", source=source)).id
    blob = home / "state" / "blobs" / source.sha256[:2] / source.sha256[2:]
    blob.unlink()
    if then == "unreadable":
        blob.mkdir()
    client.resume()
    list(client.follow(job))
    record = client.job(job)
    told = {"gone": ("unknown_blob", "is not in the store"), "unreadable": ("disk", "Is a directory")}[then]
    assert record.error_code == told[0]
    assert told[1] in record.error_text


def test_a_blob_that_the_disk_does_not_give_is_told(client, home):
    sha256 = client.put(b"abc")
    path = home / "state" / "blobs" / sha256[:2] / sha256[2:]
    path.unlink()
    path.mkdir()
    with pytest.raises(Refused, match="Is a directory") as error:
        client.get(sha256)
    assert error.value.code == "disk"
    assert client.get(client.put(b"abcd")) == b"abcd"


def test_what_is_too_old_goes_by_itself_while_nothing_is_at_work(client, home):
    old, young = client.put(b"old"), client.put(b"young")
    blobs = home / "state" / "blobs"
    os.utime(blobs / old[:2] / old[2:], (1, 1))
    wait_until(lambda: not (blobs / old[:2] / old[2:]).exists(), 15, "the end of an old blob")
    assert client.get(young) == b"young"


def test_a_stale_connection_file_and_a_taken_lock(client):
    """A file whose daemon is dead is no daemon; a lock without a file is one that starts or is stuck."""
    kill_daemon()
    assert connection.read() is not None
    with connect() as fresh:
        assert fresh.status().pid == daemon_pid()
    kill_daemon()


def test_followers_of_all_kinds_through_a_kill(client):
    jobs = [client.submit(order("steps=6 pause=0.03")).id for _ in range(3)]
    seen = {}

    def follow(job):
        with connect(name="waits") as other:
            seen[job] = [event for event in other.follow(job) if event.seq]

    threads = [threading.Thread(target=follow, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    wait_until(lambda: client.job(jobs[0]).state == "running", 10, "the first job")
    kill_daemon()
    for thread in threads:
        thread.join(30)
    assert set(seen) == set(jobs)
    for events in seen.values():
        check_events(events)
        assert events[-1].state == "done"
