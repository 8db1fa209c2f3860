"""kill -9 at every step and at random moments: what was acknowledged is there, once, and ends once."""

import contextlib
import os
import random
import signal
import sqlite3
import threading
import time

import pytest
from faults import lives
from faults.history import History, check
from faults.lives import daemon_pid, kill_daemon, order, wait_until

from punchin.clients.client import new_job_id
from punchin.clients.connect import connect
from punchin.daemon.crash import POINTS
from punchin.protocol import connection, lock
from punchin.protocol.errors import PunchinError, Refused, Unreachable

PASSES = {  # how often one life of `a_life` passes each point
    "journal.write": 16,
    "journal.written": 16,
    "journal.submit": 2,
    "journal.move": 5,
    "store.begin": 2,
    "store.write": 2,
    "store.sync": 5,
    "store.rename": 5,
    "store.folder": 5,
    "store.adopt": 3,
    "store.attempt": 1,
    "store.drop": 1,
    "store.sweep": 1,
    "daemon.bound": 1,
    "daemon.ready": 1,
    "worker.start": 1,
}


def test_every_point_is_passed_by_some_test():
    assert {*PASSES, "journal.recover"} == set(POINTS)


def a_life(client, asked, job, other):
    """All that is written: blobs, a job with previews, its landing and pin, one cancelled and forgotten, an end."""
    sha256 = client.put(b"x" * 100_000)
    unused = client.put(b"nobody uses this")
    client.submit(asked, job_id=job)
    seen = list(client.follow(job))
    client.landed(job, "/music/song.rpp")
    client.pin(job)
    client.pause()
    client.submit(order(), job_id=other)
    client.cancel(other)
    list(client.follow(other))
    make_old(other, unused)
    client.gc()
    assert client.get(sha256) == b"x" * 100_000
    client.stop()
    return seen


def daemons_killed():
    """How many lives before this one were not ended on purpose."""
    path = connection.folder().parent / "state" / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(path, timeout=10)) as db:
        return db.execute("SELECT count(*) FROM lives WHERE ended_ns IS NULL").fetchone()[0] - 1


def make_old(job, sha256):
    """As if a job had ended, and a blob been put, 40 days ago."""
    ago_s = time.time() - 40 * 86_400
    state = connection.folder().parent / "state"
    with contextlib.closing(sqlite3.connect(state / "journal.sqlite", timeout=10)) as db, db:
        db.execute("UPDATE jobs SET ended_ns = ? WHERE id = ?", (int(ago_s * 1e9), job))
    with contextlib.suppress(FileNotFoundError):
        os.utime(state / "blobs" / sha256[:2] / sha256[2:], (ago_s, ago_s))


@pytest.mark.slow
@pytest.mark.parametrize(("point", "nth"), [(point, nth + 1) for point, most in PASSES.items() for nth in range(most)])
def test_killed_at_a_crash_point(point, nth, monkeypatch):
    """The client only waits. The process ends at the nth pass of the point; the next one has no fault planned."""
    monkeypatch.setenv("PUNCHIN_FAULTS", f"{point}=kill:{nth}")
    asked, job, other = order("steps=2 parts=2", frames=480), new_job_id(), new_job_id()
    killed = (point, nth) == ("journal.written", PASSES["journal.written"])  # after it said that it ends
    try:
        connect(name="first", wait_s=5).close()  # starts the daemon that will die
    except Unreachable:
        killed = True
    monkeypatch.delenv("PUNCHIN_FAULTS")
    with connect(name="waits") as client:
        seen = a_life(client, asked, job, other)
        check(History({job: asked}, set(), {job: [seen]}), client)
        found = client.look(job)
        assert (found.record.state, found.record.landed, found.pinned) == ("done", "/music/song.rpp", True)
        assert [preview.index for preview in client.previews(job)] == [0, 1]
        with pytest.raises(Refused, match="unknown here"):
            client.job(other)
        examined = client.examine()
        assert (examined.journal, examined.missing_blobs) == ("ok", 0)
        assert killed or daemons_killed() == 1


def test_no_pass_is_left_out(monkeypatch):
    """The table above is whole: nothing passes a point once more than it says."""
    monkeypatch.setenv("PUNCHIN_FAULTS", ",".join(f"{point}=kill:{most + 1}" for point, most in PASSES.items()))
    client = connect(name="first")
    monkeypatch.delenv("PUNCHIN_FAULTS")
    with client:
        a_life(client, order("steps=2 parts=2", frames=480), new_job_id(), new_job_id())
        assert client.status().pid
        assert daemons_killed() == 0


@pytest.mark.parametrize("point", ["journal.recover", "store.sweep"])
def test_killed_while_it_recovers_or_sweeps(client, point, monkeypatch):
    history = History()
    for number in range(3):
        asked = order(f"steps=400 pause=0.02 n={number}")
        history.submitted[client.submit(asked).id] = asked
    client.put(b"nobody uses this")
    wait_until(lambda: client.status().jobs.get("running"), 10, "the first job")
    kill_daemon()
    for blob in (connection.folder().parent / "state" / "blobs").glob("*/*"):
        os.utime(blob, (1, 1))
    monkeypatch.setenv("PUNCHIN_FAULTS", f"{point}=kill:1")
    with contextlib.suppress(Unreachable), connect() as dying:
        monkeypatch.delenv("PUNCHIN_FAULTS")
        dying.gc()
    monkeypatch.delenv("PUNCHIN_FAULTS", raising=False)
    for job in history.submitted:
        client.cancel(job)
        history.cancelled.add(job)
        list(client.follow(job))
    check(history, client)


