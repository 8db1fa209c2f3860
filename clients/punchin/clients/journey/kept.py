"""What is kept of a take, as JSON values: in the project, beside its file. `punchin redo` needs nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from punchin.clients.journey.plan import Plan, decode
from punchin.clients.journey.request import Making, Request, plain
from punchin.protocol.order import JobRecord, Order, Provenance
from punchin.protocol.version import PACKAGE, PROTOCOL


def of(record: JobRecord, seed: int, attempts: int = 1, *, passage: int = 0, region: int = 0) -> dict[str, Any]:
    """What made a take of a job: the request, seed and model, hashes of all that was heard and of effects, versions.

    passage: which of the order's, region: which of the plan's places, from 0.
    """
    order, plan = record.order, decode(record.plan, record.id)
    source = order.passages[passage].source
    kept = {
        "punchin": PACKAGE,
        "protocol": PROTOCOL,
        "job": record.id,
        "task": order.task,
        "seed": seed,
        "attempts": attempts,
        "source_sha256": source.sha256 if source else "",
        "references_sha256": [blob.sha256 for blob in order.references],
        "loras_sha256": [lora.sha256 for lora in order.loras],
        "made_by": msgspec.to_builtins(record.provenance or Provenance(model=order.model)),
    }
    if isinstance(plan, Plan):
        place = plan.places[region]
        chains = {"pre_fx_sha256": plan.pre_fx_sha256, "return_fx_sha256": plan.return_fx_sha256}
        kept |= {name: sha256 for name, sha256 in chains.items() if sha256}
        return kept | {"heard_sha256": place.heard_sha256, "request": asked(plan.asked(place), order)}
    return kept | {"making": {} if plan.making is None else asked(plan.making, order)}


def asked(what: Request | Making, order: Order) -> dict[str, Any]:
    """What was asked for, with the prompt and lyrics that a plan leaves to its order."""
    prompt = replace(what.prompt, text=order.prompt, lyrics=order.lyrics)
    if isinstance(what, Making):
        return msgspec.to_builtins(replace(what, prompt=prompt), enc_hook=plain)
    return msgspec.to_builtins(replace(what, prompt=prompt, job_id=None), enc_hook=plain)
