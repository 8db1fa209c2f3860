"""A LoRA means in the daemon's store what it meant where it lay: PEFT's alpha goes with it."""

import json
from pathlib import Path
from types import SimpleNamespace

import checkpoints
import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from punchin.clients.journey import lorafile, ordering
from punchin.clients.journey.request import Prompt
from punchin.engine.lora import read_lora
from punchin.engine.model import AceStep
from punchin.engine.spec import Spec
from punchin.protocol.errors import OverLimit, Refused

LAYER = "layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        return AceStep(Spec.from_config(checkpoints.DIT))


@pytest.fixture
def peft(tmp_path):
    folder = tmp_path / "drums"
    folder.mkdir()
    halves = {"A": torch.randn(4, 48), "B": torch.randn(32, 4)}
    tensors = {f"base_model.model.{LAYER}.lora_{half}.weight": value for half, value in halves.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {"lora_alpha": 8, "r": 4, "alpha_pattern": {}, "use_rslora": False, "base_model_name_or_path": "é"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def sent(path, tmp_path):
    """The file as the worker finds it: alone, under another name."""
    file = tmp_path / "0123456789abcdef"
    file.write_bytes(lorafile.read(path))
    return file


@pytest.mark.parametrize("inside", ["", "adapter_model.safetensors"])
def test_pefts_alpha_goes_with_the_weights(model, peft, tmp_path, inside):
    there, here = read_lora(peft, model), read_lora(sent(peft / inside, tmp_path), model)
    (pair,), (first,) = here.pairs.values(), there.pairs.values()
    assert pair.scale == first.scale == 2.0
    assert torch.equal(pair.down, first.down)
    assert torch.equal(pair.up, first.up)
    with safe_open(tmp_path / "0123456789abcdef", "pt") as file:
        assert file.metadata()["format"] == "pt", "what else the file told stays"


def test_patterns_and_what_is_no_lora_go_with_it_too(model, peft, tmp_path):
    config = peft / "adapter_config.json"
    config.write_text(json.dumps({"lora_alpha": 8, "alpha_pattern": {"down_proj": 2}}))
    (pair,) = read_lora(sent(peft, tmp_path), model).pairs.values()
    assert pair.scale == 0.5
    config.write_text(json.dumps({"lora_alpha": 8, "use_dora": True}))
    with pytest.raises(Refused, match="DoRA"):
        read_lora(sent(peft, tmp_path), model)


def test_a_file_alone_is_sent_byte_by_byte(tmp_path):
    file = tmp_path / "style.safetensors"
    save_file({f"{LAYER}.lora_A.default.weight": torch.randn(4, 48)}, file)
    assert lorafile.read(file) == file.read_bytes()
    (tmp_path / "adapter_config.json").write_text("{}")
    file.write_bytes(b"no safetensors file")
    assert lorafile.read(file) == b"no safetensors file", "the engine says so"


def test_what_cannot_be_read_is_refused_by_name(peft, tmp_path):
    with pytest.raises(Refused, match=r"cannot read the LoRA .*absent\.safetensors: No such file"):
        lorafile.read(tmp_path / "absent.safetensors")
    with pytest.raises(Refused, match=r"cannot read the LoRA .*adapter_model\.safetensors: No such file") as caught:
        lorafile.read(tmp_path)
    assert ".safetensors file" in caught.value.hint
    (peft / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    assert lorafile.read(peft).endswith(b"[]")  # what it is not, the engine tells
    (peft / "adapter_config.json").write_text("{")
    with pytest.raises(Refused, match=r"adapter_config\.json is not JSON"):
        lorafile.read(peft)


def test_numbers_and_sizes_over_the_limit_are_told_before_anything_is_sent(tmp_path):
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    with pytest.raises(OverLimit, match="size of a LoRA is 0 bytes, allowed is 1 to 2147483648"):
        ordering.loras(Prompt(text="x", loras=((empty, 1.0),)), None)
    with empty.open("wb") as file:
        file.truncate(2**35)  # no memory holds it
    with pytest.raises(OverLimit, match="size of a LoRA is 34359738368 bytes"):
        ordering.loras(Prompt(text="x", loras=((empty, 1.0),)), None)
    with soundfile.SoundFile(tmp_path / "long.flac", "w", 8_000, 2) as file:
        for _ in range(601):
            file.write(np.zeros((8_000, 2)))
    with pytest.raises(OverLimit, match="reference length is 601 s, allowed is 1 to 600"):
        ordering.references(
            Prompt(text="x", references=(tmp_path / "long.flac",)), SimpleNamespace(put_audio=pytest.fail)
        )
    with pytest.raises(OverLimit, match="number of LoRAs is 9, allowed is 0 to 8"):
        ordering.loras(Prompt(text="x", loras=((Path("x"), 1.0),) * 9), None)
    with pytest.raises(OverLimit, match="number of references is 5, allowed is 0 to 4"):
        ordering.references(Prompt(text="x", references=(Path("x"),) * 5), None)
