"""Takes that are rolled until each keeps the report's limits, or the attempts are used: one loop for all verbs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

from punchin.clients.journey.ending import kept_takes
from punchin.clients.journey.ordering import seeds_from
from punchin.clients.journey.plan import FilePlan, Kept, Plan
from punchin.clients.journey.waiting import Listener, wait
from punchin.protocol.errors import PunchinError
from punchin.protocol.order import JobRecord, Order, Passage, Take
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
Placing = Callable[[JobRecord, Take, int], tuple[M, ...]]  # brings the take of a slot to its places, and measures it


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
    client: Client, order: Order, plan: P, most: int, place: Placing[M], listener: Listener, job_id: str | None = None
) -> list[Roll[M]]:
    """The takes of an order, passage by passage: those over a limit are made again, each with its passage's next seed.

    What is good already is not made again. most: attempts for each. job_id: the first job's id; those of later attempts
    end in -2, -3. Raises as `wait` does.
    """
    best: dict[int, Roll[M]] = {}  # by slot, the take's place among all that are asked for
    while True:
        named = job_id if job_id is None or plan.attempt == 1 else f"{job_id}-{plan.attempt}"
        with _earlier(best):
            job = client.submit(order, plan.encode(), named).id
            listener.say(f"job {job}")
            record = wait(client, job, listener)
        with kept_takes([job]):
            for slot, take in zip(plan.slots, record.takes, strict=True):
                new = Roll(record, take, plan.attempt, place(record, take, slot))
                best[slot] = _better(best.get(slot), new)
        takes = zip(plan.slots, record.takes, strict=True)
        bad = {slot: take.passage for slot, take in takes if best[slot].failed}
        if not bad or plan.attempt == most or not _may_differ(record):
            return [best[slot] for slot in sorted(best)]
        order = _again(order, Counter(bad.values()))
        plan = msgspec.structs.replace(plan, attempt=plan.attempt + 1, slots=tuple(bad), kept=_kept(best, bad))
        for slot, (passage, seed) in zip(bad, order.rolls, strict=True):
            name, faults = order.passages[passage].name, "; ".join(best[slot].failed)
            listener.warn(
                f"{name and f'{name}: '}take {best[slot].take.seed}: {faults}; rolled again with seed {seed} "
                f"(attempt {plan.attempt} of {most})"
            )


@contextmanager
def _earlier(best: Mapping[int, Roll[M]]) -> Iterator[None]:
    """What ends another attempt costs no take of those before: it says how they land."""
    try:
        yield
    except PunchinError as error:
        if best:
            newest = max((roll.record for roll in best.values()), key=lambda record: record.created_ns)
            error.hint = f"{error.hint}\nthe takes of the attempts before are kept: punchin land {newest.id}".strip()
        raise


def rolled(client: Client, record: JobRecord, plan: Plan | FilePlan, place: Placing[M]) -> list[Roll[M]]:
    """The takes of a done job in order, and with them those of earlier ones that it left as they were."""
    slots = {slot: (record, index, plan.attempt) for index, slot in enumerate(plan.slots)}
    slots |= {slot: (client.result(kept.job), kept.index, kept.attempts) for slot, kept in plan.kept.items()}
    takes = [(slot, of, of.takes[index], attempts) for slot, (of, index, attempts) in sorted(slots.items())]
    return [Roll(of, take, attempts, place(of, take, slot)) for slot, of, take, attempts in takes]


def _again(order: Order, counts: Mapping[int, int]) -> Order:
    """The same asked once more of those passages that lack takes; counts: how many, by passage."""
    passages: list[Passage] = []
    for number, count in sorted(counts.items()):
        passage = order.passages[number]
        passages.append(msgspec.structs.replace(passage, seeds=tuple(seeds_from(passage.seeds[-1] + 1, count))))
    return order.of(passages)


def _better(old: Roll[M] | None, new: Roll[M]) -> Roll[M]:
    """A later roll replaces an earlier one unless it breaks more limits; the attempts count either way."""
    return replace(old, attempts=new.attempts) if old is not None and len(old.failed) < len(new.failed) else new


def _kept(best: Mapping[int, Roll[M]], bad: Container[int]) -> dict[int, Kept]:
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
