"""Lines that are cut, slow, dead at one end, or say everything twice: a call ends well, or in time, and never twice."""

import contextlib
import os
import threading
import time

import pytest
from faults.faultproxy import ByteProxy, DoublingProxy, redirect
from faults.lives import check_events, order

from punchin.clients import line
from punchin.clients.connect import connect
from punchin.protocol import connection
from punchin.protocol.errors import Unreachable


@pytest.fixture
def tcp(monkeypatch):
    """A daemon on tcp, and clients that lose patience sooner."""
    monkeypatch.setenv("PUNCHIN_TRANSPORT", "tcp")
    monkeypatch.setattr(line, "REPLY_S", 0.5)
    with connect(name="first") as client:
        yield client


@contextlib.contextmanager
def through(**proxies):
    redirect(**{name: proxy.endpoint for name, proxy in proxies.items()})
    try:
        with connect(name="proxied") as client:
            yield client
    finally:
        for proxy in proxies.values():
            proxy.close()


@pytest.mark.parametrize("cut_after", [100, 700, 900, 1_200])
def test_control_is_cut(tcp, cut_after):
    """In the handshake, in the request, in the reply: the request is sent again, and there is one job."""
    proxy = ByteProxy(connection.read().control)
    with through(control=proxy) as client:
        proxy.cut_after = cut_after
        with contextlib.closing(client):
            job = client.submit(order("steps=1"), job_id=f"cut-job-{cut_after:04}").id
            check_events([event for event in client.follow(job) if event.seq])
    assert proxy.cuts == 1
    assert len(tcp.jobs()) == 1


@pytest.mark.parametrize("cut_after", [5_000, 1_000_000, 2_500_000])
def test_data_is_cut_both_ways(tcp, cut_after):
    proxy, data = ByteProxy(connection.read().data), os.urandom(3_000_000)
    with through(data=proxy) as client:
        proxy.cut_after = cut_after
        sha256 = client.put(data)
        assert proxy.cuts == 1
        proxy.cut_after = cut_after
        assert client.get(sha256) == data
        assert proxy.cuts == 2


def test_events_are_cut(tcp):
    proxy = ByteProxy(connection.read().events)
    with through(events=proxy) as client:
        proxy.cut_after = 1_500
        job = client.submit(order("steps=40 pause=0.05"))
        check_events([event for event in client.follow(job.id) if event.seq])
        assert proxy.cuts == 1


def test_events_that_fall_silent_are_asked_for(tcp, monkeypatch):
    """The line stays open and nothing comes any more: who follows asks control what it missed."""
    monkeypatch.setattr("punchin.clients.client.CATCH_UP_S", 0.5)
    proxy = ByteProxy(connection.read().events)
    with through(events=proxy) as client:
        job = client.submit(order("steps=10 pause=0.05")).id
        events = []
        for event in client.follow(job):
            proxy.silent = proxy.silent or event.phase == "diffusing"
            events += [event] if event.seq else []
        check_events(events)
        assert events[-1].state == "done"
        assert proxy.cuts == 0


def test_half_open_events_are_unreachable_in_time(tcp):
    proxy = ByteProxy(connection.read().events)
    proxy.half_open = True
    with through(events=proxy) as client:
        job = client.submit(order("steps=1")).id
        with pytest.raises(Unreachable, match="5 times while"):
            list(client.follow(job))
    assert list(tcp.follow(job))[-1].state == "done"


def test_everything_is_slow(tcp, monkeypatch):
    monkeypatch.setattr(line, "REPLY_S", 5.0)
    found = connection.read()
    control, events = ByteProxy(found.control), ByteProxy(found.events)
    with through(control=control, events=events) as client:
        control.delay_s = events.delay_s = 0.3
        job = client.submit(order("steps=3"))
        check_events([event for event in client.follow(job.id) if event.seq])


def test_half_open_control_is_unreachable_in_time(tcp):
    proxy = ByteProxy(connection.read().control)
    proxy.half_open = True
    redirect(control=proxy.endpoint)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="did not answer within 3 s"):
        connect(wait_s=3)
    assert time.monotonic() - began < 8
    proxy.close()


def test_half_open_data_does_not_hold_control(tcp):
    proxy = ByteProxy(connection.read().data)
    proxy.half_open = True
    redirect(data=proxy.endpoint)
    with connect(name="proxied") as client:
        ends = []

        def put():
            try:
                client.put(os.urandom(100_000))
            except Unreachable as error:
                ends.append(error)

        stuck = threading.Thread(target=put)
        stuck.start()
        for _ in range(20):
            assert tcp.status().pid
        stuck.join(60)
        assert not stuck.is_alive()
        assert len(ends) == 1
    proxy.close()


def test_everything_is_said_twice(client):
    found = connection.read()
    control, data = DoublingProxy(found.control), DoublingProxy(found.data)
    payload = os.urandom(2_500_000)
    with through(control=control, data=data) as doubled:
        sha256 = doubled.put(payload)
        assert doubled.get(sha256) == payload
        jobs = [doubled.submit(order(f"steps={n}")).id for n in range(1, 4)]
        for job in jobs:
            events = [event for event in doubled.follow(job) if event.seq]
            check_events(events)
            assert doubled.job(job).attempts == 1
        assert control.doubled > 10
        assert len(doubled.jobs()) == 3
