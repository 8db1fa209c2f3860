"""LoRA in every naming: the same pairs, whatever they are called; taken off, the model is what it was."""

import hashlib
import json
from pathlib import Path

import checkpoints
import pytest
import torch
from msgspec.structs import replace
from safetensors.torch import load_file, save_file

from punchin.engine import job, weights
from punchin.engine.int8 import Int8Linear
from punchin.engine.lora import read_lora
from punchin.engine.pipeline import AceStepPipeline
from punchin.protocol.errors import OverLimit, Refused
from punchin.protocol.link import Run
from punchin.protocol.order import Lora, Order

LAYERS = ("layers.0.self_attn.q_proj", "layers.3.cross_attn.o_proj", "layers.1.mlp.down_proj")
RANK, ALPHA = 4, 6.0


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return AceStepPipeline.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def bare(pipeline):
    yield
    pipeline.use_loras(())


def pairs(pipeline, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in LAYERS:
        outputs, inputs = pipeline.loaded.model.decoder.get_submodule(name).weight.shape
        found[name] = (
            0.1 * torch.randn(RANK, inputs, generator=generator), 0.1 * torch.randn(outputs, RANK, generator=generator)
        )  # fmt: skip
    return found


def theirs(name):
    for ours, other in ((".q_proj", ".to_q"), (".o_proj", ".to_out.0")):
        name = name.replace(ours, other)
    return name


STYLES = {  # how a layer is called, and its two halves
    "diffsynth": ("{}", "lora_A.default", "lora_B.default"),
    "pipe": ("pipe.dit.{}", "lora_A", "lora_B"),
    "peft": ("base_model.model.{}", "lora_A", "lora_B"),
    "diffusers": ("transformer.{}", "lora_A", "lora_B"),
    "comfyui": ("diffusion_model.decoder.{}", "lora_down", "lora_up"),
    "kohya": ("lora_unet_{}", "lora_down", "lora_up"),
}


def write(style, pairs, folder):
    """A file of that style, and the scale that it means."""
    file, tensors, metadata = folder / f"{style}.safetensors", {}, None
    called, first, second = STYLES[style]
    for name, (down, up) in pairs.items():
        name = {"diffusers": theirs(name), "kohya": name.replace(".", "_")}.get(style, name)
        tensors |= {f"{called.format(name)}.{first}.weight": down, f"{called.format(name)}.{second}.weight": up}
        if first == "lora_down":
            tensors[f"{called.format(name)}.alpha"] = torch.tensor(ALPHA)
    if style == "peft":
        file = folder / "adapter_model.safetensors"
        (folder / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "r": RANK}))
    if style == "diffusers":
        metadata = {"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": ALPHA, "transformer.r": RANK})}
    save_file(tensors, file, metadata)
    return file, 1.0 if style in ("diffsynth", "pipe") else ALPHA / RANK


def play(pipeline):
    noise = torch.randn(1, 128, 64, generator=torch.Generator().manual_seed(1))
    return pipeline("dusty", duration=5.12, noise=noise, num_inference_steps=2).latents


def by_hand(pipeline, added):
    """The result with `added` (layer -> matrix) in the weights, which are put back."""
    originals = {name: pipeline.loaded.model.decoder.get_submodule(name).weight.data.clone() for name in added}
    try:
        for name, matrix in added.items():
            pipeline.loaded.model.decoder.get_submodule(name).weight.data += matrix
        return play(pipeline)
    finally:
        for name, original in originals.items():
            pipeline.loaded.model.decoder.get_submodule(name).weight.data.copy_(original)


