"""The table of verbs, the help that groups them, and the way from a word to its function.

A verb NAME lives in a module of this package that has `NAME_arguments(parser)` and `NAME(args, out, talk) -> int`,
or it is another part of Punchin, in a process of its own.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from punchin.clients.cli import parts
from punchin.clients.cli.arguments import Parser
from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import BadUsage
from punchin.protocol.version import PACKAGE


@dataclass(frozen=True, slots=True)
class Verb:
    """One command: its name, its line in the help, and the module of this package that has it.

    Or `part` and `extra`: the process that it is, which reads its own command line, and what pip calls its needs.
    `holder`: it gets the device from the daemon, which calls it that, and is started for it where `starts` says so.
    """

    name: str
    line: str
    module: str = ""
    part: str = ""
    extra: str = ""
    holder: str = ""
    starts: bool = False


GROUPS: dict[str, tuple[Verb, ...]] = {
    "Perform": (
        Verb("repaint", "make a region anew, in time with what surrounds it", "perform"),
        Verb("cover", "play a region again in another style, its melody and form kept", "perform"),
        Verb("layer", "add an instrument on a track of its own", "perform"),
        Verb("extract", "take one instrument out, onto a track of its own", "perform"),
        Verb("generate", "make bars from a prompt alone", "generate"),
        Verb("demo", "see all of it on a bundled session", "demo"),
    ),
    "Takes and jobs": (
        Verb("jobs", "what was asked for, newest first", "jobs"),
        Verb("show", "one job: what was asked, what came back", "jobs"),
        Verb("cancel", "stop a job", "jobs"),
        Verb("redo", "a take once more, the same or with another seed", "redo"),
        Verb("presets", "options under a name", "presets"),
        Verb("takes", "take files that no project uses: list or remove them", "tidy"),
        Verb("land", "put a finished job's takes where they were meant to go", "jobs"),
    ),
    "Listen": (
        Verb("play", "hear a file or a job's take", "effects"),
        Verb("fx", "effects there are; check a chain of them, or apply one to a file", "effects"),
    ),
    "Daemon": (
        Verb("serve", "run the daemon here (others start it when they need it)", part="punchin.daemon", extra="daemon"),
        Verb("stop", "end the daemon", "service"),
        Verb("status", "is it there, and what is it doing", "service"),
        Verb("pause", "start no further job", "queue"),
        Verb("resume", "start jobs again", "queue"),
        Verb("unload", "give the model's memory back", "queue"),
        Verb("gc", "forget old jobs and their audio now", "tidy"),
        Verb("pin", "keep a job and its audio whatever their age", "tidy"),
        Verb("ps", "what holds the device and its memory", "service"),
    ),
    "This machine": (
        Verb("clock", "tempo and position from a DAW's MIDI clock", "clock"),
        Verb("doctor", "check everything and say how to mend it", "doctor"),
        Verb("install", "put Punchin's actions into a DAW, or bring them up to date", "install"),
        Verb("uninstall", "take them out again", "install"),
        Verb("models", "which models there are and which are here; get one, remove one", "models"),
        Verb(
            "bench",
            "measure this machine against diffusers",
            part="punchin.engine.bench",
            extra="engine",
            holder="a bench",
        ),
        Verb(
            "train",
            "train a LoRA, or a model of your own",
            part="punchin.training",
            extra="train",
            holder="a training",
            starts=True,
        ),
        Verb("version", "versions of package and protocol", "service"),
    ),
}
BY_NAME: dict[str, Verb] = {verb.name: verb for group in GROUPS.values() for verb in group}


def run(words: Sequence[str], out: TextIO, talk: Talk) -> int:
    """Do what the command line says and give the exit code. Raises PunchinError for all that goes wrong."""
    if not words or words[0] in ("-h", "--help", "help"):
        out.write(overview())
        return 0
    name, rest = words[0], words[1:]
    if name in ("-V", "--version"):
        name = "version"
    verb = BY_NAME.get(name)
    if verb is None:
        raise BadUsage(f'there is no command "{name}"', _nearest(name))
    if verb.holder:
        parts.check(verb.part, verb.extra)
        held = importlib.import_module("punchin.clients.cli.held")
        return held.run(verb.part, rest, verb.holder, verb.starts, out, talk)
    if verb.part:
        parts.become(verb.part, rest, verb.extra)
    module = importlib.import_module(f"punchin.clients.cli.{verb.module}")
    parser = Parser(prog=f"punchin {name}", description=verb.line)
    getattr(module, f"{name}_arguments")(parser)
    args = parser.read(rest, out)
    return 0 if args is None else getattr(module, name)(args, out, talk)


def overview() -> str:
    """The help for `punchin` alone: each verb in its group."""
    lines = [f"punchin {PACKAGE} re-performs any region of a DAW session.", ""]
    lines.append("  punchin repaint song.rpp --track Keys --bars 5-8 --prompt 'warm electric piano'")
    for title, group in GROUPS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {verb.name:<10} {verb.line}" for verb in group]
    lines += ["", "punchin VERB --help tells more.", ""]
    return "\n".join(lines)


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, BY_NAME, n=1)
    return f"punchin {close[0]}" if close else "punchin --help"
