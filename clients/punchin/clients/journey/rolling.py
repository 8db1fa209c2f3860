"""Takes that are rolled until each keeps the report's limits, or the attempts are used: one loop for all verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from punchin.clients.journey.ending import kept_takes
from punchin.clients.journey.ordering import seeds_from
from punchin.clients.journey.plan import FilePlan, Kept, Plan
from punchin.clients.journey.waiting import Listener, wait
from punchin.protocol.order import JobRecord, Order, Take
from punchin.session.report import Report

if TYPE_CHECKING:
    from punchin.clients.client import Client


class Measured(Protocol):
    """A take in one of its places, with what is true of it there."""

    @property
    def report(self) -> Report:
        """What was measured."""
        ...


M = TypeVar("M", bound=Measured)
P = TypeVar("P", Plan, FilePlan)
Place = Callable[[JobRecord, Take], tuple[M, ...]]  # brings a job's take to its places, and measures it there


@dataclass(frozen=True, slots=True, eq=False)
class Roll(Generic[M]):
    """One take: whose job made it, at which attempt, and what it is in each of its places."""

    record: JobRecord
    take: Take
    attempts: int
    places: tuple[M, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """The limits that it breaks in any of its places, in words."""
        return tuple(text for each in self.places for text in each.report.failed)


def roll(
    client: Client, order: Order, plan: P, most: int, place: Place[M], listener: Listener, job_id: str | None = None
) -> list[Roll[M]]:
    """The takes of an order, one for each of its seeds: those over a limit are made again with the next seeds.

    most: attempts for each. job_id: the first job's id; those of later attempts end in -2, -3. Raises as `wait` does.
    """
    best: dict[int, Roll[M]] = {}  # by slot, the take's place among the variations
    while True:
        named = job_id if job_id is None or plan.attempt == 1 else f"{job_id}-{plan.attempt}"
        job = client.submit(order, plan.encode(), named).id
        listener.say(f"job {job}")
        record = wait(client, job, listener)
        with kept_takes([job]):
            for slot, take in zip(plan.slots, record.takes, strict=True):
                new = Roll(record, take, plan.attempt, place(record, take))
                best[slot] = _better(best.get(slot), new)
        bad = tuple(slot for slot in plan.slots if best[slot].failed)
        if not bad or plan.attempt == most or not _may_differ(record):
            return [best[slot] for slot in sorted(best)]
        order = msgspec.structs.replace(order, seeds=tuple(seeds_from(order.seeds[-1] + 1, len(bad))))
        plan = msgspec.structs.replace(plan, attempt=plan.attempt + 1, slots=bad, kept=_kept(best, bad))
        for slot, seed in zip(bad, order.seeds, strict=True):
            listener.warn(
                f"take {best[slot].take.seed}: {'; '.join(best[slot].failed)}; rolled again with seed {seed} "
                f"(attempt {plan.attempt} of {most})"
            )


def rolled(client: Client, record: JobRecord, plan: Plan | FilePlan, place: Place[M]) -> list[Roll[M]]:
    """The takes of a done job in order, and with them those of earlier ones that it left as they were."""
    slots = {slot: (record, index, plan.attempt) for index, slot in enumerate(plan.slots)}
    slots |= {slot: (client.result(kept.job), kept.index, kept.attempts) for slot, kept in plan.kept.items()}
    takes = [(of, of.takes[index], attempts) for of, index, attempts in (slots[slot] for slot in sorted(slots))]
    return [Roll(of, take, attempts, place(of, take)) for of, take, attempts in takes]


def _better(old: Roll[M] | None, new: Roll[M]) -> Roll[M]:
    """A later roll replaces an earlier one unless it breaks more limits; the attempts count either way."""
    return replace(old, attempts=new.attempts) if old is not None and len(old.failed) < len(new.failed) else new


def _kept(best: Mapping[int, Roll[M]], bad: tuple[int, ...]) -> dict[int, Kept]:
    """The takes that need no further roll, for the next job's plan."""
    return {
        slot: Kept(job=roll.record.id, index=roll.record.takes.index(roll.take), attempts=roll.attempts)
        for slot, roll in best.items()
        if slot not in bad
    }


def _may_differ(record: JobRecord) -> bool:
    """Whether another seed can be better: neither for noise nor for what returns its input."""
    made_by = record.provenance
    return made_by is None or (made_by.trained and made_by.model != "identity")
