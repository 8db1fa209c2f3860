"""`punchin demo` as a newcomer runs it: the model in the box, on a fresh machine, twice."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from punchinhere import Home

pytestmark = pytest.mark.slow

START, END = 473_344, 946_687  # bars 5 to 8 at 97.35 bpm and 48 kHz


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    here = Home(tmp_path_factory.mktemp("fresh"))
    yield here
    here.stop()


@pytest.fixture(scope="module")
def first(punchin, tmp_path_factory):
    return punchin.json("demo", "--out", tmp_path_factory.mktemp("out") / "demo")


def read(path):
    return soundfile.read(path, dtype="float64", always_2d=True)[0]


def test_a_take_lands_and_the_rest_is_untouched(first):
    assert first["model"] == "punchin-tiny"
    (take,) = first["takes"]
    assert "demo model (tiny)" in take["name"]
    before, after = read(Path(first["input"]).parent / "media" / "keys.flac"), read(take["file"])
    fade = round(take["report"]["fade_ms"] * 48)
    assert len(after) == len(before)
    assert np.array_equal(after[: START - fade], before[: START - fade])
    assert np.array_equal(after[END:], before[END:])
    assert np.abs(after[START:END] - before[START:END]).max() > 0.01, "something was made"
    assert np.abs(after[START:END]).max() > 0.01, "and it sounds"


def test_the_same_seed_makes_the_same_take(punchin, first):
    second = punchin.json("demo", "--out", Path(first["input"]).parent)
    assert Path(second["output"]).name == "demo-punchin-2.rpp"
    assert np.array_equal(read(second["takes"][0]["file"]), read(first["takes"][0]["file"]))
    third = punchin.json("demo", "--out", Path(first["input"]).parent, "--seed", "8")
    assert not np.array_equal(read(third["takes"][0]["file"]), read(first["takes"][0]["file"]))


def test_it_says_what_the_model_is(punchin, first, tmp_path):
    done = punchin.run("demo", "--out", tmp_path / "demo")
    assert "made by the demo model (tiny)" in done.stderr
    assert "punchin models pull turbo   (6.3 GB)" in done.stderr
    trained = punchin.json("show", first["job"])["provenance"]["trained"]
    assert ("untrained" in done.stderr) is not trained
    for word in ("session", "with the take", "picture", "mix", "next"):
        assert f"\n{word} " in done.stderr
    assert Path(done.stdout.strip()).is_file()
