"""Models fetched from a server that speaks the hubs' APIs, cuts connections and serves wrong bytes; and from disk."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
from fakehub import MAIN, Handler, Repositories, weights
from safetensors.numpy import save_file

from punchin.clients.cli import models as models_verb
from punchin.engine import aside, hub, sources
from punchin.engine.sources import Folder
from punchin.protocol import installed
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.link import Ready
from punchin.protocol.models import BY_NAME, MODELS

LARGE = 24_000_000  # Hugging Face's client keeps whole pieces of 10 MiB


@pytest.fixture
def server():
    have = Repositories()
    for folder in ("acestep-v15-turbo", "vae", "Qwen3-Embedding-0.6B", "acestep-5Hz-lm-1.7B"):
        have.add(MAIN, folder)
    have.add("ACE-Step/acestep-v15-base", "")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.have = have
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def command(server, models, *words, timeout=120):
    endpoint = f"http://127.0.0.1:{server.server_port}"
    env = {
        **os.environ, "PUNCHIN_MODELS": str(models), "HF_ENDPOINT": endpoint, "MODELSCOPE_ENDPOINT": endpoint,
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(models.parent / "hf"),
        "MODELSCOPE_CACHE": str(models.parent / "ms"), "INTRA_CLOUD_ACCELERATION": "false", "HF_HUB_DISABLE_XET": "1",
        "no_proxy": "127.0.0.1", "MODELSCOPE_DOWNLOAD_RETRY_MAX_DELAY_SECONDS": "1",  # as many tries, sooner
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "punchin.engine.hub", *words], env=env, capture_output=True, text=True, timeout=timeout
    )


def content(server, repository, path):
    return server.have.files[repository, path]


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_turbo_comes_with_the_shared_parts_and_nothing_else(server, models, source):
    done = command(server, models, "pull", "turbo", "--from", source)
    assert done.returncode == 0, done.stderr
    place = models / "Ace-Step1.5" / "acestep-v15-turbo"
    assert done.stdout.strip() == str(place)
    here = {str(path.relative_to(models)) for path in models.rglob("*") if path.is_file()}
    main = "Ace-Step1.5"
    assert here == {
        ".pulling/lock", f"{main}/vae/config.json", f"{main}/vae/diffusion_pytorch_model.safetensors",
        f"{main}/vae/silence_latent.pt", f"{main}/acestep-v15-turbo/config.json",
        f"{main}/acestep-v15-turbo/model.safetensors", f"{main}/acestep-v15-turbo/silence_latent.pt",
        f"{main}/Qwen3-Embedding-0.6B/config.json", f"{main}/Qwen3-Embedding-0.6B/model.safetensors",
        f"{main}/Qwen3-Embedding-0.6B/tokenizer.json", f"{main}/Qwen3-Embedding-0.6B/silence_latent.pt",
    }  # fmt: skip
    assert (place / "model.safetensors").read_bytes() == content(server, MAIN, "acestep-v15-turbo/model.safetensors")
    assert "100%" in done.stderr
    assert installed.folder(BY_NAME["turbo"], models) == place

    server.have.files.clear()  # offline from here on
    again = command(server, models, "pull", "turbo", "--from", source)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "is here already" in again.stderr


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_cut_is_survived_without_fetching_anything_twice(server, models, source):
    path = "acestep-v15-turbo/model.safetensors"
    server.have.add(MAIN, "acestep-v15-turbo", LARGE)
    server.have.cut_after[path] = [22_000_000, 500_000]
    done = command(server, models, "pull", "turbo", "--from", source)
    assert done.returncode == 0, done.stderr
    got = (models / "Ace-Step1.5" / path).read_bytes()
    assert got == content(server, MAIN, path)
    assert server.have.sent[path] == sorted(server.have.sent[path])
    assert server.have.sent[path][-1] >= 20_000_000, "the rest was asked for, not the whole"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_a_pull_that_failed_goes_on_where_it_stopped(server, models, source):
    path = "acestep-v15-turbo/model.safetensors"
    server.have.add(MAIN, "acestep-v15-turbo", LARGE)
    server.have.cut_after[path] = [22_000_000] + [0] * 20
    failed = command(server, models, "pull", "turbo", "--from", source)
    assert failed.returncode == 1
    assert f"{path} from {source} was cut off" in failed.stderr
    assert failed.stderr.splitlines()[-2].isascii(), "ModelScope's client says it in Chinese"
    assert "goes on where it stopped" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert installed.folder(BY_NAME["turbo"], models) is None, "half a model is no model"
    server.have.cut_after.clear()
    server.have.sent.clear()
    done = command(server, models, "pull", "turbo", "--from", source)
    assert done.returncode == 0, done.stderr
    (first,) = server.have.sent[path]
    assert first >= 20 * 2**20, "the rest was asked for, not the whole"
    assert (models / "Ace-Step1.5" / path).read_bytes() == content(server, MAIN, path)


def test_a_page_in_place_of_a_file_is_not_kept_as_its_beginning(tmp_path, monkeypatch):
    """What a hotel's network answers: whole, and of another size. A cut raises something else, and keeps its part."""

    def http_get(url, file, **_):
        file.write(b"<html>log in</html>")
        raise OSError("Consistency check failed: file should be of size 100 but has size 29")

    client = SimpleNamespace(
        http_get=http_get, utils=SimpleNamespace(build_hf_headers=dict), hf_hub_url=lambda *path: "/".join(path)
    )
    monkeypatch.setattr(sources, "_client", lambda *_: client)
    (tmp_path / "a.bin.part").write_bytes(b"true bytes")
    with pytest.raises(PunchinError, match="Consistency"):
        sources.HuggingFace().fetch(MAIN, sources.Remote("a.bin", 100, None), tmp_path)
    assert (tmp_path / "a.bin.part").read_bytes() == b"true bytes"


