"""What the tests of trainings share: a model and recordings, made once, and a line that says nothing aloud."""

import pytest


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of an untrained `punchin-tiny`."""
    from trainingdata import write_model  # here: the other tests need no torch

    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def songs(tmp_path_factory):
    """Three recordings of two seconds, and their `metadata.json`."""
    from trainingdata import write_songs

    return write_songs(tmp_path_factory.mktemp("songs"))


@pytest.fixture
def quiet(tmp_path):
    """A training's line, into a file."""
    from punchin.training.console import Line

    with (tmp_path / "talk").open("w") as out:
        yield Line(out)
