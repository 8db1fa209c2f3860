"""Every released model by its name on the command line, over small random weights in the released layout."""

import json
import shutil

import checkpoints
import numpy as np
import pytest
import soundfile
import torch
from punchinhere import Home
from safetensors.torch import save_file

from punchin.protocol.models import BY_NAME, MODELS

pytestmark = pytest.mark.slow

RELEASED = [model for model in MODELS if model.repository]
XL = {
    "hidden_size": 48, "fsq_dim": 32, "encoder_hidden_size": 32, "encoder_intermediate_size": 48,
    "encoder_num_attention_heads": 4, "encoder_num_key_value_heads": 2,
}  # fmt: skip
PROMPT = "--prompt", "dusty rhodes", "--seed", "1"
REGION = "--bpm", "120", "--bars", "3-4", "--max-attempts", "1"


@pytest.fixture(scope="module")
def punchin(tmp_path_factory):
    """A home with all nine models, where `Ace-Step1.5` alone has VAE and text encoder, as pulled."""
    here = Home(tmp_path_factory.mktemp("nine"))
    models = here.folder / "data" / "models"
    checkpoints.write(models / "Ace-Step1.5")
    for seed, model in enumerate(each for each in RELEASED if each.name != "turbo"):
        large = model.family == "xl"
        numbers = XL if large else {}
        checkpoints.write(models, model.folder, seed, model.turbo, shards=3 if large else 1, **numbers)
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        shutil.rmtree(models / part)
    yield here
    here.stop()


def provenance(punchin, made):
    return punchin.json("show", made["job"])["provenance"]


@pytest.mark.parametrize("model", RELEASED, ids=lambda model: model.name)
def test_each_model_makes_music_with_its_own_defaults(punchin, tmp_path, model):
    out = tmp_path / "idea.wav"
    made = punchin.json("generate", "--model", model.name, *PROMPT, "--bpm", "120", "--bars", "3", "-o", out)
    told = provenance(punchin, made)
    assert (made["model"], told["model"]) == (model.name, model.name)
    assert (told["steps"], told["shift"], told["guidance"]) == (model.steps, model.shift, model.guidance)
    audio, rate_hz = soundfile.read(out)
    assert (audio.shape, rate_hz) == ((6 * 48_000, 2), 48_000)
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() > 1e-3
    (worker,) = punchin.json("ps")
    assert worker["plan"].startswith(f"{model.name} on cpu: all stays")
    assert worker["plan"] in punchin.run("ps").stderr
    assert worker["plan"] in punchin.run("doctor").stdout


@pytest.mark.parametrize("verb", ["cover", "repaint"])
@pytest.mark.parametrize("name", ["base", "turbo", "xl-sft"])
def test_cover_and_repaint(punchin, loop, tmp_path, verb, name):
    out = tmp_path / "new.wav"
    made = punchin.json(verb, loop, *REGION, *PROMPT, "--model", name, "-o", out)
    assert made["model"] == name
    assert provenance(punchin, made)["guidance"] == BY_NAME[name].guidance
    before, after = (soundfile.read(path, always_2d=True)[0] for path in (loop, out))
    assert before.shape == after.shape
    inside = slice(4 * 48_000, 8 * 48_000)
    assert np.abs(after[inside] - before[inside]).max() > 1e-3
    assert np.array_equal(after[8 * 48_000 :], before[8 * 48_000 :])


@pytest.mark.parametrize("verb", ["layer", "extract"])
def test_stems_are_for_base_models(punchin, loop, tmp_path, verb):
    words = verb, loop, *REGION, *PROMPT, "--instrument", "drums", "-o", tmp_path / "new.wav", "--steps", "2"
    assert punchin.json(*words, "--model", "base")["model"] == "base"
    refused = punchin.run(*words, "--model", "sft")
    assert refused.returncode == 4
    assert "only base models do" in refused.stderr
    assert "punchin models pull base" in refused.stderr


def test_a_lora_is_as_strong_as_its_folder_says(punchin, tmp_path):
    """PEFT keeps alpha beside the weights. Twice as strong by alpha is twice as strong by hand."""
    generator = torch.Generator().manual_seed(3)
    halves = {"A": torch.randn(4, 32, generator=generator), "B": torch.randn(32, 4, generator=generator)}
    layer = "layers.0.cross_attn.o_proj"
    save_file({f"{layer}.lora_{k}.default.weight": v for k, v in halves.items()}, tmp_path / "plain.safetensors")
    (tmp_path / "peft").mkdir()
    tensors = {f"base_model.model.{layer}.lora_{half}.weight": value for half, value in halves.items()}
    save_file(tensors, tmp_path / "peft" / "adapter_model.safetensors")
    (tmp_path / "peft" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 8, "r": 4}))

    def music(*words):
        out = tmp_path / "idea.wav"
        punchin.json("generate", "--model", "turbo", *PROMPT, "--bpm", "120", "--bars", "3", "-o", out, *words)
        return soundfile.read(out)[0]

    without, by_hand = music(), music("--lora", f"{tmp_path / 'plain.safetensors'}:1.0")
    assert np.abs(by_hand - without).max() > 1e-3
    assert np.array_equal(music("--lora", f"{tmp_path / 'peft'}:0.5"), by_hand)
    assert np.array_equal(music(), without), "the next job has none"
    wide = {f"{layer}.lora_A.weight": torch.randn(4, 2560), f"{layer}.lora_B.weight": torch.randn(32, 4)}
    save_file(wide, tmp_path / "wide.safetensors")
    refused = punchin.run(
        "generate", "--model", "turbo", *PROMPT, "--bpm", "120", "--bars", "3", "-o", tmp_path / "no.wav", "--lora",
        tmp_path / "wide.safetensors",
    )  # fmt: skip
    assert refused.returncode in (1, 4)
    assert "wide.safetensors has 2560 inputs for decoder.layers.0.cross_attn.o_proj, the model has 32" in refused.stderr