def test_a_wrong_hash_is_refused_and_the_file_deleted(server, models):
    path = "vae/diffusion_pytorch_model.safetensors"
    server.have.wrong.add(path)
    failed = command(server, models, "pull", "turbo")
    assert failed.returncode == 1
    assert re.search(rf"{path} arrived with sha256 \w{{16}}, huggingface says \w{{16}}; it was deleted", failed.stderr)
    assert not list(models.rglob("diffusion_pytorch_model.safetensors"))
    server.have.wrong.clear()
    assert command(server, models, "pull", "turbo").returncode == 0


def test_base_brings_the_shared_parts_it_lacks(server, models):
    done = command(server, models, "pull", "base")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (models / "Ace-Step1.5").iterdir()} == {"vae", "Qwen3-Embedding-0.6B"}
    assert installed.folder(BY_NAME["base"], models) == models / "acestep-v15-base"
    assert not installed.is_here(BY_NAME["turbo"], models)
    gone = command(server, models, "rm", "base")
    assert gone.returncode == 0
    assert not list(models.rglob("*.safetensors")), "the shared parts go with the last model"
    assert command(server, models, "rm", "base").returncode == 4


def test_what_cannot_be_had_is_told_without_a_traceback(server, models):
    for words, code, text in (
        (["pull", "sft"], 1, "huggingface does not give ACE-Step/acestep-v15-sft"),
        (["pull", "punchin-tiny"], 4, "comes with the package"),
        (["pull", "turbo", "--from", "/nowhere"], 2, "not a folder, nor a hub"),
        (["pull", "no-such"], 2, 'there is no model "no-such"; there are turbo,'),
        (["pull", "no-such", "--from", "/nowhere"], 2, "/nowhere is no folder"),
        (["rm", "no-such"], 4, 'there is no model "no-such"; there are turbo,'),
    ):
        done = command(server, models, *words)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def folder(server, tmp_path):
    root = tmp_path / "elsewhere"
    for (repository, path), content in server.have.files.items():
        place = root / repository.rpartition("/")[2] / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return root


class Quiet:
    def say(self, text):
        pass

    def bytes(self, done, total):
        pass


def test_a_local_folder_is_a_source_too(folder, models):
    where = hub.pull(BY_NAME["base"], Folder(folder), models, Quiet())
    assert (where / "model.safetensors").read_bytes() == (folder / "acestep-v15-base/model.safetensors").read_bytes()
    shutil.rmtree(folder / "Ace-Step1.5" / "vae")
    with pytest.raises(PunchinError, match=r"holds no Ace-Step1\.5/vae"):
        hub.pull(BY_NAME["turbo"], Folder(folder), models / "other", Quiet())


