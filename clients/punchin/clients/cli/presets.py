"""`punchin presets`: options under a name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Container, Sequence
from itertools import pairwise
from typing import TextIO

from punchin.clients import presets as store
from punchin.clients.cli import arguments, perform
from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import BadUsage, Refused


def presets_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin presets`."""
    does = parser.add_subparsers(dest="does", metavar="list | save", parser_class=type(parser))
    arguments.json_argument(does.add_parser("list", help="all presets (the default)"), argparse.SUPPRESS)
    saving = does.add_parser("save", help="NAME OPTIONS: keep options under a name")
    saving.add_argument("name", metavar="NAME")
    perform.prompt_arguments(saving)
    perform.strength_argument(saving, "see punchin repaint --help")
    arguments.json_argument(parser)


def presets(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """List the presets, or save one."""
    if args.does == "save":
        if args.preset:
            raise BadUsage("a preset holds options, not another preset", f"write out what {args.preset} says")
        values = _values(args)
        if not values:
            raise BadUsage("a preset needs options", f'punchin presets save {args.name} --prompt "warm electric piano"')
        talk.say(f"saved in {store.save(args.name, values)}")
        return 0
    found = store.all_presets()
    if args.json:
        print(json.dumps(found), file=out)
        return 0
    for name in found:
        print(f"{name:<14} {' '.join(store.words(name))}", file=out)
    talk.say(f"edit them in {store.file()}")
    return 0


def _values(args: argparse.Namespace) -> dict[str, object]:
    """What was said on the line, by the long names of the options, as TOML can hold it."""
    plain = argparse.ArgumentParser(add_help=False)
    perform.prompt_arguments(plain)
    perform.strength_argument(plain, "")
    values: dict[str, object] = {}
    for action in plain._actions:  # argparse has no public way to ask what a parser knows
        value = getattr(args, action.dest)
        if value != action.default and action.dest != "preset":
            values[action.option_strings[-1].removeprefix("--")] = _told(action.dest, value)
    return values


def _told(name: str, value: object) -> object:
    if name == "signature" and isinstance(value, tuple):
        return f"{value[0]}/{value[1]}"
    if name == "raw" and isinstance(value, list):
        return [f"{key}={each}" for key, each in value]
    if name == "lora" and isinstance(value, list):
        return [f"{file.resolve()}:{strength:g}" for file, strength in value]
    if name == "reference" and isinstance(value, list):
        return [str(file.resolve()) for file in value]
    if name == "lyrics" and isinstance(value, str) and value.startswith("@"):
        return f"@{arguments.file(value[1:]).resolve()}"
    return value


def expand(line: Sequence[str], known: Container[str]) -> list[str]:
    """A command line with the words of its `--preset NAME` before all others; `known`: the options of its verb.

    An option that stands on the line goes before the preset's, and one that only other verbs have is left out. Raises
    Refused for one that none has, BadUsage for several presets.
    """
    name = _preset(line)
    if name is None:
        return list(line)
    said = {word.partition("=")[0] for word in line} - {"--raw"}  # those are several, each with a name of its own
    found: list[str] = []
    for word in store.words(name):
        option = word.partition("=")[0]
        if option not in known:
            _check_somewhere(option, name)
        elif option not in said:
            found.append(word)
    return found + list(line)


def _preset(line: Sequence[str]) -> str | None:
    after = [name for word, name in pairwise(line) if word == "--preset"]
    names = after + [word.partition("=")[2] for word in line if word.startswith("--preset=")]
    if len(names) > 1:
        raise BadUsage(f"{len(names)} presets are named, {', '.join(names)}: one is read", "give --preset once")
    return names[0] if names else None


def _check_somewhere(option: str, preset: str) -> None:
    """Raise Refused for an option that no verb with presets has."""
    from punchin.clients.cli import generate

    every = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for add in (
        perform.repaint_arguments, perform.cover_arguments, perform.layer_arguments, perform.extract_arguments,
        generate.generate_arguments,
    ):  # fmt: skip
        add(every)
    if option not in every._option_string_actions:
        raise Refused(f'preset "{preset}": there is no option {option}', f"mend {store.file()}")
