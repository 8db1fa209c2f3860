"""Trainings that cannot be, or that end: what is said, and that nothing is overwritten."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as serialised
from trainingdata import RANK, arguments, command_line, never, steps_in, trained, write_songs

from punchin.protocol.errors import Cancelled, JobFailed, PunchinError, Refused
from punchin.protocol.holder import Holder
from punchin.session import audiofile
from punchin.training import flow, run, sources, state
from punchin.training.__main__ import main
from punchin.training.objective import Objective
from punchin.training.outputs import STATE
from punchin.training.settings import Settings


def test_other_settings_are_refused_and_nothing_is_touched(model, songs, tmp_path, quiet):
    out = tmp_path / "out"
    trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(Refused, match="lora_rank: 4 -> 2"):
        trained("lora", model, songs, out, quiet, max_steps=2, **{**RANK, "lora_rank": 2})
    (out / STATE).rename(tmp_path / "away")
    with pytest.raises(Refused, match="no training-state"):
        trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    (tmp_path / "away").rename(out / STATE)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    trained("lora", model, songs, out, quiet, max_steps=1, **RANK)  # finished: nothing to do
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_loss_that_is_no_number_stops_and_keeps_what_was(model, songs, tmp_path, quiet, monkeypatch):
    out = tmp_path / "out"
    trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    before = (out / STATE).read_bytes()
    assert (out / "epoch-0.safetensors").exists()
    real = flow.errors
    monkeypatch.setattr(flow, "errors", lambda *given: real(*given) * float("nan"))
    with pytest.raises(JobFailed, match="the loss of step 2 is nan"):
        trained("lora", model, songs, out, quiet, max_steps=3, **RANK)
    assert (out / STATE).read_bytes() == before


def test_a_gradient_that_is_no_number_stops_before_it_is_in_the_weights(model, songs, tmp_path, quiet, monkeypatch):
    out = tmp_path / "out"
    real = flow.errors

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad * float("nan")

    trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    before = (out / STATE).read_bytes()
    monkeypatch.setattr(flow, "errors", lambda *given: Wrong.apply(real(*given)))
    with pytest.raises(JobFailed, match="the gradient of step 2 is nan"):
        trained("lora", model, songs, out, quiet, max_steps=3, state_steps=1, **RANK)
    assert (out / STATE).read_bytes() == before


def test_a_dataset_that_grew_is_another_training(model, tmp_path, quiet):
    songs = write_songs(tmp_path / "songs", 2)
    trained("lora", model, songs, tmp_path / "out", quiet, max_steps=1, **RANK)
    write_songs(tmp_path / "songs", 3)
    with pytest.raises(Refused, match="items: 2 -> 3"):
        trained("lora", model, songs, tmp_path / "out", quiet, max_steps=2, **RANK)


@pytest.mark.parametrize("processed", [False, True])
def test_other_audio_or_words_are_another_training(model, tmp_path, quiet, processed):
    songs, data, out = (write_songs(tmp_path / "songs", 2), tmp_path / "data", tmp_path / "out")

    def once(steps):
        given = arguments(model, songs, out, max_steps=steps, **RANK)
        if processed:
            made = {**given, "output_path": str(data), "task": "sft:data_process"}
            run.train(Settings(kind="lora", **made), quiet, never)
            given |= {"dataset_base_path": str(data), "dataset_metadata_path": None, "task": "sft:train"}
        run.train(Settings(kind="lora", **given), quiet, never)
        return state.load(out / STATE)[1]["progress"]["step"]

    once(1)
    text, audio = (songs / "metadata.json").read_text(), (songs / "1.wav").read_bytes()
    for name, changed in (
        ("metadata.json", text.replace("tone 1", "bell 1").encode()),
        ("1.wav", audio[:-4] + b"\0" * 4),
    ):
        before = (songs / name).read_bytes()
        (songs / name).write_bytes(changed)
        with pytest.raises(Refused, match="what the items are made of: "):
            once(2)
        (songs / name).write_bytes(before)
    assert once(2) == 2


def test_a_full_disk_is_told_and_the_last_state_stays(model, songs, tmp_path, quiet, monkeypatch):
    out = tmp_path / "out"
    trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    before = (out / STATE).read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PunchinError, match="No space left"):
        trained("lora", model, songs, out, quiet, max_steps=2, **RANK)
    assert (out / STATE).read_bytes() == before
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lora_target_modules": "q_proj,to_q"}, "'to_q', which no layer has"),
        ({"model": "/nowhere"}, "no model folder"),
        ({"model": "xl-sft"}, "punchin models pull xl-sft"),
        ({"model": None, "model_paths": "not json"}, "model_paths is no JSON"),
        ({"model_paths": '["x"]'}, "three ways"),
        ({"model": None, "model_id_with_origin_paths": "ACE-Step/none:model.safetensors"}, "is not here"),
        ({"model": None, "model_id_with_origin_paths": "x:/etc/*"}, "x:/etc/* is not here"),
        ({"model": None, "model_id_with_origin_paths": "x:a**b"}, "x:a**b is not here"),
        ({"validation_count": 3}, "none would be left"),
        ({"fp8_models": "dog"}, "fp8_models names 'dog'"),
        ({"device": "tpu"}, "device is tpu; "),
        ({"device": "cpu:3"}, "device is cpu:3; "),
        ({"device": "cuda:"}, "device is cuda:, and must be a number"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(model, songs, tmp_path, capsys, more, said):
    given = {**arguments(model, songs, tmp_path / "out", **RANK), **more}
    code = main(command_line("lora", {key: value for key, value in given.items() if value is not None}))
    text = capsys.readouterr().err
    assert code in (2, 4)
    assert said in text
    assert "Traceback" not in text
    assert not (tmp_path / "out").exists()


def test_bad_audio_is_named_or_skipped(model, songs, tmp_path, capsys):
    folder = write_songs(tmp_path / "songs", 2)
    (folder / "1.wav").write_bytes(b"junk")
    line = command_line("lora", arguments(model, folder, tmp_path / "out", max_steps=1, **RANK))
    assert main(line) == 4
    said = capsys.readouterr().err
    assert "1 of 2 items cannot be used: " in said
    assert "1.wav" in said
    assert "--skip_bad" in said
    assert main([*line, "--skip_bad"]) == 0
    assert "1 of 2 skipped" in capsys.readouterr().err


def test_held_out_recordings_are_looked_for_before_the_model_is_read(model, songs, tmp_path, capsys, monkeypatch):
    (tmp_path / "apart.json").write_text(json.dumps([{"audio": f"{number}.wav", "prompt": "x"} for number in (0, 9)]))
    more = {"validation_metadata_path": str(tmp_path / "apart.json"), "max_steps": 1, **RANK}
    line = command_line("lora", arguments(model, songs, tmp_path / "out", **more))
    with monkeypatch.context() as unread:
        unread.setattr(sources, "load", None)
        assert main(line) == 4
    assert "1 of 2 items cannot be used: media file is missing" in capsys.readouterr().err
    assert main([*line, "--skip_bad", "--validation_steps", "1"]) == 0
    assert "validation loss" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"lora_target_modules": "to_q"}, "'to_q', which no layer has"),
        ({"lora_checkpoint": "/nowhere.safetensors"}, "there is no LoRA file /nowhere.safetensors"),
        ({"preset_lora_path": "/nowhere.safetensors", "preset_lora_model": "dit"}, "there is no LoRA file"),
        ({"output_path": __file__}, "is no folder"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"fp8_models": "ditt"}, "fp8_models names 'ditt'"),
        ({"validation_count": 3}, "validation_count is 3, of 3 items none would be left"),
        ({"lora_checkpoint": "THERE", "lora_rank": 8}, "has rank 4, lora_rank is 8"),
        ({"lora_checkpoint": "THERE", "lora_target_modules": "k_proj"}, "which lora_target_modules does not name"),
        ({"sample_prompt": "a slow, dusty groove, " * 140, "sample_steps": 1}, "tokens, allowed is 1 to 256"),
    ],
)
def test_what_is_wrong_is_said_before_the_device_is_asked_for(model, songs, tmp_path, quiet, more, said):
    out = tmp_path / "out"
    if "seed" in more or more.get("lora_checkpoint") == "THERE":
        trained("lora", model, songs, out, quiet, max_steps=1, **RANK)
    if more.get("lora_checkpoint") == "THERE":
        more = {**more, "lora_checkpoint": str(out / "epoch-0.safetensors")}
        out = tmp_path / "next"
    given = arguments(model, songs, out, **RANK)
    asked = []
    with pytest.raises(PunchinError, match=re.escape(said)):
        run.train(Settings(kind="lora", **{**given, **more}), quiet, never, lambda: asked.append("device"))
    assert asked == []


def test_a_stop_is_heard_before_the_model_is_read(model, songs, tmp_path, quiet, monkeypatch):
    monkeypatch.setattr(sources, "load", None)
    asked = iter([False] * 3 + [True])
    with pytest.raises(Cancelled, match="before the model was read; nothing was written"):
        trained("lora", model, songs, tmp_path / "o", quiet, stop=lambda: next(asked), **RANK)
    assert not (tmp_path / "o").exists()


def test_a_stop_is_heard_while_recordings_are_told_from_others(model, songs, tmp_path, quiet):
    asked = iter([False] * 8 + [True])  # three headers, the model, three examples, then the first item's recording
    with pytest.raises(Cancelled, match="item 2 of 3 was looked through; nothing was written"):
        trained("lora", model, songs, tmp_path / "o", quiet, stop=lambda: next(asked), **RANK)
    assert [path.name for path in (tmp_path / "o").iterdir()] == [state.LOCK]


def test_what_comes_before_the_first_step_is_told(model, songs, tmp_path, quiet, monkeypatch):
    shown = []
    monkeypatch.setattr(quiet, "show", lambda text, now=False: shown.append(text))
    trained("lora", model, songs, tmp_path / "o", quiet, max_steps=1, validation_count=1, **RANK)
    assert shown[:6] == [f"{what} {number} of 3" for what in ("reading item", "looking through item")
                         for number in (1, 2, 3)]  # fmt: skip


@pytest.mark.parametrize("option", ["lora", "checkpoint", "preset_lora_path"])
def test_a_page_of_weights_that_do_not_fit_takes_no_device(model, songs, tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr(Holder, "device", None)
    other = {"decoder.layers.99.mlp.up_proj.weight": torch.zeros(2, 2)}
    (tmp_path / "other.safetensors").write_bytes(serialised(other))
    line = command_line("validate", arguments(model, songs, tmp_path / "page", preset_lora_model="dit"))
    for file, said in (("nowhere.safetensors", "/nowhere.safetensors"), ("other.safetensors", "layers.99")):
        assert main([*line, f"--{option}", str(tmp_path / file)]) in (2, 4)
        assert said in capsys.readouterr().err


def test_prompts_that_are_not_read_to_their_end_are_named(model, songs, tmp_path, capsys):
    folder = write_songs(tmp_path / "songs", 2)
    rows = json.loads((folder / "metadata.json").read_text())
    rows[1]["prompt"] = "a slow, dusty groove, " * 140
    (folder / "metadata.json").write_text(json.dumps(rows))
    assert main(command_line("lora", arguments(model, folder, tmp_path / "out", max_steps=1, **RANK))) == 0
    said = capsys.readouterr().err
    assert "1 of 2 prompts are over 256 tokens" in said
    assert ": 1.wav\n" in said


def test_texts_that_are_not_read_to_their_end_are_played_as_far_as_they_are(model, tmp_path, quiet, capsys):
    folder = write_songs(tmp_path / "songs", 1)
    rows = json.loads((folder / "metadata.json").read_text())
    rows[0] |= {"prompt": "a slow, dusty groove, " * 140, "lyrics": "la la dusty\n" * 800}
    (folder / "metadata.json").write_text(json.dumps(rows))
    trained("lora", model, folder, tmp_path / "out", quiet, max_steps=1, sample_steps=1, sample_duration=1.0, **RANK)
    assert (tmp_path / "out" / "samples" / "step-1.wav").exists()
    line = command_line("validate", arguments(model, folder, tmp_path / "page", max_audio_duration=1.5))
    assert main(line) == 0
    settings = Settings(kind="lora", **arguments(model, folder, tmp_path / "out"))
    items, loaded = run.ready(settings)
    listener = run._listener(settings, loaded)
    whole = listener.read_whole(items[0])
    assert not listener.cuts_prompt(whole)
    assert not listener.cuts_lyrics(whole)
    assert listener.cuts_prompt(replace(whole, prompt=f"{whole.prompt} groove groove groove")), "and no word less"
    assert listener.cuts_lyrics(replace(whole, lyrics=f"{whole.lyrics}\nla la dusty"))
    assert listener.read_whole(whole) == whole


def test_a_bad_row_is_skipped_whatever_is_said_of_long_prompts(model, tmp_path, quiet, monkeypatch):
    """The first item, too, of which samples are played."""
    folder = write_songs(tmp_path / "songs", 3)
    rows = json.loads((folder / "metadata.json").read_text())
    for row, task in zip(rows, ("repaint", "cover", "cover"), strict=True):
        row |= {"task_type": task, "src_audio": "2.wav"}
    (folder / "metadata.json").write_text(json.dumps(rows))
    said = []
    monkeypatch.setattr(quiet, "say", said.append)
    more = {"extra_inputs": "task_type,src_audio", "skip_bad": True, "sample_steps": 1, "sample_duration": 1.0}
    trained("lora", model, folder, tmp_path / "out", quiet, max_steps=1, **more, **RANK)
    assert "1 of 3 skipped" in said
    assert (tmp_path / "out" / "samples" / "step-1.wav").exists()


def test_what_is_only_processed_holds_nothing_out_and_plays_nothing(model, songs, tmp_path, quiet):
    more = {"validation_count": 3, "sample_prompt": "a slow, dusty groove, " * 140, "sample_steps": 1}
    given = arguments(model, songs, tmp_path / "data", **more, **RANK)
    run.train(Settings(kind="lora", task="sft:data_process", **given), quiet, never)
    assert len([*(tmp_path / "data" / "0").iterdir()]) == 3


def test_a_state_from_before_presets_were_told_apart_goes_on(model, songs, tmp_path, quiet):
    trained("lora", model, songs, tmp_path / "a", quiet, max_steps=1, **RANK)
    preset = {"preset_lora_path": str(tmp_path / "a" / "epoch-0.safetensors"), "preset_lora_model": "dit", **RANK}
    _, facts = trained("lora", model, songs, tmp_path / "b", quiet, max_steps=1, **preset)
    tensors, _ = state.load(tmp_path / "b" / STATE)
    del facts["settings"]["preset LoRA"]
    state.save(tmp_path / "b" / STATE, tensors, facts)
    trained("lora", model, songs, tmp_path / "b", quiet, max_steps=2, **preset)
    assert steps_in(tmp_path / "b" / STATE) == 2


def test_a_sample_that_cannot_be_made_ends_no_training(model, songs, tmp_path, quiet, monkeypatch):
    def fails(*_):
        raise JobFailed("the take has samples that are not finite", code="not_finite")

    said = []
    monkeypatch.setattr(run, "sample", fails)
    monkeypatch.setattr(quiet, "say", said.append)
    trained("lora", model, songs, tmp_path / "out", quiet, max_steps=2, sample_steps=1, **RANK)
    assert "step 1: no sample: the take has samples that are not finite" in said
    assert steps_in(tmp_path / "out" / STATE) == 2


def test_another_preset_under_the_same_name_is_another_training(model, songs, tmp_path, quiet):
    trained("lora", model, songs, tmp_path / "a", quiet, max_steps=1, **RANK)
    preset = tmp_path / "a" / "epoch-0.safetensors"
    more = {"preset_lora_path": str(preset), "preset_lora_model": "dit", **RANK}
    trained("lora", model, songs, tmp_path / "b", quiet, max_steps=1, **more)
    trained("lora", model, songs, tmp_path / "b", quiet, max_steps=2, **more)
    preset.write_bytes(serialised({name: 5 * each for name, each in load_file(preset).items()}, {"format": "pt"}))
    with pytest.raises(Refused, match="preset LoRA: "):
        trained("lora", model, songs, tmp_path / "b", quiet, max_steps=3, **more)


def test_what_is_not_heard_or_read_is_named(model, songs, tmp_path, capsys):
    folder = write_songs(tmp_path / "songs", 2)
    audiofile.write(folder / "1.wav", np.zeros((6, 605 * 8_000), np.float32), 8_000)
    rows = json.loads((folder / "metadata.json").read_text())
    rows[0] |= {"lyrics": "la la dusty " * 800, "lyric": "la la", "tempo": 99}
    (folder / "metadata.json").write_text(json.dumps(rows))
    line = command_line("lora", arguments(model, folder, tmp_path / "out", max_steps=1, **RANK))
    assert main([*line, "--max_audio_duration", "3"]) == 0
    said = capsys.readouterr().err
    assert "metadata.json has keys that are not used: lyric, tempo\n" in said
    assert "1 of 2 lyrics are over 2048 tokens; their ends are not read: 0.wav\n" in said
    assert "1 of 2 recordings have more than two channels; the first two are heard: 1.wav\n" in said
    assert "600 s" not in said, "three seconds are what was asked for"
    loaded = run.ready(Settings(kind="lora", **arguments(model, folder, tmp_path / "out")))
    settings = Settings(kind="lora", **arguments(model, folder, tmp_path / "out"))
    told = []
    run._tell_cut(loaded[0], run._listener(settings, loaded[1]), told.append)
    assert "1 of 2 recordings are over 600 s; their ends are not heard: 1.wav" in told


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"), MemoryError("no")])
def test_memory_that_runs_out_is_told_with_what_takes_less(model, songs, tmp_path, capsys, monkeypatch, error):
    def full(self, batch):
        raise error

    monkeypatch.setattr(Objective, "forward", full)
    assert main(command_line("lora", arguments(model, songs, tmp_path / "out", **RANK))) == 1
    said = capsys.readouterr().err
    assert f"error: memory ran out: {str(error).partition(chr(10))[0]}\n" in said
    assert "--use_gradient_checkpointing" in said
    assert (tmp_path / "out" / STATE).exists()


def test_a_page_skips_what_cannot_be_heard(model, tmp_path, capsys):
    songs = write_songs(tmp_path / "songs", 2)
    audiofile.write(songs / "0.wav", np.full((2, 96_000), np.nan, np.float32), 48_000)
    line = command_line("validate", arguments(model, songs, tmp_path / "page", max_audio_duration=1.0))
    assert main(line) == 4
    assert "0.wav has samples that are not finite" in capsys.readouterr().err
    assert main([*line, "--skip_bad"]) == 0
    assert "1 of 2 skipped" in capsys.readouterr().err
    assert "1 prompts rendered again" in (tmp_path / "page" / "index.html").read_text()


def test_a_page_without_a_folder_is_told(model, songs, tmp_path, capsys):
    (tmp_path / "page").touch()
    assert main(command_line("validate", arguments(model, songs, tmp_path / "page"))) == 1
    assert f"{tmp_path / 'page'} cannot be written: File exists" in capsys.readouterr().err


def test_two_trainings_in_one_folder_are_refused(model, songs, tmp_path, quiet):
    with state.alone(tmp_path / "o"), pytest.raises(Refused, match="another training is at work in"):
        trained("lora", model, songs, tmp_path / "o", quiet, num_epochs=1, **RANK)
    assert [path.name for path in (tmp_path / "o").iterdir()] == [state.LOCK]
