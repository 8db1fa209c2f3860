"""The daemon's loop from inside: what it does by itself, by clocks that only the test moves."""

import time

import pytest

from punchin.daemon.server import Server, Settings
from punchin.protocol import home as folders

HOUR_S = 3_600


class Clocks:
    """The wall clock and the one that nobody sets, each ahead by some seconds."""

    def __init__(self, monkeypatch):
        self.wall_s = self.steady_s = 0.0
        wall, steady = time.time, time.clock_gettime
        monkeypatch.setattr(time, "time", lambda: wall() + self.wall_s)
        monkeypatch.setattr(time, "clock_gettime", lambda clock: steady(clock) + self.steady_s)


@pytest.fixture
def clocks(monkeypatch):
    return Clocks(monkeypatch)


@pytest.fixture
def server(home, clocks):
    server = Server(Settings(folders.state()))
    server._data.start()
    yield server
    clocks.wall_s = clocks.steady_s = 0.0
    server._close()


def spared(server):
    """Whether a blob that was put just now, and that nobody refers to, outlives the loop's tidying."""
    blob = server._foreman.store.path("5f" * 32)
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(b"a take")
    server._tidy_s = 0.0
    server._tidy()
    return blob.exists()


def test_a_clock_that_jumps_forward_makes_nothing_old(server, clocks):
    clocks.wall_s = 40 * 24 * HOUR_S
    assert spared(server)
    assert server._tidy_s > time.monotonic() + HOUR_S / 2, "not tried again with each beat"


def test_time_that_has_passed_does_also_where_the_clock_was_set_by_a_little(server, clocks):
    clocks.steady_s = 40 * 24 * HOUR_S
    clocks.wall_s = clocks.steady_s - HOUR_S / 2
    assert not spared(server)
    clocks.wall_s += 2 * HOUR_S
    assert spared(server)
    clocks.wall_s -= 2 * HOUR_S  # somebody has set it right again
    assert not spared(server)