@pytest.mark.parametrize("style", STYLES)
def test_each_naming_and_alpha_convention_means_the_same(pipeline, tmp_path, style):
    made = pairs(pipeline)
    file, scale = write(style, made, tmp_path)
    expected = by_hand(pipeline, {name: 0.7 * scale * up @ down for name, (down, up) in made.items()})
    plain = play(pipeline)
    assert (expected - plain).abs().max() > 1e-2
    pipeline.use_loras([(file, 0.7)])
    torch.testing.assert_close(play(pipeline), expected, rtol=0, atol=1e-4)
    pipeline.adapters.fuse()
    torch.testing.assert_close(play(pipeline), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("order", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_loras_of_different_types_add_up_in_any_order(pipeline, tmp_path, order):
    made, files = pairs(pipeline), []
    expected, plain = by_hand(pipeline, {name: up @ down for name, (down, up) in made.items()}), play(pipeline)
    for number, dtype in enumerate(order):
        (tmp_path / str(number)).mkdir()
        kept = {name: (down.to(dtype), up.to(dtype)) for name, (down, up) in made.items()}
        files.append((write("diffsynth", kept, tmp_path / str(number))[0], 0.5))
    pipeline.use_loras(files)
    assert (play(pipeline) - expected).norm() < 0.05 * (expected - plain).norm(), "but for what bfloat16 rounds"


def test_several_at_once_add_up_and_a_switch_needs_no_reload(pipeline, tmp_path):
    one, two = pairs(pipeline, 1), pairs(pipeline, 2)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = write("diffsynth", one, tmp_path / "a")[0], write("comfyui", two, tmp_path / "b")[0]
    expected = by_hand(
        pipeline,
        {n: 0.5 * one[n][1] @ one[n][0] - 0.25 * ALPHA / RANK * two[n][1] @ two[n][0] for n in LAYERS},
    )
    weight = pipeline.loaded.model.decoder.get_submodule(LAYERS[0]).weight
    pipeline.use_loras([(first, 0.5), (second, -0.25)])
    torch.testing.assert_close(play(pipeline), expected, rtol=0, atol=1e-4)
    pipeline.use_loras([(second, 1.0)])
    assert pipeline.loaded.model.decoder.get_submodule(LAYERS[0]).weight is weight
    assert [lora.name for lora, _ in pipeline.adapters.used] == ["comfyui"]


def test_int8_weights_take_a_lora_as_the_exact_ones_do(pipeline, tmp_path):
    """What it makes of the music is the same but for a part that rounding explains."""
    root = pipeline.loaded.folders.dit
    halved = AceStepPipeline.from_pretrained(root, device="cpu", allow_int8=True, rung=2)
    assert isinstance(halved.loaded.model.decoder.get_submodule(LAYERS[0]), Int8Linear)
    file, _ = write("peft", pairs(pipeline), tmp_path)
    made = []
    for each in (pipeline, halved):
        plain = play(each)
        each.use_loras([(file, 2.0)])
        made.append(play(each) - plain)
    assert (made[1] - made[0]).norm() < 0.2 * made[0].norm()
    with pytest.raises(Refused, match="is int8; LoRA is used beside it, not fused into it"):
        halved.adapters.fuse()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unfused_weights_and_results_are_bit_identical(tmp_path, dtype):
    pipeline = AceStepPipeline.from_pretrained(checkpoints.write(tmp_path / "model"), dtype=dtype)
    file, _ = write("peft", pairs(pipeline), tmp_path)
    before = {key: value.clone() for key, value in pipeline.loaded.model.state_dict().items()}
    plain = play(pipeline)
    pipeline.use_loras([(file, 1.0)])
    pipeline.adapters.fuse()
    changed = [k for k, v in pipeline.loaded.model.state_dict().items() if not torch.equal(v, before[k])]
    assert sorted(changed) == sorted(f"decoder.{name}.weight" for name in LAYERS)
    pipeline.adapters.unfuse()
    assert all(torch.equal(value, before[key]) for key, value in pipeline.loaded.model.state_dict().items())
    assert torch.equal(play(pipeline), plain)
    pipeline.use_loras([(file, 1.0)])
    pipeline.use_loras([(file, 0.0)])
    assert torch.equal(play(pipeline), plain)


@pytest.mark.parametrize("taken_off", [lambda p: p.adapters.unfuse(), lambda p: p.adapters.use(())])
def test_words_that_a_lora_coloured_are_read_anew_once_it_is_off(pipeline, tmp_path, taken_off):
    name = "encoder.lyric_encoder.layers.0.self_attn.q_proj"
    halves = {"A": torch.ones(RANK, 32), "B": torch.randn(32, RANK, generator=torch.Generator().manual_seed(0))}
    save_file({f"{name}.lora_{half}.weight": each for half, each in halves.items()}, tmp_path / "words.safetensors")
    plain = play(pipeline)
    pipeline.use_loras([(tmp_path / "words.safetensors", 1.0)])
    assert not torch.equal(play(pipeline), plain)
    pipeline.adapters.fuse()
    taken_off(pipeline)
    assert torch.equal(play(pipeline), plain)


def refused(pipeline, tensors, tmp_path, match, metadata=None):
    save_file(tensors, tmp_path / "bad.safetensors", metadata)
    plain = play(pipeline)
    with pytest.raises(Refused, match=match):
        pipeline.use_loras([(tmp_path / "bad.safetensors", 1.0)])
    assert torch.equal(play(pipeline), plain)


def test_what_does_not_fit_is_refused_by_name_and_changes_nothing(pipeline, tmp_path):
    name = "layers.0.self_attn.q_proj"
    down, up = torch.randn(4, 32), torch.randn(32, 4)
    wide = {f"{name}.lora_A.weight": torch.randn(4, 2560), f"{name}.lora_B.weight": up}
    refused(pipeline, wide, tmp_path, "has 2560 inputs for decoder.layers.0.self_attn.q_proj, the model has 32")
    deep = {"layers.31.mlp.up_proj.lora_A.weight": down, "layers.31.mlp.up_proj.lora_B.weight": torch.randn(48, 4)}
    refused(pipeline, deep, tmp_path, r"layers that this model does not have: layers\.31\.mlp\.up_proj")
    refused(pipeline, {f"{name}.lora_A.weight": down}, tmp_path, "only one half")
    refused(pipeline, {f"{name}.weight": torch.randn(32, 32)}, tmp_path, f"no LoRA: {name}.weight")
    dora = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up, f"{name}.dora_scale": torch.ones(32)}
    refused(pipeline, dora, tmp_path, "dora_scale")
    refused(pipeline, {f"{name}.lora_A.weight": down * torch.nan, f"{name}.lora_B.weight": up}, tmp_path, "not finite")
    none = {f"{name}.lora_A.weight": down[:0], f"{name}.lora_B.weight": up[:, :0], f"{name}.alpha": torch.ones(())}
    refused(pipeline, none, tmp_path, r"has \[0, 32\] and \[32, 0\] for .*, no pair of one rank")
    flat = {f"{name}.lora_A.weight": torch.ones(()), f"{name}.lora_B.weight": up}
    refused(pipeline, flat, tmp_path, "no pair of one rank")
    whole = {f"{name}.lora_A.weight": down.to(torch.int8), f"{name}.lora_B.weight": up}
    refused(pipeline, whole, tmp_path, "whole numbers")
    fine = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    refused(pipeline, {**fine, f"{name}.alpha": torch.tensor(torch.nan)}, tmp_path, f"has alpha nan for {name}")
    refused(pipeline, {**fine, f"decoder.{name}.alpha": torch.ones(())}, tmp_path, rf"no LoRA: decoder\.{name}\.alpha")
    twice = {**fine, f"transformer.{name}.lora_A.weight": -down, f"transformer.{name}.lora_B.weight": -up}
    refused(pipeline, twice, tmp_path, f"has two pairs for decoder.{name}, once as transformer.{name}")
    several = {
        f"{name}.lora_{half}.{who}.weight": x * (1 + len(who))
        for half, x in (("A", down), ("B", up))
        for who in ("one", "three")
    }
    refused(pipeline, several, tmp_path, f"has two pairs for decoder.{name}")
    for said, match in (("NaN", "alpha nan"), ('"loud"', "alpha 'loud'"), ("[", "settings of bad are not JSON")):
        refused(pipeline, fine, tmp_path, match, {"lora_alpha": said})
    refused(pipeline, fine, tmp_path, "settings of bad are no JSON object", {"lora_adapter_metadata": "[1]"})
    with pytest.raises(Refused, match="no LoRA file"):
        read_lora(tmp_path / "absent.safetensors", pipeline.loaded.model)
    (tmp_path / "text.safetensors").write_text("hello")
    for told in ("", "mine.safetensors"):
        with pytest.raises(Refused, match=f"{told or tmp_path / 'text.safetensors'} is no safetensors file") as caught:
            read_lora(tmp_path / "text.safetensors", pipeline.loaded.model, told)
        assert "cut short" in caught.value.hint
    file, _ = write("diffsynth", pairs(pipeline), tmp_path)
    with pytest.raises(OverLimit, match="LoRA strength is 5, allowed is -4 to 4"):
        pipeline.use_loras([(file, 5.0)])


def ordered(file, folder):
    """A job of a second by turbo with that LoRA."""
    name = hashlib.sha256(file.read_bytes()).hexdigest()
    order = Order(
        task="text2music", model="turbo", prompt="dusty", frames=48_000, steps=1,
        loras=(Lora(sha256=name, size_bytes=file.stat().st_size, name=file.name),),
    )  # fmt: skip
    return Run(job="job-0001", attempt=1, order=order, files={name: str(file)}, out_dir=str(folder / "out"))


def test_a_lora_of_another_width_is_refused_before_the_model_is_loaded(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "find", lambda model: pipeline.loaded.folders.dit)
    monkeypatch.setattr(weights, "load", lambda *_: pytest.fail("a weight was moved"))
    name, file = LAYERS[0], tmp_path / "xl.safetensors"
    save_file({f"{name}.lora_A.weight": torch.ones(4, 2560), f"{name}.lora_B.weight": torch.ones(32, 4)}, file)
    with pytest.raises(Refused, match=r"xl\.safetensors has 2560 inputs for decoder\..*q_proj, the model has 32"):
        job.Performer().perform(ordered(file, tmp_path), lambda *_: None, lambda _: None)


def test_an_orders_loras_are_used_by_a_model_that_is_loaded_for_it_and_by_one_that_is_warm(
    pipeline, tmp_path, monkeypatch
):
    """Each take is heard with its own LoRA, or none, whatever the order before had."""
    monkeypatch.setattr(job, "find", lambda model: pipeline.loaded.folders.dit)
    run, performer = ordered(write("peft", pairs(pipeline), tmp_path)[0], tmp_path), job.Performer()
    plain = replace(run, order=replace(run.order, loras=()))

    def take(run, performer):
        made = performer.perform(run, lambda *_: None, lambda _: None)
        return Path(made.takes[0].path).read_bytes()

    first, bare, again = (take(each, performer) for each in (run, plain, run))
    assert first == again == take(run, job.Performer()) != bare == take(plain, job.Performer())


def test_eight_bit_floats_are_read(pipeline, tmp_path):
    file, _ = write("diffsynth", pairs(pipeline), tmp_path)
    coarse = {key: each.to(torch.float8_e4m3fn) for key, each in load_file(file).items()}
    save_file(coarse, tmp_path / "coarse.safetensors")
    save_file({key: each.float() for key, each in coarse.items()}, tmp_path / "same.safetensors")
    plain, heard = play(pipeline), []
    for name in ("coarse", "same"):
        pipeline.use_loras([(tmp_path / f"{name}.safetensors", 1.0)])
        heard.append(play(pipeline))
    assert torch.equal(*heard)
    assert not torch.equal(heard[0], plain)


def test_rank_stabilised_files_scale_by_the_root(pipeline, tmp_path):
    made = pairs(pipeline)
    file, _ = write("peft", made, tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "r": RANK, "use_rslora": True}))
    lora = read_lora(tmp_path, pipeline.loaded.model)
    assert {pair.scale for pair in lora.pairs.values()} == {ALPHA / RANK**0.5}
    assert file.parent == tmp_path


def test_kohyas_alpha_is_read_from_its_metadata_too_and_an_adapter_has_any_name(pipeline, tmp_path):
    name, file = LAYERS[0], tmp_path / "kohya.safetensors"
    down, up = pairs(pipeline)[name]
    tensors = {f"{name}.lora_A.my-style.weight": down, f"{name}.lora_B.my-style.weight": up}
    save_file(tensors, file, {"ss_network_alpha": str(ALPHA)})
    (pair,) = read_lora(file, pipeline.loaded.model).pairs.values()
    assert pair.scale == ALPHA / RANK


def test_a_lora_of_the_condition_encoder_is_heard_although_conditions_are_kept(pipeline, tmp_path):
    plain = play(pipeline)
    key = "encoder.lyric_encoder.embed_tokens"
    tensors = {f"{key}.lora_A.weight": torch.randn(2, 24), f"{key}.lora_B.weight": torch.randn(32, 2)}
    save_file(tensors, tmp_path / "words.safetensors")
    pipeline.use_loras([(tmp_path / "words.safetensors", 1.0)])
    assert (play(pipeline) - plain).abs().max() > 1e-3
    pipeline.use_loras(())
    assert torch.equal(play(pipeline), plain)
