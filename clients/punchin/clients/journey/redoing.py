"""A take made again: from what is kept of it, the same, or with another seed a sister of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from punchin.clients.journey import kept
from punchin.clients.journey.landing import Result
from punchin.clients.journey.making import MadeResult, make
from punchin.clients.journey.plan import FilePlan, Plan, decode
from punchin.clients.journey.request import Making, Prompt, Request, read
from punchin.clients.journey.travel import perform_all
from punchin.clients.journey.waiting import Listener
from punchin.protocol import installed
from punchin.protocol.errors import Refused
from punchin.protocol.order import JobRecord
from punchin.session import takefiles
from punchin.session.target import free_name

if TYPE_CHECKING:
    from punchin.clients.client import Client

HEARD = {  # what must be as it was for the same take
    "heard_sha256": "the session no longer sounds as it did",
    "references_sha256": "a reference is no longer the file that it was",
    "loras_sha256": "a LoRA is no longer the file that it was",
    "pre_fx_sha256": "the effects on what the model hears (--pre-fx) are no longer what they were",
    "return_fx_sha256": "the effects on the take (--return-fx) are no longer what they were",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is to be otherwise. seed: None makes the same take, which is then not rolled again, whatever its report.

    session: None is the one that the take was made for, also where it was moved together with the take. model: ""
    is the one that made the take. out: None is a default name, as for a new take.
    """

    seed: int | None = None
    variations: int = 1
    session: Path | None = None
    model: str = ""
    out: Path | None = None


def of_file(take: Path) -> dict[str, Any]:
    """What made a take file. Raises Refused where nothing is kept, or not enough to make it again."""
    made = takefiles.provenance(take)
    if not (made.get("request") or made.get("making")):
        raise Refused(f"{take.name} was not made by a journey, or by an older punchin", "make a new take")
    return made


def of_job(client: Client, job: str) -> dict[str, Any]:
    """What made a job's first take, in the same form. Raises Refused for a job without a journey."""
    record = client.job(job)
    plan = decode(record.plan, job)
    if not isinstance(plan, Plan) and plan.making is None:
        raise Refused(f"job {job} was asked for by an older punchin", "punchin generate ...")
    if isinstance(plan, FilePlan):
        return kept.of(record, record.order.seeds[0])
    first, *more = (_first_of(client, record, plan, region) for region in range(len(plan.places)))
    return first | {"also": more}


def _first_of(client: Client, record: JobRecord, plan: Plan, region: int) -> dict[str, Any]:
    """What made the first take of a region: a job that rolled some again names the others, of earlier jobs."""
    slot = plan.places[region].passage * plan.request.variations
    if slot in plan.slots:
        passage, seed = record.order.rolls[plan.slots.index(slot)]
    else:
        record = client.job(plan.kept[slot].job)
        passage, seed = record.order.rolls[plan.kept[slot].index]
    return kept.of(record, seed, passage=passage, region=region)


def request_of(made: dict[str, Any], change: Change, take: Path | None = None) -> Making | tuple[Request, ...]:
    """What to ask for: the regions that the take holds, each as it was asked for, or bars from a prompt alone.

    What was moved together with the session or the take is found there. Raises Refused for what cannot be read, and for
    a file that is gone.
    """
    try:
        if made.get("making"):
            making = msgspec.convert(made["making"], Making, dec_hook=read)
            if change.session is not None:
                raise Refused("music from a prompt alone has no session", "leave --session out")
            making = replace(making, prompt=_prompt(making.prompt, made, change, _above(take)))
            return _making(making, _seed(made, change), change)
        asked = [(each, msgspec.convert(each["request"], Request, dec_hook=read)) for each in _regions(made)]
        return tuple(_request(request, each, change, take) for each, request in asked)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, msgspec.ValidationError) as error:
        raise Refused(f"what is kept of the take cannot be read: {error}", "make a new take") from None


