"""One region of a real session comes back as a take, through real processes; judged from the files alone.

The judge uses soundfile, numpy and rpp 0.5, and nothing of ours.
"""

import difflib
import json
import shutil
from pathlib import Path

import mido
import numpy as np
import pytest
import rpp
import soundfile
from punchinhere import Home

from punchin.protocol.version import PROTOCOL

BPM = 97.35
BAR_S = 4 * 60 / BPM
START, END = round(4 * BAR_S * 48_000), round(8 * BAR_S * 48_000)  # bars 5 to 8
KEYS = {
    "length_error_samples", "outside_max_abs_diff", "fade_ms", "seam_db", "onset_p95_ms", "tempo_ratio", "lufs_delta",
    "true_peak_dbfs", "resampled", "warped", "window_s", "ok",
}  # fmt: skip


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    here = Home(tmp_path_factory.mktemp("identity"))
    yield here
    here.stop()


@pytest.fixture(scope="module")
def demo(punchin, tmp_path_factory):
    """The demo's result with the identity model."""
    return punchin.json("demo", "--model", "identity", "--out", tmp_path_factory.mktemp("demo"))


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)[0]


def judge(before, after, start, end, fade):
    """What the report claims, computed again: (length error, largest difference outside)."""
    outside = np.ones(len(before), bool)
    outside[start - fade : end] = False
    same = min(len(before), len(after))
    difference = np.abs(after[:same] - before[:same])[outside[:same]]
    return len(after) - len(before), float(difference.max(initial=0.0))


def check(before, after, report, start=START, end=END, rate_hz=48_000):
    fade = round(report["fade_ms"] * rate_hz / 1000)
    assert 0.02 * rate_hz <= fade <= 0.055 * rate_hz
    assert judge(before, after, start, end, fade) == (0, 0.0)
    assert (report["length_error_samples"], report["outside_max_abs_diff"]) == (0, 0.0)


def test_the_demo_prints_the_agreed_object(demo):
    assert set(demo) >= {"job", "output", "model", "takes", "input"}
    (take,) = demo["takes"]
    assert set(take) >= {"file", "seed", "attempts", "report"}
    assert set(take["report"]) >= KEYS
    assert take["report"]["window_s"] >= 30
    assert take["report"]["ok"] is True
    for name in ("output", "input", "picture", "mix"):
        assert Path(demo[name]).is_file()


def test_identity_nulls_over_the_whole_file(demo):
    before = read(Path(demo["input"]).parent / "media" / "keys.flac")
    after = read(demo["takes"][0]["file"])
    check(before, after, demo["takes"][0]["report"])
    assert np.abs(after - before).max() == 0.0


@pytest.mark.parametrize("frame", [0, START - 2_641, END, -1])
def test_the_judge_finds_one_changed_sample_outside(demo, frame):
    before = read(Path(demo["input"]).parent / "media" / "keys.flac")
    after = read(demo["takes"][0]["file"])
    after[frame, 0] += 2**-23
    with pytest.raises(AssertionError):
        check(before, after, demo["takes"][0]["report"])


def test_a_shift_of_one_sample_in_the_worker_is_found(tmp_path):
    punchin = Home(tmp_path / "home", worker="shift")
    try:
        made = punchin.json("demo", "--out", tmp_path / "demo")
    finally:
        punchin.stop()
    before = read(Path(made["input"]).parent / "media" / "keys.flac")
    after = read(made["takes"][0]["file"])
    check(before, after, made["takes"][0]["report"])
    assert np.abs(after - before).max() > 0.001, "the null test would not have seen a late take"


def test_the_document_gains_a_take_and_keeps_its_lines(demo):
    before = Path(demo["input"]).read_bytes().splitlines()
    after = Path(demo["output"]).read_bytes().splitlines()
    removed, added = changes(before, after)
    assert removed == []
    assert b"TAKE SEL" in b"\n".join(added)
    project = rpp.loads(Path(demo["output"]).read_text())
    keys = next(t for t in project.findall("TRACK") if t.find("NAME")[1] == "Keys")
    (item,) = keys.findall("ITEM")
    files = [source.find("FILE")[1] for source in item.findall(".//SOURCE")]
    assert len(files) == 2
    assert (Path(demo["output"]).parent / files[1]).resolve() == Path(demo["takes"][0]["file"]).resolve()


def changes(before, after):
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    removed, added = [], []
    for what, a, b, c, d in matcher.get_opcodes():
        if what != "equal":
            removed += before[a:b]
            added += after[c:d]
    return removed, added


def test_the_mix_is_the_sum_of_the_tracks(demo):
    folder = Path(demo["input"]).parent / "media"
    tracks = [read(folder / f"{name}.flac") for name in ("drums", "bass")] + [read(demo["takes"][0]["file"])]
    wanted = sum(np.broadcast_to(track, (len(track), 2)) for track in tracks)
    assert np.abs(read(demo["mix"]) - wanted).max() <= 2**-22, "24 bit, and a rounded sum"


def test_a_second_run_takes_new_names(punchin, demo):
    again = punchin.json("demo", "--model", "identity", "--out", Path(demo["input"]).parent)
    assert Path(again["output"]).name == "demo-punchin-2.rpp"
    assert again["takes"][0]["file"] != demo["takes"][0]["file"]
    assert Path(demo["takes"][0]["file"]).is_file()


