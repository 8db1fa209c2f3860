"""Models of one's own: taken in whole or not at all, told by name, with what the known model they are like has."""

import json
import resource
import shutil
import signal
import subprocess
import sys

import checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file

from punchin.engine import aside, hub, own, released, tiny
from punchin.engine.spec import CONFIG_2B, CONFIG_XL, Spec
from punchin.protocol import home, installed
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.models import BY_NAME, MODELS


class Quiet:
    def say(self, text):
        pass

    def bytes(self, done, total):
        pass


@pytest.fixture
def models():
    folder = home.models()
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def mine(tmp_path):
    """A DiT's folder alone, as a full training of punchin-tiny leaves it."""
    return shutil.copytree(tiny.ready(), tmp_path / "out" / "epoch-4-punchin")


@pytest.fixture
def small(tmp_path, models):
    """A released model as installed, at toy size; gives one like it that lies elsewhere."""
    checkpoints.write(models / "Ace-Step1.5")
    return checkpoints.write(tmp_path / "elsewhere", "epoch-0-punchin", seed=3, shards=3)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def take_in(name, folder, models):
    return own.take_in(name, folder, models, Quiet())


def test_a_tiny_one_comes_with_its_vae_and_text_encoder(mine, models):
    where = take_in("my-rhodes", mine, models)
    shared = {name for name in files(tiny.ready().parent) if name.startswith(("vae/", "Qwen3-Embedding-0.6B/"))}
    assert len(shared) == 5
    assert files(where) == files(mine) | shared
    assert files(models) == {f"own/my-rhodes/{name}" for name in files(where)} | {".pulling/lock"}
    assert (where / "model.safetensors").read_bytes() == (mine / "model.safetensors").read_bytes()
    model = installed.named("my-rhodes")
    assert (model.like, installed.folder(model), installed.is_here(model)) == ("punchin-tiny", where, True)
    table = BY_NAME["punchin-tiny"]
    assert (model.steps, model.shift, model.guidance, model.stems) == (table.steps, table.shift, table.guidance, True)
    assert model.size_bytes == sum(path.stat().st_size for path in where.rglob("*") if path.is_file())
    folders = released.folders(where)
    assert (folders.vae, folders.text) == (where / "vae", where / "Qwen3-Embedding-0.6B")


def test_a_released_one_shares_the_installed_parts_for_as_long_as_it_is_here(small, models):
    main = models / "Ace-Step1.5"
    where = take_in("mine", small, models)
    assert files(where) == files(small), "shards, index, config and silence; no VAE"
    assert installed.named("mine").like == "turbo"
    assert released.folders(where).vae == main / "vae"
    hub.remove(BY_NAME["turbo"], models)
    assert (main / "vae" / "config.json").is_file(), "it is still needed"
    assert released.load(where).variant.like == "turbo"
    hub.remove(installed.named("mine"), models)
    assert not list(models.rglob("*.safetensors")), "the shared parts go with the last model"
    with pytest.raises(Refused, match=r"like turbo, and needs its vae and Qwen3-Embedding-0\.6B") as error:
        take_in("mine", small, models)
    assert error.value.hint == "punchin models pull turbo"
    assert installed.own() == {}


@pytest.mark.parametrize(
    "model", [model for model in MODELS if model.family in ("2b", "xl", "tiny")], ids=lambda m: m.name
)
def test_what_a_model_is_like_is_in_its_config(model):
    config = {"2b": CONFIG_2B, "xl": CONFIG_XL, "tiny": tiny.CONFIG}[model.family]
    config = {**config, "is_turbo": model.turbo}
    assert released.like(Spec.from_config({**config, "punchin_like": model.name})) == model
    if model.family != "tiny":
        told = released.like(Spec.from_config({**config, "model_version": model.name.removeprefix("xl-")}))
        assert told == model
    version = "base" if model.turbo else "turbo"  # of the one that it was trained from
    both = {**config, "punchin_like": model.name, "model_version": version}
    assert model.family == "tiny" or released.like(Spec.from_config(both)) == model, "its own name goes first"
    alone = released.like(Spec.from_config(config))
    assert (alone.family, alone.turbo) == (model.family, model.turbo)
    assert alone.name in {"turbo", "base", "xl-turbo", "xl-base", "punchin-tiny"}


def test_what_is_not_its_own_size_is_not_believed():
    assert released.like(Spec.from_config({**CONFIG_2B, "punchin_like": "xl-base"})).name == "turbo"


@pytest.mark.parametrize("name", ["", "My", "../up", ".hidden", "a/b", "a b", "x" * 101, "-rf", "é"])
def test_a_name_is_plain(mine, models, name):
    with pytest.raises(BadUsage, match="is no name for a model"):
        take_in(name, mine, models)


def test_a_name_is_taken_once(mine, models):
    where = take_in("mine", mine, models)
    with pytest.raises(Refused, match="there is a model mine already") as error:
        take_in("mine", mine, models)
    assert error.value.hint.startswith("punchin models rm mine")
    for name in ("vae", "acestep-v15-base", "turbo", "identity"):
        with pytest.raises(Refused, match=f"{name} is a name of the released layout"):
            take_in(name, mine, models)
    shutil.copytree(where, where.with_name("turbo"))
    assert list(installed.own()) == ["mine"], "by hand neither"
    (where / "config.json").write_text("{}")
    with pytest.raises(Refused, match="exists and is no model"):
        take_in("mine", mine, models)
    with pytest.raises(Refused, match="lies in the models folder"):
        take_in("other", where, models)
    assert (where / "model.safetensors").is_file()


