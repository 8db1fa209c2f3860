"""Weight files: what fits is loaded as it is, what does not is refused by its keys before memory is taken."""

import json
import pickle
import shutil

import checkpoints
import pytest
import torch
from safetensors.torch import load_file, save_file

from punchin.engine import keys, released, weights
from punchin.engine.model import AceStep
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.spec import SPEC_2B, SPEC_XL, VAE_RELEASED
from punchin.engine.vae import Vae
from punchin.protocol.errors import Refused


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("model"))


@pytest.fixture
def dit(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "Ace-Step1.5")
    return tmp_path / "Ace-Step1.5" / made.name


def edit(dit, change):
    path = dit / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def refused(dit, match):
    with pytest.raises(Refused, match=match) as caught:
        AceStepPipeline.from_pretrained(dit)
    return caught.value


@pytest.mark.parametrize(("spec", "kind"), [(SPEC_2B, "2b"), (SPEC_XL, "xl")])
def test_released_files_are_known_by_their_keys_and_shapes(spec, kind):
    with torch.device("meta"):
        module = AceStep(spec)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    assert keys.KNOWN[keys.key_hash(shapes)] == kind
    shapes.popitem()
    assert keys.key_hash(shapes) not in keys.KNOWN


def test_the_released_vae_is_known_too():
    with torch.device("meta"):
        vae = Vae(VAE_RELEASED)
    shapes = {key: tuple(value.shape) for key, value in vae.state_dict().items()}
    assert keys.KNOWN[keys.key_hash(shapes)] == "vae"


def test_the_released_text_encoder_is_known_too():
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=151669, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128,
    )  # fmt: skip
    with torch.device("meta"):
        text = Qwen3Model(config)
    shapes = {key: tuple(value.shape) for key, value in text.state_dict().items()}
    assert keys.KNOWN[keys.key_hash(shapes)] == "text"


def test_what_is_loaded_is_what_the_file_holds(dit):
    loaded = AceStepPipeline.from_pretrained(dit).loaded
    file = load_file(dit / "model.safetensors")
    state = loaded.model.state_dict()
    assert state.keys() == file.keys()
    assert all(torch.equal(state[key], file[key]) for key in file)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training
    assert loaded.variant.name == "turbo"


def test_shards_are_one_checkpoint(dit):
    whole = load_file(dit / "model.safetensors")
    (dit / "model.safetensors").unlink()
    checkpoints.save_shards(dit, whole, "model", 3)
    state = AceStepPipeline.from_pretrained(dit).loaded.model.state_dict()
    assert all(torch.equal(state[key], whole[key]) for key in whole)
    second = dit / "model-00002-of-00003.safetensors"
    second.rename(dit / "elsewhere")
    assert refused(dit, "lacks model-00002-of-00003.safetensors").code == "model_missing"
    save_file({"x": torch.zeros(1)}, second)
    refused(dit, "promises .* and \\d+ more, no shard holds it")
    index = dit / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../../secret.safetensors"}}))
    refused(dit, "names a file outside its folder")
    index.write_text("{")
    refused(dit, "is no index of shards")


def test_missing_extra_and_misshapen_keys_are_named(dit):
    def change(tensors):
        del tensors["null_condition_emb"]
        tensors["decoder.extra.weight"] = torch.zeros(2)
        tensors["decoder.norm_out.weight"] = torch.ones(33)

    edit(dit, change)
    text = str(refused(dit, "does not fit"))
    assert "lacks null_condition_emb" in text
    assert "has unknown decoder.extra.weight" in text
    assert "decoder.norm_out.weight as [33], its config says [32]" in text


def test_shapes_are_compared_before_memory_is_taken(dit, monkeypatch):
    edit(dit, lambda tensors: tensors.pop("null_condition_emb"))
    monkeypatch.setattr(weights.Checkpoint, "read", lambda *_: pytest.fail("a tensor was read"))
    refused(dit, "null_condition_emb")


def test_broken_files_are_refused_by_name(dit):
    path = dit / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(dit, "model.safetensors cannot be read")
    path.unlink()
    assert refused(dit, "neither model.safetensors nor").code == "model_missing"
    (dit / "config.json").write_text("[]")
    refused(dit, "holds no JSON object")
    (dit / "config.json").write_text("{")
    refused(dit, "is not JSON")


