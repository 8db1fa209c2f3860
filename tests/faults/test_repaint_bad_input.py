"""What cannot be repainted is refused by name, with the number and the limit, and nothing on disk changes."""

import hashlib
import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import rppmaker
import soundfile
from punchinhere import Home

from punchin.clients.demo import session_folder

KEYS = "--track", "Keys", "--bars", "5-8", "--prompt", "x", "--seed", "1", "--model", "identity"
LOOP = "--bpm", "120", "--bars", "2-3", "--prompt", "x", "--seed", "1", "--model", "identity"


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    here = Home(tmp_path_factory.mktemp("refusing"))
    yield here
    here.stop()


@pytest.fixture
def session(tmp_path):
    shutil.copytree(session_folder(), tmp_path / "session")
    return tmp_path / "session" / "demo.rpp"


def snapshot(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files}


def refused(punchin, folder, *words, code=4, preexec_fn=None):
    """What was said, after checking that it ended with `code`, printed no data and left every file as it was."""
    before = snapshot(folder)
    done = punchin.run(*words, preexec_fn=preexec_fn)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert any(line.startswith("error: ") for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr
    assert "bug in punchin" not in done.stderr
    assert snapshot(folder) == before
    return done.stderr


def test_a_missing_track_lists_the_tracks(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, "--track", "Tuba", *KEYS[2:])
    assert all(name in said for name in ("Tuba", "Drums", "Bass", "Keys"))


def test_a_missing_session(punchin, tmp_path):
    assert "none.rpp" in refused(punchin, tmp_path, "repaint", tmp_path / "none.rpp", *KEYS)


def test_bars_outside_the_session(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, "--track", "Keys", "--bars", "15-18", *KEYS[4:])
    assert "15-18" in said
    assert "bars 1-16" in said


def test_time_outside_the_session(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, "--track", "Keys", "--time", "30-50", *KEYS[4:])
    assert "50 s" in said
    assert "39.4" in said


def test_a_region_without_length(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, "--track", "Keys", "--time", "5-5", *KEYS[4:], code=2)
    assert "no length" in said


def test_a_region_that_is_too_short_quotes_the_limit(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, "--track", "Keys", "--time", "5-5.1", *KEYS[4:])
    assert "region length is 0.1 s, allowed is 0.25 to 600" in said


def test_a_region_over_the_limit_quotes_it(punchin, tmp_path):
    loop = tmp_path / "long.wav"
    soundfile.write(loop, np.full(8_000 * 620, 0.1, np.float32), 8_000, subtype="PCM_U8")
    said = refused(punchin, tmp_path, "repaint", loop, "--bpm", "60", "--time", "5-610", *LOOP[4:])
    assert "region length is 605 s, allowed is 0.25 to 600" in said


def test_silence_in_silence(punchin, tmp_path):
    loop = tmp_path / "silent.wav"
    soundfile.write(loop, np.zeros(48_000 * 8), 48_000)
    assert "silent" in refused(punchin, tmp_path, "repaint", loop, *LOOP)


def test_silence_in_sound_is_fine(punchin, tmp_path):
    loop = tmp_path / "gap.wav"
    audio = rppmaker.noise(1, 48_000 * 8)
    audio[:, 48_000 * 2 : 48_000 * 6] = 0
    soundfile.write(loop, audio.T, 48_000)
    made = punchin.json("repaint", loop, *LOOP)
    assert made["takes"][0]["report"]["outside_max_abs_diff"] == 0.0


def test_samples_that_are_no_number(punchin, tmp_path):
    loop = tmp_path / "nan.wav"
    audio = rppmaker.noise(1, 48_000 * 8)
    audio[0, 123_456] = np.nan
    soundfile.write(loop, audio.T, 48_000, subtype="FLOAT")
    assert "no number" in refused(punchin, tmp_path, "repaint", loop, *LOOP)


def test_media_that_is_missing(punchin, session):
    (session.parent / "media" / "keys.flac").unlink()
    assert "keys.flac" in refused(punchin, session.parent, "repaint", session, *KEYS)


def test_media_that_is_no_audio(punchin, session):
    (session.parent / "media" / "keys.flac").write_bytes(b"fLaC and then nothing of the kind")
    assert "keys.flac" in refused(punchin, session.parent, "repaint", session, *KEYS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_media_that_may_not_be_read(punchin, session):
    (session.parent / "media" / "keys.flac").chmod(0)
    assert "keys.flac" in refused(punchin, session.parent, "repaint", session, *KEYS)


def test_a_session_that_is_no_project(punchin, tmp_path):
    broken = tmp_path / "broken.rpp"
    broken.write_text("<REAPER_PROJECT 0.1\n  <TRACK\n")
    assert "broken.rpp" in refused(punchin, tmp_path, "repaint", broken, *KEYS)


def song(folder, *items, extra=""):
    rppmaker.media(folder, "Media/take.wav", rppmaker.noise(2, 48_000 * 40))
    return rppmaker.project(folder, rppmaker.track("Keys", *items, extra=extra))


def test_a_midi_item(punchin, tmp_path):
    midi = "      <SOURCE MIDI\n        HASDATA 1 960 QN\n        E 0 90 3c 60\n        E 480 80 3c 00\n      >\n"
    said = refused(punchin, tmp_path, "repaint", song(tmp_path, rppmaker.item(0, 30, midi)), *KEYS)
    assert "MIDI" in said
    assert "Keys" in said


def test_a_stretched_item(punchin, tmp_path):
    item = rppmaker.item(0, 30, "Media/take.wav", takes="      SM 0 0 + 5 6 + 30 30\n")
    said = refused(punchin, tmp_path, "repaint", song(tmp_path, item), *KEYS)
    assert "stretch" in said


def test_eight_channels(punchin, tmp_path):
    loop = tmp_path / "eight.wav"
    soundfile.write(loop, rppmaker.noise(8, 48_000 * 8).T, 48_000)
    said = refused(punchin, tmp_path, "repaint", loop, *LOOP)
    assert "8 channels" in said or "channels is 8" in said


def test_a_model_that_nobody_knows(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, *KEYS[:-1], "gpt")
    assert "gpt" in said


def test_a_model_that_is_not_installed(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, *KEYS[:-1], "turbo")
    assert "punchin models pull turbo" in said


def test_a_job_that_nobody_knows(punchin, session):
    said = refused(punchin, session.parent, "land", "01AAAAAAAAAAAAAAAAAAAAAAAA")
    assert "01AAAAAAAAAAAAAAAAAAAAAAAA" in said


@pytest.mark.parametrize("verb", ["show", "cancel", "land", "play"])
def test_what_is_no_job_at_all(punchin, tmp_path, verb):
    said = refused(punchin, tmp_path, verb, "take.wav")
    assert f'there is no {"file or " if verb == "play" else ""}job "take.wav"' in said
    assert "punchin jobs" in said


def test_a_chain_that_is_wrong_is_found_before_the_work(punchin, session):
    chain = session.parent / "chain.toml"
    chain.write_text('[[effects]]\ntype = "Flux Capacitor"\n')
    said = refused(punchin, session.parent, "repaint", session, *KEYS, "--return-fx", chain)
    assert "chain.toml" in said
    assert "job " not in said


def test_an_output_folder_that_is_missing(punchin, session, tmp_path):
    said = refused(punchin, session.parent, "repaint", session, *KEYS, "-o", tmp_path / "none" / "out.rpp")
    assert f"mkdir -p {tmp_path / 'none'}" in said
    assert "job " not in said, "found before the work"


def test_a_name_that_leaves_no_room_for_what_a_take_adds(punchin, session):
    said = refused(punchin, session.parent, "repaint", session, *KEYS, "-o", session.with_name("ü" * 114 + ".rpp"))
    assert "has 232 bytes, with what a take adds to it at most 231 are allowed" in said
    assert "job " not in said, "found before the work"


def test_a_disk_that_is_full(punchin, session):
    punchin.json("version")
    punchin.run("jobs")  # the daemon runs, without the limit below

    def limit():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    said = refused(punchin, session.parent, "repaint", session, *KEYS, code=1, preexec_fn=limit)
    assert "Keys-punchin" in said
    assert said.count("punchin land") == 1
    job = next(line.split()[1] for line in said.splitlines() if line.startswith("job "))
    landed = punchin.json("land", job)
    assert Path(landed["output"]).is_file()
    assert landed["takes"][0]["report"]["outside_max_abs_diff"] == 0.0


def test_the_original_may_be_read_only(punchin, session):
    for path in session.parent.rglob("*"):
        if path.is_file():
            path.chmod(stat.S_IRUSR)
    before = snapshot(session.parent)
    punchin.json("repaint", session, *KEYS)
    assert before.items() <= snapshot(session.parent).items()
