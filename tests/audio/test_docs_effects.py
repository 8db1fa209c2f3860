"""docs/effects.md does what it says: its chain, its commands and its Python run, and its numbers are the code's."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from punchin.clients import fx
from punchin.protocol import hostlink

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "effects.md").read_text()
RATE_HZ = 44_100


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.S)


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_page(tmp_path):
    (tmp_path / "room.toml").write_text(blocks("toml")[0])
    t = np.arange(RATE_HZ) / RATE_HZ
    soundfile.write(tmp_path / "keys.wav", np.sin(2 * np.pi * 220 * t) * 0.3, RATE_HZ, subtype="PCM_24")
    said = {}
    for line in "".join(blocks("console")).splitlines():
        words = shlex.split(line.removeprefix("$ "))
        assert words[0] == "punchin"
        done = run([sys.executable, "-m", "punchin.clients.cli", *words[1:]], tmp_path)
        assert done.returncode == 0, (line, done.stderr)
        said[line] = done.stdout
    assert "room_size = 0 to 1 [0.5]" in said["$ punchin fx list Reverb"]
    assert "Compressor" in said["$ punchin fx list"]
    assert said["$ punchin fx check room.toml"] == "Reverb (1 of 2)\nHighShelfFilter (2 of 2)\n"
    wet, dry = soundfile.info(tmp_path / "keys-room.wav"), soundfile.info(tmp_path / "keys.wav")
    assert (wet.frames, wet.samplerate, wet.subtype) == (dry.frames, dry.samplerate, dry.subtype)
    done = run(
        [sys.executable, "-c", blocks("python")[0] + "\nprint(wet.shape, abs(wet - audio).max() > 0.01)"], tmp_path
    )
    assert done.stdout.strip() == f"(1, {RATE_HZ}) True", done.stderr


def test_limits_are_the_codes():
    assert f"({hostlink.EFFECT_TIMEOUT_S:g} s, at work\n  {fx.SLOWEST:g} times the audio's length more)" in PAGE
    assert f"at most {hostlink.MAX_EFFECTS} effects" in PAGE
    assert f"at most {hostlink.MAX_CHAIN_BYTES} bytes" in PAGE


def command(*words, folder):
    return run([sys.executable, "-m", "punchin.clients.cli", *map(str, words)], folder)


@pytest.mark.parametrize(
    ("source", "target", "subtype"),
    [("a.ogg", "b.wav", "FLOAT"), ("f.wav", "b.flac", "PCM_24"), ("a.wav", "b.flac", "PCM_16")],
)
def test_a_chain_writes_what_its_output_can_hold(tmp_path, source, target, subtype):
    (tmp_path / "loud.toml").write_text('[[effect]]\nname = "Gain"\ngain_db = -3.0\n')
    tone = 0.1 * np.sin(np.arange(RATE_HZ) / 20)
    soundfile.write(tmp_path / "a.ogg", tone, RATE_HZ)
    soundfile.write(tmp_path / "a.wav", tone, RATE_HZ, subtype="PCM_16")
    soundfile.write(tmp_path / "f.wav", tone, RATE_HZ, subtype="FLOAT")
    done = command("fx", "apply", "loud.toml", source, "-o", target, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert soundfile.info(tmp_path / target).subtype == subtype


@pytest.mark.parametrize(("subtype", "dtype"), [("PCM_32", "int32"), ("DOUBLE", "float64")])
def test_an_empty_chain_keeps_every_bit_of_a_file(tmp_path, subtype, dtype):
    (tmp_path / "empty.toml").write_text("")
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (1_000, 2))
    dry = samples if dtype == "float64" else (samples * 2**31).astype(dtype)
    soundfile.write(tmp_path / "a.wav", dry, RATE_HZ, subtype=subtype)
    done = command("fx", "apply", "empty.toml", "a.wav", "-o", "b.wav", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(soundfile.read(tmp_path / "b.wav", dtype=dtype)[0], dry)


def test_clipping_is_told(tmp_path):
    (tmp_path / "loud.toml").write_text('[[effect]]\nname = "Gain"\ngain_db = 20\n')
    soundfile.write(tmp_path / "a.wav", np.full(1_000, 0.5), RATE_HZ)
    done = command("fx", "apply", "loud.toml", "a.wav", "-o", "b.wav", folder=tmp_path)
    assert done.returncode == 0
    assert "1000 samples are over full scale and are clipped" in done.stderr


def test_wrong_lines(tmp_path):
    (tmp_path / "x.toml").write_text("")
    soundfile.write(tmp_path / "a.wav", np.zeros(100), RATE_HZ)
    shutil.copy(tmp_path / "a.wav", tmp_path / "before.wav")
    for words, code, says in (
        (["fx", "apply", "x.toml", "a.wav", "-o", "a.wav"], 2, "the output is the input"),
        (["fx", "apply", "x.toml"], 2, "-o/--output"),
        (["fx", "apply", "x.toml", "a.wav", "-o", "b.mp3"], 4, "cannot write .mp3"),
        (["fx", "apply", "x.toml", "a.wav", "-o", "none/b.wav"], 4, "none does not exist"),
        (["fx", "apply", "x.toml", "none.wav", "-o", "b.wav"], 4, "none.wav"),
        (["fx", "apply", "none.toml", "a.wav", "-o", "b.wav"], 4, "none.toml cannot be read"),
        (["fx", "list", "Gian"], 4, "did you mean Gain?"),
        (["fx", "listen"], 2, "choose from"),
        (["play", "a.wav", "--take", "x"], 2, "--take"),
    ):
        done = command(*words, folder=tmp_path)
        assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "before.wav").read_bytes()
    assert not (tmp_path / "b.wav").exists()
