"""A worker that dies, hangs, lies or runs out of memory costs itself, never a job or the daemon."""

import os
import signal
import time
from queue import SimpleQueue

import psutil
import pytest
from faults.lives import check_events, daemon_pid, is_running, order, run, wait_until, workers_of

from punchin.clients.cli import main, service
from punchin.clients.connect import connect
from punchin.daemon.worker import Ended, Worker
from punchin.protocol.errors import JobFailed


def states(events):
    return [event.state for event in events]


def test_killed_once_the_job_runs_again(client, tmp_path):
    record, events = run(client, f"die-once={tmp_path / 'died'}")
    check_events(events)
    assert record.state == "done"
    assert record.attempts == 2
    assert states(events) == ["queued", "leased", "running", "queued", "leased", "running", "storing", "done"]
    again = next(event for event in events[1:] if event.state == "queued")
    assert "signal SIGKILL" in again.text
    assert "the fake dies once" in again.text


def test_two_crashes_are_the_end_of_a_job_and_not_of_the_next(client):
    record, events = run(client, "die=2")
    check_events(events)
    with pytest.raises(JobFailed, match="the engine died 2 times in this job, last: exit status 137") as error:
        client.result(record.id)
    assert error.value.code == "crashed"
    assert record.attempts == 2
    assert run(client)[0].state == "done"


def test_a_worker_killed_from_outside(client):
    job = client.submit(order("steps=30 pause=0.05"))
    for event in client.follow(job.id):
        if event.phase == "diffusing":
            os.kill(client.status().worker.pid, signal.SIGKILL)
            break
    events = [event for event in client.follow(job.id) if event.seq]
    check_events(events)
    assert events[-1].state == "done"
    assert client.job(job.id).attempts == 2


def test_out_of_memory_is_tried_once_with_less(client):
    record, events = run(client, "oom-once")
    assert record.state == "done"
    assert record.provenance.notes == ("fake", "a lower rung")
    assert client.status().counters["worker_starts"] == 2  # a fresh process
    record, events = run(client, "oom")
    check_events(events)
    assert (record.state, record.error_code, record.attempts) == ("failed", "oom", 2)


def test_a_stubborn_worker_is_killed_after_the_grace(client):
    job = client.submit(order("steps=1000 pause=0.01 deaf"))
    for event in client.follow(job.id):
        if event.phase == "diffusing":
            break
    worker = psutil.Process(client.status().worker.pid)
    asked_ns = time.time_ns()
    client.cancel(job.id)
    assert client.look(job.id).cancelling
    last = list(client.follow(job.id))[-1]
    assert last.state == "cancelled"
    assert 2.9e9 < last.at_ns - asked_ns < 10e9  # 3 s, and the load of the machine
    assert not is_running(worker)
    assert run(client)[0].state == "done"


def test_a_job_that_stands_still_is_seen_and_can_be_cancelled_and_the_next_one_begins(client, monkeypatch, capsys):
    stuck, waiting = (client.submit(order(script)).id for script in ("steps=2 pause=0.3 hang", "steps=1"))
    wait_until(lambda: client.job(stuck).state == "running", 10, "the job")
    assert main(["ps"]) == 0
    assert "stood still" not in capsys.readouterr().err
    monkeypatch.setattr(service, "STILL_S", 1.0)
    wait_until(lambda: time.time_ns() - client.status().worker.heard_ns > 1.1e9, 10, "the silence")
    assert main(["ps"]) == 0
    assert f"job {stuck} has stood still for 1 s; punchin cancel {stuck} ends it" in capsys.readouterr().err
    assert client.job(waiting).state == "queued"
    assert main(["cancel", stuck]) == 0
    assert [event.state for event in client.follow(waiting)][-1] == "done"
    assert client.job(stuck).state == "cancelled"
    assert client.status().worker.heard_ns is None