def test_the_disk_is_asked_before_anything_is_fetched(folder, models, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 70_000_000))
    source = Folder(folder)
    monkeypatch.setattr(source, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(Refused, match=r"0\.08 GB are needed in .*, 0\.07 GB are free"):
        hub.pull(BY_NAME["turbo"], source, models, Quiet())


def test_a_disk_that_fills_is_named_and_not_what_was_copied(folder, models, monkeypatch, capsys):
    def full(_, target):
        raise OSError(errno.ENOSPC, "No space left on device", "/the/source", None, str(target))

    monkeypatch.setattr(shutil, "copyfile", full)  # its own error names both, the source first
    monkeypatch.setenv("PUNCHIN_MODELS", str(models))
    monkeypatch.setattr(sys, "argv", ["hub", "pull", "base", "--from", str(folder)])
    assert hub.main() == 1
    said, hint = capsys.readouterr().err.splitlines()[-2:]
    assert said.startswith(f"error: No space left on device: {models}/.pulling/")
    assert hint == "  free some, or set PUNCHIN_MODELS to a folder on another disk; the same command goes on"


def test_what_an_earlier_try_left_is_counted_once(folder, models, monkeypatch):
    """Model, VAE and text encoder come from one repository: 6 of their 9 MB are here, 3 and the spare are needed."""
    for part in ("acestep-v15-turbo/model", "vae/diffusion_pytorch_model"):
        path = f"{part}.safetensors"
        (models / ".pulling" / MAIN / path).parent.mkdir(parents=True)
        shutil.copyfile(folder / "Ace-Step1.5" / path, models / ".pulling" / MAIN / path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 68_000_000))
    source = Folder(folder)
    monkeypatch.setattr(source, "fetch", lambda *_: pytest.fail("fetched"))
    with pytest.raises(Refused, match=r"0\.07 GB are needed in .*, 0\.07 GB are free"):
        hub.pull(BY_NAME["turbo"], source, models, Quiet())


def test_what_was_begun_of_another_model_or_by_another_client_is_no_room(folder, models, monkeypatch):
    begun = models / ".pulling" / MAIN / "acestep-v15-turbo"
    begun.mkdir(parents=True)
    for name in ("model.safetensors", "model.safetensors.part", "model.safetensors.incomplete"):
        (begun / name).write_bytes(bytes(9_000_000))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 68_000_000))
    source = Folder(folder)
    monkeypatch.setattr(source, "fetch", lambda *_: pytest.fail("fetched"))
    for name in ("base", "turbo"):
        with pytest.raises(Refused, match=r"0\.08 GB are needed in .*, 0\.07 GB are free"):
            hub.pull(BY_NAME[name], source, models, Quiet())


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


BROKEN = {
    "weights cut short": ("acestep-v15-turbo/model.safetensors", cut),
    "a pointer for weights": ("acestep-v15-turbo/model.safetensors", lambda path: path.write_text("version https://")),
    "no weights": ("acestep-v15-turbo/model.safetensors", os.unlink),
    "no silence": ("acestep-v15-turbo/silence_latent.pt", os.unlink),
    "no VAE weights": ("vae/diffusion_pytorch_model.safetensors", os.unlink),
    "no tokenizer": ("Qwen3-Embedding-0.6B/tokenizer.json", os.unlink),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_fetched_again_and_nothing_else(folder, models, monkeypatch, name):
    """An error says to fetch the model again: that must not find it here already."""
    monkeypatch.setenv("PUNCHIN_MODELS", str(models))
    hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
    path, spoil = BROKEN[name]
    place, original = models / "Ace-Step1.5" / path, (models / "Ace-Step1.5" / path).read_bytes()
    spoil(place)
    fetched = []
    fetch = Folder.fetch
    monkeypatch.setattr(Folder, "fetch", lambda *given: fetched.append(given[2].path) or fetch(*given))
    assert hub.run(["pull", "turbo", "--from", str(folder)], io.StringIO(), Quiet()) == 0
    assert place.read_bytes() == original
    assert {each.partition("/")[0] for each in fetched} == {path.partition("/")[0]}
    fetched.clear()
    hub.run(["pull", "turbo", "--from", str(folder)], io.StringIO(), Quiet())
    assert fetched == []


def test_what_else_is_kept_in_a_broken_models_folder_stays(folder, models):
    hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
    place = models / "Ace-Step1.5" / "acestep-v15-turbo"
    (place / "takes").mkdir()
    kept = {"notes.txt": b"mine", "my-lora.safetensors": weights(9), "takes/one.wav": b"RIFF"}
    for name, data in kept.items():
        (place / name).write_bytes(data)
    before = {path.name for path in place.iterdir()}
    cut(place / "model.safetensors")
    (place / "model-00001-of-00002.safetensors").write_bytes(b"of another form of it")
    hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
    assert {name: (place / name).read_bytes() for name in kept} == kept
    assert {path.name for path in place.iterdir()} == before
    assert hub.pieces(BY_NAME["turbo"], models) == []


def test_a_copy_of_the_main_repository_is_found_and_mended_where_it_stands(folder, models, monkeypatch):
    """The models folder itself may be it: then model and shared parts stand directly in it."""
    monkeypatch.setenv("PUNCHIN_MODELS", str(models))
    shutil.copytree(folder / "Ace-Step1.5", models)
    assert hub.pieces(BY_NAME["turbo"], models) == []
    assert [piece.place for piece in hub.pieces(BY_NAME["base"], models)] == ["acestep-v15-base"]
    cut(models / "acestep-v15-turbo/model.safetensors")
    assert hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet()) == models / "acestep-v15-turbo"
    assert hub.pieces(BY_NAME["turbo"], models) == []
    assert not (models / "Ace-Step1.5").exists()


