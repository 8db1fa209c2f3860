"""Trainings of seconds on the tiny model: they learn, go on exactly, write what others read."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from trainingdata import RANK, arguments, command_line, never, steps_in, trained

from punchin.engine.dit import Layer
from punchin.engine.lora import read_lora
from punchin.engine.pipeline import AceStepPipeline
from punchin.protocol.errors import Cancelled, PunchinError, Refused
from punchin.session import audiofile
from punchin.training import adapters, run, sources, state, validation
from punchin.training import trainer as trainers
from punchin.training.__main__ import main
from punchin.training.outputs import STATE
from punchin.training.settings import Settings


def test_a_lora_learns_and_is_written_for_everyone(model, songs, tmp_path, quiet):
    out = tmp_path / "out"
    _, facts = trained("lora", model, songs, out, quiet, num_epochs=6, save_steps=9, validation_count=1, ema_decay=0.5,
                       save_formats="diffsynth,peft,diffusers", validation_steps=6, batch_size=2, **RANK)  # fmt: skip
    progress = facts["progress"]
    assert progress["step"] == 6
    assert progress["validation"][-1][0] == 6
    assert sorted(path.name for path in out.iterdir()) == [
        "history.json", "step-6-diffusers", "step-6-peft", "step-6.safetensors", STATE, state.LOCK,
    ]  # fmt: skip
    diffsynth = load_file(out / "step-6.safetensors")
    assert set(diffsynth) == {
        f"layers.{i}.{layer}.lora_{half}.default.weight" for i in range(7) for half in "AB"
        for layer in ("self_attn.q_proj", "self_attn.o_proj", "cross_attn.q_proj", "cross_attn.o_proj", "mlp.down_proj")
    }  # fmt: skip
    assert {each.dtype for each in diffsynth.values()} == {torch.bfloat16}
    assert diffsynth["layers.0.mlp.down_proj.lora_A.default.weight"].shape == (4, 512)
    assert diffsynth["layers.0.mlp.down_proj.lora_B.default.weight"].shape == (192, 4)
    engines = sources.load(sources.where(Settings(kind="lora", dataset_base_path="", model=str(model))), *CPU).model
    peft = read_lora(out / "step-6-peft", engines)
    both = [read_lora(out / "step-6.safetensors", engines), read_lora(
        out / "step-6-diffusers" / "pytorch_lora_weights.safetensors", engines)]  # fmt: skip
    for other in both:
        assert other.pairs.keys() == peft.pairs.keys()
        for name, pair in peft.pairs.items():
            torch.testing.assert_close(
                other.pairs[name].up.float() * other.pairs[name].scale, pair.up.float() * pair.scale
            )
            assert torch.equal(other.pairs[name].down, pair.down)


CPU = torch.device("cpu"), torch.float32


def test_many_steps_on_one_song_fit_it(model, songs, tmp_path, quiet):
    """The loss that nobody trains on (eight times, one noise) falls by much."""
    once = {"num_epochs": 1, "dataset_repeat": 20, "validation_steps": 10}  # not twenty checkpoints, of every weight
    settings = Settings(kind="full", **arguments(model, songs, tmp_path / "o", learning_rate=2e-3, **once,
                                                 max_audio_duration=1.5, lr_scheduler="constant"))  # fmt: skip
    loaded = run.ready(settings)[1]
    shelf = run._shelf(settings, run._items(settings, quiet.say, never), loaded, run._listener(settings, loaded))
    one = trainers.Trainer(settings, loaded, shelf, [0], quiet)
    one.validation = [shelf[0]]
    before = one.validation_loss()
    one.run(never)
    assert one.progress.step == 20
    assert one.validation_loss() < 0.9 * before


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_stopping_anywhere_changes_no_weight(model, songs, tmp_path, quiet, kind):
    more = {"num_epochs": 2, "gradient_accumulation_steps": 2, "lr_scheduler": "cosine", "lr_warmup_steps": 2,
            "cover_share": 0.3, "repaint_share": 0.3, "reference_share": 0.5, "timesteps": "logit_normal",
            "ema_decay": 0.9, "lora_dropout": 0.3, "max_grad_norm": 1.0}  # fmt: skip
    more |= RANK if kind == "lora" else {"trainable_models": "dit,conditioner"}
    whole, _ = trained(kind, model, songs, tmp_path / "whole", quiet, **more)
    for stop_after in (1, 2):
        count = iter([False] * (10 + stop_after - 1) + [True] * 5)  # 3 x 3 items, once between, each step
        with pytest.raises(Cancelled, match="the same command goes on"):
            trained(kind, model, songs, tmp_path / "broken", quiet, lambda count=count: next(count), **more)
    broken, facts = trained(kind, model, songs, tmp_path / "broken", quiet, **more)
    assert facts["progress"]["step"] == 4
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[key], broken[key]) for key in whole)
    files = {path.name for path in (tmp_path / "whole").glob("*.safetensors")}
    assert {"epoch-0.safetensors", "epoch-1.safetensors"} < files
    for name in files - {STATE}:
        a, b = (load_file(tmp_path / each / name) for each in ("whole", "broken"))
        assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_a_kill_changes_no_weight(model, songs, tmp_path):
    """kill -9 from outside, at whatever moment, and the same command again."""
    given = arguments(model, songs, tmp_path / "whole", num_epochs=4, state_steps=1, **RANK)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def command(output):
        line = command_line("lora", {**given, "output_path": str(output)})
        return [sys.executable, "-m", "punchin.training", *line]

    subprocess.run(command(tmp_path / "whole"), check=True, env=env, capture_output=True)
    process = subprocess.Popen(command(tmp_path / "broken"), env=env, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while steps_in(tmp_path / "broken" / STATE) == 0:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    step = state.load(tmp_path / "broken" / STATE)[1]["progress"]["step"]
    assert 0 < step < 12, "killed too late to prove anything"
    again = subprocess.run(command(tmp_path / "broken"), check=True, env=env, capture_output=True, text=True)
    assert f"going on after step {step}" in again.stderr
    whole, broken = (state.load(tmp_path / name / STATE)[0] for name in ("whole", "broken"))
    assert all(torch.equal(whole[key], broken[key]) for key in whole)


LATE = """
import os, sys, time
from punchin.training import __main__, trainer

