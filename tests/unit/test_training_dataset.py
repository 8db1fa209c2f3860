"""Datasets in every form that people have, and each wrong one named with its place."""

import json

import numpy as np
import pytest
import torch
from trainingdata import write_songs

from punchin.protocol.errors import BadUsage, Cancelled, PunchinError, Refused
from punchin.session import audiofile
from punchin.training import dataset
from punchin.training.examples import sound
from punchin.training.settings import Settings, differing, names
from punchin.training.supply import Order, ahead, there, usable

ROWS = [
    {"audio": "a.wav", "prompt": "slow, sad", "lyrics": "[Verse]\nah", "bpm": 92.4, "keyscale": "F# minor",
     "timesignature": "3", "vocal_language": "en"},
    {"audio": "sub/b.flac", "prompt": "fast", "bpm": "N/A", "keyscale": "", "timesignature": None},
]  # fmt: skip


def written(folder, kind, rows):
    path = folder / f"metadata.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    else:
        import csv

        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, fieldnames=[*rows[0]])
            out.writeheader()
            out.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv"])
def test_the_three_forms_say_the_same(tmp_path, kind):
    one, two = dataset.read(tmp_path, written(tmp_path, kind, ROWS))
    assert one.audio == tmp_path / "a.wav"
    assert (one.prompt, one.bpm, one.keyscale, one.timesignature) == ("slow, sad", 92.4, "F# minor", "3")
    assert (one.vocal_language, two.vocal_language) == ("en", "unknown")
    assert one.lyrics == "[Verse]\nah"
    assert (two.audio, two.bpm, two.keyscale, two.timesignature, two.lyrics) == (
        tmp_path / "sub/b.flac",
        None,
        None,
        None,
        "",
    )


def test_the_original_repositorys_dataset(tmp_path):
    path = tmp_path / "dataset.json"
    sample = {"audio_path": "/music/x.wav", "filename": "x.wav", "caption": "warm pads", "genre": "ambient",
              "lyrics": "la", "bpm": 80, "keyscale": "A minor", "timesignature": "4", "duration": 60, "language": "fr",
              "is_instrumental": False, "custom_tag": "", "prompt_override": None, "labeled": True}  # fmt: skip
    about = {"name": "mine", "custom_tag": "zyx", "tag_position": "append", "genre_ratio": 0, "all_instrumental": False}
    samples = [sample, {**sample, "prompt_override": "genre", "is_instrumental": True, "custom_tag": "own"}]
    path.write_text(json.dumps({"metadata": about, "samples": samples}))
    one, two = dataset.read(tmp_path, path)
    assert str(one.audio) == "/music/x.wav"
    assert (one.prompt, one.lyrics, one.vocal_language, one.bpm) == ("warm pads, zyx", "la", "fr", 80)
    assert (two.prompt, two.lyrics) == ("ambient, own", "")
    path.write_text(
        json.dumps({"metadata": {**about, "genre_ratio": 100, "tag_position": "prepend"}, "samples": samples})
    )
    assert dataset.read(tmp_path, path)[0].prompt == "zyx, ambient"


