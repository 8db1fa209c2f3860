"""A take heard while it is made: real worker, real daemon, one who is there from the start and one who comes late."""

import numpy as np
import pytest
import soundfile
from punchinhere import Home

from punchin.clients.connect import connect
from punchin.protocol.order import Order

pytestmark = pytest.mark.slow

FRAMES = 12 * 48_000 + 7


@pytest.fixture
def punchin(tmp_path, monkeypatch):
    here = Home(tmp_path / "home")
    monkeypatch.setenv("PUNCHIN_HOME", str(here.folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield here
    here.stop()


def saved(folder, job, seed):
    audio, rate_hz = soundfile.read(folder / f"{job}-{seed}.wav", dtype="float32", always_2d=True)
    assert rate_hz == 48_000
    return audio.T


def test_stretches_live_and_late_are_the_takes(punchin, tmp_path):
    order = Order(task="text2music", model="punchin-tiny", frames=FRAMES, seeds=(1, 2), steps=2)
    with connect(name="test") as client:
        job = client.submit(order).id
        following = punchin.start("show", job, "--follow", "--save", tmp_path / "live")
        live = list(client.listen(job))
        takes = {take.seed: client.get_audio(take.audio) for take in client.result(job).takes}
        assert [preview.seed for preview in live] == sorted(preview.seed for preview in live)
        assert len(live) >= 2 * 3
        for seed, take in takes.items():
            mine = [preview for preview in live if preview.seed == seed]
            joined = b"".join(client.get(preview.sha256) for preview in mine)
            np.testing.assert_array_equal(np.frombuffer(joined, "<f4").reshape(-1, 2).T, take)
    first = following.end()
    assert first.returncode == 0, first.stderr
    late = punchin.run("show", job, "--follow", "--save", tmp_path / "late")
    assert late.returncode == 0, late.stderr
    for folder, told in ((tmp_path / "live", first), (tmp_path / "late", late)):
        assert "state        done" in told.stdout
        for seed, take in takes.items():
            np.testing.assert_array_equal(saved(folder, job, seed), take)
            heard = [line for line in told.stderr.splitlines() if f"of seed {seed} can be heard" in line]
            assert heard[-1] == f"  12.00 of 12.00 s of seed {seed} can be heard: {folder / f'{job}-{seed}.wav'}"
            assert 2 <= len(heard) <= 3
    assert "decoding ..." in first.stderr


def test_a_folder_that_cannot_be_is_named(punchin, tmp_path):
    (tmp_path / "file").touch()
    with connect(name="test") as client:
        source = client.put_audio(np.ones((2, 480), "f4"), 48_000)
        order = Order(task="repaint", model="identity", frames=480, source=source)
        job = client.submit(order).id
        list(client.follow(job))
    told = punchin.run("show", job, "--follow", "--save", tmp_path / "file")
    assert told.returncode == 4
    assert f"{tmp_path / 'file'} cannot be made: File exists" in told.stderr


def test_what_is_not_followed_is_not_saved(punchin):
    told = punchin.run("show", "01", "--save", "x")
    assert told.returncode == 2
    assert "--follow" in told.stderr
