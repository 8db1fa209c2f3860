"""What a training writes, read by PEFT and by diffusers: the same model comes out."""

import json

import pytest
import torch
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
from peft import PeftModel
from safetensors.torch import load_file
from trainingdata import arguments, write_model, write_songs

from punchin.engine.lora import Adapters, read_lora
from punchin.engine.model import AceStep
from punchin.engine.spec import CONFIG_2B, CONFIG_XL, Spec
from punchin.training import adapters, run, sources
from punchin.training.console import Line
from punchin.training.outputs import diffusers_config
from punchin.training.settings import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A LoRA (alpha twice its rank) and a full checkpoint of two steps each, and the model's folder."""
    root = tmp_path_factory.mktemp("peers")
    model, songs = write_model(root / "model"), write_songs(root / "songs")
    with (root / "talk").open("w") as talk:
        for kind, formats in (("lora", "diffsynth,peft,diffusers"), ("full", "diffsynth,diffusers")):
            more = {"lora_rank": 4, "lora_alpha": 8.0} if kind == "lora" else {}
            given = arguments(
                model, songs, root / kind, max_steps=2, save_formats=formats, **{**more, "learning_rate": 0.01}
            )
            run.train(Settings(kind=kind, **given), Line(talk), lambda: False)
    return root, model


@pytest.fixture
def decoder(files):
    return fresh(files[1]).decoder


# H, I, query heads, key heads, layers of the released models; a head is 128 wide.
RELEASED = {"2B": (2048, 6144, 16, 8, 24), "XL": (2560, 9728, 32, 8, 32)}


@pytest.mark.parametrize("size", RELEASED)
def test_a_lora_of_a_released_model_has_the_keys_and_shapes_that_diffsynth_writes(size):
    width, inner, heads, pairs, layers = RELEASED[size]
    linears = {f"{attention}.{name}_proj": shape for attention in ("self_attn", "cross_attn") for name, shape in (
        ("q", (width, heads * 128)), ("k", (width, pairs * 128)), ("v", (width, pairs * 128)),
        ("o", (heads * 128, width)))}  # fmt: skip
    linears |= {"mlp.gate_proj": (width, inner), "mlp.up_proj": (width, inner), "mlp.down_proj": (inner, width)}
    wanted = {}
    for layer in range(layers):
        for name, (inputs, outputs) in linears.items():
            wanted[f"layers.{layer}.{name}.lora_A.default.weight"] = (32, inputs)
            wanted[f"layers.{layer}.{name}.lora_B.default.weight"] = (outputs, 32)
    with torch.device("meta"):
        model = AceStep(Spec.from_config(CONFIG_XL if size == "XL" else CONFIG_2B))
        adapters.add(model, Settings(kind="lora", dataset_base_path=""))
    assert {name: tuple(each.shape) for name, each in adapters.trained(model.decoder).items()} == wanted


def fresh(model):
    settings = Settings(kind="lora", dataset_base_path="", model=str(model))
    return sources.load(sources.where(settings), torch.device("cpu"), torch.float32).model


def inputs():
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(1, n, c, generator=draw) for n, c in ((20, 64), (20, 128), (7, 128))]


def velocity(decoder, *, theirs=False):
    x, context, condition = inputs()
    t = torch.tensor([0.6])
    with torch.no_grad():
        return (
            decoder(x, t, t, condition, context, return_dict=False)[0] if theirs else decoder(x, t, context, condition)
        )


@pytest.fixture(scope="module")
def with_lora(files):
    """The velocity of the engine with the LoRA from PEFT's folder, and without."""
    root, model = files
    ours = fresh(model)
    plain = velocity(ours.decoder)
    Adapters(ours).use([(read_lora(root / "lora" / "epoch-0-peft", ours), 1.0)])
    got = velocity(ours.decoder)
    assert (got - plain).abs().max() > 1e-3
    return got


def test_peft_reads_the_folder(files, decoder, with_lora):
    loaded = PeftModel.from_pretrained(decoder, files[0] / "lora" / "epoch-0-peft")
    assert loaded.peft_config["default"].lora_alpha == 8
    torch.testing.assert_close(velocity(loaded.base_model.model), with_lora, rtol=0, atol=2e-3)


