"""`punchin gc`, `pin`, `takes`: what nobody needs any more, in the daemon's store and in projects, and what stays."""

from __future__ import annotations

import argparse
import json
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.reach import reach
from punchin.clients.cli.table import size
from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import Refused


def gc_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin gc`."""
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    arguments.json_argument(parser)


def gc(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Forget old jobs, and remove audio that no job refers to."""
    import msgspec

    with reach(talk) as client:
        done = client.gc(dry_run=args.dry_run)
    if args.json:
        print(json.dumps(msgspec.to_builtins(done)), file=out)
        return 0
    does = "would free" if args.dry_run else "freed"
    print(
        f"{does} {size(done.freed_bytes)}: {done.jobs} jobs, {done.blobs} files; {size(done.kept_bytes)} stay", file=out
    )
    return 0


def pin_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin pin`."""
    parser.add_argument("job", metavar="ID", help="of the job, or how it begins or ends")
    parser.add_argument("--off", action="store_true", help="no longer")


def pin(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Keep a job and its audio whatever their age, or no longer."""
    from punchin.clients.cli.jobs import find

    with reach(talk) as client:
        record = client.pin(find(client.jobs(), args.job), not args.off).record
    talk.say(f"{record.id} {'goes when it is old' if args.off else 'stays'}")
    return 0


def takes_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin takes`."""
    parser.add_argument(
        "does", metavar="list | gc", choices=("list", "gc"), help="list unused take files, or remove them"
    )
    parser.add_argument("project", metavar="PROJECT", type=arguments.file, help="a project, or its folder")
    parser.add_argument("--dry-run", action="store_true", help="gc: only say what would go")
    arguments.json_argument(parser)


def takes(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Find take files that no project in a folder uses, and remove them.

    Projects that lie elsewhere are not looked at, and what only a DAW's undo still knows counts as unused. Takes of the
    last hour stay: their project may not be saved yet.
    """
    from punchin.session import takefiles

    if not args.project.exists():
        raise Refused(f"there is no {args.project}", "check the path")
    folder = args.project if args.project.is_dir() else args.project.parent
    found = takefiles.unused(folder)
    young = sum(take.young for take in found) if args.does == "gc" else 0
    if young:
        found = tuple(take for take in found if not take.young)
        talk.say(f"{young} more of the last hour {'stays' if young == 1 else 'stay'}: a project may not be saved yet")
    removes = args.does == "gc" and not args.dry_run
    if removes:
        for take in found:
            takefiles.remove(take)
    total = sum(take.size_bytes for take in found)
    if args.json:
        print(json.dumps([{"file": str(take.file), "size_bytes": take.size_bytes} for take in found]), file=out)
        return 0
    for take in found:
        print(take.file, file=out)
    talk.say(f"{len(found)} unused, {size(total)}{', removed' if removes else ''}")
    return 0
