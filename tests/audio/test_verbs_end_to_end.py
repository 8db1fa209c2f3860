"""The other verbs, through real processes: layers, takes made again, takes nobody uses, pictures, music alone."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rpp
import soundfile
from punchinhere import Home

from punchin.clients.demo import session_folder

pytestmark = pytest.mark.slow

BAR_S = 4 * 60 / 97.35


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    """A daemon whose engine makes noise of its own for each seed, so that takes can be told apart."""
    here = Home(tmp_path_factory.mktemp("noise"), worker="noise")
    yield here
    here.stop()


@pytest.fixture
def session(tmp_path):
    shutil.copytree(session_folder(), tmp_path / "session")
    return tmp_path / "session" / "demo.rpp"


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)[0]


def repaint(punchin, session, *more):
    return punchin.json(
        "repaint", session, "--track", "Keys", "--bars", "5-6", "--prompt", "warm piano", "--seed", "5",
        "--max-attempts", "1", *more,
    )  # fmt: skip


def test_redo_makes_the_same_take(punchin, session):
    made = repaint(punchin, session, "--lyrics", "la la", "--strength", "0.5")
    again = punchin.json("redo", made["takes"][0]["file"])
    assert again["takes"][0]["seed"] == 5
    assert again["takes"][0]["file"] != made["takes"][0]["file"]
    assert np.array_equal(read(again["takes"][0]["file"]), read(made["takes"][0]["file"]))
    asked = [punchin.json("show", each["job"])["order"] for each in (made, again)]
    assert asked[0] == asked[1]
    Path(f"{made['takes'][0]['file']}.punchin.json").unlink()
    once_more = punchin.json("redo", made["takes"][0]["file"])  # the project itself still knows
    assert np.array_equal(read(once_more["takes"][0]["file"]), read(made["takes"][0]["file"]))


def test_redo_of_a_take_with_several_regions_makes_them_all(punchin, session):
    made = repaint(punchin, session, "--bars", "9-10")
    again = punchin.json("redo", made["takes"][0]["file"])
    assert [take["bars"] for take in again["takes"]] == [[5, 6], [9, 10]]
    assert np.array_equal(read(again["takes"][0]["file"]), read(made["takes"][0]["file"]))


def test_redo_of_music_from_a_prompt_makes_the_same_file(punchin, tmp_path):
    line = ["--bpm", "97.35", "--bars", "4", "--signature", "3/4", "--seed", "1", "--variations", "2"]
    made = punchin.json("generate", "--prompt", "dusty", "--lyrics", "la", *line, "-o", tmp_path / "new.wav")
    for file in (Path(take["file"]) for take in made["takes"]):
        again = punchin.json("redo", file)
        assert again["output"] not in {take["file"] for take in made["takes"]}
        assert np.array_equal(read(again["output"]), read(file))
    order = punchin.json("show", again["job"])["order"]
    assert (order["prompt"], order["lyrics"], order["seeds"], order["signature"]) == ("dusty", "la", [2], 3)
    sister = punchin.json("redo", made["job"], "--seed", "9", "-o", tmp_path / "sister.wav")
    assert (Path(sister["output"]).name, sister["takes"][0]["seed"]) == ("sister.wav", 9)


def test_redo_of_a_job_with_another_seed_is_a_sister(punchin, session):
    made = repaint(punchin, session)
    sister = punchin.json("redo", made["job"], "--seed", "6")
    assert sister["takes"][0]["seed"] == 6
    before, after = read(made["takes"][0]["file"]), read(sister["takes"][0]["file"])
    start, end = round(4 * BAR_S * 48_000), round(6 * BAR_S * 48_000)
    assert np.array_equal(before[end:], after[end:])
    assert not np.array_equal(before[start:end], after[start:end])


def test_redo_of_a_whole_file_makes_the_same_one(punchin, tmp_path):
    soundfile.write(tmp_path / "loop.wav", 0.1 * np.sin(np.arange(16 * 48_000) / 40), 48_000, subtype="PCM_24")
    made = punchin.json(
        "repaint", tmp_path / "loop.wav", "--bpm", "120", "--bars", "3-4", "--prompt", "x", "--seed", "5",
        "--max-attempts", "1",
    )  # fmt: skip
    for again in (punchin.json("redo", made["output"]), punchin.json("redo", made["job"])):
        assert again["output"] != made["output"]
        assert np.array_equal(read(again["output"]), read(made["output"]))


def test_redo_finds_a_session_that_was_moved(punchin, session, tmp_path):
    made = repaint(punchin, session)
    moved = tmp_path / "elsewhere"
    session.parent.rename(moved)
    take = moved / Path(made["takes"][0]["file"]).relative_to(session.parent)
    again = punchin.json("redo", take)
    assert Path(again["output"]).parent == moved


def test_redo_says_when_the_session_has_changed(punchin, session):
    made = repaint(punchin, session)
    session.write_bytes(session.read_bytes().replace(b"VOLPAN 1 0 1 -1", b"VOLPAN 0.5 0 1 -1"))
    done = punchin.run("redo", made["takes"][0]["file"], "--json")
    assert done.returncode == 0, done.stderr
    assert "no longer sounds as it did" in done.stderr


def test_redo_needs_something_to_go_by(punchin, session):
    keys = session.parent / "media" / "keys.flac"
    done = punchin.run("redo", keys)
    assert done.returncode == 4
    assert "nothing is kept of what made" in done.stderr


def test_unused_takes_are_listed_and_removed(punchin, session):
    made = repaint(punchin, session)
    take = Path(made["takes"][0]["file"])
    assert punchin.json("takes", "list", session) == []
    wrong = punchin.run("takes", "gc", take.parent)  # the media folder: every take there would be unused
    assert (wrong.returncode, take.exists()) == (4, True)
    assert "holds take files but no project" in wrong.stderr
    Path(made["output"]).unlink()
    assert punchin.json("takes", "gc", session) == [], "of the last hour"
    assert take.exists()
    os.utime(take, (1, time.time() - 3700))
    (unused,) = punchin.json("takes", "gc", session.parent, "--dry-run")
    assert Path(unused["file"]) == take
    assert take.exists()
    punchin.json("takes", "gc", session)
    assert not take.exists()
    assert (session.parent / "media" / "keys.flac").exists()


@pytest.mark.parametrize("verb", ["layer", "extract"])
def test_a_layer_lands_on_a_track_of_its_own(punchin, session, verb):
    before = session.read_bytes()
    made = punchin.json(
        verb, session, "--bars", "5-6", "--instrument", "strings", "--hear", "Drums", "Bass", "--seed", "5",
        "--max-attempts", "1",
    )  # fmt: skip
    assert session.read_bytes() == before
    project = rpp.loads(Path(made["output"]).read_text())
    names = [track.find("NAME")[1] for track in project.findall("TRACK")]
    assert set(names) > {"Drums", "Bass", "Keys"}
    assert len(names) == 4
    report = made["takes"][0]["report"]
    assert (report["length_error_samples"], report["outside_max_abs_diff"]) == (0, 0.0)
    order = punchin.json("show", made["job"])["order"]
    assert order["instrument"] == "strings"
    assert order["task"] == {"layer": "lego", "extract": "extract"}[verb]


def test_music_from_a_prompt_has_the_asked_length(punchin, tmp_path):
    out = tmp_path / "new.flac"
    made = punchin.json(
        "generate", "--prompt", "x", "--bpm", "97.35", "--bars", "4", "--signature", "3/4", "--seed", "1",
        "--variations", "2", "-o", out,
    )  # fmt: skip
    files = [Path(take["file"]) for take in made["takes"]]
    assert files == [out, tmp_path / "new-2.flac"]
    for file in files:
        info = soundfile.info(file)
        assert (info.frames, info.samplerate, info.subtype) == (round(12 * 60 / 97.35 * 48_000), 48_000, "PCM_24")
    assert made["takes"][0]["report"]["length_error_samples"] == 0
    assert made["takes"][0]["report"]["fade_ms"] is None


@pytest.mark.parametrize(
    ("bars", "out", "code", "said"),
    [
        ("900", "a.wav", 4, "region length is 2160 s, allowed is 0.25 to 600"),
        ("2", "a.mp3", 2, "is no audio file that can be written"),
        ("2", "none/a.wav", 4, "does not exist"),
    ],
)
def test_music_that_cannot_be_made_or_kept_is_refused_first(punchin, tmp_path, bars, out, code, said):
    done = punchin.run("generate", "--prompt", "x", "--bpm", "100", "--bars", bars, "-o", tmp_path / out)
    assert done.returncode == code
    assert said in done.stderr
    assert "job " not in done.stderr


def test_music_that_finds_no_room_is_kept_and_lands_later(punchin, tmp_path):
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    punchin.run("jobs")  # the daemon runs, without that limit
    out = tmp_path / "new.wav"
    line = ("generate", "--prompt", "x", "--bpm", "120", "--bars", "2", "-o", out)
    done = punchin.run(*line, preexec_fn=small_disk)
    assert done.returncode == 1
    assert not out.exists()
    assert "Traceback" not in done.stderr
    landing = re.search(r"the takes are kept; .*-o elsewhere: punchin (land) (\w+)$", done.stderr, re.M)
    assert landing, done.stderr
    assert punchin.run(*landing.groups()).returncode == 0
    assert soundfile.info(out).frames == 4 * 48_000


def test_show_draws_and_follows(punchin, session, tmp_path):
    made = repaint(punchin, session)
    shown = punchin.json("show", made["job"][-8:], "--picture", tmp_path / "take.png")
    assert (shown["picture"], shown["pictures"]) == (str(tmp_path / "take.png"), [str(tmp_path / "take.png")])
    assert (tmp_path / "take.png").read_bytes().startswith(b"\x89PNG")
    told = punchin.run("show", made["job"], "--follow")
    assert told.returncode == 0
    assert "warm piano" in told.stdout
    assert "queued" not in told.stderr, "it has ended"
    assert ".png" in told.stderr
    assert punchin.run("show", made["job"], "--picture", tmp_path / "take.jpg").returncode == 2


def test_gc_says_what_it_keeps(punchin, session):
    repaint(punchin, session)
    said = punchin.run("gc", "--dry-run")
    assert said.returncode == 0
    assert said.stdout.startswith("would free ")
    assert set(punchin.json("gc", "--dry-run")) >= {"jobs", "blobs", "freed_bytes", "kept_bytes"}


def test_doctor_is_well(punchin):
    found = json.loads(punchin.run("doctor", "--json").stdout)
    assert {finding["verdict"] for finding in found} <= {"ok", "warn"}
    assert any(finding["text"].startswith("journal ok") for finding in found)
    reported = punchin.run("doctor", "--report")
    path = Path(reported.stderr.split("written to ")[1].strip())
    assert "journal ok" in path.read_text()


def test_stop_is_no_error_without_a_daemon(tmp_path):
    nobody = Home(tmp_path / "nobody")
    assert nobody.run("stop").returncode == 0
    assert nobody.run("status").returncode == 3


def test_several_regions_and_tracks_land_in_one_document(punchin, session):
    made = punchin.json(
        "repaint", session, "--track", "Keys", "--track", "Bass", "--bars", "3-4", "--bars", "9-10", "--prompt", "x",
        "--seed", "5", "--max-attempts", "1",
    )  # fmt: skip
    assert [(take["track"], take["bars"], take["seed"]) for take in made["takes"]] == [
        ("Keys", [3, 4], 5), ("Keys", [9, 10], 5), ("Bass", [3, 4], 5), ("Bass", [9, 10], 5),
    ]  # fmt: skip
    assert len({take["file"] for take in made["takes"]}) == 2, "regions of one item share its take"
    for name, take in (("keys", made["takes"][0]), ("bass", made["takes"][2])):
        before, after = read(session.parent / "media" / f"{name}.flac"), read(take["file"])
        assert len(before) == len(after)
        changed = np.zeros(len(before), bool)
        for first, last in ((3, 4), (9, 10)):
            start, end = round((first - 1) * BAR_S * 48_000), round(last * BAR_S * 48_000)
            assert not np.array_equal(before[start:end], after[start:end])
            changed[start - 2_640 : end] = True
        assert np.array_equal(before[~changed], after[~changed])
    assert len(list(session.parent.glob("*.rpp"))) == 2
    newest, *older = punchin.json("jobs")
    assert (newest["job"], newest["landed"]) == (made["job"], made["output"])
    assert made["output"] not in [job["landed"] for job in older], "all of it is one job"
    passages = [newest["order"], *newest["order"]["also"]]
    assert [len(passage["mask"]) for passage in passages] == [2, 2], "near regions of a track are made together"
    assert [(take["passage"], take["seed"]) for take in newest["takes"]] == [(0, 5), (1, 5)]


def test_regions_that_touch_are_refused(punchin, session):
    done = punchin.run(
        "repaint", session, "--track", "Keys", "--bars", "3-4", "--bars", "4-5", "--prompt", "x", "--seed", "5",
        "--max-attempts", "1",
    )  # fmt: skip
    assert done.returncode == 4
    assert "bars 3-4 and 4-5 of Keys touch" in done.stderr
    assert "job " not in done.stderr, "found before the work"
    assert len(list(session.parent.glob("*.rpp"))) == 1


def test_all_that_the_model_is_told_arrives(punchin, session, tmp_path):
    soundfile.write(tmp_path / "like.wav", np.random.default_rng(1).uniform(-0.1, 0.1, (44_100 * 2, 1)), 44_100)
    (tmp_path / "style.safetensors").write_bytes(b"weights, for all the daemon knows")
    made = repaint(
        punchin, session, "--lyrics", "la la", "--language", "fr", "--key", "C minor", "--signature", "7/8",
        "--reference", tmp_path / "like.wav", "--lora", f"{tmp_path}/style.safetensors:0.5", "--steps", "12",
        "--shift", "2.5", "--guidance", "4", "--strength", "0.25", "--raw", "cover_mode=latent",
    )  # fmt: skip
    order = punchin.json("show", made["job"])["order"]
    wanted = {
        "task": "repaint", "prompt": "warm piano", "lyrics": "la la", "language": "fr", "key": "C minor", "steps": 12,
        "shift": 2.5, "guidance": 4.0, "strength": 0.25, "raw": {"cover_mode": "latent"}, "bpm": 97.35,
    }  # fmt: skip
    assert {key: order[key] for key in wanted} == wanted
    assert order["signature"] is None, "the model knows no seven, and a note says so"
    (reference,) = order["references"]
    assert (reference["frames"], reference["rate_hz"]) == (96_000, 48_000)
    (lora,) = order["loras"]
    assert (lora["name"], lora["strength"], lora["size_bytes"]) == ("style.safetensors", 0.5, 33)


@pytest.mark.parametrize(("option", "said"), [("--reference", "reference length is 0.5 s"), ("--lora", "cannot read")])
def test_files_that_cannot_be_used_are_named(punchin, session, tmp_path, option, said):
    soundfile.write(tmp_path / "short.wav", np.zeros(22_050) + 0.1, 44_100)
    file = tmp_path / ("short.wav" if option == "--reference" else "none.safetensors")
    done = punchin.run(
        "repaint", session, "--track", "Keys", "--bars", "5-6", "--prompt", "x", option, file, "--seed", "1"
    )
    assert done.returncode == 4
    assert said in done.stderr


def test_serve_runs_until_it_is_stopped(tmp_path):
    here = Home(tmp_path / "home")
    serving = here.start("serve")
    try:
        assert serving.process.stdout.readline() == "ready\n"
        assert here.json("status")["pid"] == serving.process.pid, "the command has become the daemon"
        again = here.run("serve")
        assert again.returncode == 3
        assert f"pid {serving.process.pid}" in again.stderr
    finally:
        here.stop()
    assert serving.process.wait(30) == 0


def test_json_names_files_in_full(punchin, session):
    done = punchin.run(
        "repaint", "demo.rpp", "--track", "Keys", "--bars", "5-6", "--prompt", "x", "--seed", "5",
        "--max-attempts", "1", "--json", cwd=session.parent,
    )  # fmt: skip
    made = json.loads(done.stdout)
    assert made["output"] == str(session.parent / "demo-punchin.rpp")
    assert Path(made["takes"][0]["file"]).is_absolute()


def test_a_file_that_is_replaced_is_told_first(punchin, session, tmp_path):
    out = session.with_name("mine.rpp")
    out.write_text("something of mine")
    done = punchin.run("repaint", session, "--track", "Keys", "--bars", "5-6", "--prompt", "x", "-o", out)
    assert done.returncode == 0, done.stderr
    told = f"note: {out} is there already; it is replaced when all is made"
    assert told in done.stderr
    assert done.stderr.index(told) < done.stderr.index("job ")


def test_a_take_lands_though_nobody_hears_what_is_said(punchin, session):
    """As in `punchin ... 2> >(head -1)`: what is said finds no reader, long before the take is made."""
    reader, deaf = os.pipe()
    os.close(reader)
    words = ["repaint", session, "--track", "Keys", "--bars", "5-6", "--prompt", "x", "--max-attempts", "1", "--json"]
    command = [sys.executable, "-m", "punchin.clients.cli", *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=deaf, env=punchin.env, timeout=120)
    os.close(deaf)
    assert done.returncode == 0
    assert Path(json.loads(done.stdout)["takes"][0]["file"]).is_file()
