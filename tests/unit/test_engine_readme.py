"""The README's way to use the engine alone is run as it stands there."""

import re
from pathlib import Path

import soundfile

README = Path(__file__).parents[2] / "README.md"


def test_the_engine_works_without_the_daemon_in_ten_lines(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "AceStepPipeline" in block]
    assert len(code.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    info = soundfile.info(tmp_path / "idea.wav")
    assert (info.frames, info.channels, info.samplerate, info.subtype) == (8 * 48_000, 2, 48_000, "FLOAT")