def test_a_model_with_a_missing_shard_is_fetched_again(models):
    place = models / "acestep-v15-xl-base"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "silence_latent.pt").write_bytes(b"s")
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": dict(zip("ab", names, strict=True))}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in names:
        (place / name).write_bytes(weights(100))

    def missing():
        return place.name in [piece.place for piece in hub.pieces(BY_NAME["xl-base"], models)]

    assert not missing()
    (place / names[1]).unlink()
    assert missing()


def test_what_a_source_holds_in_part_takes_no_place(folder, models):
    """A folder tells no hashes: what came of it is read before it is called a model."""
    place, last = folder / "acestep-v15-xl-base", "model-00002-of-00002.safetensors"
    shutil.copytree(folder / "acestep-v15-base", place)
    (place / "model.safetensors").rename(place / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": last}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, spoil, text in (
        ("xl-base", lambda: None, rf"holds no whole acestep-v15-xl-base: it lacks {last}"),
        ("base", lambda: cut(folder / "acestep-v15-base/model.safetensors"), r"base: model\.safetensors is no whole"),
        ("base", os.unlink, r"holds no acestep-v15-base: no silence_latent\.pt in ACE-Step/acestep-v15-base"),
    ):
        spoil(folder / "acestep-v15-base/silence_latent.pt") if spoil is os.unlink else spoil()
        with pytest.raises(PunchinError, match=text) as error:
            hub.pull(BY_NAME[name], Folder(folder), models, Quiet())
        assert "`--from modelscope`, or `--from FOLDER`" in error.value.hint
        assert not installed.is_here(BY_NAME[name], models)
    (place / last).write_bytes(weights(100))
    assert hub.pull(BY_NAME["xl-base"], Folder(folder), models, Quiet()).name == place.name


def test_a_link_to_a_models_folder_is_removed_and_the_folder_stays(folder, models, tmp_path):
    where, disk = hub.pull(BY_NAME["base"], Folder(folder), models, Quiet()), tmp_path / "another disk"
    where.rename(disk)
    where.symlink_to(disk)
    assert hub.remove(BY_NAME["base"], models) == where
    assert not where.exists()
    assert (disk / "model.safetensors").is_file()
    assert hub.pull(BY_NAME["base"], Folder(folder), models, Quiet()) == where
    assert not list((models / ".pulling").glob("old-*"))


def test_a_place_that_cannot_be_filled_is_refused_before_anything_is_fetched(folder, models, tmp_path):
    place = hub.pull(BY_NAME["base"], Folder(folder), models, Quiet())
    shutil.rmtree(place)
    place.symlink_to("/unplugged/base")
    with pytest.raises(Refused, match="is a link to /unplugged/base, which is not there") as refused:
        hub.pull(BY_NAME["base"], Folder(folder), models, Quiet())
    assert refused.value.hint.endswith(f"rm {place}")
    assert place.is_symlink()


def test_a_repository_on_another_disk_is_refused_before_anything_is_fetched(folder, models):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        models.mkdir()
        if os.stat(disk).st_dev == os.stat(models).st_dev:
            text = "/dev/shm is no disk of its own here"
            pytest.fail(text) if os.environ.get("PUNCHIN_REQUIRE_REAL") else pytest.skip(text)
        (models / "Ace-Step1.5").symlink_to(disk)
        with pytest.raises(Refused, match="is on another disk than"):
            hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
        assert not os.listdir(disk)


def test_what_lies_behind_a_linked_repository_is_not_ours_to_remove(folder, models, tmp_path):
    hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
    main = models / "Ace-Step1.5"
    elsewhere = tmp_path / "mine"
    main.rename(elsewhere)
    main.symlink_to(elsewhere)
    before = sorted(elsewhere.rglob("*"))
    with pytest.raises(Refused, match=f"behind the link {main}") as refused:
        hub.remove(BY_NAME["turbo"], models)
    assert refused.value.hint == f"remove the link: rm {main}"
    assert sorted(elsewhere.rglob("*")) == before


