"""The demo's session is copied whole: a part of a file would stay, and be taken for it the next time."""

import shutil
from types import SimpleNamespace

import pytest

from punchin.clients.cli import main
from punchin.clients.demo import session_folder, tour
from punchin.protocol.errors import Cancelled


def test_a_copy_that_fails_leaves_no_part(tmp_path, monkeypatch):
    def full(source, target):
        target.write_bytes(source.read_bytes()[:1000])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="No space left"):
            tour.copy_session(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    tour.copy_session(tmp_path)
    for file in session_folder().rglob("*.flac"):
        assert (tmp_path / "media" / file.name).read_bytes() == file.read_bytes()


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "taken").touch()
    assert main(["demo", "--out", str(tmp_path / "taken" / "demo")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == [
        f"error: the demo session cannot be copied to {tmp_path}/taken/demo: Not a directory",
        "  punchin demo --out DIR, or make room or rights there",
    ]


def test_ctrl_c_after_the_landing_says_where_the_take_is(tmp_path, monkeypatch):
    take = SimpleNamespace(name="a take")
    landed = SimpleNamespace(output=tmp_path / "demo-punchin.rpp", rolled=[None], takes=[take])
    monkeypatch.setattr(tour, "perform", lambda *_: landed)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tour, "draw", stopped)
    with pytest.raises(Cancelled, match=r"the take is in .*demo-punchin\.rpp"):
        tour.go(SimpleNamespace(session=tmp_path), None)
