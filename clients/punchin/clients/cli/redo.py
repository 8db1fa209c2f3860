"""`punchin redo`: a take once more, from what is kept of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.talk import Talk
from punchin.protocol import limits


def redo_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin redo`."""
    parser.add_argument("take", metavar="TAKE", help="a take file, or the id of its job")
    parser.add_argument("--seed", type=arguments.whole(limits.SEED), help="another seed (default: the same take again)")
    parser.add_argument("--variations", type=arguments.whole(limits.VARIATIONS), default=1, metavar="N", help="takes")
    parser.add_argument("--model", metavar="NAME", default="", help="default: the model that made it")
    parser.add_argument("--session", metavar="FILE", type=arguments.file, help="default: the session it was made for")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=arguments.file,
        help="replaced if it is there; default: a new NAME-punchin beside the session",
    )
    arguments.json_argument(parser)


def redo(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Make a take again, or its sister."""
    from punchin.clients.cli import result
    from punchin.clients.journey import redoing
    from punchin.clients.journey.request import Making

    take = Path(args.take)
    if take.exists():
        made = redoing.of_file(take)
    else:
        from punchin.clients.cli.jobs import find
        from punchin.clients.connect import connect

        with connect(start=True, name="cli") as client:
            made = redoing.of_job(client, find(client.jobs(), args.take))
    change = redoing.Change(
        seed=args.seed, variations=args.variations, session=args.session, model=args.model, out=args.output
    )
    what = redoing.request_of(made, change, take)
    result.replaces(args.output, talk)
    name = what.out.name if isinstance(what, Making) else f"{what[0].task} {what[0].session.name}"
    talk.say(f"redo {name}, seed {what.seed if isinstance(what, Making) else what[0].seed}")
    result.write(redoing.redo(made, what, talk), args.json, out, talk)
    return 0
