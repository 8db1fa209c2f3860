"""Presets stand in a TOML file that people edit, and give way to the command line."""

import io
import json
import resource

import pytest

from punchin.clients import presets
from punchin.clients.cli import arguments, main, perform
from punchin.protocol.errors import Refused

LINE = "a.rpp --track K --bars 1-2"


def read(line):
    parser = arguments.Parser(prog="punchin repaint")
    perform.repaint_arguments(parser)
    args = parser.read(line.split(), io.StringIO())
    assert args is not None
    return perform.requests_of("repaint", args)[0]


@pytest.fixture
def rhodes(home):
    presets.file().parent.mkdir(parents=True)
    presets.file().write_text(
        '[rhodes]\nprompt = "warm electric piano"\nstrength = 0.7\nsteps = 12\nsignature = "7/8"\n'
        'lora = ["/l/a.safetensors:0.5", "/l/b.safetensors"]\nraw = ["cfg_scale=3.5"]\n'
    )


def test_a_disk_that_is_full_leaves_the_presets_that_were_there(rhodes, tmp_path, capsys):
    before = presets.file().read_bytes()
    elsewhere = tmp_path / "dotfiles.toml"
    presets.file().rename(elsewhere)
    presets.file().symlink_to(elsewhere)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
    try:
        code = main(["presets", "save", "late", "--prompt", "upright bass"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "make room or rights, then again" in capsys.readouterr().err
    assert presets.file().read_bytes() == before
    assert main(["presets", "save", "late", "--prompt", "upright bass"]) == 0
    assert presets.file().is_symlink()
    assert set(presets.all_presets()) >= {"rhodes", "late"}


def test_a_preset_gives_options(rhodes):
    request = read(f"{LINE} --preset rhodes")
    prompt = request.prompt
    assert (prompt.text, prompt.strength, prompt.steps, prompt.signature) == ("warm electric piano", 0.7, 12, (7, 8))
    assert [(str(path), strength) for path, strength in prompt.loras] == [
        ("/l/a.safetensors", 0.5),
        ("/l/b.safetensors", 1.0),
    ]
    assert prompt.raw == {"cfg_scale": 3.5}


@pytest.mark.parametrize("line", ["--steps 4 --preset rhodes", "--preset=rhodes --steps 4"])
def test_the_command_line_wins(rhodes, line):
    assert read(f"{LINE} {line}").prompt.steps == 4


def test_lists_of_the_command_line_win_too(rhodes):
    request = read(f"{LINE} --preset rhodes --lora /l/c.safetensors:0.3 --raw steps_mode=x")
    assert [(str(path), strength) for path, strength in request.prompt.loras] == [("/l/c.safetensors", 0.3)]
    assert request.prompt.raw == {"cfg_scale": 3.5, "steps_mode": "x"}


@pytest.mark.parametrize("line", ["--preset rhodes --preset diffsynth", "--preset=diffsynth --preset rhodes"])
def test_a_second_preset_is_refused_instead_of_left_unread(rhodes, capsys, line):
    assert main(["repaint", *LINE.split(), *line.split()]) == 2
    said = capsys.readouterr().err
    assert "2 presets are named" in said
    assert "give --preset once" in said


def test_what_a_verb_does_not_know_of_a_preset_is_left_out(rhodes):
    parser = arguments.Parser(prog="punchin layer")
    perform.layer_arguments(parser)
    found = parser.read(["a.rpp", "--bars", "1-2", "--instrument", "bass", "--preset", "rhodes"], io.StringIO())
    assert perform.requests_of("lego", found)[0].prompt.steps == 12


def test_what_no_verb_knows_is_told_with_the_presets_name(home):
    presets.file().parent.mkdir(parents=True)
    presets.file().write_text("[odd]\nsteeps = 7\n")
    with pytest.raises(Refused, match='preset "odd": there is no option --steeps'):
        read(f"{LINE} --preset odd")


def test_a_tilde_in_a_preset_is_the_home(home, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    presets.file().parent.mkdir(parents=True)
    presets.file().write_text('[mine]\nprompt = "x"\nlora = ["~/a.safetensors:0.8"]\nreference = ["~/b.wav"]\n')
    prompt = read(f"{LINE} --preset mine").prompt
    assert [str(path) for path, _ in prompt.loras] == [str(tmp_path / "a.safetensors")]
    assert [str(path) for path in prompt.references] == [str(tmp_path / "b.wav")]


def test_an_unknown_preset_names_the_known_ones(rhodes):
    with pytest.raises(Refused, match='no preset "organ"; there are diffsynth, rhodes'):
        read(f"{LINE} --preset organ")


@pytest.mark.parametrize("text", ["[a\n", "a = 3\n", "[a]\nb = {c = 1}\n", "[a]\nraw = [1]\n", "a = " + "[" * 60_000])
def test_a_broken_file_is_named(home, text):
    presets.file().parent.mkdir(parents=True)
    presets.file().write_text(text)
    with pytest.raises(Refused, match=r"presets\.toml"):
        presets.all_presets()


def test_a_wrong_value_is_told_as_on_the_command_line(home, capsys, monkeypatch):
    presets.file().parent.mkdir(parents=True)
    presets.file().write_text("[loud]\nstrength = 7\n")
    assert main(["repaint", *LINE.split(), "--preset", "loud"]) == 2
    assert "strength is 7, allowed is 0 to 1" in capsys.readouterr().err


def test_lyrics_of_a_file_are_saved_with_its_whole_path(capsys, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["presets", "save", "sung", "--lyrics", "@words.txt"]) == 0
    assert presets.all_presets()["sung"]["lyrics"] == f"@{tmp_path / 'words.txt'}"


def test_every_character_is_kept(home):
    every = "".join(map(chr, range(0x2FF))) + "\u2028\ue000\U0001f3b9"
    presets.save(every, {"prompt": every, "raw": [every]})
    assert presets.all_presets()[every] == {"prompt": every, "raw": [every]}


def test_saving_and_listing(capsys, home):
    options = '--prompt|it\'s "warm"|--steps|5|--lora|/l/x.safetensors:0.25|--raw|cover_mode=latent|--signature|3/4'
    assert main(["presets", "save", "my piano", *options.split("|")]) == 0
    assert main(["presets", "save", "my piano", "--steps", "3"]) == 4
    assert main(["presets", "save", " ", "--steps", "3"]) == 4
    assert main(["presets", "save", "empty"]) == 2
    assert main(["presets", "save", "nested", "--preset", "my piano", "--steps", "3"]) == 2
    capsys.readouterr()
    assert main(["presets", "--json"]) == 0
    saved = json.loads(capsys.readouterr().out)["my piano"]
    assert saved == {
        "prompt": 'it\'s "warm"',
        "steps": 5,
        "lora": ["/l/x.safetensors:0.25"],
        "raw": ["cover_mode=latent"],
        "signature": "3/4",
    }
    assert main(["presets", "--json", "list"]) == 0
    assert json.loads(capsys.readouterr().out)["my piano"] == saved
    args = ["--preset", "my piano"]
    parser = arguments.Parser(prog="punchin repaint")
    perform.repaint_arguments(parser)
    found = parser.read([*LINE.split(), *args], io.StringIO())
    assert perform.requests_of("repaint", found)[0].prompt.raw == {"cover_mode": "latent"}
