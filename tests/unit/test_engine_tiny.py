"""`punchin-tiny` in the cache: the same bytes each time, whole or not at all, within its size, loaded as any other."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from punchin.engine import tiny
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.released import TEXT, UNTRAINED, VAE
from punchin.protocol import home


def fingerprints(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("tiny"), *tiny.untrained(), trained=False)


def test_another_process_writes_the_same_bytes(folder, tmp_path):
    code = """
import pathlib, sys
from punchin.engine import tiny
tiny.write(pathlib.Path(sys.argv[1]), *tiny.untrained(), trained=False)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert fingerprints(tmp_path) == fingerprints(folder.parent)


def test_it_has_the_released_layout_and_fits_its_size(folder):
    sizes = {str(path.relative_to(folder.parent)): path.stat().st_size for path in folder.parent.rglob("*.*")}
    assert set(sizes) == {
        "punchin-tiny/config.json", "punchin-tiny/model.safetensors", "punchin-tiny/silence_latent.pt",
        f"{VAE}/config.json", f"{VAE}/diffusion_pytorch_model.safetensors",
        f"{TEXT}/config.json", f"{TEXT}/model.safetensors", f"{TEXT}/tokenizer.json", TEXT,
    }  # fmt: skip
    assert max(sizes.values()) <= 15_000_000
    assert sum(sizes.values()) <= 25_000_000
    assert json.loads((folder / "config.json").read_text())[UNTRAINED] is False
    assert torch.load(folder / "silence_latent.pt", weights_only=True).shape == (1, 64, 15_000)


def test_the_loader_takes_it_as_any_other(folder):
    pipeline = AceStepPipeline.from_pretrained(folder)
    assert pipeline.variant.name == "punchin-tiny"
    assert pipeline.loaded.trained is False
    vae = pipeline.loaded.vae
    with torch.no_grad():
        heard = vae.encode(torch.zeros(1, 2, 300 * 1920)).mean
    want = heard[:, :200] + tiny.clocks(200)
    torch.testing.assert_close(pipeline.loaded.silence[:, :200], want, rtol=0, atol=0.02)  # bfloat16 on disk


def test_the_clocks_of_the_silence_run_on_time():
    """Each pair of channels turns with its rate, from the first frame on; any tempo from 70 to 180 is between two."""
    pairs = tiny.clocks(1_000)[0].unflatten(1, (-1, 2)).numpy()
    turned = np.unwrap(np.arctan2(pairs[..., 1], pairs[..., 0]), axis=0) / (2 * np.pi)
    np.testing.assert_allclose(turned, np.arange(1_000)[:, None] / 25 * np.array(tiny.CLOCKS_HZ), atol=1e-3)
    np.testing.assert_allclose(np.hypot(pairs[..., 0], pairs[..., 1]), tiny.CLOCK_LEVEL, rtol=1e-4)
    assert tiny.CLOCKS_HZ[0] * 120 <= 70
    assert tiny.CLOCKS_HZ[-1] * 120 >= 180


def test_two_processes_at_once_leave_one_whole_folder(monkeypatch):
    made = []

    def slow_write(root, *parts, trained):
        (root / tiny.NAME).mkdir(parents=True)
        (root / tiny.NAME / "config.json").write_text("{}")
        if not made:  # another process is faster
            made.append(root)
            assert tiny.ready().is_dir()
        return root

    monkeypatch.setattr(tiny, "SHIPPED", Path("nowhere"))
    monkeypatch.setattr(tiny, "untrained", tuple)
    monkeypatch.setattr(tiny, "write", slow_write)
    place = tiny.ready()
    assert place.is_relative_to(home.cache())
    assert [path.name for path in home.cache().iterdir()] == [place.parent.name], "nothing else is left behind"


def test_a_failed_write_leaves_nothing(monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tiny, "SHIPPED", Path("nowhere"))
    monkeypatch.setattr(tiny, "untrained", tuple)
    monkeypatch.setattr(tiny, "write", full)
    with pytest.raises(OSError, match="No space left"):
        tiny.ready()
    assert list(home.cache().iterdir()) == []


def test_the_tokenizer_splits_like_qwen_and_closes_each_text():
    words = tiny.tokenizer()
    assert words.get_vocab_size() <= 4096
    text = "# Caption\ndusty rhodes, 97 bpm — naïve 音<|endoftext|>\n"
    ids = words.encode(text).ids
    end = words.token_to_id("<|endoftext|>")
    assert ids[-1] == end
    assert ids.count(end) == 2
    assert words.decode(ids, skip_special_tokens=False) == text + "<|endoftext|>"


def test_the_box_holds_trained_weights_and_its_card_tells_their_bytes():
    assert tiny.ready() == tiny.SHIPPED / tiny.NAME
    files = {path.relative_to(tiny.SHIPPED): path.read_bytes() for path in tiny.SHIPPED.rglob("*") if path.is_file()}
    assert max(map(len, files.values())) <= 15_000_000
    assert sum(map(len, files.values())) <= 25_000_000
    card = files.pop(Path("README.md")).decode()
    for path, content in files.items():
        assert f"| {path} | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |" in card
    made = json.loads(files[Path("recipe.json")])
    assert made["recipe"] == tiny.RECIPE
    assert f"{made['songs']:,} of them" in card
    for figure in json.loads(files[Path("figures.json")])["figures"]:
        assert figure["value"] in card
    assert AceStepPipeline.from_pretrained(tiny.ready()).loaded.trained
