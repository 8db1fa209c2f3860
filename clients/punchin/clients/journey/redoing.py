"""A take made again: from what is kept of it, the same, or with another seed a sister of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from punchin.clients.journey.landing import Result, asked
from punchin.clients.journey.plan import Plan, decode
from punchin.clients.journey.request import Request, read
from punchin.clients.journey.travel import perform
from punchin.clients.journey.waiting import Listener
from punchin.protocol.errors import Refused
from punchin.session import takefiles

if TYPE_CHECKING:
    from punchin.clients.client import Client


def of_file(take: Path) -> dict[str, Any]:
    """What made a take file. Raises Refused where nothing is kept, or not enough to make it again."""
    made = takefiles.provenance(take)
    if not made.get("request"):
        raise Refused(f"{take.name} was not made by a journey, or by an older punchin", "make a new take")
    return made


def of_job(client: Client, job: str) -> dict[str, Any]:
    """What made a job's first take, in the same form. Raises Refused for a job without a journey."""
    record = client.job(job)
    plan = decode(record.plan, job)
    if not isinstance(plan, Plan):
        raise Refused(f"job {job} made music from a prompt alone", "punchin generate ...")
    made_by = msgspec.to_builtins(record.provenance) if record.provenance else {}
    return {
        "seed": record.order.seeds[0],
        "heard_sha256": plan.heard_sha256,
        "made_by": made_by,
        "request": asked(plan.request, record.order),
    }


def request_of(made: dict[str, Any], take: Path | None = None) -> Request:
    """The request that made a take, for this take alone: its seed, one variation, and a default output.

    A session that was moved together with its take is looked for beside the take. Raises Refused.
    """
    try:
        request = msgspec.convert(made["request"], Request, dec_hook=read)
        seed = int(made["seed"])
    except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
        raise Refused(f"what is kept of the take cannot be read: {error}", "make a new take") from None
    request = replace(request, seed=seed, variations=1, out=None, job_id=None)
    if not request.session.exists() and take is not None:
        beside = (folder / request.session.name for folder in take.resolve().parents[:3])
        moved = next((path for path in beside if path.exists()), None)
        return request if moved is None else replace(request, session=moved)
    return request


def redo(made: dict[str, Any], request: Request, listener: Listener) -> Result:
    """Make it, and say where it cannot be the same: another session, another model. Raises as `perform` does."""
    result = perform(request, listener)
    now = takefiles.provenance(result.takes[0].file)
    if now.get("heard_sha256") != made.get("heard_sha256"):
        listener.warn("the session no longer sounds as it did when the first take was made; this one differs")
    was, new = (each.get("made_by", {}) for each in (made, now))
    if (was.get("model"), was.get("model_sha256")) != (new.get("model"), new.get("model_sha256")):
        listener.warn(f"made by {new.get('model')}, the first one by {was.get('model')}: this one differs")
    return result
