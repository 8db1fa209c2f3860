"""A model of one's own is played by its name: a real daemon and engine, the weights in the box and changed ones."""

import shutil

import checkpoints
import numpy as np
import pytest
import soundfile
from punchinhere import Home
from safetensors.torch import load_file, save_file

from punchin.engine import tiny

pytestmark = pytest.mark.slow

PROMPT = "--prompt", "dusty rhodes", "--seed", "1"
REGION = "--bpm", "120", "--bars", "3-4", "--max-attempts", "1"


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    here = Home(tmp_path_factory.mktemp("own"))
    yield here
    here.stop()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs of a full training, as it leaves them: the first changed nothing, the second one layer."""
    out = tmp_path_factory.mktemp("out")
    first, second = (shutil.copytree(tiny.ready(), out / f"epoch-{number}-punchin") for number in range(2))
    weights = load_file(second / "model.safetensors")
    weights["decoder.layers.3.mlp.up_proj.weight"] *= 1.5
    save_file(weights, second / "model.safetensors", {"format": "pt"})
    return first, second


def taken_in(punchin, name, folder):
    done = punchin.run("models", "pull", name, "--from", folder)
    assert done.returncode == 0, done.stderr
    assert f"{name} is like punchin-tiny" in done.stderr
    return done.stdout.strip()


def removed(punchin, name):
    done = punchin.run("models", "rm", name)
    assert done.returncode == 0, done.stderr


def made(punchin, tmp_path, model, *words):
    """What a model makes of a prompt, and the answer's JSON."""
    told = punchin.json(
        "generate", "--model", model, *PROMPT, "--bpm", "120", "--bars", "2", "-o", tmp_path / "x.wav", *words
    )
    assert told["model"] == model
    return soundfile.read(tmp_path / "x.wav")[0], told


def test_it_plays_its_own_weights_by_its_own_name(punchin, trained, tmp_path):
    first, second = trained
    place = taken_in(punchin, "mine", first)
    box, _ = made(punchin, tmp_path, "punchin-tiny")
    same, told = made(punchin, tmp_path, "mine")
    assert np.array_equal(same, box), "the same weights and seed are the same music"
    provenance = punchin.json("show", told["job"])["provenance"]
    assert (provenance["model"], provenance["steps"], provenance["guidance"]) == ("mine", 8, 5.0)
    (worker,) = punchin.json("ps")
    assert worker["plan"].startswith("mine on cpu")
    doctor = punchin.run("doctor").stdout
    assert "models of your own: mine (like punchin-tiny)" in doctor
    assert worker["plan"] in doctor
    listed = {each["name"]: each for each in punchin.json("models", "list")}
    assert (listed["mine"]["like"], listed["mine"]["folder"], listed["turbo"]["like"]) == ("punchin-tiny", place, None)
    rows = [line.split() for line in punchin.run("models").stdout.splitlines()]
    assert ["mine", "24", "MB", "-", "yes", "8", "3", "5", "yes", "-", "punchin-tiny"] in rows

    removed(punchin, "mine")
    refused = punchin.run(
        "generate", "--model", "mine", *PROMPT, "--bpm", "120", "--bars", "2", "-o", tmp_path / "no.wav"
    )
    assert refused.returncode == 4
    assert 'there is no model "mine"; there are turbo' in refused.stderr
    taken_in(punchin, "mine", second)
    other, _ = made(punchin, tmp_path, "mine")
    assert np.abs(other - box).max() > 1e-3, "other weights under the old name are other music, from a warm engine too"
    removed(punchin, "mine")


@pytest.fixture(scope="module")
def rhodes(punchin, trained):
    """The name of one that was taken in, with changed weights."""
    taken_in(punchin, "my-rhodes", trained[1])
    return "my-rhodes"


@pytest.mark.parametrize("verb", ["repaint", "cover", "layer", "extract"])
def test_each_verb_takes_it(punchin, rhodes, loop, tmp_path, verb):
    stem = ("--instrument", "drums") if verb in ("layer", "extract") else ()
    out = tmp_path / "out.wav"
    told = punchin.json(verb, loop, *REGION, *PROMPT, *stem, "--model", rhodes, "-o", out)
    assert told["model"] == rhodes
    before, after = (soundfile.read(path, always_2d=True)[0] for path in (loop, out))
    assert after.shape == before.shape
    if not stem:
        assert np.array_equal(after[8 * 48_000 :], before[8 * 48_000 :])
        assert np.abs(after[4 * 48_000 : 8 * 48_000] - before[4 * 48_000 : 8 * 48_000]).max() > 1e-3


def test_one_like_a_released_model_plays_with_its_parts_and_defaults(punchin, tmp_path):
    models = punchin.folder / "data" / "models"
    installed = checkpoints.write(models / "Ace-Step1.5")
    out = shutil.copytree(installed, tmp_path / "epoch-0-punchin")
    done = punchin.run("models", "pull", "ours", "--from", out)
    assert "ours is like turbo" in done.stderr, done.stderr
    shared, _ = made(punchin, tmp_path, "turbo")
    ours, told = made(punchin, tmp_path, "ours")
    assert np.array_equal(ours, shared)
    provenance = punchin.json("show", told["job"])["provenance"]
    assert [provenance[name] for name in ("model", "steps", "shift", "guidance")] == ["ours", 8, 3.0, 1.0]
    again = punchin.run("redo", tmp_path / "x.wav")
    assert again.returncode == 0, again.stderr
    assert np.array_equal(soundfile.read(again.stdout.strip())[0], ours)
    removed(punchin, "turbo")
    removed(punchin, "ours")
    refused = punchin.run("redo", tmp_path / "x.wav")
    assert (refused.returncode, 'there is no model "ours"' in refused.stderr) == (4, True), refused.stderr


def test_errors_name_it(punchin, rhodes, trained, tmp_path):
    refused = punchin.run(
        "generate", "--model", "my-rode", *PROMPT, "--bpm", "120", "--bars", "2", "-o", tmp_path / "no.wav"
    )
    assert refused.returncode == 4
    assert "identity, my-rhodes" in refused.stderr
    twice = punchin.run("models", "pull", rhodes, "--from", trained[1])
    assert twice.returncode == 4
    assert "punchin models rm my-rhodes" in twice.stderr
    wrong = punchin.run("models", "pull", "My Rhodes", "--from", trained[1])
    assert wrong.returncode == 2
    assert "Traceback" not in refused.stderr + twice.stderr + wrong.stderr
