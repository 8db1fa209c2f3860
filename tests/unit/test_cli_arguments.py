"""What may stand on a command line, and what is said when it is wrong."""

import argparse
import importlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from punchin.clients.cli import arguments, main, parts, verbs
from punchin.clients.cli.talk import Talk
from punchin.protocol import limits, machine
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.link import Ready
from punchin.protocol.order import Event
from punchin.protocol.version import PACKAGE, PROTOCOL


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (arguments.bars, "5-8", (5, 8)),
        (arguments.bars, "5", (5, 5)),
        (arguments.bars, "-3-0", (-3, 0)),
        (arguments.bars, "-3--1", (-3, -1)),
        (arguments.span, "12.5-20", (12.5, 20.0)),
        (arguments.span, "0:12.5-1:20", (12.5, 80.0)),
        (arguments.signature, "7/8", (7, 8)),
        (arguments.key, "F#m", "F# minor"),
        (arguments.key, "bb min", "Bb minor"),
        (arguments.key, "b", "B major"),
        (arguments.key, "CM", "C major"),
        (arguments.key, "E♭ major", "Eb major"),
        (arguments.language, "yue", "yue"),
        (arguments.language, "unknown", "unknown"),
        (arguments.raw, "cover_mode=latent", ("cover_mode", "latent")),
        (arguments.raw, "blend=0.5", ("blend", 0.5)),
        (arguments.raw, "n=3", ("n", 3)),
        (arguments.raw, "inject=false", ("inject", False)),
        (arguments.context, "auto", "auto"),
        (arguments.context, "4", 4),
        (arguments.whole(limits.SEED), "4294967295", 4294967295),
        (arguments.number(limits.STRENGTH), "0.25", 0.25),
    ],
)
def test_values_are_read(kind, text, value):
    assert kind(text) == value


WRONG = {
    "repaint": "SESSION",
    "repaint a.rpp --prompt x": "--bars --time",
    "repaint a.rpp --track K --bars 8-5 --prompt x": "8-5 ends before it starts",
    "repaint a.rpp --track K --bars five --prompt x": '"five" is no bar range',
    "repaint a.rpp --track K --bars 5-8 --time 1-2 --prompt x": "not allowed with",
    "repaint a.rpp --track K --time 5-5 --prompt x": "5 to 5 s has no length, allowed is 0.25 to 600 s",
    "repaint a.rpp --track K --bars 5-8": "--prompt is missing",
    "repaint a.rpp --bars 5-8 --prompt x": "--track is missing",
    "repaint a.rpp --track K --bars 5-8 --prompt x --bpm 120": "a.rpp has its own tempo map",
    "repaint a.wav --bars 5-8 --prompt x": "one of --bpm and --tempo-map",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 --tempo-map a.mid": "--bpm and --tempo-map are two tempos",
    "repaint a.wav --bars 5-8 --prompt x --bpm 9": "tempo of a session is 9 bpm, allowed is 10 to 1000",
    "repaint a.wav --bars 5-8 --prompt x --bpm nan": "tempo of a session is nan bpm",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 --track K": "a.wav is an audio file and has no tracks",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 --land split": "an audio file comes back whole",
    "layer a.rpp --bars 5-8 --prompt x --instrument bass --land lane": "layer lands on a new track, not as lane",
    "layer a.rpp --bars 5-8 --prompt x --instrument=": '--instrument: "" names no instrument',
    "extract a.rpp --bars 5-8 --instrument ,": '--instrument: "," names no instrument',
    f"extract a.rpp --bars 5-8 --instrument {'x' * 201}": "--instrument: has 201 characters, allowed is 200",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 -o b.flac": "must end in .wav",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 -o ./a.wav": "the session itself, which is never written",
    "repaint a.mp4 --bars 5-8 --prompt x": '"a.mp4" is no session',
    "repaint a.rpp --track K --bars 5-8 --prompt x --strength 2": "strength is 2, allowed is 0 to 1",
    "repaint a.rpp --track K --bars 5-8 --prompt x --seed 4294967296": "seed is 4294967296, allowed is 0 to 4294967295",
    "repaint a.rpp --track K --bars 5-8 --prompt x --signature 0/4": "beats 1 to 999, of 1/1 to 1/64",
    "repaint a.rpp --track K --bars 5-8 --prompt x --key Hm": '"Hm" is no key',
    "repaint a.rpp --track K --bars 5-8 --prompt x --language klingon": "no language code",
    f"repaint a.rpp --track K --bars 5-8 --prompt {'x' * 4001}": "--prompt has 4001 characters, allowed is 4000",
    f"repaint a.rpp --track K --bars 5-8 --prompt x --lyrics {'l' * 20001}": "20001 characters, allowed is 20000",
    "repaint a.rpp --track K --bars 5-8 --prompt x --seed 1.5": "1.5 is no whole number",
    "repaint a.rpp --track K --bars 5-8 --prompt x --variations 17": "variations is 17, allowed is 1 to 16",
    "repaint a.rpp --track K --bars 5-8 --prompt x --context ²": '"²" is neither auto, whole nor a number of bars',
    "repaint a.rpp --track K --bars 5-8 --prompt x --context 99999999999999999999": "from 0 to 9999",
    "repaint a.rpp --track K --bars 5-8 --prompt x --context far": '"far" is neither auto, whole nor a number of bars',
    "repaint a.rpp --track K --bars 5-8 --prompt x --raw 3=4": '"3=4" is no NAME=VALUE',
    "repaint a.rpp --track K --bars 5-8 --prompt x --bogus": "unrecognized arguments: --bogus",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 --hear Drums": "has no tracks",
    "repaint a.wav --bars 5-8 --prompt x --bpm 99 --clock-port in": "--clock-port is for --bpm clock",
    "repiant a.rpp": 'there is no command "repiant"',
}