def tone(rate_hz, channels, seconds=20.0):
    """Content up to 16 kHz (or 0.36 of the rate), with some life in it, at -12 dBFS or so."""
    at_s = np.arange(round(seconds * rate_hz)) / rate_hz
    top_hz = min(16_000, 0.36 * rate_hz)
    pitches = [110.0, 441.7, 1_203.3, 0.6 * top_hz, top_hz]
    signal = sum(np.sin(2 * np.pi * hz * at_s + i) * (0.6 + 0.4 * np.cos(i + at_s)) for i, hz in enumerate(pitches))
    pan = np.array([1.0, 0.7])[:channels]
    return 0.05 * signal[:, None] * pan


@pytest.mark.parametrize(
    ("rate_hz", "channels", "subtype", "suffix"),
    [
        (48_000, 2, "PCM_24", ".wav"),
        (44_100, 1, "PCM_16", ".wav"),
        (96_000, 2, "FLOAT", ".wav"),
        (44_100, 2, "PCM_16", ".flac"),
    ],
)  # fmt: skip
def test_an_audio_file_comes_back_whole(punchin, tmp_path, rate_hz, channels, subtype, suffix):
    path, out = tmp_path / f"loop{suffix}", tmp_path / f"out{suffix}"
    soundfile.write(path, tone(rate_hz, channels), rate_hz, subtype=subtype)
    before_bytes = path.read_bytes()
    made = punchin.json(
        "repaint", path, "--bpm", "120", "--bars", "3-4", "--prompt", "x", "--seed", "3", "--model", "identity",
        "-o", out,
    )  # fmt: skip
    assert Path(made["output"]) == out
    assert path.read_bytes() == before_bytes
    info, was = soundfile.info(out), soundfile.info(path)
    assert (info.samplerate, info.channels, info.frames, info.subtype, info.format) == (
        was.samplerate, was.channels, was.frames, was.subtype, was.format,
    )  # fmt: skip
    report = made["takes"][0]["report"]
    before, after, start, end = read(path), read(out), 4 * rate_hz, 8 * rate_hz
    check(before, after, report, start, end, rate_hz)
    inside = np.abs(after - before)[start:end].max()
    assert report["resampled"] is (rate_hz != 48_000)
    assert inside == 0.0 if rate_hz == 48_000 else inside < 10 ** (-90 / 20) + 2**-16 * (subtype == "PCM_16")


def test_a_midi_file_gives_the_tempo(punchin, tmp_path):
    path, song = tmp_path / "loop.wav", tmp_path / "loop.mid"
    soundfile.write(path, tone(48_000, 1), 48_000, subtype="FLOAT")
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(100), time=0)])
    mido.MidiFile(tracks=[track]).save(song)
    made = punchin.json(
        "repaint", path, "--tempo-map", song, "--bars", "2-3", "--prompt", "x", "--seed", "3", "--model", "identity"
    )  # fmt: skip
    assert Path(made["output"]) == tmp_path / "loop-punchin.wav"
    check(read(path), read(made["output"]), made["takes"][0]["report"], round(2.4 * 48_000), round(7.2 * 48_000))


def test_cover_and_variations(punchin, demo, tmp_path):
    session = tmp_path / "session"
    shutil.copytree(Path(demo["input"]).parent, session)
    before = (session / "demo.rpp").read_bytes()
    made = punchin.json(
        "cover", session / "demo.rpp", "--track", "bass", "--bars", "2-3", "--prompt", "x", "--seed", "4294967295",
        "--variations", "3", "--context", "2", "--model", "identity", "-o", session / "new.rpp",
    )  # fmt: skip
    assert [take["seed"] for take in made["takes"]] == [4294967295, 0, 1]
    assert len({take["file"] for take in made["takes"]}) == 3
    assert (session / "demo.rpp").read_bytes() == before
    keys = read(session / "media" / "bass.flac")
    for take in made["takes"]:
        check(keys, read(take["file"]), take["report"], round(BAR_S * 48_000), round(3 * BAR_S * 48_000))
        assert take["report"]["window_s"] == pytest.approx(5 * BAR_S, abs=0.2), "one bar before, two after"


def test_jobs_are_listed_shown_and_landed_once(punchin, demo):
    jobs = punchin.json("jobs")
    assert demo["job"] in [job["job"] for job in jobs]
    shown = punchin.json("show", demo["job"])
    assert (shown["state"], shown["landed"]) == ("done", demo["output"])
    again = punchin.run("land", demo["job"])
    assert again.returncode == 4
    assert "landed already" in again.stderr


def test_status_and_ps(punchin, demo):
    status = punchin.json("status")
    assert status["pid"] > 0
    assert status["version"]
    assert status["protocol"] == PROTOCOL
    assert isinstance(punchin.json("ps"), list)


def test_progress_is_a_line_a_phase_without_a_terminal(punchin, tmp_path):
    path = tmp_path / "loop.wav"
    soundfile.write(path, tone(48_000, 1), 48_000)
    done = punchin.run(
        "repaint", path, "--bpm", "120", "--bars", "3-4", "--prompt", "x", "--seed", "3", "--model", "identity"
    )
    assert done.returncode == 0
    assert done.stdout == f"{tmp_path / 'loop-punchin.wav'}\n"
    assert "\x1b" not in done.stderr
    assert "outside max difference 0" in done.stderr


def test_json_stands_alone_on_stdout(punchin, tmp_path):
    done = punchin.run("version", "--json")
    assert json.loads(done.stdout)
    assert done.stderr == ""
