"""Every test gets a home of its own, one torch thread, and no network."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """A fresh PUNCHIN_HOME, so that no test sees another's daemon or the user's own."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PUNCHIN_HOME", str(folder))
    return folder