@pytest.mark.parametrize("line", WRONG, ids=lambda line: line[:60])
def test_a_wrong_line_is_named_and_exits_2(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert WRONG[line] in printed.err or all(word in printed.err for word in WRONG[line].split())
    assert list(tmp_path.iterdir()) == []


def test_a_near_miss_is_suggested(capsys):
    main(["repiant"])
    assert "punchin repaint" in capsys.readouterr().err


def test_every_verb_has_help_and_is_in_the_overview(capsys):
    overview = verbs.overview()
    for name, verb in verbs.BY_NAME.items():
        assert f"\n  {name} " in overview
        if verb.part:  # another process, with a help of its own
            continue
        assert main([name, "--help"]) == 0
        assert f"usage: punchin {name}" in capsys.readouterr().out


PARTS = {
    "serve --bogus": ("unrecognized arguments: --bogus", "punchin serve --help"),
    "serve --keep-alive soon": ("--keep-alive: 'soon' is no length of time", "punchin serve --help"),
    "bench --size huge": ("--size: invalid choice: 'huge'", "punchin bench --help"),
    "train": ("required: full|lora|validate", "punchin train --help"),
    "train lora --dataset_base_path . --lora_rank x": ("invalid int value: 'x'", "punchin train lora --help"),
}


@pytest.mark.slow
@pytest.mark.parametrize("line", PARTS)
def test_a_part_in_a_process_of_its_own_refuses_a_wrong_line_in_the_same_words(line, home):
    done = subprocess.run([sys.executable, "-m", "punchin.clients.cli", *line.split()], capture_output=True, text=True)
    said, then = PARTS[line]
    error, hint = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert error.startswith("error: ")
    assert said in error
    assert hint == f"  {then}"


@pytest.mark.parametrize("part", ["daemon", "engine.bench", "training"])
@pytest.mark.parametrize(("into", "code", "lines"), [(">&-", 0, 0), (">/dev/full", 1, 2), ("", 0, 0)])
def test_a_part_whose_help_cannot_be_written_shows_no_code(home, monkeypatch, part, into, code, lines):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # then Python tries once more when it ends
    reader, nobody_reads = os.pipe()
    os.close(reader)
    command = ["sh", "-c", f'exec "$@" {into}', "sh", sys.executable, "-m", f"punchin.{part}", "--help"]
    done = subprocess.run(command, stdout=nobody_reads, stderr=subprocess.PIPE, text=True)
    os.close(nobody_reads)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, lines), done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_enough_is_no_fault(home, unbuffered):
    command = f"set -o pipefail; {sys.executable} -m punchin.clients.cli models list | true"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", command], env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert "bug in punchin" not in done.stderr


def test_what_a_part_prints_is_not_lost_in_silence(home):
    """Unbuffered, for then nothing is left that would be tried once more at the end."""
    command = f"exec {sys.executable} -m punchin.clients.cli train --help >/dev/full"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["sh", "-c", command], env=environment, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "error: what was to be written: No space left on device\n  free some disk space" in done.stderr