def test_a_worker_that_dies_is_seen_whatever_it_started(client, tmp_path):
    """A process that it leaves behind holds its pipe open, and the device's memory."""
    job = client.submit(order(f"child die-once={tmp_path / 'died'} pause=0.5 steps=1000")).id
    wait_until(lambda: len(workers_of(daemon_pid())) >= 2, 10, "worker and child")
    below = workers_of(daemon_pid())
    wait_until(lambda: client.job(job).attempts == 2, 10, "the second attempt")
    wait_until(lambda: not any(map(is_running, below)), 5, "the end of worker and child")
    client.cancel(job)
    assert [event.state for event in client.follow(job)][-1] == "cancelled"


def test_a_worker_that_is_killed_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setenv("PUNCHIN_FAKE", "slow-start=600")
    told = SimpleQueue()
    worker = Worker(tmp_path / "worker.log", lambda sha256: None, told.put)
    worker.kill("it was not ready within 120 s")
    assert told.get(timeout=10) == Ended(worker, "it was not ready within 120 s")


def test_a_worker_that_writes_garbage(client):
    record, _ = run(client, "garbage")
    assert record.error_code == "crashed"
    assert "no message" in record.error_text


def test_a_take_of_another_size_than_said(client):
    record, _ = run(client, "short")
    assert (record.state, record.error_code) == ("failed", "store")
    assert "its take file has" in record.error_text


def test_a_take_that_no_journal_could_hold(client):
    """Once it stood there, no list of jobs could be read any more."""
    record, _ = run(client, "empty")
    assert (record.state, record.error_code) == ("failed", "crashed")
    assert "Expected `int` >= 1 - at `$.takes[0].frames`" in record.error_text
    assert [job.id for job in client.jobs()] == [record.id]


def test_a_worker_that_never_starts(client, monkeypatch, home):
    client.stop()
    monkeypatch.setenv("PUNCHIN_FAKE", "no-start")
    first, _ = run(client)
    assert first.error_code == "crashed"
    assert "the fake has no engine" in first.error_text
    second, _ = run(client)  # after four deaths in a row the rest waits, rather than failing one by one
    assert second.error_code == "crashed"
    status = client.status()
    assert status.paused
    assert "died 4 times in a row" in status.paused_why
    third = client.submit(order())
    assert client.job(third.id).state == "queued"


@pytest.mark.parametrize("end", ["fail=no", "die=1", "oom", "short", "steps=2", "steps=1000 pause=0.02", "deaf hang"])
def test_an_attempt_leaves_no_files_however_it_ends(client, home, end):
    takes = home / "state" / "takes"
    job = client.submit(order(f"litter {end}")).id
    if "pause" in end or "hang" in end:
        wait_until(lambda: list(takes.glob("*/half.f32")), 10, "its file")
        client.cancel(job)
    list(client.follow(job))
    wait_until(lambda: not list(takes.iterdir()), 5, "an empty folder")


@pytest.mark.parametrize("at", ["starting", "idle", "busy"])
def test_no_child_outlives_a_killed_daemon(at, monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAKE", "slow-start=600 stay" if at == "starting" else "stay")  # deaf to its pipe's end
    with connect(name="test") as client:
        job = client.submit(order("hang" if at == "busy" else "")).id
        wait_until(lambda: client.status().worker and client.status().worker.state == at, 10, at)
        below = workers_of(daemon_pid())
        assert [process.pid for process in below] == [client.status().worker.pid]
        os.kill(daemon_pid(), signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, below)), 5, "the worker's end")
        client.cancel(job)


def test_nothing_outlives_a_cancelled_job(client):
    job = client.submit(order("hang child deaf"))
    wait_until(lambda: len(workers_of(daemon_pid())) >= 2, 10, "worker and child")
    below = workers_of(daemon_pid())
    client.cancel(job.id)
    list(client.follow(job.id))
    wait_until(lambda: not any(map(is_running, below)), 5, "the end of worker and child")
