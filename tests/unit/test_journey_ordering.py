"""What an order's sound is called: one name for what was heard, whether it is hashed for the store or for the plan."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.ordering import heard_name, model_audio
from punchin.clients.journey.plan import Plan
from punchin.clients.journey.request import Prompt, Request
from punchin.protocol.errors import Refused
from punchin.protocol.order import Blob
from punchin.session import audiofile


def test_a_path_that_is_no_text_is_refused_before_a_job_is_asked_for(tmp_path):
    """A name from before UTF-8, as an old disk may hold it."""
    request = Request(
        session=Path(os.fsdecode(b"/old/caf\xe9.wav")), bpm=120.0, prompt=Prompt(text="x"), task="repaint", seed=1
    )
    with pytest.raises(Refused, match="a job cannot name /old/caf\u00e9"):
        Plan(request=request, places=()).encode()


@pytest.mark.parametrize(("rate_hz", "same"), [(48_000, True), (44_100, False)])
def test_what_was_heard_has_the_name_that_landing_looks_for(tmp_path, rate_hz, same):
    audio = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 16 * rate_hz)).astype(np.float32)
    path = audiofile.write(tmp_path / "song.wav", audio, rate_hz)
    request = Request(session=path, bpm=120.0, time_s=(4.0, 8.0), prompt=Prompt(text="x"), task="repaint", seed=1)
    captured = capture(request, opened(request))
    sent = np.ascontiguousarray(model_audio(request, captured, None).T)
    name = hashlib.sha256(sent.tobytes()).hexdigest()
    source = Blob(sha256=name, channels=2, frames=len(sent), rate_hz=48_000)
    assert heard_name(request, captured, source) == captured.heard_sha256
    assert (captured.heard_sha256 == name) is same