@pytest.mark.parametrize(
    ("line", "word"),
    [("models pull --help", "--from"), ("presets save -h", "--strength"), ("fx apply --help", "--output")],
)
def test_a_part_of_a_verb_has_help_of_its_own(capsys, line, word):
    assert main(line.split()) == 0
    printed = capsys.readouterr().out
    assert f"usage: punchin {' '.join(line.split()[:2])}" in printed
    assert word in printed


def test_json_is_asked_for_before_or_behind_a_part_of_a_verb(capsys, home):
    for line in ("models --json list", "models list --json", "models --json"):
        assert main(line.split()) == 0
        assert json.loads(capsys.readouterr().out)


def test_tracks_to_hear_may_be_said_one_by_one():
    from punchin.clients.cli import perform

    parser = arguments.Parser(prog="punchin layer")
    perform.layer_arguments(parser)
    line = "a.rpp --bars 1-2 --instrument bass --hear Drums --hear Keys Pad"
    assert parser.read(line.split(), io.StringIO()).hear == ["Drums", "Keys", "Pad"]


def test_a_midi_input_is_chosen_by_its_whole_name_and_the_right_option_is_named():
    from punchin.clients.midi import listen

    assert listen._choose("in 1", ["in 1", "in 10"], "--port") == "in 1"
    with pytest.raises(Refused) as error:
        listen._choose(None, ["a", "b"], "--clock-port")
    assert error.value.hint == "--clock-port NAME"


def test_a_machine_without_midi_is_told_in_our_words_alone(home):
    """ALSA and JACK have some of their own. Where there is MIDI, nothing is said at all."""
    words = [sys.executable, "-m", "punchin.clients.cli", "clock", "--list"]
    done = subprocess.run(words, capture_output=True, text=True)
    said = done.stderr.splitlines()
    assert (done.returncode, len(said)) in ((0, 0), (4, 2)), said
    assert not said or said[0].startswith("error: ")


def test_version_for_people_and_programs(capsys):
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"punchin {PACKAGE}, protocol {PROTOCOL}\n"
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"version": PACKAGE, "protocol": PROTOCOL}


def test_an_unexpected_error_leaves_a_traceback_in_a_file(capsys, monkeypatch, home):
    def broken(words, out, talk):
        raise KeyError("surprise")

    monkeypatch.setattr(verbs, "run", broken)
    assert main(["jobs"]) == 1
    said = capsys.readouterr().err
    (crash,) = (home / "state").glob("crash-*.txt")
    assert "bug in punchin (KeyError" in said
    assert str(crash) in said
    assert "surprise" in crash.read_text()


def test_a_traceback_of_any_name_is_kept(capsys, monkeypatch, home):
    def broken(words, out, talk):
        raise RuntimeError("st\udcfcck")

    monkeypatch.setattr(verbs, "run", broken)
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python opens it
    assert main(["jobs"]) == 1
    (crash,) = (home / "state").glob("crash-*.txt")
    assert "st\\udcfcck" in crash.read_text()


def test_a_folder_with_a_name_from_another_system_is_refused(capsys, home, tmp_path):
    folder = tmp_path / os.fsdecode(b"st\xfcck")  # Latin-1, as old disks have it
    folder.mkdir()
    tone = 0.1 * np.sin(2 * np.pi * 220 * np.arange(96_000) / 48_000)
    soundfile.write(tmp_path / "loop.wav", np.stack([tone, tone], axis=1), 48_000)
    (tmp_path / "loop.wav").rename(folder / "loop.wav")
    assert main(["repaint", str(folder / "loop.wav"), "--bpm", "120", "--bars", "1", "--prompt", "x"]) == 4
    said = capsys.readouterr().err
    assert "stück/loop.wav: the bytes of that name are not UTF-8\n  rename it, and try again" in said
    assert not (home / "state").exists() or not list((home / "state").glob("crash-*"))


def test_a_terminal_that_cannot_show_a_letter_gets_the_rest(home):
    command = [sys.executable, "-m", "punchin.clients.cli", "presets"]
    subprocess.run([*command, "save", "weich…", "--prompt", "felt piano"], check=True, capture_output=True)
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "weich\\u2026" in done.stdout
    assert "felt piano" in done.stdout


@pytest.mark.parametrize(
    ("into", "code", "said"),
    [
        (
            ">/dev/full",
            1,
            "error: what was to be written: No space left on device\n  free some disk space (punchin gc)",
        ),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
    ],
)
def test_output_that_is_full_or_closed_is_no_bug(home, monkeypatch, into, code, said):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # then Python tries once more when it ends
    command = f"exec {sys.executable} -m punchin.clients.cli presets {into}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == code
    assert said in done.stderr
    assert "bug" not in done.stderr
    assert not list((home / "state").glob("crash-*"))