resume = trainer.Trainer._resume
def late(self):
    time.sleep(3 * int(os.environ["RANK"]))
    return resume(self)
trainer.Trainer._resume = late
sys.exit(__main__.main())
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does_with_twice_the_batch(model, songs, tmp_path):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    given = arguments(model, songs, tmp_path / "two", num_epochs=2, lr_scheduler="constant", **RANK)
    script = tmp_path / "late.py"  # the second process comes late, when the first has long saved
    script.write_text(LATE)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    done = subprocess.run([*launch, *command_line("lora", given)], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("weights trained") == done.stderr.count("done in") == 1, "one process talks"
    one = {**given, "output_path": str(tmp_path / "one"), "batch_size": 2}
    assert main(command_line("lora", one)) == 0
    (a, told), (b, _) = (state.load(tmp_path / name / STATE) for name in ("two", "one"))
    assert told["settings"]["processes"] == 2
    assert told["progress"]["step"] == 4
    for key in a:
        if key.startswith("model."):
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=2e-5)


PLAIN = """
import sys
from punchin.training import __main__
sys.exit(__main__.main())
"""

WITHOUT_CLS = """
import sys
from punchin.training import __main__, sources

load = sources.load
def without(*given, **more):
    loaded = load(*given, **more)
    loaded.model.encoder.timbre_encoder.cls = False
    return loaded
sources.load = without
sys.exit(__main__.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "script", "more"),
    [("lora", PLAIN, {"fp8_models": "dit", **RANK}), ("full", WITHOUT_CLS, {"trainable_models": "conditioner"})],
)
def test_two_processes_share_no_frozen_weight_and_wait_for_no_unused_one(model, songs, tmp_path, kind, script, more):
    """8 bits cannot be sent; models without `timbre_cls` have a token in their files that nothing uses."""
    given = arguments(model, songs, tmp_path / "out", max_steps=3, dataset_repeat=4, **more)
    done = launched(tmp_path, script, given, kind)
    assert done.returncode == 0, done.stderr[-2000:]
    assert steps_in(tmp_path / "out" / STATE) == 3


STOPPED = """
import os, signal, sys
from punchin.training import __main__, trainer

step = trainer.Trainer._step
def stopped(self, wrapped, optimizer, number, supply):
    loss = step(self, wrapped, optimizer, number, supply)
    if os.environ["RANK"] == "1" and number == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return loss
