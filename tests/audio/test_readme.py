"""What the README shows is run as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from punchinhere import Home

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_first_screen_is_run_from_top_to_bottom(tmp_path):
    (line,) = re.findall(r"^\.venv/bin/punchin (.*)$", README, re.M)
    here = Home(tmp_path / "home", worker="identity")
    try:
        for words in (["demo"], shlex.split(line)):  # as `make demo` ends
            done = here.run(*words, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    finally:
        here.stop()


def test_the_library_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    subprocess.run([sys.executable, "-W", "error:::punchin", "-c", code], cwd=tmp_path, check=True)
    audio, rate_hz = soundfile.read(tmp_path / "idea.wav", dtype="float32")
    assert soundfile.info(tmp_path / "idea.wav").subtype == "FLOAT"
    assert (rate_hz, audio.shape) == (48_000, (8 * 48_000, 2))
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() > 1e-3


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(((?!http)[^)#]+)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()