def actions_of(parser):
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for part in action.choices.values():
                yield from actions_of(part)


@pytest.mark.parametrize("verb", [verb for verb in verbs.BY_NAME.values() if verb.module], ids=lambda verb: verb.name)
def test_a_tilde_is_the_home_in_every_option_that_is_a_path(verb):
    """`-o=~/out.wav` comes as it is: no shell reads a tilde behind a sign."""
    parser = arguments.Parser(prog=verb.name)
    getattr(importlib.import_module(f"punchin.clients.cli.{verb.module}"), f"{verb.name}_arguments")(parser)
    assert [action.dest for action in actions_of(parser) if action.type is Path] == []


def test_lyrics_come_from_a_file(tmp_path):
    from punchin.clients.cli import perform

    song = tmp_path / "song.txt"
    song.write_text("[verse]\nla la", encoding="utf-8")
    parser = arguments.Parser(prog="punchin repaint")
    perform.repaint_arguments(parser)
    line = f"a.rpp --track K --bars 1-2 --prompt x --lyrics @{song} --signature 7/8 --variations 3"
    args = parser.read(line.split(), io.StringIO())
    assert args is not None
    request = perform.requests_of("repaint", args)[0]
    assert request.prompt.lyrics == "[verse]\nla la"
    assert request.prompt.signature == (7, 8)
    assert (request.bars, request.track, request.variations) == ((1, 2), "K", 3)


def test_without_a_terminal_a_phase_is_one_line():
    stream = io.StringIO()
    talk = Talk(stream)
    for done in range(3):
        talk.watch(Event(job="job-0000", seq=0, at_ns=0, state="running", phase="diffusing", done=done, total=3))
    talk.watch(Event(job="job-0000", seq=0, at_ns=0, state="running", phase="decoding", done=1, total=3))
    talk.watch(Event(job="job-0000", seq=9, at_ns=0, state="done"))
    talk.rest()
    assert stream.getvalue().split("\n") == ["  diffusing ...", "  decoding ...", ""]


def test_bad_usage_quotes_its_help():
    parser = arguments.Parser(prog="punchin x")
    parser.add_argument("--n", type=arguments.whole(limits.STEPS))
    with pytest.raises(BadUsage, match="steps is 999, allowed is 1 to 200") as raised:
        parser.read(["--n", "999"], io.StringIO())
    assert raised.value.hint == "punchin x --help"


HEAVY = ["torch", "transformers", "pedalboard", "numpy", "soundfile", "matplotlib", "zmq", "rich"]


@pytest.mark.parametrize("code", ["import punchin.clients", "from punchin.clients.cli import main; main(['--help'])"])
def test_nothing_heavy_is_loaded_for_nothing(code):
    check = f"{code}\nimport sys\nprint(*[m for m in {HEAVY} if m in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


