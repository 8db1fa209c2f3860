"""The fake worker for every test here, and no process left behind."""

import pytest
from faults import lives

from punchin.clients.connect import connect


@pytest.fixture(autouse=True)
def fake(home, monkeypatch):
    monkeypatch.setenv("PUNCHIN_WORKER", lives.FAKE_WORKER)
    yield
    pid = lives.daemon_pid()
    left = lives.workers_of(pid) if pid is not None else []
    lives.kill_daemon()
    lives.wait_until(lambda: not any(map(lives.is_running, left)), 5, "the workers' end")


@pytest.fixture
def client(fake):
    with connect(name="test") as client:
        yield client