def test_diffsynths_file_has_alpha_in_it(files, with_lora):
    """DiffSynth's loader adds B A as it is: no alpha, bare names with `.default.`."""
    root, model = files
    ours = fresh(model)
    tensors = load_file(root / "lora" / "epoch-0.safetensors")
    with torch.no_grad():
        for key, down in tensors.items():
            if key.endswith(".lora_A.default.weight"):
                up = tensors[key.replace(".lora_A.", ".lora_B.")]
                layer = ours.decoder.get_submodule(key.removesuffix(".lora_A.default.weight"))
                layer.weight += up.float() @ down.float()
    torch.testing.assert_close(velocity(ours.decoder), with_lora, rtol=0, atol=2e-3)


def test_diffusers_reads_the_lora(files, decoder, with_lora):
    root, model = files
    theirs = peer(model, decoder)
    torch.testing.assert_close(velocity(theirs, theirs=True), velocity(decoder), rtol=0, atol=1e-4)
    theirs.load_lora_adapter(str(root / "lora" / "epoch-0-diffusers"), prefix="transformer",
                             weight_name="pytorch_lora_weights.safetensors")  # fmt: skip
    torch.testing.assert_close(velocity(theirs, theirs=True), with_lora, rtol=0, atol=2e-3)


def peer(model, decoder):
    """diffusers' transformer with our weights."""
    config = diffusers_config(json.loads((model / "config.json").read_text()))
    theirs = AceStepTransformer1DModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    from punchin.training.adapters import diffusers_name

    theirs.load_state_dict({diffusers_name(key): value for key, value in decoder.state_dict().items()})
    return theirs.eval()


def test_diffsynths_full_file_has_the_models_own_keys_shapes_and_bfloat16(files):
    root, model = files
    written, own = load_file(root / "full" / "epoch-0.safetensors"), load_file(model / "model.safetensors")
    want = {key.removeprefix("decoder."): each.shape for key, each in own.items() if key.startswith("decoder.")}
    assert {key: each.shape for key, each in written.items()} == want
    assert {each.dtype for each in written.values()} == {torch.bfloat16}


def test_diffsynth_studio_itself_reads_both_files(files):
    """Its own transformer and its own LoRA loader, where they are installed: the right weights, the same sound."""
    dit = pytest.importorskip("diffsynth.models.ace_step_dit")
    loader = pytest.importorskip("diffsynth.utils.lora.general").GeneralLoRALoader()
    root, model = files
    config = json.loads((model / "config.json").read_text())
    config["layer_types"] = ["sliding_attention", "full_attention"] * config["num_hidden_layers"]
    theirs, ours = dit.AceStepDiTModel(**config), fresh(model)
    theirs.load_state_dict(ours.decoder.state_dict())
    x, context, condition = inputs()
    t = torch.tensor([600.0])  # its scheduler counts to 1000
    with torch.no_grad():
        played = theirs(x, t, t, None, condition, None, context)[0]
    torch.testing.assert_close(played, velocity(ours.decoder), rtol=0, atol=1e-5)
    loader.fuse_lora_to_base_model(theirs, load_file(root / "lora" / "epoch-0.safetensors"))
    lora = Adapters(ours)
    lora.use([(read_lora(root / "lora" / "epoch-0-peft", ours), 1.0)])
    lora.fuse()
    for name, each in ours.decoder.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], each, rtol=0, atol=1e-6)
    whole = load_file(root / "full" / "epoch-0.safetensors")
    theirs.load_state_dict(whole)  # strict: not a key more or less, and each of its shape


def test_diffusers_reads_the_full_checkpoint(files):
    root, model = files
    theirs = AceStepTransformer1DModel.from_pretrained(root / "full" / "epoch-0-diffusers" / "transformer").eval()
    ours = fresh(model)
    ours.decoder.load_state_dict({k: v.float() for k, v in load_file(root / "full" / "epoch-0.safetensors").items()})
    torch.testing.assert_close(velocity(theirs, theirs=True), velocity(ours.decoder), rtol=0, atol=1e-4)
    assert (velocity(ours.decoder) - velocity(fresh(model).decoder)).abs().max() > 1e-3