def test_a_part_answers_for_itself():
    line = [sys.executable, "-m", "punchin.clients.cli", "serve", "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert "Run the daemon here" in done.stdout


def test_a_part_that_is_not_there_says_how_to_get_it(capsys, monkeypatch):
    part = verbs.Verb("bench", "", part="punchin.nowhere.at_all", extra="engine")
    monkeypatch.setitem(verbs.BY_NAME, "bench", part)
    assert main(["bench"]) == 4
    assert 'pip install "punchin[engine]"' in capsys.readouterr().err


def test_a_part_whose_packages_are_missing_says_so_too(capsys, monkeypatch):
    monkeypatch.setitem(parts.NEEDS, "engine", "torch_of_nowhere")
    assert main(["bench"]) == 4
    said = capsys.readouterr().err
    assert "torch_of_nowhere is not installed" in said
    assert 'pip install "punchin[engine]"' in said


def test_models_are_listed_with_what_is_here(capsys, home):
    assert main(["models", "list", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed["turbo"]["size_bytes"] > 6e9
    assert (listed["turbo"]["installed"], listed["punchin-tiny"]["installed"]) == (False, True)
    folder = home / "data" / "models" / "Ace-Step1.5" / "acestep-v15-turbo"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    main(["models", "list", "--json"])
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert listed["turbo"]["installed"] is True
    assert listed["turbo"]["folder"] == str(folder)
    assert main(["models"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["turbo"][:3] + rows["turbo"][5:] == ["turbo", "6.3", "GB", "yes", "8", "3", "-", "MIT"]
    assert rows["base"][:3] + rows["base"][5:] == ["base", "4.8", "GB", "50", "1", "7", "yes", "MIT"]


@pytest.mark.parametrize(
    ("device", "weight_bytes", "turbo", "xl", "told"),
    [
        ("cuda:0 RTX 4070", 2, "1.5-6.8 GB", "1.5-12.0 GB", "memory on cuda:0 RTX 4070: with parts taking turns"),
        ("cpu", 2, "6.8 GB", "12.0 GB", "memory on this CPU: in bfloat16"),
        ("cpu", 4, "6.8-13.6 GB", "12.0-24.0 GB", "memory on this CPU: in bfloat16, and in float32"),
    ],
)
def test_the_memory_that_is_listed_is_what_a_model_needs_here(
    capsys, home, monkeypatch, device, weight_bytes, turbo, xl, told
):
    """On a CPU no part has anywhere else to wait."""
    monkeypatch.setattr(machine, "survey", lambda: Ready(pid=1, device=device, weight_bytes=weight_bytes))
    assert main(["models"]) == 0
    shown, said = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in shown.splitlines()}
    assert [" ".join(rows[name][3:5]) for name in ("turbo", "xl-sft")] == [turbo, xl]
    assert told in said
    assert main(["models", "--json"]) == 0
    listed = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    least, most = listed["turbo"]["least_memory_bytes"], listed["turbo"]["memory_bytes"]
    assert turbo in (f"{least / 1e9:.1f}-{most / 1e9:.1f} GB", f"{most / 1e9:.1f} GB")
    assert (least < most) == ("-" in turbo)
    assert listed["identity"]["memory_bytes"] is None


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


def test_on_a_terminal_a_phase_is_a_bar_of_steps(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    talk = Talk(stream)
    for done in (1, 8):
        talk.watch(Event(job="job-0000", seq=0, at_ns=0, state="running", phase="diffusing", done=done, total=8))
    talk.warn("a file named [bold] is not markup")
    talk.watch(Event(job="job-0000", seq=9, at_ns=0, state="done"))
    talk.say("after")
    shown = stream.getvalue()
    assert "diffusing" in shown
    assert "8/8" in shown
    assert "note: a file named [bold] is not markup" in shown
    assert shown.endswith("after\n"), "the bars are put away before what comes next"


def test_a_ctrl_c_before_anything_is_there_is_silent(capsys, monkeypatch):
    def early(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.__import__", early)
    code = main(["jobs"])
    monkeypatch.undo()
    assert (code, *capsys.readouterr()) == (130, "", "")


def test_the_entry_loads_nothing_of_its_own_before_it_answers_ctrl_c():
    code = "import sys; before = set(sys.modules); import punchin.clients.cli;"
    code += "print(*sorted(name for name in set(sys.modules) - before if name.startswith(('punchin.', 'msgspec'))))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == ["punchin.clients", "punchin.clients.cli"]


def test_an_output_below_a_file_is_not_told_to_make_a_folder(tmp_path):
    from punchin.clients.journey.request import check_folder

    (tmp_path / "loop.wav").write_bytes(b"")
    with pytest.raises(Refused, match=r"loop\.wav is a file, not a folder") as refused:
        check_folder(tmp_path / "loop.wav" / "take.wav")
    assert "mkdir" not in refused.value.hint


@pytest.mark.parametrize(("data", "says"), [(None, ": No such file or directory$"), (b"caf\xe9", "not UTF-8 text")])
def test_lyrics_that_cannot_be_read_are_refused_in_words_with_what_to_do(tmp_path, data, says):
    from punchin.clients.cli import perform

    if data is not None:
        (tmp_path / "words.txt").write_bytes(data)
    with pytest.raises(Refused, match=says) as refused:
        perform._lyrics(f"@{tmp_path / 'words.txt'}")
    assert refused.value.hint


def test_a_chain_that_cannot_be_read_is_refused_with_what_to_do(tmp_path):
    from punchin.clients import fx

    with pytest.raises(Refused, match="Is a directory") as refused:
        fx.check(tmp_path)
    assert "TOML" in refused.value.hint


def test_a_project_that_is_missing_is_no_wrong_command_line(capsys, home):
    assert main(["takes", "list", "nope.rpp"]) == 4
    assert capsys.readouterr().err.splitlines() == ["error: there is no nope.rpp", "  check the path"]
