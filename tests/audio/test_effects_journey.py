"""Effects on the way of a region, and a job's take heard: the real command line and daemon, a scripted engine."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import badgain
import numpy as np
import punchinhere
import pytest
import soundfile

from punchin.clients.demo import session_folder
from punchin.session import takefiles

ASK = ("--track", "Keys", "--bars", "5-6", "--prompt", "x", "--seed", "3")
REGION = slice(round(4 * 240 / 97.35 * 48_000), round(6 * 240 / 97.35 * 48_000) - 2_400)  # without the fade at its end
HEARD = """
import json, sys, soundfile
file = soundfile.info(sys.argv[-1])
print(json.dumps([file.frames, file.samplerate, file.channels]))
"""


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    home = punchinhere.Home(tmp_path_factory.mktemp("punchin"), worker="identity")
    yield home
    home.stop()


@pytest.fixture
def session(tmp_path):
    shutil.copytree(session_folder(), tmp_path / "song")
    return tmp_path / "song" / "demo.rpp"


def chain(folder, text):
    path = folder / "chain.toml"
    path.write_text(text)
    return path


def media(session, made=None):
    path = session.parent / "media" / "keys.flac" if made is None else made["takes"][0]["file"]
    audio, _ = soundfile.read(path, always_2d=True)
    return audio


@pytest.mark.parametrize("option", ["--pre-fx", "--return-fx"])
def test_a_chain_is_heard_in_the_take(option, punchin, session, tmp_path):
    invert = chain(tmp_path, '[[effect]]\nname = "Invert"\n')  # level match leaves it alone
    made = punchin.json("repaint", session, *ASK, "--model", "identity", option, invert)
    wet, dry = media(session, made), media(session)
    np.testing.assert_allclose(wet[REGION], -dry[REGION], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(wet[: REGION.start - 2_400], dry[: REGION.start - 2_400])


@pytest.mark.real
def test_a_crash_on_the_way_back_lands_the_dry_take(punchin, session, tmp_path):
    badgain.build(tmp_path)
    crash = chain(tmp_path, '[[effect]]\nvst3 = "BadGain.vst3"\nmode = 1\n')
    done = punchin.run("repaint", session, *ASK, "--model", "identity", "--return-fx", crash, "--json")
    assert done.returncode == 0, done.stderr
    assert re.search(r"effect BadGain \(1 of 1\): .*SIGSEGV.*; the take lands without chain.toml", done.stderr)
    made = json.loads(done.stdout)
    assert made["takes"][0]["report"]["return_fx_failed"].startswith("chain.toml: effect BadGain (1 of 1): ")
    assert takefiles.provenance(Path(made["takes"][0]["file"]))["return_fx_sha256"] == ""  # redo tells of effects
    landed, dry = media(session, made), media(session)
    np.testing.assert_allclose(landed[: len(dry)], dry, rtol=0, atol=1e-6)


@pytest.mark.real
def test_a_crash_on_the_way_out_stops_before_the_work(punchin, session, tmp_path):
    badgain.build(tmp_path)
    crash = chain(tmp_path, '[[effect]]\nvst3 = "BadGain.vst3"\nmode = 1\n')
    before = len(punchin.json("jobs"))
    done = punchin.run("repaint", session, *ASK, "--model", "identity", "--pre-fx", crash)
    assert done.returncode == 1
    assert re.search(r"error: effect BadGain \(1 of 1\): .*SIGSEGV", done.stderr)
    assert len(punchin.json("jobs")) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "Rvrb"', 'no effect "Rvrb"'),
        ('name = "LowpassFilter"\ncutoff_frequency_hz = 24000', "at 48000 Hz allowed"),
    ],
)
def test_a_wrong_chain_is_refused_first(text, says, punchin, session, tmp_path):
    done = punchin.run("repaint", session, *ASK, "--return-fx", chain(tmp_path, f"[[effect]]\n{text}\n"))
    assert done.returncode == 4
    assert says in done.stderr
    assert "job" not in done.stderr


def test_a_jobs_take_is_played(punchin, session, monkeypatch):
    made = punchin.json("repaint", session, *ASK, "--model", "identity", "--variations", "2")
    monkeypatch.setitem(punchin.env, "PUNCHIN_PLUGIN_HOST", shlex.join([sys.executable, "-c", HEARD]))
    done = punchin.run("play", made["job"], "--take", "2")
    assert done.returncode == 0, done.stderr
    frames, rate_hz, channels = json.loads(done.stdout)
    assert (rate_hz, channels) == (48_000, 2)
    assert frames >= REGION.stop - REGION.start
    done = punchin.run("play", made["job"], "--take", "3")
    assert (done.returncode, "it has 2" in done.stderr) == (4, True)
