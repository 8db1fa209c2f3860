"""Sounds that several journeys start from."""

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="module")
def loop(tmp_path_factory):
    """Sixteen seconds of a tone that is struck every half a second."""
    at_s = np.arange(16 * 48_000) / 48_000
    beat = np.sin(2 * np.pi * 220 * at_s) * np.exp(-8 * (at_s % 0.5))
    path = tmp_path_factory.mktemp("loop") / "loop.wav"
    soundfile.write(path, 0.3 * np.stack([beat, beat], axis=1), 48_000, subtype="FLOAT")
    return path
