"""`punchin jobs`, `show`, `cancel`, `land`: what was asked for, and what became of it."""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.heard import Heard
from punchin.clients.cli.reach import reach
from punchin.clients.cli.table import age, table
from punchin.clients.cli.talk import Talk
from punchin.protocol import home
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.protocol.order import JOB_ID, TERMINAL, Event, JobRecord, Take, called

if TYPE_CHECKING:
    from punchin.clients.client import Client

NAMED = 10  # ids in one error, the newest; more of them are counted


def jobs_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin jobs`."""
    parser.add_argument("-n", "--most", type=int, default=20, help="how many (default 20)")
    arguments.json_argument(parser)


def jobs(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """List the newest jobs."""
    if args.most < 1:
        raise BadUsage(f"--most is {args.most}, at least 1 is needed")
    with reach(talk) as client:
        pages = list(client.pages(args.most))
    records = [record for page in pages for record in page.records]
    for job in dict.fromkeys(job for page in pages for job in page.damaged):
        talk.warn(f"job {job} can no longer be read: it is damaged in the journal; punchin show {job} says how")
    if args.json:
        print(json.dumps([facts(record) for record in records]), file=out)
        return 0
    if not records:
        talk.say("no jobs yet")
        return 0
    rows = [(record.id, record.state, age(record.created_ns), _what(record), record.landed) for record in records]
    print(table(("ID", "STATE", "AGE", "WHAT", "LANDED"), rows), file=out)
    return 0


def show_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin show`."""
    _job_argument(parser)
    parser.add_argument("--follow", action="store_true", help="watch it until it ends, however late you come")
    parser.add_argument(
        "--save",
        metavar="FOLDER",
        type=arguments.file,
        help="with --follow: a WAV for each seed, which grows as it is decoded",
    )
    parser.add_argument(
        "--picture", metavar="FILE.png", type=arguments.file,
        help="the first take's, further ones' beside it (default: in the cache; none with --json)",
    )  # fmt: skip
    arguments.json_argument(parser)


def show(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Tell all about one job."""
    if args.save is not None and not args.follow:
        raise BadUsage("--save keeps what is heard on the way: it goes with --follow", f"punchin play {args.job}")
    if args.picture is not None and args.picture.suffix.lower() != ".png":
        raise BadUsage(f'"{args.picture}" is no picture that can be written', f"--picture {args.picture.stem}.png")
    with reach(talk) as client:
        job = find(client.jobs(), args.job)
        if args.follow:
            _follow(client, job, args.save, talk)
        found = client.look(job)
        record = found.record
        pictured = args.picture or (None if args.json else home.cache() / "pictures" / f"{job}.png")
        drawn = () if pictured is None else _draw(client, record, pictured, talk)
    told = facts(record) | {"pinned": found.pinned}
    if args.json:
        pictures = [str(path) for path in drawn]
        print(json.dumps(told | {"picture": pictures[0] if pictures else None, "pictures": pictures}), file=out)
        return 0
    for path in drawn:
        talk.say(f"picture: {path}")
    for key, value in told.items():
        if value not in (None, False, "", [], {}, ()):
            print(f"{key:<12} {value if isinstance(value, str | int | float) else json.dumps(value)}", file=out)
    if record.state == "done" and record.plan and not record.landed:
        talk.say(f"not landed yet: punchin land {record.id}")
    return 0


def _follow(client: Client, job: str, folder: Path | None, talk: Talk) -> None:
    """Show a job's phases, and how far its takes can be heard, until it ends. One that has ended is in no phase."""
    record = client.job(job)
    heard = Heard(client, record, folder, talk)
    for item in client.watch(job):
        if not isinstance(item, Event):
            heard.add(item)
        elif record.state not in TERMINAL:
            talk.watch(item)
    talk.rest()