class Afternoon:
    """Some clients that submit, follow and cancel, while somebody kills the daemon."""

    def __init__(self, seed, clients):
        self.history, self.lock, self.over = History(), threading.Lock(), threading.Event()
        self.errors, self.seed = [], seed
        self.threads = [threading.Thread(target=self.work, args=(n,), name=f"client-{n}") for n in range(clients)]

    def work(self, number):
        chance = random.Random(self.seed * 100 + number)
        try:
            with connect(name=f"client-{number}") as client:
                while not self.over.is_set():
                    self.one_job(client, chance)
        except BaseException as error:
            self.errors.append(error)
            self.over.set()

    def one_job(self, client, chance):
        asked, job = order(f"steps={chance.randint(1, 4)} pause=0.002 n={chance.random()}"), new_job_id()
        with retried():
            client.submit(asked, job_id=job)
            with self.lock:
                self.history.submitted[job] = asked
        if chance.random() < 0.2:
            with retried():
                client.cancel(job)
                with self.lock:
                    self.history.cancelled.add(job)
        if chance.random() < 0.5:
            seen = []
            with retried(), contextlib.closing(client.follow(job)) as events:
                for event in events:
                    seen.append(event)
                    if self.over.is_set():
                        break
            with self.lock:
                self.history.seen.setdefault(job, []).append(seen)


@contextlib.contextmanager
def retried():
    """A call that went through too many lives of the daemon is not acknowledged: that is allowed."""
    with contextlib.suppress(Unreachable):
        yield


def random_kills(kills, seed):
    """Kill the daemon at random moments while three clients work; returns the history, checked."""
    chance, done, afternoon = random.Random(seed), 0, Afternoon(seed, 3)
    connect().close()
    for thread in afternoon.threads:
        thread.start()
    while done < kills and not afternoon.over.is_set():
        time.sleep(chance.uniform(0.01, 0.35))  # the moment is the random input, not a wait for something
        pid = daemon_pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                done += 1
            wait_until(lambda pid=pid: daemon_pid() != pid, 5, "its end")
        with connect() as client, contextlib.suppress(PunchinError):
            if client.status().paused:
                client.resume()  # a crash loop, which this is
    afternoon.over.set()
    for thread in afternoon.threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not afternoon.errors, afternoon.errors
    with connect() as client:
        client.resume()
        for job in afternoon.history.submitted:
            list(client.follow(job))
        check(afternoon.history, client)
        assert client.examine().journal == "ok"
    return afternoon.history


@pytest.mark.slow
def test_sixty_random_kills():
    history = random_kills(60, seed=int(os.environ.get("PUNCHIN_SEED", "1")))
    assert len(history.submitted) > 60


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(10))
def test_a_thousand_random_kills(seed):
    random_kills(100, seed=1_000 + seed)


def test_a_concurrent_afternoon_without_kills():
    afternoon = Afternoon(seed=7, clients=4)
    connect().close()
    for thread in afternoon.threads:
        thread.start()
    time.sleep(3)  # how much history to check
    afternoon.over.set()
    for thread in afternoon.threads:
        thread.join(30)
    assert not afternoon.errors, afternoon.errors
    with connect() as client:
        for job in afternoon.history.submitted:
            list(client.follow(job))
        check(afternoon.history, client)
    assert len(afternoon.history.submitted) > 20


def land_after_a_kill(client, number):
    """Whether a take lands whose waiting client saw the daemon killed, at a step that depends on `number`."""
    job, killed, last = client.submit(order(f"steps=8 pause=0.01 n={number}")).id, False, None
    for event in client.follow(job):
        if not killed and (event.done >= number % 8 + 1 or event.state in ("storing", "done")):
            kill_daemon()
            killed = True
        last = event
    if client.status().paused:
        client.resume()
    audio = client.get_audio(client.result(job).takes[0].audio)
    return last.state == "done" and audio.shape == (2, 4_800) and bool(client.landed(job, f"take {number}").landed)


def test_twenty_of_twenty_takes_land_after_a_kill(client):
    assert all(land_after_a_kill(client, number) for number in range(20))


def test_the_history_check_can_fail(client):
    asked = order("steps=1")
    job = client.submit(asked).id
    events = [event for event in client.follow(job) if event.seq]
    good = History({job: asked}, set(), {job: [events]})
    check(good, client)
    faults = [
        History({job: asked, "lost-job-0001": asked}),
        History({job: order("another")}),
        History({job: asked}, set(), {job: [[*events[:2], events[3]]]}),
    ]
    for fault in faults:
        with pytest.raises((AssertionError, PunchinError)):
            check(fault, client)
    assert lock.is_held(connection.daemon_lock())
    assert lives.daemon_pid()
