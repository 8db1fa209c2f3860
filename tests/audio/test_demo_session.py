"""The bundled session: what is in it, where its notes are, and that it can be made again."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rpp
import soundfile
from realparts import need

from punchin.clients.demo import project, session_folder, studio

BAR_S = 4 * 60 / 97.35
FRAMES = 1_893_374  # 16 bars at 48 kHz: 1893374.42
CHANNELS = {"drums": 1, "bass": 1, "keys": 2}
FILES = {"demo.rpp", "LICENSE.md", *(f"media/{name}.flac" for name in CHANNELS)}


def onset_errors_ms(audio, rate_hz):
    """How far the attack at each bar line is from it: the steepest rise of energy within 30 ms around the line."""
    found = []
    for bar in range(1, 16):
        line = round(bar * BAR_S * rate_hz)
        reach, hop = int(0.03 * rate_hz), 12
        power = np.square(audio[line - reach : line + reach]).reshape(-1, hop).mean(axis=1)
        before = power[: reach // hop - 40].max()  # a ringing tail, up to 10 ms before the line
        loud = np.argmax(power > before + 0.01 * power.max())
        found.append((loud * hop - reach) / rate_hz * 1000)
    return np.array(found)


@pytest.mark.parametrize("name", CHANNELS)
def test_media_is_sixteen_bars(name):
    path = session_folder() / "media" / f"{name}.flac"
    info = soundfile.info(path)
    assert (info.frames, info.samplerate, info.channels) == (FRAMES, 48_000, CHANNELS[name])
    assert (info.format, info.subtype) == ("FLAC", "PCM_16")
    audio, _ = soundfile.read(path, always_2d=True)
    assert 0.05 < np.abs(audio).max() < 0.5
    for bar in range(16):
        heard = audio[round(bar * BAR_S * 48_000) : round((bar + 1) * BAR_S * 48_000)]
        assert np.sqrt(np.mean(heard**2)) > 1e-3, f"bar {bar + 1} is silent"
    assert info.channels == 1 or np.abs(audio[:, 0] - audio[:, 1]).max() > 0.01  # stereo because it is


def test_session_is_small():
    sizes = [path.stat().st_size for path in session_folder().rglob("*") if path.is_file()]
    assert sum(sizes) < 3_000_000


def test_attacks_are_on_the_bar_lines():
    audio, rate_hz = soundfile.read(session_folder() / "media" / "drums.flac")
    assert np.abs(audio[:48]).max() > 0.001  # bar 1 begins with the file
    errors = onset_errors_ms(audio, rate_hz)
    assert np.abs(errors).max() < 1.5, errors
    late = onset_errors_ms(np.roll(audio, 96), rate_hz)  # the check sees 2 ms
    assert np.abs(late - errors - 2).max() < 0.5, late


def test_oracle_parses_the_project():
    data = (session_folder() / "demo.rpp").read_bytes()
    assert data.count(b"\n") == data.count(b"\r\n") > 100
    project = rpp.loads(data.decode().replace("\r\n", "\n"))
    assert project.find("TEMPO")[1:] == ["97.35", "4", "4"]
    assert project.find("SAMPLERATE")[1] == "48000"
    tracks = project.findall("TRACK")
    assert [track.find("NAME")[1] for track in tracks] == ["Drums", "Bass", "Keys"]
    guids = []
    for track in tracks:
        (item,) = track.findall("ITEM")
        assert float(item.find("POSITION")[1]) == 0
        assert float(item.find("LENGTH")[1]) == pytest.approx(16 * BAR_S, abs=1e-9)
        source = item.find("SOURCE")
        assert list(source.attrib) == ["FLAC"]
        assert (session_folder() / source.find("FILE")[1]).is_file()
        guids += [track.attrib[0], item.find("IGUID")[1], item.find("GUID")[1]]
    assert len(set(guids)) == 9


def test_score_writes_the_project(tmp_path):
    project.write(tmp_path / "demo.rpp")
    assert (tmp_path / "demo.rpp").read_bytes() == (session_folder() / "demo.rpp").read_bytes()


@pytest.mark.real
@pytest.mark.slow
def test_score_renders_the_media(tmp_path):
    need("fluidsynth", studio.CURE)
    if not studio.SOUNDFONT.is_file():
        text = f"no soundfont at {studio.SOUNDFONT}: {studio.CURE}"
        pytest.fail(text) if os.environ.get("PUNCHIN_REQUIRE_REAL") else pytest.skip(text)
    subprocess.run([sys.executable, "-m", "punchin.clients.demo.score", tmp_path], check=True, timeout=300)
    for name in CHANNELS:
        made, _ = soundfile.read(tmp_path / "media" / f"{name}.flac")
        kept, _ = soundfile.read(session_folder() / "media" / f"{name}.flac")
        np.testing.assert_allclose(made, kept, rtol=0, atol=1e-3)


def test_without_a_soundfont_the_cure_is_named(tmp_path):
    command = [sys.executable, "-m", "punchin.clients.demo.score", tmp_path, "--soundfont", tmp_path / "none.sf3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert studio.CURE in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.real
def test_what_is_no_soundfont_is_not_played_on_the_systems_own(tmp_path):
    need("fluidsynth", studio.CURE)
    bad = tmp_path / "bad.sf3"
    bad.write_bytes(bytes(range(256)) * 20)
    command = [sys.executable, "-m", "punchin.clients.demo.score", tmp_path / "made", "--soundfont", bad]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "fluidsynth failed: fluidsynth: error: " in done.stderr


@pytest.mark.slow
def test_wheel_carries_the_session_and_the_model(tmp_path):
    root = Path(__file__).resolve().parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=root, check=True, timeout=120, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"punchin/clients/demo/session/{file}" for file in FILES} <= names
    box = root / "engine" / "punchin" / "engine" / "tiny_weights"
    weights = {f"punchin/engine/tiny_weights/{path.relative_to(box)}" for path in box.rglob("*") if path.is_file()}
    assert len(weights) >= 8
    assert weights <= names