def test_what_does_not_fit_is_named(mine, models):
    whole = load_file(mine / "model.safetensors")
    key = "decoder.layers.3.mlp.up_proj.weight"

    def refused(tensors):
        save_file(tensors, mine / "model.safetensors")
        with pytest.raises(Refused) as error:
            take_in("mine", mine, models)
        return str(error.value)

    assert f"it lacks {key}" in refused({name: each for name, each in whole.items() if name != key})
    assert "it has unknown decoder.layers.9.stray" in refused(whole | {"decoder.layers.9.stray": torch.zeros(2)})
    assert f"it has {key} as [512, 191], its config says [512, 192]" in refused(whole | {key: torch.zeros(512, 191)})
    save_file(whole, mine / "model.safetensors")
    config = json.loads((mine / "config.json").read_text())
    for text, told in (
        ("{", "is not JSON"),
        (json.dumps({**config, "text_hidden_dim": 1024}), "the text encoder is 128 wide, the model expects 1024"),
        (json.dumps({**config, "rope_theta": None}), "rope_theta is None"),
        (json.dumps({**config, "fsq_input_levels": "8"}), "fsq_input_levels is '8'"),
    ):
        (mine / "config.json").write_text(text)
        with pytest.raises(Refused, match=told):
            take_in("mine", mine, models)
    (mine / "config.json").write_text(json.dumps(config))
    (mine / "silence_latent.pt").unlink()
    with pytest.raises(Refused, match=r"holds no silence_latent\.pt"):
        take_in("mine", mine, models)
    assert (installed.own(), files(models)) == ({}, {".pulling/lock"})


def test_the_folder_above_names_the_folders_in_it(mine, models):
    shutil.copytree(mine, mine.with_name("epoch-9-punchin"))
    with pytest.raises(Refused, match="of folders several: epoch-4-punchin, epoch-9-punchin"):
        take_in("mine", mine.parent, models)


def test_the_disk_is_asked_before_anything_is_copied(mine, models, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 70_000_000))
    monkeypatch.setattr(shutil, "copyfile", lambda *_: pytest.fail("copied"))
    with pytest.raises(Refused, match=r"GB are needed in .*models, 0\.07 GB are free"):
        take_in("mine", mine, models)


def test_a_disk_that_is_full_after_all_leaves_nothing(mine, models):
    line = [sys.executable, "-m", "punchin.engine.hub", "pull", "mine", "--from", str(mine)]

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))

    failed = subprocess.run(line, capture_output=True, text=True, preexec_fn=full)
    assert failed.returncode == 1
    assert "error: File too large" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert files(models) == {".pulling/lock"}


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from punchin.engine import aside, hub, own
from punchin.protocol import home, installed
at, calls = sys.argv[1], {"copyfile": 0, "replace": 0, "rmtree": 0}

def counted(name, real):
    def call(*words, **more):
        calls[name] += 1
        if f"{name} {calls[name]}" == at:
            if name == "copyfile":
                Path(words[1]).write_bytes(Path(words[0]).read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words, **more)
    return call

shutil.copyfile = counted("copyfile", shutil.copyfile)
if len(sys.argv) > 2:
    os.replace = counted("replace", os.replace)
    own.take_in("mine", Path(sys.argv[2]), home.models(), hub.Talk(sys.stderr))
else:
    shutil.rmtree = counted("rmtree", shutil.rmtree)
    hub.remove(installed.named("mine"), home.models())
"""


@pytest.mark.parametrize("at", ["copyfile 1", "copyfile 2", "copyfile 7", "replace 1"])
def test_a_kill_in_the_middle_leaves_nothing_that_looks_like_a_model(mine, models, at):
    died = subprocess.run([sys.executable, "-c", KILLED, at, str(mine)], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert any(models.rglob("copied/model.safetensors")), "it died half-way"
    assert installed.own() == {}
    assert not (models / "own" / "mine").exists()
    where = take_in("mine", mine, models)
    assert {each.partition("/")[0] for each in files(models)} == {"own", ".pulling"}
    assert files(models / ".pulling") == {"lock"}
    assert released.load(where).variant.name == "mine"


def test_a_kill_while_it_is_removed_leaves_no_half(mine, models):
    take_in("mine", mine, models)
    died = subprocess.run([sys.executable, "-c", KILLED, "rmtree 1"], capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert installed.own() == {}
    take_in("mine", mine, models)
    assert files(models / ".pulling") == {"lock"}


def test_others_wait_their_turn(mine, models):
    take_in("mine", mine, models)
    with aside.alone(models):
        with pytest.raises(Refused, match="another pull is under way"):
            take_in("other", mine, models)
        with pytest.raises(Refused, match="another pull is under way"):
            hub.remove(installed.named("mine"), models)


def test_a_bare_file_of_a_released_model_gets_no_silence_of_ones_own(mine, models, tmp_path, monkeypatch):
    take_in("mine", mine, models)
    bare = tmp_path / "bare.safetensors"
    save_file({"decoder.x": torch.zeros(2, 3)}, bare)
    monkeypatch.setitem(hub.KNOWN, hub.key_hash({"decoder.x": (2, 3)}), "2b")
    with pytest.raises(Refused, match=r"comes without a silence_latent\.pt"):
        hub.adopt(BY_NAME["turbo"], bare, models, Quiet())