trainer.Trainer._step = stopped
sys.exit(__main__.main())
"""


APART = """
import os, sys
from punchin.training import __main__
sys.exit(__main__.main([*sys.argv[1:], "--output_path", os.environ["APART"] + os.environ["RANK"]]))
"""


def launched(tmp_path, script, given, kind="lora", **more):
    """Two processes of a script; the launcher's exit code says only that one failed."""
    path = tmp_path / "script.py"
    path.write_text(script)
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([*line, *command_line(kind, given)], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_one_process_asked_to_stop_stops_both_after_the_same_step(model, songs, tmp_path):
    given = arguments(model, songs, tmp_path / "apart0", num_epochs=3, **RANK)
    done = launched(tmp_path, STOPPED, given)
    assert done.returncode != 0
    assert done.stderr.count("stopped after step 2 of 6; the same command goes on") == 2, done.stderr[-2000:]
    assert steps_in(tmp_path / "apart0" / STATE) == 2
    del given["output_path"]  # and a second process that looks for the state elsewhere
    done = launched(tmp_path, APART, given, APART=str(tmp_path / "apart"))
    assert done.returncode != 0
    assert "is there for 1 of 2 processes" in done.stderr, done.stderr[-2000:]
    assert "output_path must be a folder that all processes share" in done.stderr
    assert steps_in(tmp_path / "apart0" / STATE) == 2


def test_a_lora_from_a_file_begins_where_that_ended(model, songs, tmp_path, quiet):
    trained("lora", model, songs, tmp_path / "a", quiet, num_epochs=2, lora_alpha=8.0, **RANK)
    start = {
        "lora_checkpoint": str(tmp_path / "a" / "epoch-1.safetensors"),
        "learning_rate": 1e-12,
        "weight_decay": 0.0,
    }
    tensors, _ = trained("lora", model, songs, tmp_path / "b", quiet, max_steps=1, **start, **RANK)
    before = load_file(tmp_path / "a" / "epoch-1.safetensors")
    for key, each in before.items():
        torch.testing.assert_close(tensors[f"model.decoder.{key}"], each.float(), rtol=0, atol=1e-6)
    assert max(float(each.abs().max()) for key, each in before.items() if "lora_B" in key) > 0
    for wrong, said in (
        ({"lora_rank": 8}, "rank 4, lora_rank is 8"),
        ({"lora_target_modules": "q_proj"}, "does not name"),
    ):
        with pytest.raises(Refused, match=said):
            trained("lora", model, songs, tmp_path / "c", quiet, **{
                **RANK, **wrong, "lora_checkpoint": str(tmp_path / "a" / "epoch-1.safetensors")})  # fmt: skip


def test_a_preset_lora_is_in_the_weights(model, songs, tmp_path, quiet):
    trained("lora", model, songs, tmp_path / "a", quiet, num_epochs=1, **RANK)
    file = tmp_path / "a" / "epoch-0.safetensors"
    settings = Settings(kind="lora", preset_lora_path=str(file), preset_lora_model="dit",
                        **arguments(model, songs, tmp_path / "b", **RANK))  # fmt: skip
    plain, fused = (run.ready(settings)[1] for _ in range(2))
    trainers.prepared(fused, settings)
    lora = read_lora(file, plain.model)
    name = "decoder.layers.0.mlp.down_proj"
    want = plain.model.get_submodule(name).weight + lora.pairs[name].up.float() @ lora.pairs[name].down.float()
    torch.testing.assert_close(fused.model.get_submodule(f"{name}.base_layer").weight, want, rtol=0, atol=1e-6)


def test_processed_data_trains_the_same(model, songs, tmp_path, quiet):
    more = {"num_epochs": 1, "repaint_share": 0.5, **RANK}
    direct, _ = trained("lora", model, songs, tmp_path / "direct", quiet, **more)
    data = tmp_path / "data"
    run.train(Settings(kind="lora", task="sft:data_process", **arguments(model, songs, data, **more)), quiet, never)
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*.safetensors")) == [
        f"0/{number}.safetensors" for number in range(3)
    ]
    given = {**arguments(model, data, tmp_path / "later", **more), "dataset_metadata_path": None}
    run.train(Settings(kind="lora", task="sft:train", **given), quiet, never)
    later, _ = state.load(tmp_path / "later" / STATE)
    assert all(torch.equal(direct[key], later[key]) for key in direct)
    changed = {**given, "cover_share": 0.9, "repaint_share": 0.0, "output_path": str(tmp_path / "other")}
    with pytest.raises(Refused, match="the training wants cover"):
        run.train(Settings(kind="lora", task="sft:train", **changed), quiet, never)