def test_a_bare_folder_with_what_lies_beside_the_files(tmp_path):
    write_songs(tmp_path, 2)
    (tmp_path / "metadata.json").unlink()
    (tmp_path / "0.txt").write_text("words\n")
    (tmp_path / "1.json").write_text(json.dumps({"caption": "told", "bpm": 100, "language": "de"}))
    one, two = dataset.read(tmp_path)
    assert (one.prompt, one.lyrics) == ("0", "words")
    assert (two.prompt, two.bpm, two.vocal_language) == ("told", 100, "de")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "nothing to train on"),
        ([{"prompt": "x"}], "entry 1 has no 'audio'"),
        (
            [{"audio": "a.wav", "prompt": "x"}, {"audio": "a.wav", "text": "y"}],
            "entry 2 has no 'prompt'; it has audio, text",
        ),
        ([{"audio": "a.wav", "prompt": "x", "bpm": "fast"}], "entry 1, bpm is 'fast'"),
        ([{"audio": "a.wav", "prompt": "x", "bpm": 9000}], "allowed is 30 to 300"),
        ([{"audio": "a.wav", "prompt": "x", "keyscale": "H major"}], "key 'H major'"),
        ([{"audio": "a.wav", "prompt": "x", "timesignature": 5}], "time signature '5'"),
        ([{"audio": 3, "prompt": "x"}], "must be a path"),
        ([{"audio": "a.wav", "prompt": 3}], "must be text"),
        ([{"audio": ["a.wav"], "prompt": "x"}], "must be one path"),
        ([{"audio": "a.wav", "prompt": "x", "vocal_language": ["en"]}], "vocal_language is ['en']"),
        ([{"audio": "a.wav", "prompt": "x", "instrument": ["drums", "bass"]}], "with commas between several"),
        ([{"audio": "~nobody-here/a.wav", "prompt": "x"}], "audio is '~nobody-here/a.wav'"),
        ([{"audio": "a.wav", "prompt": "x", "bpm": 10**400}], "too large"),
        ([{"audio": "a.wav", "prompt": "slow \ud800"}], "prompt is 'slow \\ud800': halves of characters"),
        ({"metadata": [], "samples": ["a.wav"]}, "no objects"),
        ({"metadata": {"genre_ratio": "many"}, "samples": []}, "genre_ratio is 'many'"),
        (["a.wav"], "no list of objects"),
    ],
)
def test_wrong_rows_are_named(tmp_path, rows, said):
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(Refused) as caught:
        dataset.read(tmp_path, path, extra=("instrument",) if "instrument" in str(rows) else ())
    assert said in f"{caught.value}{caught.value.hint}"


def test_wrong_files_are_named(tmp_path):
    for metadata, said in ((tmp_path / "no.json", "no metadata file"), (tmp_path / "m.txt", "no metadata")):
        if metadata.suffix == ".txt":
            metadata.write_text("x")
        with pytest.raises(Refused, match=said):
            dataset.read(tmp_path, metadata)
    for broken in ("[{", "[" * 100_000):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(Refused, match="cannot be read"):
            dataset.read(tmp_path, tmp_path / "broken.json")
    (tmp_path / "wide.csv").write_text("audio,prompt\na.wav,slow, sad\n")
    with pytest.raises(Refused, match="entry 1 has 3 cells, the first line has 2") as caught:
        dataset.read(tmp_path, tmp_path / "wide.csv")
    assert "quotes" in caught.value.hint
    write_songs(tmp_path / "songs", 1)
    (tmp_path / "songs" / "metadata.json").unlink()
    for name, content in (("0.json", b"{"), ("0.json", b"[]"), ("0.txt", b"\xff")):
        (tmp_path / "songs" / name).write_bytes(content)
        with pytest.raises(Refused, match=name):
            dataset.read(tmp_path / "songs")
        (tmp_path / "songs" / name).unlink()
    with pytest.raises(Refused, match="no dataset folder"):
        dataset.read(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="nothing to train on"):
        dataset.read(tmp_path / "empty")


def test_what_a_spreadsheet_writes_is_read(tmp_path):
    table = tmp_path / "songs.CSV"
    for rows in (
        'audio,prompt,bpm\r\na.wav,"slow, sad",92.4\r\n,,\r\n\r\nb.wav,fast,\r\n,,\r\n',
        "audio; prompt ;bpm\r\na.wav;slow, sad;92.4\r\n;;\r\n\r\nb.wav;fast;\r\n;;\r\n",
    ):
        table.write_bytes(rows.encode("utf-8-sig"))
        one, two = dataset.read(tmp_path, table)
        assert (one.prompt, one.bpm, two.audio, two.bpm) == ("slow, sad", 92.4, tmp_path / "b.wav", None)
    table.write_text("audio;prompt\na.wav;slow; sad\n")
    with pytest.raises(Refused, match="entry 1 has 3 cells") as caught:
        dataset.read(tmp_path, table)
    assert "`;`" in caught.value.hint


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_key_that_is_there_twice_is_named(kind, tmp_path):
    text = '{"audio": "a.wav", "prompt": "slow", "prompt": "fast"}'
    (tmp_path / f"m.{kind}").write_text(f"[{text}]" if kind == "json" else text)
    with pytest.raises(Refused, match="has the key 'prompt' twice: 'slow' and 'fast'"):
        dataset.read(tmp_path, tmp_path / f"m.{kind}")


