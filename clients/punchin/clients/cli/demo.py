"""`punchin demo`: the whole way on a bundled session, with a picture and something to listen to."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.talk import Talk
from punchin.protocol import limits

BARS = (5, 8)
TRACK = "Keys"
PROMPT = "warm electric piano, soft comping chords, late night"


def demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin demo`."""
    parser.add_argument(
        "--out", metavar="DIR", type=arguments.file, default=Path("punchin-demo"), help="default: punchin-demo"
    )
    parser.add_argument("--model", metavar="NAME", default="", help="default: the best installed")
    parser.add_argument("--seed", type=arguments.whole(limits.SEED), default=7, help="default: 7")
    parser.add_argument("--prompt", metavar="TEXT", default=PROMPT, help=f'default: "{PROMPT}"')
    arguments.json_argument(parser)


def demo(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Copy the session, repaint bars 5 to 8 of Keys, and say where everything is."""
    talk.say(f"the demo session goes to {args.out}; bars {BARS[0]}-{BARS[1]} of {TRACK} are made anew")
    from punchin.clients.cli import result
    from punchin.clients.demo import tour
    from punchin.clients.journey import Prompt, Request
    from punchin.protocol.errors import PunchinError

    try:
        session = tour.copy_session(args.out.absolute())
    except OSError as error:
        text = f"the demo session cannot be copied to {args.out}: {error.strerror}"
        raise PunchinError(text, "punchin demo --out DIR, or make room or rights there") from None
    prompt = Prompt(text=args.prompt, model=args.model)
    request = Request(task="repaint", session=session, track=TRACK, bars=BARS, prompt=prompt, seed=args.seed)
    toured = tour.go(request, talk)
    result.write(toured.result, args.json, out, talk, **toured.to_json())
    for name, path in (
        ("session", session),
        ("with the take", toured.result.output),
        ("picture", toured.picture),
        ("mix", toured.mix),
    ):
        talk.say(f"{name:<14}{path}")
    talk.say(f"{'next':<14}punchin install reaper, or: punchin repaint SONG.rpp --track NAME --bars A-B --prompt TEXT")
    return 0