def test_what_another_source_began_is_not_left_in_the_model(folder, models):
    """A cut pull from one hub says to try the other one."""
    begun = models / ".pulling" / "ACE-Step" / "acestep-v15-base"
    begun.mkdir(parents=True)
    for theirs in ("part", "incomplete"):
        (begun / f"model.safetensors.{theirs}").write_bytes(bytes(1000))
    where = hub.pull(BY_NAME["base"], Folder(folder), models, Quiet())
    assert sorted(path.name for path in where.iterdir()) == ["config.json", "model.safetensors", "silence_latent.pt"]


def test_two_pulls_at_once_are_refused(folder, models):
    with aside.alone(models), pytest.raises(Refused, match="another pull is under way"):
        hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())


def test_a_bare_file_is_known_by_its_keys(folder, models, tmp_path, monkeypatch):
    from punchin.engine.keys import KNOWN, key_hash

    bare = tmp_path / "somebody's turbo.safetensors"
    save_file({"decoder.x": np.zeros((2, 3), np.float32)}, bare)
    with pytest.raises(Refused, match=r"is no file of ACE-Step 1\.5, turbo is 2b"):
        hub.adopt(BY_NAME["turbo"], bare, models, Quiet())
    monkeypatch.setitem(KNOWN, key_hash({"decoder.x": (2, 3)}), "2b")
    with pytest.raises(Refused, match="is a 2b file, xl-base is xl"):
        hub.adopt(BY_NAME["xl-base"], bare, models, Quiet())
    with pytest.raises(Refused, match=r"comes without a silence_latent\.pt"):
        hub.adopt(BY_NAME["sft"], bare, models, Quiet())
    hub.pull(BY_NAME["turbo"], Folder(folder), models, Quiet())
    where = hub.adopt(BY_NAME["sft"], bare, models, Quiet())
    assert installed.folder(BY_NAME["sft"], models) == where
    assert json.loads((where / "config.json").read_text())["is_turbo"] is False
    bare.write_bytes(bare.read_bytes()[:-1])
    with pytest.raises(Refused, match="is no whole safetensors file"):
        hub.adopt(BY_NAME["base"], bare, models, Quiet())


def test_all_nine_models_have_a_repository_and_what_they_are_asked_with():
    released = [model for model in MODELS if model.repository]
    assert [model.name for model in released] == [
        "turbo", "turbo-shift1", "turbo-shift3", "turbo-continuous", "base", "sft", "xl-base", "xl-sft", "xl-turbo",
    ]  # fmt: skip
    for model in released:
        assert (model.steps, model.guidance) == ((8, 1.0) if model.turbo else (50, 7.0))
        assert model.shift == (3.0 if model.turbo and model.name != "turbo-shift1" else 1.0)
        assert model.size_bytes > 4e9
        places = [piece.place for piece in hub.pieces(model, hub.home.models())]
        assert places[1:] == ["Ace-Step1.5/vae", "Ace-Step1.5/Qwen3-Embedding-0.6B"]
        assert places[0].rpartition("/")[2] == model.folder


def test_the_memory_that_the_table_tells_is_the_plans():
    import torch

    from punchin.engine import footprint, memory
    from punchin.engine.spec import SPEC_2B, SPEC_XL, VAE_RELEASED

    for family, spec in (("2b", SPEC_2B), ("xl", SPEC_XL)):
        acts = footprint.activations(spec, VAE_RELEASED, torch.bfloat16, footprint.Work(latents=1500))
        plans = memory.ladder(memory.components(spec, VAE_RELEASED), acts, "cuda:0", "bfloat16")
        single = footprint.activations(spec, VAE_RELEASED, torch.float32, footprint.Work(latents=1500))
        on_cpu = memory.ladder(memory.components(spec, VAE_RELEASED), single, "cpu", "float32")
        for model in (model for model in MODELS if model.family == family):
            here = models_verb.needed(model, Ready(pid=1, device="cpu", weight_bytes=4))
            assert here == pytest.approx((on_cpu[-1].needs_bytes, on_cpu[0].needs_bytes), rel=0.05)
            assert model.memory_bytes == pytest.approx(plans[0].needs_bytes, rel=0.05)
            assert model.least_memory_bytes == pytest.approx(plans[-1].needs_bytes, rel=0.05)