def test_a_column_that_is_there_twice_is_named(tmp_path):
    (tmp_path / "m.csv").write_text("audio,prompt,bpm, prompt,,\na.wav,slow,90,fast,,\n")
    with pytest.raises(Refused, match="has 2 columns named prompt") as caught:
        dataset.read(tmp_path, tmp_path / "m.csv")
    assert caught.value.hint


def test_keys_that_are_not_used_are_told(tmp_path):
    row, said = {"audio": "a.wav", "prompt": "x", "lyric": "la", "src_audio": "s.wav", "bpm": 90}, []
    dataset.read(tmp_path, written(tmp_path, "json", [row, {**row, "tempo": 92}]), say=said.append)
    assert said == ["metadata.json has keys that are not used: lyric, src_audio, tempo"]
    files = ("audio", "src_audio")
    (tmp_path / "m.csv").write_text("audio,prompt,src_audio,\na.wav,x,s.wav,\n")
    dataset.read(tmp_path, tmp_path / "m.csv", files, ("src_audio",), said.append)
    (tmp_path / "o.json").write_text(
        json.dumps({"metadata": {}, "samples": [{"audio_path": "a", "caption": "x", "labeled": True}]})
    )
    dataset.read(tmp_path, tmp_path / "o.json", say=said.append)
    assert len(said) == 1, "a column without a name, and what the original's own pages need, is no mistake"


