"""`punchin repaint` and its sisters: new takes for a region of a session."""

from __future__ import annotations

import argparse
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from punchin.clients.cli import arguments, clock
from punchin.clients.cli.talk import Talk
from punchin.protocol import limits
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.order import Task, called

if TYPE_CHECKING:
    from punchin.clients.journey.request import Prompt, Request

SESSION_HELP = ".rpp, or .wav/.flac with --bpm or --tempo-map"


def repaint_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin repaint`."""
    session_arguments(parser)
    prompt_arguments(parser)
    strength_argument(parser, "1: all new; 0: nothing changes")


def cover_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin cover`."""
    session_arguments(parser)
    prompt_arguments(parser)
    strength_argument(parser, "1: all new; 0: as close as the source's codes allow")


def layer_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin layer`."""
    session_arguments(parser)
    parser.add_argument("--instrument", metavar="NAME", type=arguments.instrument, required=True,
                        help="what to add: drums, bass, strings, ...")  # fmt: skip
    prompt_arguments(parser)


def extract_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin extract`."""
    session_arguments(parser)
    parser.add_argument("--instrument", metavar="NAME", type=arguments.instrument, required=True,
                        help="what to take out: vocals, drums, ...")  # fmt: skip
    prompt_arguments(parser)


def repaint(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Make a region anew."""
    return perform("repaint", args, out, talk)


def cover(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Play a region again in another style."""
    return perform("cover", args, out, talk)


def layer(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Add an instrument on a track of its own."""
    return perform("lego", args, out, talk)


def extract(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Take one instrument out, onto a track of its own."""
    return perform("extract", args, out, talk)


def perform(task: Task, args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """The whole way of a region: hear, send, wait, splice, measure, land; then say where everything is."""
    requests = requests_of(task, args)
    if args.clock_port and args.bpm != arguments.CLOCK:
        raise BadUsage("--clock-port is for --bpm clock", "add --bpm clock, or leave it out")
    if args.bpm == arguments.CLOCK:
        bpm = clock.heard(args.clock_port, talk)
        requests = [replace(request, bpm=bpm) for request in requests]
    from punchin.clients.cli import result
    from punchin.clients.journey import perform_all

    talk.say(f"{called(task)} {args.session.name}, seed {requests[0].seed}")
    result.replaces(args.output, talk)
    result.write(perform_all(requests, talk), args.json, out, talk)
    return 0


def session_arguments(parser: argparse.ArgumentParser) -> None:
    """Which region of which session, and where the takes go."""
    parser.add_argument("session", metavar="SESSION", type=arguments.file, help=SESSION_HELP)
    where = parser.add_argument_group("region")
    where.add_argument("--track", metavar="NAME", action="append", default=[],
                       help="the track to work on; may be repeated (layer, extract: see --hear)")  # fmt: skip
    where.add_argument("--hear", metavar="NAME", nargs="+", action="extend", default=[],
                       help="layer, extract: what the model hears (default: all unmuted tracks)")  # fmt: skip
    region = where.add_mutually_exclusive_group(required=True)
    region.add_argument("--bars", metavar="A-B", type=arguments.bars, action="append", default=[],
                        help="bars A to B inclusive, as the ruler counts them; may be repeated")  # fmt: skip
    region.add_argument("--time", metavar="S-E", type=arguments.span, action="append", default=[],
                        help="seconds, or minutes:seconds; may be repeated")  # fmt: skip
    where.add_argument("--bpm", type=arguments.tempo, help="tempo of an audio file, or clock: as the DAW sends it")
    clock.port_argument(where, "--clock-port")
    where.add_argument("--tempo-map", metavar="FILE.mid", type=arguments.file, help="tempo map of an audio file")
    where.add_argument("--approximate", action="store_true", help="take Bezier tempo points as near as can be")
    where.add_argument(
        "--context", type=arguments.context, default="auto", metavar="BARS|auto|whole",
        help="what the model hears around the region (auto: 30 s or more, at least half of it context)",
    )  # fmt: skip
    takes = parser.add_argument_group("takes")
    takes.add_argument("--variations", type=arguments.whole(limits.VARIATIONS), default=1, metavar="N", help="takes")
    attempts_argument(takes)
    takes.add_argument("--level", choices=("match", "off"), default="match", help="match loudness to what was there")
    takes.add_argument("--land", choices=("take", "split", "lane", "track"), default="take", help="where takes go")
    takes.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=arguments.file,
        help="replaced if it is there; default: a new NAME-punchin beside SESSION",
    )
    takes.add_argument("--pre-fx", metavar="CHAIN", type=arguments.file, help="effects (TOML) on what the model hears")
    takes.add_argument("--return-fx", metavar="CHAIN", type=arguments.file, help="effects (TOML) on the take")
    arguments.json_argument(takes)


def attempts_argument(parser: argparse._ActionsContainer) -> None:
    """How often a take may be rolled."""
    parser.add_argument(
        "--max-attempts", type=arguments.whole(limits.ATTEMPTS), default=3, metavar="N",
        help="how often a take that misses a limit of the report is rolled (default 3)",
    )  # fmt: skip


def prompt_arguments(parser: argparse.ArgumentParser) -> None:
    """What the model is told and how it is run; all tasks share it."""
    prompt = parser.add_argument_group("music")
    prompt.add_argument("--prompt", metavar="TEXT", help="what it should sound like")
    prompt.add_argument("--lyrics", metavar="TEXT|@FILE", default="", help="default: instrumental")
    prompt.add_argument("--language", type=arguments.language, default="unknown", help="of the lyrics: en, de, ja, ...")
    prompt.add_argument("--key", type=arguments.key, help='like "C minor" or Cm (default: not told)')
    prompt.add_argument("--signature", metavar="N/D", type=arguments.signature, help="default: the session's, or 4/4")
    prompt.add_argument(
        "--reference", metavar="FILE", type=arguments.file, action="append", default=[], help="audio to sound like"
    )
    model = parser.add_argument_group("model")
    model.add_argument("--preset", metavar="NAME", help="options under a name: see punchin presets")
    model.add_argument("--model", metavar="NAME", default="", help="see punchin models (default: the best installed)")
    model.add_argument("--seed", type=arguments.whole(limits.SEED), help="default: a new one")
    model.add_argument("--steps", type=arguments.whole(limits.STEPS), help="default: the model's own")
    model.add_argument("--shift", type=arguments.number(limits.SHIFT), help="default: the model's own")
    model.add_argument("--guidance", type=arguments.number(limits.GUIDANCE), help="default: the model's own")
    model.add_argument("--lora", metavar="FILE[:X]", type=arguments.lora, action="append", default=[],
                       help="a LoRA, X times as strong (default 1); more than one may be given")  # fmt: skip
    model.add_argument("--raw", metavar="NAME=VALUE", type=arguments.raw, action="append", default=[],
                       help="a parameter of the engine by its Python name")  # fmt: skip


def strength_argument(parser: argparse.ArgumentParser, meaning: str) -> None:
    """How much of the source gives way; what 0 means differs by task."""
    parser.add_argument("--strength", type=arguments.number(limits.STRENGTH), default=1.0, metavar="X", help=meaning)


def requests_of(task: Task, args: argparse.Namespace) -> list[Request]:
    """The requests that a command line means: each region of each track, all with one seed.

    Raises BadUsage for options that do not go together.
    """
    from punchin.clients.journey.request import LAYERS, Request

    whole = Request(
        task=task,
        session=args.session,
        prompt=prompt_of(args),
        seed=secrets.randbelow(2**31) if args.seed is None else args.seed,
        bpm=limits.SESSION_TEMPO.low if args.bpm == arguments.CLOCK else args.bpm,  # until it is heard
        tempo_map=args.tempo_map,
        variations=args.variations,
        max_attempts=args.max_attempts,
        context=args.context,
        level=args.level == "match" and task not in LAYERS,
        hear=tuple(args.hear),
        approximate=args.approximate,
        land=args.land,
        out=args.output,
        pre_fx=args.pre_fx,
        return_fx=args.return_fx,
    )
    regions = [("bars", bars) for bars in args.bars] or [("time_s", time_s) for time_s in args.time]
    requests = [replace(whole, track=track, **{kind: at}) for track in args.track or [None] for kind, at in regions]
    for request in requests:
        _check(request)
    return requests


def _check(request: Request) -> None:
    if request.is_audio:
        if request.track is not None:
            raise BadUsage(f"{request.session.name} is an audio file and has no tracks", "leave --track out")
        if request.hear:
            raise BadUsage(f"{request.session.name} is an audio file and has no tracks", "leave --hear out")
        if request.bpm is None and request.tempo_map is None:
            raise BadUsage(f"{request.session.name} needs a tempo: one of --bpm and --tempo-map", "add --bpm 120")
        if request.bpm is not None and request.tempo_map is not None:
            raise BadUsage("--bpm and --tempo-map are two tempos", "keep one of them")
        if request.land != "take":
            raise BadUsage(f"an audio file comes back whole, there is no --land {request.land}", "leave --land out")
    elif request.session.suffix.lower() == ".rpp":
        if request.is_layer and request.track is not None:
            raise BadUsage(f"{called(request.task)} lands on a new track", "say --hear NAME for what the model hears")
        if request.hear and not request.is_layer:
            raise BadUsage("--hear is for layer and extract", "--track NAME says what is heard and made anew")
        if request.is_layer and request.land not in ("take", "track"):
            raise BadUsage(f"{called(request.task)} lands on a new track, not as {request.land}", "leave --land out")
        if request.track is None and not request.is_layer:
            raise BadUsage("--track is missing", f"punchin {request.task} {request.session} --track NAME ...")
        if request.bpm is not None or request.tempo_map is not None:
            raise BadUsage(f"{request.session.name} has its own tempo map", "leave --bpm and --tempo-map out")
    else:
        raise BadUsage(f'"{request.session}" is no session: {SESSION_HELP}')
    if request.time_s is not None and request.time_s[1] <= request.time_s[0]:
        span = f"the region {request.time_s[0]:g} to {request.time_s[1]:g} s has no length"
        raise BadUsage(f"{span}, allowed is {limits.REGION.low:g} to {limits.REGION.high:g} s", "--time S-E: E after S")
    if request.out is not None and request.out.suffix.lower() != request.session.suffix.lower():
        raise BadUsage(f'"{request.out}" must end in {request.session.suffix}, as the session does')
    if request.out is not None and request.out.resolve() == request.session.resolve():
        raise BadUsage("the output is the session itself, which is never written", "name another file, or leave -o out")


def prompt_of(args: argparse.Namespace) -> Prompt:
    """What the model is told, with lyrics read from their file. Raises BadUsage: no prompt, or too long."""
    from punchin.clients.journey.request import Prompt

    instrument = getattr(args, "instrument", "")
    if args.prompt is None and not instrument:
        raise BadUsage("--prompt is missing", 'add --prompt "warm electric piano"')
    text = _short("prompt", args.prompt or "", limits.PROMPT_CHARS)
    return Prompt(
        text=text,
        instrument=instrument,
        lyrics=_short("lyrics", _lyrics(args.lyrics), limits.LYRICS_CHARS),
        language=args.language,
        key=args.key,
        signature=args.signature,
        model=args.model,
        steps=args.steps,
        shift=args.shift,
        guidance=args.guidance,
        strength=getattr(args, "strength", 1.0),
        references=tuple(args.reference),
        loras=tuple(args.lora),
        raw=dict(args.raw),
    )


def _short(name: str, text: str, most: int) -> str:
    if len(text) > most:
        raise BadUsage(f"--{name} has {len(text)} characters, allowed is {most}", f"shorten the {name}")
    return text


def _lyrics(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return arguments.file(text[1:]).read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(
            f'cannot read the lyrics "{text[1:]}": {error.strerror}', "--lyrics @FILE, of a text file"
        ) from None
    except UnicodeDecodeError as error:
        raise Refused(
            f'the lyrics "{text[1:]}" are not UTF-8 text: {error.reason} at byte {error.start}', "save them as UTF-8"
        ) from None
