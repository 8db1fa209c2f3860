"""`punchin generate`: bars from a prompt alone."""

from __future__ import annotations

import argparse
import secrets
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.perform import attempts_argument, prompt_arguments, prompt_of
from punchin.clients.cli.talk import Talk
from punchin.protocol import limits


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin generate`."""
    parser.add_argument("--bpm", type=arguments.number(limits.TEMPO), required=True, help="tempo of the result")
    parser.add_argument("--bars", type=arguments.whole(limits.BARS), required=True, metavar="N", help="how many")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=arguments.file,
        required=True,
        help=".wav (float) or .flac; replaced if it is there",
    )
    parser.add_argument("--variations", type=arguments.whole(limits.VARIATIONS), default=1, metavar="N", help="takes")
    attempts_argument(parser)
    arguments.json_argument(parser)
    prompt_arguments(parser)


def generate(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Make bars from a prompt."""
    prompt = prompt_of(args)
    from punchin.clients.cli import result
    from punchin.clients.journey.making import make
    from punchin.clients.journey.request import Making

    making = Making(
        prompt=prompt,
        bpm=args.bpm,
        bars=args.bars,
        signature=args.signature or (4, 4),
        out=args.output,
        seed=secrets.randbelow(2**31) if args.seed is None else args.seed,
        variations=args.variations,
        max_attempts=args.max_attempts,
    )
    result.replaces(making.out, talk)
    talk.say(f"generate {making.bars} bars at {making.bpm:g} bpm, seed {making.seed}")
    result.write(make(making, talk), args.json, out, talk)
    return 0
