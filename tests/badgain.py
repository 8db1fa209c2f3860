"""A VST3 plug-in of our own that can crash, hang and make nonsense: tests/plugins/BadGain.cpp, compiled when needed."""

import os
import subprocess
from pathlib import Path

import pytest
from realparts import need

DPF = Path("/usr/share/dpf/distrho")
CURE = "apt-get install g++ dpf-source"


def build(folder: Path, sides: int = 2) -> Path:
    """The plug-in's bundle in `folder`, for mono or stereo audio, or a skip without compiler and headers."""
    compiler = need("g++", CURE)
    if not DPF.is_dir():
        text = f"no {DPF}: {CURE}"
        pytest.fail(text) if os.environ.get("PUNCHIN_REQUIRE_REAL") else pytest.skip(text)
    source, binary = Path(__file__).parent / "plugins", folder / "BadGain.vst3/Contents/x86_64-linux/BadGain.so"
    binary.parent.mkdir(parents=True)
    options = [
        f"-DSIDES={sides}",
        "-O1",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        "-DNDEBUG",
        "-DDISTRHO_PLUGIN_TARGET_VST3",
    ]
    places = [f"-I{source}", f"-I{DPF}", DPF / "DistrhoPluginMain.cpp", source / "BadGain.cpp"]
    subprocess.run([compiler, *options, *places, "-o", binary], check=True, timeout=120)
    return folder / "BadGain.vst3"