def test_a_line_of_jsonl_ends_at_its_newline_alone(tmp_path):
    row = {"audio": "a.wav", "prompt": "x", "lyrics": "one\u2028two\x85three"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    (item,) = dataset.read(tmp_path, tmp_path / "m.jsonl")
    assert item.lyrics == row["lyrics"]


def test_a_bare_folder_is_read_through_links_and_without_what_is_no_data(tmp_path):
    for name in ("songs", "elsewhere"):
        write_songs(tmp_path / name, 1)
    songs = tmp_path / "songs"
    (songs / "0.wav").rename(songs / "mine.wav")
    (songs / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(songs)
    (songs / "mine.wav").rename(songs / "caf\udce9.wav")  # as Latin-1 had it
    assert [item.prompt for item in dataset.read(songs)] == ["caf\ufffd", "0"]
    (songs / "caf\udce9.wav").rename(songs / "mine.wav")
    (songs / "stems.wav").mkdir()
    (songs / "._mine.wav").write_bytes(b"what a Mac leaves on other disks")
    played = songs / "models" / "samples"
    played.mkdir(parents=True)
    (songs / "models" / "training.lock").touch()
    (played / "step-1.wav").write_bytes((songs / "mine.wav").read_bytes())
    assert sorted(item.audio.name for item in dataset.read(songs)) == ["0.wav", "mine.wav"]
    (songs / "models" / "training.lock").unlink()  # then they are somebody's own
    assert len(dataset.read(songs)) == 3


def test_a_bare_folder_has_extra_inputs_too(tmp_path):
    """A source that lies there as well is no item of its own."""
    folder = write_songs(tmp_path / "songs" / "deep", 3)
    (folder / "metadata.json").unlink()
    own = {"prompt": "told", "src_audio": "1.wav", "task_type": "cover"}
    (folder / "0.json").write_text(json.dumps(own))
    given = {"file_keys": ("audio", "src_audio"), "extra": ("src_audio", "task_type")}
    with pytest.raises(Refused, match=r"2\.wav has no 'src_audio', which extra_inputs asks for"):
        dataset.read(tmp_path / "songs", **given)
    (folder / "2.json").write_text(json.dumps(own | {"src_audio": "2.wav"}))
    one, two = dataset.read(tmp_path / "songs", **given)
    assert (one.audio, one.extra["src_audio"]) == (folder / "0.wav", folder / "1.wav")
    assert (two.audio, two.extra["src_audio"]) == (folder / "2.wav", folder / "2.wav")
    assert len(dataset.read(tmp_path / "songs")) == 3
    for number in range(3):  # each has its own file, and sounds like the next one
        (folder / f"{number}.json").write_text(json.dumps(own | {"src_audio": f"{(number + 1) % 3}.wav"}))
    assert len(dataset.read(tmp_path / "songs", **given)) == 3


def test_a_quote_that_does_not_end_swallows_no_items(tmp_path):
    (tmp_path / "open.csv").write_text('audio,prompt\na.wav,"dusty rhodes\nb.wav,drums\nc.wav,bass\n')
    with pytest.raises(Refused, match=r"open\.csv cannot be read: unexpected end of data"):
        dataset.read(tmp_path, tmp_path / "open.csv")


def test_cells_of_spaces_are_not_known(tmp_path):
    (tmp_path / "m.csv").write_text("audio,prompt,bpm,keyscale,timesignature,lyrics\na.wav,slow, , ,\t, \n")
    item = dataset.read(tmp_path, tmp_path / "m.csv")[0]
    assert (item.bpm, item.keyscale, item.timesignature, item.lyrics) == (None, None, None, "")


def test_extra_inputs_are_known_and_present(tmp_path):
    path = written(
        tmp_path, "json", [{"audio": "a.wav", "prompt": "x", "src_audio": "s.wav", "reference_audios": ["r.wav"]}]
    )
    files = ("audio", "src_audio", "reference_audios")
    (item,) = dataset.read(tmp_path, path, files, ("src_audio", "reference_audios"))
    assert item.extra == {"src_audio": tmp_path / "s.wav", "reference_audios": [tmp_path / "r.wav"]}
    with pytest.raises(Refused, match="which extra_inputs asks for"):
        dataset.read(tmp_path, path, files, ("task_type",))
    with pytest.raises(Refused, match="extra_inputs names 'controlnet'"):
        dataset.read(tmp_path, path, files, ("controlnet",))


def test_sound_is_stereo_at_48_khz_and_bad_audio_is_named(tmp_path):
    audiofile.write(tmp_path / "mono.wav", np.full((1, 44_100), 0.25, np.float32), 44_100)
    heard = sound(tmp_path / "mono.wav")
    assert heard.shape == (2, 48_000)
    assert torch.equal(heard[0], heard[1])
    audiofile.write(tmp_path / "six.wav", np.zeros((6, 96_000), np.float32), 48_000)
    assert sound(tmp_path / "six.wav", longest_s=1.5).shape == (2, 72_000)
    (tmp_path / "junk.wav").write_bytes(b"junk")
    audiofile.write(tmp_path / "short.wav", np.zeros((2, 4_800), np.float32), 48_000)
    audiofile.write(tmp_path / "nan.wav", np.full((2, 96_000), np.nan, np.float32), 48_000)
    audiofile.write(tmp_path / "integers.wav", np.full((2, 96_000), 20_000, np.float32), 48_000)
    (tmp_path / "stems.wav").mkdir()
    for name, said in (
        ("integers", "up to 20000 times full scale, over 100"),
        ("junk", "junk.wav"), ("short", "0.10 s long"), ("nan", "not finite"), ("no", "no.wav"), ("stems", "a folder"),
        ("slow, dusty " * 30, "File name too long"),
    ):  # fmt: skip
        with pytest.raises(Refused) as caught:
            sound(tmp_path / f"{name}.wav")
        assert said in str(caught.value)


def test_recordings_that_are_not_there_are_named_and_counted(tmp_path):
    rows = [{"audio": f"{number}.wav", "prompt": "x", "src_audio": "0.wav"} for number in range(9)]
    write_songs(tmp_path, 2)
    audiofile.write(tmp_path / "2.wav", np.zeros((2, 4_800), np.float32), 48_000)
    path = written(tmp_path, "json", rows)
    items, said = dataset.read(tmp_path, path, ("audio", "src_audio"), ("src_audio",)), []
    with pytest.raises(Refused) as caught:
        there(items, skip_bad=False, say=said.append)
    text = str(caught.value)
    assert text.startswith("7 of 9 items cannot be used: ")
    assert "2.wav is 0.10 s long" in text
    assert "6.wav" in text
    assert text.endswith("; and 2 more")
    assert "--skip_bad" in caught.value.hint
    assert said == []
    assert [item.audio.name for item in there(items, skip_bad=True, say=said.append)] == ["0.wav", "1.wav"]
    assert (len(said), said[-1]) == (8, "7 of 9 skipped")
    (tmp_path / "0.wav").unlink()  # what they are all made from
    with pytest.raises(Refused, match="none of the 9 items"):
        there(items, skip_bad=True, say=said.append)


class Fragile(list):
    def __getitem__(self, number):
        if number in (1, 3):
            raise Refused(f"{number}.wav is broken")
        return super().__getitem__(number)


def test_looking_for_recordings_is_stopped_between_two(tmp_path):
    items = dataset.read(write_songs(tmp_path, 3), tmp_path / "metadata.json")
    asked = iter([False, True])
    with pytest.raises(Cancelled, match="item 2 of 3"):
        there(items, skip_bad=False, say=print, stop=lambda: next(asked))


def test_bad_items_stop_or_are_counted():
    shelf, said = Fragile("abcd"), []
    with pytest.raises(Refused, match=r"1\.wav") as caught:
        usable(shelf, skip_bad=False, say=said.append)
    assert "--skip_bad" in caught.value.hint
    assert usable(shelf, skip_bad=True, say=said.append) == [0, 2]
    assert said == ["skipped: 1.wav is broken", "skipped: 3.wav is broken", "2 of 4 skipped"]
    with pytest.raises(Refused, match="none of the 1"):
        usable(Broken(), skip_bad=True, say=said.append)


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, number):
        raise Refused("broken")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_item_comes_as_often_as_asked_whatever_the_processes(processes):
    order = Order(range(10, 17), 5, repeat=3, batch=6 // processes, processes=processes, accumulate=2)
    assert order.batches_in_epoch == 4  # 21 items in sixes
    assert order.steps_in_epoch == 2
    seen, keys = [], []
    for step in range(2):
        groups = [order.step(step, process) for process in range(processes)]
        for batch in range(len(groups[0])):
            for process in range(processes):
                seen += groups[process][batch][0]
                keys += groups[process][batch][1]
    assert len(keys) == len(set(keys)) == 24
    assert keys == sorted(keys)
    assert sorted(seen[:21]) == sorted([*range(10, 17)] * 3)
    assert seen[21:] == seen[:3], "the last batch is filled from the start"
    alone = Order(range(10, 17), 5, repeat=3, batch=6, processes=1, accumulate=2)
    assert seen == [item for step in range(2) for items, _ in alone.step(step, 0) for item in items]
    later = [item for items, _ in alone.step(2, 0) for item in items]
    assert later != seen[: len(later)], "each epoch has its own order"


def test_an_epoch_has_an_end():
    with pytest.raises(PunchinError, match="items in an epoch is 30000000, allowed is 1 to 10000000") as caught:
        Order(range(3), 0, repeat=10**7, batch=1, processes=1, accumulate=1)
    assert "raise num_epochs" in caught.value.hint


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_fetching_ahead_changes_no_order(workers):
    wanted = [[3], [1, 2], [0], [2, 2]]
    assert [*ahead("abcd", iter(wanted), workers)] == [["d"], ["b", "c"], ["a"], ["c", "c"]]


GIVEN = {"kind": "lora", "dataset_base_path": "x"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lora_rank": 0}, "lora_rank is 0, allowed is 1 to 1024"),
        ({"lora_target_modules": " , "}, "names no layer"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"num_epochs": 0}, "num_epochs is 0, allowed is 1 to 1000000000"),
        ({"save_steps": 0}, "save_steps is 0"),
        ({"condition_dropout": 1.5}, "condition_dropout is 1.5"),
        ({"cover_share": 0.7, "repaint_share": 0.7}, "1.4 together"),
        ({"task": "dpo"}, "sft:data_process"),
        ({"lora_base_model": "vae"}, "lora_base_model names 'vae'"),
        ({"kind": "full", "trainable_models": "dit,text_encoder"}, "trainable_models names 'text_encoder'"),
        ({"save_formats": "pickle"}, "diffsynth, peft, diffusers"),
        ({"preset_lora_path": "x"}, "preset_lora_model"),
        (
            {
                "kind": "full",
                "preset_lora_path": "x",
                "preset_lora_model": "dit",
                "fp8_models": "dit",
                "save_formats": "punchin",
            },
            "leave fp8_models out",
        ),
        ({"min_timestep_boundary": 0.5, "max_timestep_boundary": 0.5}, "are none"),
        ({"timesteps": "logit_normal", "min_timestep_boundary": 0.2}, "diffsynth's, timesteps is logit_normal"),
        ({"timesteps": "logit_normal", "max_timestep_boundary": 0.8}, "--timesteps diffsynth"),
        ({"seed": -1}, "seed is -1, allowed is 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296, allowed is 0 to 4294967295"),
        ({"max_audio_duration": 0.1}, "1 s or more"),
        ({"max_audio_duration": float("nan")}, "1 s or more"),
        ({"weight_decay": -1.0}, "weight_decay is -1, allowed is 0 to 1"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"sample_duration": 0.1}, "sample_duration is 0.1 s, allowed is 0.25 to 600"),
        ({"weight_decay": float("inf")}, "weight_decay is inf, allowed is 0 to 1"),
        ({"num_epochs": 10**30}, "num_epochs is 1e+30, allowed is 1 to 1000000000"),
        ({"save_formats": " , "}, "save_formats names none"),
        ({"lora_base_model": ","}, "lora_base_model names nothing"),
        ({"kind": "full", "trainable_models": ","}, "trainable_models names nothing"),
        ({"preset_lora_path": "x", "preset_lora_model": "vae"}, "preset_lora_model is 'vae'"),
        ({"lora_alpha": 0.0}, "lora_alpha must be above 0"),
        ({"lora_alpha": float("nan")}, "nothing would be learned"),
        ({"lora_dropout": 1.0}, "lora_dropout below 1"),
    ],
)
def test_wrong_settings_are_refused_with_their_numbers(wrong, said):
    with pytest.raises(PunchinError) as caught:
        Settings(**{**GIVEN, **wrong})
    assert said in f"{caught.value} {caught.value.hint}"