def test_checkpointing_and_eight_bits_keep_the_loss(model, songs, tmp_path, quiet, monkeypatch):
    losses, calls = {}, {}
    real = Layer.forward

    def counted(layer, *given, **named):
        calls[name] = calls.get(name, 0) + 1
        return real(layer, *given, **named)

    monkeypatch.setattr(Layer, "forward", counted)
    for name, more in {
        "plain": {}, "again": {"use_gradient_checkpointing": True},
        "offload": {"use_gradient_checkpointing_offload": True}, "eighths": {"fp8_models": "dit,text_encoder"},
    }.items():  # fmt: skip
        tensors, facts = trained("lora", model, songs, tmp_path / name, quiet, max_steps=2, **more, **RANK)
        losses[name] = tensors, facts["progress"]["losses"]
    for name in ("again", "offload"):
        assert losses[name][1] == losses["plain"][1]
        assert all(torch.equal(losses[name][0][key], each) for key, each in losses["plain"][0].items())
    assert calls["again"] == calls["offload"] == 2 * calls["plain"], "each layer is computed a second time"
    assert losses["eighths"][1] != losses["plain"][1]
    np.testing.assert_allclose([x for _, x in losses["eighths"][1]], [x for _, x in losses["plain"][1]], rtol=0.05)


def test_samples_and_the_page(model, songs, tmp_path, quiet, capsys):
    out = tmp_path / "out"
    trained("lora", model, songs, out, quiet, max_steps=2, sample_steps=2, sample_duration=1.0, **RANK)
    audio, rate_hz = audiofile.read(out / "samples" / "step-2.wav")
    assert (audio.shape, rate_hz) == ((2, 48_000), 48_000)
    line = command_line("validate", arguments(model, songs, tmp_path / "page", max_audio_duration=1.5))
    assert main([*line, "--lora", str(out / "epoch-0.safetensors"), "--count", "2"]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "page" / "index.html")
    for name in ("1-original.flac", "1-made.flac", "2-made.png"):
        assert name in page
        assert (tmp_path / "page" / name).stat().st_size > 1000
    assert "2 prompts rendered again" in page


def test_a_page_is_made_in_eight_bits_where_they_are_asked_for(model, songs, tmp_path, quiet, capsys):
    trained("lora", model, songs, tmp_path / "lora", quiet, max_steps=2, learning_rate=1e-2, **RANK)
    trained("full", model, songs, tmp_path / "full", quiet, max_steps=2, learning_rate=1e-2)
    lora = ["--lora", str(tmp_path / "lora" / "epoch-0.safetensors")]
    checkpoint = ["--checkpoint", str(tmp_path / "full" / "epoch-0.safetensors")]
    means = {}
    for name, more in {
        "plain": [], "dit": ["--fp8_models", "dit"], "text": ["--fp8_models", "text_encoder"],
        "lora": lora, "lora, dit": [*lora, "--fp8_models", "dit"],
        "checkpoint": checkpoint, "checkpoint, dit": [*checkpoint, "--fp8_models", "dit"],
    }.items():  # fmt: skip
        page = tmp_path / name
        line = command_line("validate", arguments(model, songs, page, max_audio_duration=1.5))
        assert main([*line, *more, "--count", "1"]) == 0
        means[name] = float(re.findall(r"loss (\d+\.\d+)</p>", (page / "index.html").read_text())[0])
    assert len(set(means.values())) == len(means), means
    for name in ("lora", "checkpoint"):  # what was taught is not lost with the bits
        taught, rounded = (means[key] - means["plain"] for key in (name, f"{name}, dit"))
        assert abs(rounded - taught) < abs(taught) / 2, means
    line = command_line("validate", arguments(model, songs, tmp_path / "none"))
    assert main([*line, "--fp8_models", "dog"]) == 4
    assert "fp8_models names 'dog'" in capsys.readouterr().err


