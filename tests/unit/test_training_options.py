"""Each option does what it says, on a model of a few thousand weights."""

import json
import os
import shutil
import sys

import checkpoints
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trainingdata import arguments, command_line, write_model, write_songs

from punchin.engine import own, tiny
from punchin.engine.aside import Talk
from punchin.engine.pipeline import AceStepPipeline
from punchin.protocol import home
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.models import MODELS
from punchin.session import audiofile
from punchin.training import run, sources, state
from punchin.training import trainer as trainers
from punchin.training.__main__ import main
from punchin.training.console import Line
from punchin.training.outputs import STATE
from punchin.training.settings import Settings

RANK = {"lora_rank": 2, "lora_target_modules": "q_proj"}
RELEASED = [model for model in MODELS if model.family in ("2b", "xl")]
PLACES = {"dit": "acestep-v15-base", "vae": "vae", "text": "Qwen3-Embedding-0.6B"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("options"), name="acestep-v15-base", turbo=False)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    return write_songs(tmp_path_factory.mktemp("songs"), 2, (6.0, 6.0))


@pytest.fixture
def train(model, songs, tmp_path):
    """Runs a training and gives the state's tensors and facts, and its folder."""
    with (tmp_path / "talk").open("w") as talk:

        def one(kind="lora", name="out", **more):
            given = {
                **arguments(model, songs, tmp_path / name, max_steps=2),
                **(RANK if kind == "lora" else {}),
                **more,
            }
            run.train(Settings(kind=kind, **given), Line(talk), lambda: False)
            return *state.load(tmp_path / name / STATE), tmp_path / name

        yield one


def settings_of(model, **more):
    return Settings(kind="lora", **{"dataset_base_path": "x", "model": None if model is None else str(model), **more})


def loaded(settings):
    return sources.load(sources.where(settings), torch.device("cpu"), torch.float32,
                        first_on_cpu=settings.initialize_model_on_cpu)  # fmt: skip


# ---- where the model is ----


@pytest.mark.parametrize("each", RELEASED, ids=lambda each: each.name)
def test_all_nine_models_are_found_by_name(each, model, home, monkeypatch):
    models = home / "models"
    monkeypatch.setenv("PUNCHIN_MODELS", str(models))
    (models / "Ace-Step1.5").mkdir(parents=True)
    for name in ("vae", "Qwen3-Embedding-0.6B"):
        (models / "Ace-Step1.5" / name).symlink_to(model.parent / name)
    own = models / ("Ace-Step1.5" if each.name == "turbo" else "") / each.folder
    own.symlink_to(model)
    found = sources.where(settings_of(each.name))
    assert (found.folders.dit, found.folders.vae.name) == (own, "vae")
    assert len(RELEASED) == 9


@pytest.mark.parametrize("place", ["punchin", "diffsynth"])
def test_a_model_is_named_as_in_diffsynths_scripts(model, tmp_path, monkeypatch, place):
    root = home.models() if place == "punchin" else tmp_path / "models" / "ACE-Step"
    root.mkdir(parents=True)
    (root / "Ace-Step1.5").symlink_to(model.parent)
    monkeypatch.chdir(tmp_path)
    named = ",".join(f"ACE-Step/Ace-Step1.5:{each}" for each in (
        "acestep-v15-base/model.safetensors", "Qwen3-Embedding-0.6B/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors"))  # fmt: skip
    settings = settings_of(
        None, model_id_with_origin_paths=named, tokenizer_path="ACE-Step/Ace-Step1.5:Qwen3-Embedding-0.6B/",
        silence_latent_path="ACE-Step/Ace-Step1.5:acestep-v15-base/silence_latent.pt",
    )  # fmt: skip
    found = sources.where(settings)
    assert {part: getattr(found.folders, part).name for part in PLACES} == PLACES
    assert torch.equal(loaded(settings).silence, loaded(settings_of(model)).silence)