def test_defaults_are_diffsynths():
    lora, full = Settings(**GIVEN), Settings(**{**GIVEN, "kind": "full"})
    assert (lora.rate, full.rate, lora.weight_decay, lora.lora_rank, lora.alpha) == (1e-4, 1e-5, 0.01, 32, 32)
    assert lora.targets == ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert (lora.trained, full.trained, lora.remove_prefix_in_ckpt) == (("dit",), ("dit",), "pipe.dit.")
    assert (lora.dropout, Settings(**GIVEN, timesteps="logit_normal").dropout) == (0.0, 0.15)


def test_what_may_change_between_calls_is_told_apart():
    one, two = Settings(**GIVEN), Settings(**GIVEN, num_epochs=5, save_steps=7)
    assert differing(one.fixed(), two.fixed()) == []
    assert differing(one.fixed(), Settings(**GIVEN, seed=3).fixed()) == ["seed: 0 -> 3"]


def test_the_command_line_has_every_setting_in_both_spellings():
    from punchin.training.__main__ import HELP, parser

    assert set(HELP) == set(names()) - {"kind"}
    for verb in ("full", "lora", "validate"):
        given = parser().parse_args(
            [verb, "--dataset-base-path", "x", "--lora_rank", "8", "--skip-bad", "--task", "sft:train"]
        )
        assert (given.dataset_base_path, given.lora_rank, given.skip_bad, given.task) == ("x", 8, True, "sft:train")
    with pytest.raises(BadUsage):
        Settings(kind="full", dataset_base_path="x", lr_scheduler="step")


def test_the_page_has_every_option_with_its_default():
    import dataclasses
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text()
    for field in dataclasses.fields(Settings):
        if field.name == "kind":
            continue
        default = field.default
        known = default not in (None, False) and default is not dataclasses.MISSING
        assert f"| `--{field.name}` | {f'`{default}`' if known else ''} |" in page
