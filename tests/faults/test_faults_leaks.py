"""Many jobs, and nothing grows: files, threads, memory, children."""

import os

import msgpack
import psutil
import pytest
from faults.lives import daemon_pid, order, run, wait_until
from wire.plain import Plain

from punchin.clients.connect import connect

TAKE = 5_000_000  # bytes of resident memory that may come and go


def measure(client):
    status = client.status()
    daemon, worker = psutil.Process(daemon_pid()), psutil.Process(status.worker.pid)
    return {
        "daemon files": daemon.num_fds(),
        "daemon threads": daemon.num_threads(),
        "worker files": worker.num_fds(),
        "worker threads": worker.num_threads(),
        "children": len(daemon.children(recursive=True)),
        "own files": psutil.Process().num_fds(),
    }, daemon.memory_info().rss


def many_jobs(client, jobs):
    for start in range(0, jobs, 20):
        ids = [client.submit(order(f"steps=3 n={start + n}")).id for n in range(20)]
        for job in (ids[0], ids[-1]):
            assert list(client.follow(job))[-1].state == "done"
        client.get(client.put(os.urandom(50_000)))


@pytest.mark.slow
def test_a_thousand_jobs_leave_nothing_behind(client):
    many_jobs(client, 100)  # what is opened once is open now
    before, before_rss = measure(client)
    many_jobs(client, 1_000)
    after, after_rss = measure(client)
    grown = {what: after[what] - count for what, count in before.items() if after[what] - count > 2}
    assert not grown, f"{before} became {after}"  # one or two may be about to be closed
    assert abs(after_rss - before_rss) < TAKE, f"{before_rss} to {after_rss} bytes"
    assert client.status().counters["worker_starts"] == 1


def test_many_clients_come_and_go(client):
    run(client)
    before = psutil.Process(daemon_pid()).num_fds()
    for _ in range(40):
        with connect() as other:
            other.get(other.put(b"abc"))
    process = psutil.Process(daemon_pid())
    wait_until(lambda: process.num_fds() <= before, 5, "the closing of forty clients' sockets")


def test_a_slow_client_costs_its_credit_and_no_more(client):
    """It asks for a long blob and reads nothing; the daemon holds at most the credit for it."""
    sha256 = client.put(os.urandom(60 * 1024 * 1024))
    process = psutil.Process(daemon_pid())
    client.get(sha256)
    before = process.memory_info().rss
    slow = [Plain(greet=False, socket="data") for _ in range(3)]
    for plain in slow:
        plain.socket.rcvhwm = 1
        for number in range(60):
            get = {"type": "get", "ask": number, "sha256": sha256, "offset": number * 1024 * 1024, "received": 0}
            plain.socket.send_multipart([b"punchin/1", msgpack.packb(get)])
    assert len(client.get(sha256)) == 60 * 1024 * 1024  # others are served meanwhile
    grown = process.memory_info().rss - before
    for plain in slow:
        plain.close()
    assert grown <= 4 * 8 * 1024 * 1024 + TAKE, f"{grown} bytes for three, and the one that was served"
