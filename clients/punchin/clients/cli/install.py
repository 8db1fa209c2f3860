"""`punchin install` and `uninstall`: the scripts that run inside a DAW."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.talk import Talk

if TYPE_CHECKING:
    from punchin.clients.install.manifest import Change

DAWS = ("reaper",)


def install_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin install`."""
    _common(parser)
    parser.add_argument("--check", action="store_true", help="change nothing, say whether all is there and current")


def uninstall_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin uninstall`."""
    _common(parser)


def install(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Put the scripts into the DAW, or bring them up to date; with --check exit 1 when something must be mended."""
    from punchin.clients.install import reaper

    resource = reaper.resource_folder(args.resource_path)
    if args.check:
        return _check(resource, out)
    changes = reaper.install(resource, args.dry_run)
    for change in changes:
        if change.what != "same":
            print(change, file=out)
    if args.dry_run:
        talk.say("nothing was changed: this was a dry run")
        return 0
    _tell_edited(changes, "your own versions stay beside them, as NAME.edited", talk)
    talk.say(f"{sum(change.what != 'same' for change in changes)} of {len(changes)} files written")
    talk.say("In REAPER: Actions > Show action list > New action > Load ReaScript, choose")
    talk.say(f"  {resource / reaper.SCRIPTS / 'Punchin - register.lua'}")
    talk.say("and run it: it adds the other actions and asks for shortcuts.")
    return 0


def uninstall(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Take the scripts out of the DAW again; files that were edited stay."""
    from punchin.clients.install import reaper

    resource = reaper.resource_folder(args.resource_path)
    changes = reaper.uninstall(resource, args.dry_run)
    for change in changes:
        print(change, file=out)
    if args.dry_run:
        talk.say("nothing was changed: this was a dry run")
    else:
        _tell_edited(changes, "they stay, and are yours to remove", talk)
        talk.say("Actions that REAPER still lists go with its own: Action list > select > Delete.")
    return 0


def _tell_edited(changes: Sequence[Change], what: str, talk: Talk) -> None:
    edited = [change.path.name for change in changes if change.what == "keep edited"]
    if edited:
        talk.warn(f"edited by hand: {', '.join(edited)}; {what}")


def _check(resource: Path, out: TextIO) -> int:
    from punchin.clients.install import reaper

    bad = False
    for verdict, text, cure in reaper.findings(resource):
        bad = bad or verdict == "fail"
        print(f"{verdict:<5} {text}", file=out)
        if cure:
            print(f"      {cure}", file=out)
    return int(bad)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("daw", choices=DAWS, help="which DAW")
    parser.add_argument(
        "--resource-path", type=arguments.file, metavar="FOLDER", help="its settings folder (default: found)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would change, change nothing")