BROKEN_TEXT = {
    "config": ("config.json", "{", "is not JSON"),
    "config of another kind": ("config.json", "[]", "holds no JSON object"),
    "config of words": ("config.json", '{"model_type": "qwen3", "hidden_size": "x"}', "describes no text encoder"),
    "tokenizer": ("tokenizer.json", "{", r"tokenizer\.json is no tokenizer"),
    "a pointer for a tokenizer": ("tokenizer.json", "version https://git-lfs", r"tokenizer\.json is no tokenizer"),
}


@pytest.mark.parametrize("name", BROKEN_TEXT)
def test_a_broken_text_encoder_is_refused_by_name(dit, name):
    file, words, match = BROKEN_TEXT[name]
    (dit.parent / "Qwen3-Embedding-0.6B" / file).write_text(words)
    refused(dit, match)


def test_an_index_that_names_no_files_is_refused(dit):
    (dit / "model.safetensors").unlink()
    (dit / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}')
    refused(dit, "names a file outside its folder: 5")


def test_a_config_of_other_numbers_is_refused(dit):
    config = json.loads((dit / "config.json").read_text())
    (dit / "config.json").write_text(json.dumps({**config, "text_hidden_dim": 25}))
    refused(dit, "text encoder is 24 wide, the model expects 25")
    vae = dit.parent / "vae" / "config.json"
    (dit / "config.json").write_text(json.dumps(config))
    vae.write_text(json.dumps({**json.loads(vae.read_text()), "sampling_rate": 44_100}))
    refused(dit, "the VAE's rate is 44100, the model needs 48000")


class Code:
    def __reduce__(self):
        return (print, ("this ran",))


def test_nothing_is_unpickled(dit, tmp_path, capsys):
    (dit / "silence_latent.pt").write_bytes(pickle.dumps(Code(), protocol=2))
    refused(dit, "silence_latent.pt cannot be read")
    torch.save(Code(), dit / "silence_latent.pt")
    refused(dit, "silence_latent.pt cannot be read")
    assert "this ran" not in capsys.readouterr().out
    torch.save(torch.zeros(1, 32, 10), dit / "silence_latent.pt")
    refused(dit, r"is \[1, 32, 10\], it must be \[1, 64, frames\]")
    torch.save({}, tmp_path / "model.bin")
    with pytest.raises(Refused, match="no safetensors file"):
        weights.open_checkpoint(tmp_path / "model.bin")


def test_shared_parts_are_found_beside_and_where_they_are_said_to_be(dit, tmp_path):
    main = dit.parent
    assert released.folders(main) == released.folders(dit) == released.Folders(
        dit, main / "vae", main / "Qwen3-Embedding-0.6B"
    )  # fmt: skip
    alone = tmp_path / "acestep-v15-xl-base"
    shutil.copytree(dit, alone)
    assert released.folders(alone).vae == main / "vae", "an Ace-Step1.5 beside it"
    far = tmp_path / "far" / "acestep-v15-base"
    shutil.copytree(dit, far)
    assert released.folders(far, shared=main).text == main / "Qwen3-Embedding-0.6B"
    shutil.move(main, tmp_path / "hidden")
    with pytest.raises(Refused, match=r"has no vae and no Qwen3-Embedding-0\.6B; looked in") as caught:
        released.folders(far)
    assert caught.value.code == "model_missing"
    with pytest.raises(Refused, match="there is no model folder"):
        released.folders(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match=r"is no model: it has no config\.json"):
        released.folders(tmp_path / "empty")


def test_the_folder_name_is_the_variant(dit, tmp_path):
    base = dit.with_name("acestep-v15-sft")
    dit.rename(base)
    variant = AceStepPipeline.from_pretrained(base).variant
    assert (variant.name, variant.steps, variant.shift, variant.guidance) == ("sft", 50, 1.0, 7.0)
    own = base.with_name("my-finetune")
    base.rename(own)
    variant = AceStepPipeline.from_pretrained(own).variant
    assert (variant.name, variant.steps, variant.turbo) == ("my-finetune", 8, True)


def test_two_checkpoints_have_two_fingerprints(dit):
    before = weights.fingerprint(weights.open_checkpoint(dit))
    assert before == weights.fingerprint(weights.open_checkpoint(dit))
    edit(dit, lambda tensors: tensors["null_condition_emb"].add_(1))
    assert weights.fingerprint(weights.open_checkpoint(dit)) != before
