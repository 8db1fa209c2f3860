"""Daemons for tests: real processes in the test's own home, with the fake worker, killed at the end."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil

from punchin.protocol import connection, lock
from punchin.protocol.order import Order

FAKE_WORKER = f"{sys.executable} {Path(__file__).with_name('fake_worker.py')}"


def order(script="", seeds=(1,), frames=4800, **more):
    """An order that the fake worker reads its script from; needs no source."""
    return Order(task="text2music", frames=frames, prompt=script, seeds=seeds, model="identity", **more)


def daemon_pid():
    """The living daemon's pid, or None."""
    found = connection.read()
    return found.pid if found is not None and lock.is_held(connection.daemon_lock()) else None


def kill_daemon():
    """SIGKILL the daemon, and wait until it is gone."""
    pid = daemon_pid()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not lock.is_held(connection.daemon_lock()), 5, "the daemon's end")


def wait_until(true, seconds, what):
    """Wait for a condition that nothing announces."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"{what} did not come within {seconds} s"
        time.sleep(0.005)


def workers_of(pid):
    """Processes below the daemon."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_running(process):
    """Whether a process still does anything: one that nobody has reaped yet does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(client, script="", **more):
    """Submit, follow to the end; the record and the journaled events."""
    job = client.submit(order(script, **more))
    events = [event for event in client.follow(job.id) if event.seq]
    return client.job(job.id), events


def check_events(events):
    """Seq without gaps from 1, one terminal event, the last."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    ends = [event.seq for event in events if event.state in ("done", "failed", "cancelled")]
    assert ends == [len(events)]