def test_a_tiny_ones_folder_alone_gets_tinys_parts_and_not_turbos(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PUNCHIN_MODELS", str(tmp_path / "models"))
    main_folder = tmp_path / "models" / "Ace-Step1.5"
    main_folder.mkdir(parents=True)
    (main_folder / "acestep-v15-turbo").symlink_to(model)
    for name in ("vae", "Qwen3-Embedding-0.6B"):
        (main_folder / name).symlink_to(model.parent / name)
    bare = shutil.copytree(tiny.ready(), tmp_path / "out" / "epoch-4-punchin")
    for named in ({"model": bare}, {"model": None, "model_paths": json.dumps([str(bare)])}):
        found = sources.where(settings_of(**named)).folders
        assert (found.dit, found.vae.parent, found.text.parent) == (bare, *[tiny.ready().parent] * 2)


def test_a_silence_and_a_tokenizer_of_their_own(model, tmp_path):
    silence = torch.arange(64 * 5.0).view(1, 64, 5)
    torch.save(silence, tmp_path / "my_silence.pt")
    told = json.loads((model.parent / "Qwen3-Embedding-0.6B" / "tokenizer.json").read_text())
    told["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    one = loaded(settings_of(model))
    two = loaded(settings_of(model, silence_latent_path=str(tmp_path / "my_silence.pt"), tokenizer_path=str(tmp_path)))
    assert torch.equal(two.silence, silence.transpose(1, 2))
    assert one.text.ids("Bell", 9) != two.text.ids("Bell", 9) == one.text.ids("bell", 9)
    for wrong in ({"silence_latent_path": "/nowhere.pt"}, {"tokenizer_path": "/nowhere"}):
        with pytest.raises(Refused, match="nowhere"):
            sources.where(settings_of(model, **wrong))


def test_a_model_that_is_read_to_the_cpu_first_is_the_same(model):
    one, two = loaded(settings_of(model)), loaded(settings_of(model, initialize_model_on_cpu=True))
    for name, each in one.model.state_dict().items():
        assert torch.equal(two.model.state_dict()[name], each)


@pytest.mark.parametrize(
    ("device", "visible", "chosen"),
    [("cuda:1", None, "1"), ("cuda:1", "2,3", "3"), ("cuda:0", "GPU-8f2a, GPU-91b0", "GPU-8f2a"),
     ("cuda:2", "2,3", "2,3"), ("cuda:0", "", ""), ("cuda:x", "2,3", "2,3")],
)  # fmt: skip
def test_a_device_is_one_of_those_that_are_visible(device, visible, chosen, monkeypatch):
    monkeypatch.setattr(run, "VISIBLE", visible)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for _ in range(2):  # a second training in the same process has the same device
        with pytest.raises(BadUsage) as caught:
            run._processes(settings_of("x", device=device))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen
    refused = {"cuda:2": "2 devices, counted from 0", "cuda:x": "must be a number"}.get(device)
    assert (refused or ("0 devices" if visible == "" else "that torch can use")) in str(caught.value)


# ---- what is trained, and how ----


def test_data_is_repeated_and_fetched_ahead(train):
    _, facts, _ = train(dataset_repeat=3, max_steps=100)
    assert facts["progress"]["step"] == 6
    plain, _, _ = train(name="a")
    ahead, _, _ = train(name="b", dataset_num_workers=2)
    assert all(torch.equal(plain[key], ahead[key]) for key in plain)


def test_the_conditioner_alone_is_trained_and_written(train, model):
    tensors, _, out = train("full", trainable_models="conditioner", save_steps=2)
    assert {key.split(".")[1] for key in tensors if key.startswith("model.")} == {"encoder", "null_condition_emb"}
    keys = load_file(out / "step-2.safetensors")
    assert {".".join(key.split(".")[:2]) for key in keys} == {"pipe.conditioner"}


def test_the_prefix_of_names_is_told(train):
    for prefix, first in (("pipe.dit.", "layers.0."), ("", "pipe.dit.layers.0."), ("pipe.", "dit.layers.0.")):
        _, _, out = train(name=f"p-{prefix}", remove_prefix_in_ckpt=prefix, save_steps=2)
        assert min(load_file(out / "step-2.safetensors")).startswith(first)


def test_weight_decay_shrinks_what_has_no_gradient_of_its_own(train):
    """AdamW takes rate x decay of each weight away in each step, whatever the gradient."""
    more = {"learning_rate": 0.1, "lr_scheduler": "constant", "max_steps": 1}
    none, much = (train(name=f"w{x}", weight_decay=x, **more)[0] for x in (0.0, 0.5))
    key = next(key for key in none if key.endswith("lora_A.default.weight") and key.startswith("model."))
    start = train(name="start", weight_decay=0.0, max_steps=1, learning_rate=1e-12)[0][key]
    torch.testing.assert_close(none[key] - much[key], 0.1 * 0.5 * start, rtol=1e-3, atol=1e-6)


def test_trained_weights_are_kept_as_told(train):
    for name in ("float32", "bfloat16"):
        tensors, _, out = train(name=name, param_dtype=name, save_steps=2)
        kept = {each.dtype for key, each in tensors.items() if key.startswith("model.")}
        assert kept == {getattr(torch, name)}
        assert {each.dtype for each in load_file(out / "step-2.safetensors").values()} == {torch.bfloat16}


def test_gradients_are_clipped(train, monkeypatch):
    norms = {}
    real = torch.optim.AdamW.step

    def seen(optimizer, *given):
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.setdefault(name, []).append(float(torch.stack([each.norm() for each in grads]).norm()))
        return real(optimizer, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", seen)
    for name, more in (("free", {}), ("held", {"max_grad_norm": 1e-3})):
        train(name=name, **more)
    assert min(norms["free"]) > 2e-3
    assert norms["held"] == pytest.approx([1e-3] * 2, rel=1e-3)


def test_the_learning_rate_goes_as_told():
    def rates(total=10, **more):
        told = settings_of("x", **more)
        return [trainers.rate(told, step, total) for step in range(total)]

    assert rates() == [pytest.approx(1 / 3)] * 5 + [1.0] * 5
    assert rates(lr_warmup_steps=2) == [0.5] + [1.0] * 9
    assert rates(lr_scheduler="constant") == [1.0] * 10
    assert rates(lr_scheduler="linear") == pytest.approx([1 - step / 10 for step in range(10)])
    assert rates(lr_scheduler="cosine") == pytest.approx([(1 + np.cos(np.pi * step / 10)) / 2 for step in range(10)])
    warm = rates(lr_scheduler="linear", lr_warmup_steps=4)
    assert warm == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


def test_the_rate_is_the_optimizers(train, monkeypatch):
    seen = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda optimizer, *given: (
        seen.append(optimizer.param_groups[0]["lr"]), real(optimizer, *given))[1])  # fmt: skip
    train(learning_rate=0.3, lr_scheduler="linear")
    assert seen == pytest.approx([0.3, 0.15])


def test_unused_parameters_are_looked_for_when_told(train, monkeypatch):
    seen, real = [], trainers.DistributedDataParallelKwargs
    monkeypatch.setattr(trainers, "DistributedDataParallelKwargs", lambda **told: seen.append(told) or real(**told))
    train(max_steps=1)
    train(name="b", max_steps=1, find_unused_parameters=True)
    assert [told["find_unused_parameters"] for told in seen] == [False, True]


def test_extra_inputs_are_trained_on(model, songs, train, tmp_path):
    rows = [{"audio": f"{n}.wav", "prompt": "x", "src_audio": f"{1 - n}.wav", "reference_audios": [f"{n}.wav"],
             "task_type": "lego", "instrument": "drums"} for n in range(2)]  # fmt: skip
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(rows))
    paired = {"dataset_metadata_path": str(path), "extra_inputs": "src_audio,task_type,instrument"}
    results = [train(name=name, **more)[0] for name, more in (
        ("plain", {"dataset_metadata_path": str(path)}), ("pairs", paired),
        ("timbre", {**paired, "extra_inputs": f"{paired['extra_inputs']},reference_audios"}),
    )]  # fmt: skip
    for one, two in ((0, 1), (1, 2)):
        assert any(not torch.equal(results[one][key], results[two][key]) for key in results[0])
    rows[1]["instrument"] = "bagpipes of war"
    path.write_text(json.dumps(rows))
    with pytest.raises(Refused, match="unknown instrument"):
        train(name="wrong", **paired)


def test_keys_that_hold_paths_are_told(model, songs, train, tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps([{"audio": "0.wav", "prompt": "x"}]))
    with pytest.raises(Refused, match="data_file_keys is video, without audio"):
        train(dataset_metadata_path=str(path), data_file_keys="video")
    assert train(dataset_metadata_path=str(path), data_file_keys="audio,video")[1]["progress"]["step"] == 1


def test_processed_examples_keep_the_order_of_the_dataset(model, tmp_path, train):
    songs = write_songs(tmp_path / "many", 12, (1.0,))
    more = {"dataset_base_path": str(songs), "dataset_metadata_path": str(songs / "metadata.json"), "max_steps": 3}
    direct, _, _ = train(name="direct", **more)
    line = command_line("lora", {**arguments(model, songs, tmp_path / "data"), "task": "sft:data_process", **RANK})
    assert main(line) == 0
    later, _, _ = train(name="later", task="sft:train", dataset_base_path=str(tmp_path / "data"),
                        dataset_metadata_path=None, max_steps=3)  # fmt: skip
    assert all(torch.equal(direct[key], later[key]) for key in direct)


def test_process_data_skips_goes_on_and_stops(model, tmp_path, capsys):
    songs = write_songs(tmp_path / "songs", 3, (1.0,))
    audiofile.write(songs / "1.wav", np.full((2, 48_000), np.nan, np.float32), 48_000)
    given = {**arguments(model, songs, tmp_path / "data"), "task": "sft:data_process", **RANK}
    assert main(command_line("lora", given)) == 4
    assert "1.wav has samples that are not finite" in capsys.readouterr().err
    assert main([*command_line("lora", given), "--skip_bad"]) == 0
    assert "1 of 3 skipped" in capsys.readouterr().err
    files = sorted(path.name for path in (tmp_path / "data" / "0").iterdir())
    assert files == ["0.safetensors", "2.safetensors"], "the numbers are the dataset's"
    before = (tmp_path / "data" / "0" / "0.safetensors").stat().st_mtime_ns
    audiofile.write(songs / "1.wav", np.full((2, 48_000), 0.25, np.float32), 48_000)  # repaired
    assert main(command_line("lora", given)) == 0
    assert (tmp_path / "data" / "0" / "1.safetensors").exists()
    assert (tmp_path / "data" / "0" / "0.safetensors").stat().st_mtime_ns == before
    (songs / "1.wav").unlink()
    assert main([*command_line("lora", given), "--skip_bad"]) == 0
    files = sorted(path.name for path in (tmp_path / "data" / "0").iterdir())
    assert files == ["0.safetensors", "2.safetensors"], "what was skipped would be trained on"


def test_examples_of_another_text_encoder_are_refused(model, songs, tmp_path, capsys):
    given = arguments(model, songs, tmp_path / "data", task="sft:data_process")
    assert main(command_line("lora", given)) == 0
    other = write_model(tmp_path / "other")
    more = {"task": "sft:train", "dataset_base_path": str(tmp_path / "data"), "device": "cpu", "model": str(other)}
    assert main(command_line("lora", {**more, "output_path": str(tmp_path / "out")})) == 4
    said = capsys.readouterr().err
    assert "0.safetensors is of another model: " in said
    assert "24 wide, the model's text encoder " in said


# ---- looking at it ----


@pytest.fixture
def requests(monkeypatch):
    """What the pipeline is asked for, once it plays."""
    seen, real = [], AceStepPipeline.stages
    monkeypatch.setattr(AceStepPipeline, "stages", lambda pipe, told: seen.append(told) or real(pipe, told))
    return seen


def validate(model, songs, output, *more, **told):
    return main([*command_line("validate", arguments(model, songs, output, **told)), "--count", "1", *more])


def test_validate_plays_what_the_extra_inputs_say(model, tmp_path, requests):
    songs = write_songs(tmp_path / "songs", 3, (7.0, 9.0, 6.0))
    for source, frames in (("1.wav", 7 * 48_000), ("2.wav", 6 * 48_000)):  # cut, and padded with nothing
        rows = [{"audio": "0.wav", "prompt": "x", "src_audio": source, "task_type": "complete",
                 "instrument": "drums,bass", "reference_audios": ["2.wav", "1.wav"]}]  # fmt: skip
        (songs / "pairs.json").write_text(json.dumps(rows))
        extra = {"extra_inputs": "src_audio,task_type,instrument,reference_audios"}
        given = {"dataset_metadata_path": str(songs / "pairs.json"), **extra}
        assert validate(model, songs, tmp_path / "page", **given) == 0
        told = requests.pop()
        assert (told.task, told.instruments, told.frames) == ("complete", ("drums", "bass"), 7 * 48_000)
        want = audiofile.read(songs / source)[0][:, :frames]
        np.testing.assert_allclose(told.source[:, :frames], want, atol=1e-6)
        assert not told.source[:, frames:].any()
        assert [each.shape[1] for each in told.references] == [6 * 48_000, 9 * 48_000]
    assert validate(model, songs, tmp_path / "plain") == 0
    assert (requests[0].task, requests[0].source, requests[0].references) == ("text2music", None, ())


def test_validate_asks_any_model_for_what_it_was_taught(tmp_path, requests):
    """A turbo model that was trained to add tracks is asked to add one, though the released one is not."""
    songs = write_songs(tmp_path / "songs", 2, (7.0, 7.0))
    rows = [{"audio": "0.wav", "prompt": "x", "src_audio": "1.wav", "task_type": "lego", "instrument": "drums"}]
    (songs / "pairs.json").write_text(json.dumps(rows))
    model = checkpoints.write(tmp_path / "model", name="acestep-v15-turbo", turbo=True)
    given = {"dataset_metadata_path": str(songs / "pairs.json"), "extra_inputs": "src_audio,task_type,instrument"}
    assert validate(model, songs, tmp_path / "page", **given) == 0
    assert requests[0].task == "lego"


def test_validate_hears_the_preset_and_refuses_a_beginning(model, songs, train, tmp_path, capsys):
    _, _, out = train(learning_rate=1.0, save_steps=2)
    lora = str(out / "step-2.safetensors")
    pages = {"plain": {}, "preset": {"preset_lora_path": lora, "preset_lora_model": "dit"}}
    for name, told in pages.items():
        assert validate(model, songs, tmp_path / name, **told) == 0
    made = [audiofile.read(tmp_path / name / "1-made.flac")[0] for name in pages]
    assert np.abs(made[0] - made[1]).max() > 1e-3
    assert validate(model, songs, tmp_path / "no", lora_checkpoint=lora) == 2
    assert "give the LoRA as `--lora`" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def times(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


def test_a_full_trainings_folder_is_a_model_to_validate(model, songs, train, tmp_path, monkeypatch, capsys):
    _, _, out = train("full", save_steps=2, save_formats="punchin")
    monkeypatch.setenv("PUNCHIN_MODELS", str(tmp_path / "models"))
    folder = out / "step-2-punchin"
    assert validate(folder, songs, tmp_path / "page") == 4
    assert "has no vae and no Qwen3-Embedding-0.6B" in capsys.readouterr().err
    main_repository = tmp_path / "models" / "Ace-Step1.5"
    main_repository.mkdir(parents=True)
    for name, where in (("acestep-v15-turbo", model.name), ("vae", "vae"), (PLACES["text"], PLACES["text"])):
        (main_repository / name).symlink_to(model.parent / where)
    assert validate(folder, songs, tmp_path / "page") == 0
    assert "with step-2-punchin" in capsys.readouterr().err
    by_paths = sources.where(settings_of(None, model_paths=json.dumps([str(folder)])))
    assert by_paths.folders.vae == main_repository / "vae"


def test_a_model_of_ones_own_is_trained_further_by_its_name():
    place = own.take_in("mine", tiny.ready(), home.models(), Talk(sys.stderr))
    assert sources.where(settings_of("mine")).folders == sources.Folders(place, place / "vae", place / PLACES["text"])


def test_processed_examples_of_something_else_are_made_anew(model, tmp_path, capsys):
    songs, data = write_songs(tmp_path / "songs", 3, (1.0,)), tmp_path / "data"
    rows = json.loads((songs / "metadata.json").read_text())
    given = {**arguments(model, songs, data), "task": "sft:data_process", **RANK}

    def changed(**more):
        before = times(data)
        assert main(command_line("lora", {**given, **more})) == 0
        after = times(data)
        return {name for name in before | after if before.get(name) != after.get(name)}, capsys.readouterr().err

    every = {f"0/{number}.safetensors" for number in range(3)}
    assert changed()[0] == every
    assert changed()[0] == set()
    rows[1]["prompt"] = "another"
    (songs / "metadata.json").write_text(json.dumps(rows))
    files, said = changed()
    assert files == {"0/1.safetensors"}
    assert "1 of 3 were made of other audio, metadata, options or model" in said
    audio, rate_hz = audiofile.read(songs / "2.wav")
    audiofile.write(songs / "2.wav", -audio, rate_hz)  # of the same size
    assert changed()[0] == {"0/2.safetensors"}
    assert changed(repaint_share=0.5)[0] == every
    assert changed(repaint_share=0.25)[0] == set(), "how often is the training's to know"
    (songs / "metadata.json").write_text(json.dumps(rows[:2]))
    files, said = changed(repaint_share=0.5)
    assert files == {"0/2.safetensors"}
    assert not (data / "0" / "2.safetensors").exists()
    assert "examples removed of items that the dataset of 2 has no more: 1" in said


def test_processed_examples_are_no_more_with_another_number_of_processes(model, songs, tmp_path):
    settings = Settings(kind="lora", task="sft:data_process", **arguments(model, songs, tmp_path / "data"))
    items, model_ = run.ready(settings)
    with (tmp_path / "talk").open("w") as talk:

        def process(number, count):
            run.process_data(settings, items, model_, Line(talk), lambda: False, number, count)
            return times(tmp_path / "data")

        process(0, 2)
        two = process(1, 2)
        assert set(two) == {"0/0.safetensors", "1/1.safetensors"}
        assert process(0, 1) == two
        shutil.copy(tmp_path / "data" / "1" / "1.safetensors", tmp_path / "data" / "0" / "1.safetensors")
        assert set(process(0, 1)) == {"0/0.safetensors", "0/1.safetensors"}, "one of two copies"


def test_a_training_beside_its_examples_goes_on(model, songs, train, tmp_path):
    """The same folder for both, as DiffSynth's default of `output_path` makes it: no checkpoint is an example."""
    line = command_line("lora", {**arguments(model, songs, tmp_path / "one"), "task": "sft:data_process"})
    assert main(line) == 0
    more = {"task": "sft:train", "dataset_base_path": str(tmp_path / "one"), "dataset_metadata_path": None,
            "save_steps": 1, "save_formats": "diffsynth,peft,diffusers", "num_epochs": 4}  # fmt: skip
    train(name="one", max_steps=1, **more)
    _, facts, _ = train(name="one", max_steps=3, **more)
    assert (facts["progress"]["step"], facts["settings"]["items"]) == (3, 2)


def test_everything_that_is_written_is_safetensors_json_or_audio(train):
    _, _, out = train(save_formats="diffsynth,peft,diffusers", sample_steps=2, sample_duration=6.0, num_epochs=2)
    kinds = {os.path.splitext(name)[1] for _, _, names in os.walk(out) for name in names}
    assert kinds == {".safetensors", ".json", ".wav", ".lock"}
    assert not (out / state.LOCK).read_bytes(), "it holds nothing"
