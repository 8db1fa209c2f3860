"""What the README shows is run as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_library_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    subprocess.run([sys.executable, "-W", "error:::punchin", "-c", code], cwd=tmp_path, check=True)
    audio, rate_hz = soundfile.read(tmp_path / "idea.wav", dtype="float32")
    assert (rate_hz, audio.shape) == (48_000, (8 * 48_000, 2))
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() > 1e-3


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
