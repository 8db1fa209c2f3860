"""The real worker with the identity model: the source comes back bit-equal, and torch stays out."""

import numpy as np
import pytest

from punchin.protocol.order import Order


@pytest.mark.parametrize("channels", [1, 2])
def test_identity_returns_the_wanted_frames(client, monkeypatch, channels):
    monkeypatch.delenv("PUNCHIN_WORKER")
    client.stop()  # the next call starts one that knows the real worker
    audio = np.random.default_rng(1).normal(size=(channels, 300_000)).astype(np.float32)
    source = client.put_audio(audio, 48_000)
    asked = Order(task="repaint", source=source, frames=300_000, wanted=(1_000, 200_000), model="identity", seeds=(3,))
    job = client.submit(asked)
    assert list(client.follow(job.id))[-1].state == "done"
    (take,) = client.result(job.id).takes
    assert client.get_audio(take.audio).tobytes() == audio[:, 1_000:200_000].tobytes()
    with open(f"/proc/{client.status().worker.pid}/maps") as maps:
        assert "libtorch" not in maps.read()