def _draw(client: Client, record: JobRecord, path: Path, talk: Talk) -> tuple[Path, ...]:
    """A picture of each take of a done job; none, and why, where there is nothing to draw."""
    if record.state != "done":
        return ()
    from punchin.clients.journey.drawing import draw_job

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return draw_job(client, record.id, path, talk)
    except OSError as error:
        talk.warn(f"no picture: {path.parent} cannot be made: {error.strerror}")
    except PunchinError as error:
        talk.warn(f"no picture: {error}")
    return ()


def cancel_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin cancel`."""
    _job_argument(parser)
    arguments.json_argument(parser)


def cancel(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Stop a job, and wait until it has stopped."""
    with reach(talk) as client:
        job = find(client.jobs(), args.job)
        before = client.cancel(job)
        for event in client.follow(job, since=before.seq):
            talk.watch(event)
        record = client.job(job)
    print(json.dumps(facts(record)) if args.json else f"{record.id} {record.state}", file=out)
    return 0


def land_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin land`."""
    _job_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=arguments.file,
        help="replaced if it is there; default: what was asked for",
    )
    arguments.json_argument(parser)


def land(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Put a finished job's takes where they were meant to go."""
    from punchin.clients import journey
    from punchin.clients.cli import result

    result.replaces(args.output, talk)
    with reach(talk) as client:
        landed = journey.land(client, find(client.jobs(), args.job), talk, args.output)
    result.write(landed, args.json, out, talk)
    return 0


def find(records: list[JobRecord], text: str, what: str = "job") -> str:
    """The id that begins or ends with `text`. Unknown whole ones are passed on: the daemon may know older jobs.

    what: what `text` may be, for the error. Raises BadUsage: several begin or end so; Refused (`unknown_job`).
    """
    ids = [record.id for record in records if text]  # "" is what a script's empty variable leaves, and would fit each
    hits = [job for job in ids if job.startswith(text) or job.endswith(text)]
    if len(hits) > 1 and text not in hits:
        named = ", ".join(hits[:NAMED]) + f" and {len(hits) - NAMED} more" * (len(hits) > NAMED)
        raise BadUsage(f'"{text}" fits {len(hits)} jobs: {named}', "punchin jobs")
    if not hits and not re.fullmatch(JOB_ID, text):
        raise Refused(f'there is no {what} "{text}"', "punchin jobs", "unknown_job")
    return hits[0] if len(hits) == 1 else text


def facts(record: JobRecord) -> dict[str, Any]:
    """A job as plain data: what people and programs are shown."""
    import msgspec

    return {
        "job": record.id,
        "state": record.state,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created_ns / 1e9)),
        "task": record.order.task,
        "prompt": record.order.prompt,
        "model": record.provenance.model if record.provenance else record.order.model,
        "seeds": list(dict.fromkeys(seed for _, seed in record.order.rolls)),
        "attempts": record.attempts,
        "landed": record.landed,
        "error": _error(record),
        "takes": [_take(take) for take in record.takes],
        "provenance": msgspec.to_builtins(record.provenance),
        "order": msgspec.to_builtins(record.order),
    }


def _take(take: Take) -> dict[str, Any]:
    return {"passage": take.passage, "seed": take.seed, "sha256": take.audio.sha256, "frames": take.audio.frames}


def _error(record: JobRecord) -> dict[str, str] | None:
    if not record.error_code and not record.error_text:
        return None
    return {"code": record.error_code, "text": record.error_text, "hint": record.error_hint}


def _what(record: JobRecord) -> str:
    if record.error_text:
        return _line(record.error_text, 160)
    order = record.order
    seconds, several = sum(each.frames for each in order.passages) / 48_000, len(order.passages)
    length = f"{f'{several} passages, ' if several > 1 else ''}{seconds:.0f} s"
    words = ", ".join(each for each in (order.instrument, order.prompt) if each)
    return f"{called(order.task)}, {length}: {_line(words, 48)}"


def _line(text: str, most: int) -> str:
    """The beginning of a text, `most` characters of it, as one line of a table."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _job_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", metavar="ID", help="of the job, or how it begins or ends")