def redo(made: dict[str, Any], what: Making | tuple[Request, ...], listener: Listener) -> Result | MadeResult:
    """Make it, and say where it cannot be the same: another session, another model. Raises as `perform` does."""
    result = make(what, listener) if isinstance(what, Making) else perform_all(what, listener)
    now = takefiles.provenance(result.takes[0].file)
    for name, text in HEARD.items():
        pairs = zip(_regions(made), _regions(now), strict=False)
        if any(was.get(name, new.get(name)) != new.get(name) for was, new in pairs):
            listener.warn(f"{text} when the first take was made; this one differs")
    was, new = (each.get("made_by", {}) for each in (made, now))
    if (was.get("model"), was.get("model_sha256")) != (new.get("model"), new.get("model_sha256")):
        listener.warn(f"made by {new.get('model')}, the first one by {was.get('model')}: this one differs")
    return result


def _regions(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What made each region of a take: those in its file, and those that were made at once with it."""
    yield made
    yield from made.get("also", ())


def _making(making: Making, seed: int, change: Change) -> Making:
    out = change.out or free_name(making.out)
    attempts = 1 if change.seed is None else making.max_attempts
    return replace(making, seed=seed, variations=change.variations, max_attempts=attempts, out=out)


def _request(request: Request, made: dict[str, Any], change: Change, take: Path | None) -> Request:
    session = _session(request, change.session, take)
    folders = (session.parent, *_above(take))
    return replace(
        request,
        session=session,
        tempo_map=request.tempo_map and _found(request.tempo_map, folders),
        pre_fx=request.pre_fx and _found(request.pre_fx, folders),
        return_fx=request.return_fx and _found(request.return_fx, folders),
        prompt=_prompt(request.prompt, made, change, folders),
        seed=_seed(made, change),
        variations=change.variations,
        max_attempts=1 if change.seed is None else request.max_attempts,
        out=change.out,
        job_id=None,
    )


def _prompt(prompt: Prompt, made: dict[str, Any], change: Change, folders: Sequence[Path]) -> Prompt:
    """The prompt with its files, and with the model that made the take, where nobody says another.

    A default may be another model by now.
    """
    was = made.get("made_by", {}).get("model", "")
    return replace(
        prompt,
        model=change.model or prompt.model or (was if was in installed.every() else ""),
        references=tuple(_found(path, folders) for path in prompt.references),
        loras=tuple((_found(path, folders), strength) for path, strength in prompt.loras),
    )


def _seed(made: dict[str, Any], change: Change) -> int:
    return int(made["seed"]) if change.seed is None else change.seed


def _session(request: Request, named: Path | None, take: Path | None) -> Path:
    """The named session, the request's, or the one of its name near the take where both were moved together."""
    if named is not None:
        kinds = ["a project" if path.suffix.lower() == ".rpp" else "an audio file" for path in (named, request.session)]
        if kinds[0] != kinds[1]:  # it has another way of naming tempo and track
            raise Refused(
                f"{named.name} is {kinds[0]}, the take was made for {kinds[1]}", f"name {kinds[1]}: --session"
            )
        return named
    there = _moved(request.session, _above(take))
    if there is None:
        raise Refused(f"the session that the take was made for is gone: {request.session}", "name one: --session FILE")
    return there


def _found(path: Path, folders: Sequence[Path]) -> Path:
    """A file that the take was made with, see `_moved`. Raises Refused where it is in none of the folders."""
    there = _moved(path, folders)
    if there is None:
        beside = f", or into {folders[0].absolute()}" if folders else ""
        raise Refused(f"a file that the take was made with is gone: {path}", f"put it back{beside}, and redo it again")
    return there


def _moved(path: Path, folders: Sequence[Path]) -> Path | None:
    """The path, or where nothing is there any more, what has its name in the first of the folders that has one."""
    return next((each for each in (path, *(folder / path.name for folder in folders)) if each.exists()), None)


def _above(take: Path | None) -> tuple[Path, ...]:
    """The folders in which to look for what was moved together with a take: its own, and the two above."""
    return () if take is None else tuple(take.resolve().parents[:3])
