"""`punchin fx` and `play`: effects without a session, and a quick listen. Both happen in a plugin host process."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.reach import reach
from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import BadUsage, Refused


def fx_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin fx`."""
    does = parser.add_subparsers(dest="does", metavar="list | check | apply", parser_class=type(parser))
    listing = does.add_parser("list", help="[EFFECT]: the effects there are, with parameters, ranges and [defaults]")
    listing.add_argument("effect", nargs="?", help="only this one")
    checking = does.add_parser("check", help="CHAIN: read a chain and load its effects")
    checking.add_argument("chain", type=arguments.file)
    applying = does.add_parser("apply", help="CHAIN AUDIO -o OUT: send an audio file through a chain; its length stays")
    applying.add_argument("chain", type=arguments.file)
    applying.add_argument("audio", type=arguments.file)
    applying.add_argument(
        "-o", "--output", type=arguments.file, required=True, help="the file to write; replaced if it is there"
    )


def fx(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """List effects, check a chain, or apply one to a file."""
    from punchin.clients import fx as effects

    if args.does == "check":
        names = effects.check(args.chain)
        print("\n".join(names) if names else "an empty chain: audio passes as it is", file=out)
        return 0
    if args.does == "apply":
        return _apply(args, out, talk)
    words = ["list", args.effect] if args.does and args.effect else ["list"]
    return effects.run_host(words, out)


def _apply(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    import numpy as np

    from punchin.clients import fx as effects
    from punchin.clients.cli.result import replaces
    from punchin.clients.journey.request import check_folder
    from punchin.session import audiofile

    if args.output.resolve() == args.audio.resolve():
        raise BadUsage(f"the output is the input, {args.audio}", "choose another name for -o")
    check_folder(args.output)
    facts = audiofile.info(args.audio)
    subtype = audiofile.subtype_for(args.output, facts.subtype)
    replaces(args.output, talk)
    lost = audiofile.unwritten(args.audio)
    if lost:
        talk.warn(f"what {args.audio.name} holds in {', '.join(lost)} is not in {args.output.name}")
    audio, rate_hz = audiofile.read(args.audio)
    made = effects.apply(args.chain, audio, rate_hz, told=lambda words: talk.say(f"  {words}"))
    if np.array_equal(made, audio):  # an empty chain: the file may hold more bits than float32
        made, _ = audiofile.read_exact(args.audio)
    over = int((abs(made) > 1).sum()) if subtype.startswith("PCM") else 0
    if over:
        talk.warn(f"{over} samples are over full scale and are clipped; add a Gain below 0 dB, or give a float file")
    audiofile.write(args.output, made, rate_hz, subtype)
    print(args.output, file=out)
    return 0


def play_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin play`."""
    parser.add_argument(
        "what", metavar="FILE|ID", help="an audio file, or a done job (its id, or how it begins or ends)"
    )
    parser.add_argument("--take", type=int, default=1, help="which of the job's takes, from 1 (default 1)")
    parser.add_argument("--device", help="name of the output device (default: the system's own)")


def play(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Play a file or a job's take, until it ends or Ctrl-C."""
    from punchin.clients import fx as effects

    words = ["--device", args.device] if args.device else []
    file = Path(args.what)
    with contextlib.nullcontext(file) if file.exists() else _take(args.what, args.take, talk) as path:
        return effects.run_host(["play", *words, "--", str(path)], out)


@contextlib.contextmanager
def _take(job: str, number: int, talk: Talk) -> Iterator[Path]:
    """The take of a job as a file for the time of the block."""
    from punchin.clients.cli.jobs import find
    from punchin.session import audiofile

    with reach(talk) as client:
        takes = client.result(find(client.jobs(), job, "file or job")).takes
        if not 1 <= number <= len(takes):
            raise Refused(f"take {number} of job {job}: it has {len(takes)}", f"punchin show {job}")
        blob = takes[number - 1].audio
        audio = client.get_audio(blob)
    with tempfile.TemporaryDirectory(prefix="punchin-play-") as folder:
        path = Path(folder, "take.wav")
        audiofile.write(path, audio, blob.rate_hz, "FLOAT")
        yield path