def test_a_full_checkpoint_is_the_model_in_every_form(model, songs, tmp_path, quiet):
    out = tmp_path / "out"
    tensors, _ = trained("full", model, songs, out, quiet, max_steps=1, save_steps=1,
                         save_formats="diffsynth,diffusers,punchin")  # fmt: skip
    bare = load_file(out / "step-1.safetensors")
    reference = load_file(model / "model.safetensors")
    assert set(bare) == {key.removeprefix("decoder.") for key in reference if key.startswith("decoder.")}
    name = "layers.3.mlp.up_proj.weight"
    assert torch.equal(bare[name], tensors[f"model.decoder.{name}"].bfloat16())
    assert not torch.equal(bare[name], reference[f"decoder.{name}"])
    pipe = AceStepPipeline.from_pretrained(out / "step-1-punchin", shared=model.parent, device="cpu")
    assert torch.equal(pipe.loaded.model.decoder.state_dict()[name].bfloat16(), bare[name])
    assert (pipe.variant.name, pipe.variant.like, pipe.loaded.trained) == ("step-1-punchin", "punchin-tiny", True)
    whole = load_file(out / "step-1-punchin" / "model.safetensors")
    assert whole.keys() == reference.keys()
    assert torch.equal(
        whole["tokenizer.quantizer.project_in.weight"], reference["tokenizer.quantizer.project_in.weight"]
    )


def test_what_is_frozen_in_eight_bits_is_written_as_it_was(model, songs, tmp_path, quiet):
    out, reference = tmp_path / "out", load_file(model / "model.safetensors")
    trained("full", model, songs, out, quiet, max_steps=1, save_steps=1, trainable_models="conditioner",
            fp8_models="dit,conditioner", save_formats="diffusers,punchin")  # fmt: skip
    punchin = load_file(out / "step-1-punchin" / "model.safetensors")
    diffusers = load_file(out / "step-1-diffusers" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert punchin.keys() == reference.keys()
    for name, each in reference.items():
        if name.startswith("decoder."):
            assert torch.equal(punchin[name], each.bfloat16())
            assert torch.equal(diffusers[adapters.diffusers_name(name.removeprefix("decoder."))], each.bfloat16())
    name = "encoder.lyric_encoder.layers.0.mlp.up_proj.weight"
    assert not torch.equal(punchin[name], reference[name].bfloat16()), "what is trained is not the base's"


def test_a_kill_after_the_first_checkpoint_is_no_end(model, songs, tmp_path, quiet, monkeypatch):
    """A checkpoint is written before the state of its step: killed between, the same command still goes on."""
    more = {"num_epochs": 1, "save_steps": 1, **RANK}
    whole, _ = trained("lora", model, songs, tmp_path / "whole", quiet, **more)
    real = trainers.outputs.write

    def killed(*given):
        real(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainers.outputs, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        trained("lora", model, songs, tmp_path / "out", quiet, **more)
    monkeypatch.setattr(trainers.outputs, "write", real)
    assert (tmp_path / "out" / "step-1.safetensors").exists()
    inside = tmp_path / "out" / "step-1-diffusers" / "transformer"
    inside.mkdir(parents=True)
    for left in (f".{STATE}-half", ".history.json-half"):
        (tmp_path / "out" / left).write_bytes(b"what a kill leaves of a file")
    for left in (".config.json-half", ".diffusion_pytorch_model.safetensors-half"):
        (inside / left).write_bytes(b"what a kill leaves of a file")
    again, _ = trained("lora", model, songs, tmp_path / "out", quiet, **more)
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert not [path.name for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]


def test_model_paths_in_parts(model, songs, tmp_path, quiet):
    """The three parts by their files, as DiffSynth's `model_paths` has them."""
    root = model.parent
    paths = [str(model / "model.safetensors"), str(root / "vae" / "diffusion_pytorch_model.safetensors"),
             [str(root / "Qwen3-Embedding-0.6B" / "model.safetensors")]]  # fmt: skip
    given = {**arguments(model, songs, tmp_path / "out"), "model": None, "model_paths": json.dumps(paths)}
    where = sources.where(Settings(kind="lora", silence_latent_path=str(model / "silence_latent.pt"), **given))
    assert (where.folders.dit, where.silence) == (model, model / "silence_latent.pt")
    assert where.folders.text == root / "Qwen3-Embedding-0.6B"


def test_silence_is_drawn_black_and_without_a_warning(tmp_path):
    with warnings.catch_warnings(action="error"):
        path = validation.spectrogram(np.zeros((2, 48_000), np.float32), tmp_path / "silence.png")
    (tmp_path / "file").touch()
    with pytest.raises(PunchinError, match="cannot be written"):
        validation.spectrogram(np.zeros((2, 48_000), np.float32), tmp_path / "file" / "silence.png")
    pixels = imread(path)
    assert (pixels[pixels.shape[0] // 3, pixels.shape[1] // 2, :3] == 0).all()
