"""The way of a region from the session to the daemon and back, as `punchin repaint` and the DAW bridge go it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from punchin.clients.journey import landing, making
from punchin.clients.journey.capture import Capture, capture, capture_again, opened
from punchin.clients.journey.landing import Part, Result, Rolled
from punchin.clients.journey.making import MadeResult
from punchin.clients.journey.ordering import heard_name, order_of, seeds_from
from punchin.clients.journey.plan import FilePlan, Kept, Plan, decode
from punchin.clients.journey.request import Request, check_folder
from punchin.clients.journey.returning import Known, finish
from punchin.clients.journey.waiting import Listener, tell_version, wait
from punchin.protocol.errors import Cancelled, PunchinError, Refused
from punchin.protocol.order import JobRecord, Order
from punchin.session.document import Session

if TYPE_CHECKING:
    from punchin.clients.client import Client


def perform(request: Request, listener: Listener) -> Result:
    """New takes for a region: captured, made, measured, landed. Starts the daemon if none is there.

    Raises Refused and OverLimit before anything is asked of the daemon, JobFailed, Cancelled (after ctrl-C, which
    cancels the job), and PunchinError for a disk that is full. The session itself is never written.
    """
    return perform_all((request,), listener)


def perform_all(requests: Sequence[Request], listener: Listener) -> Result:
    """As `perform`, for several regions or tracks of one session, which land in one new document.

    requests: of the same session and with the same number of variations; the first one's output is used.
    """
    session = opened(requests[0])
    captures = tuple(capture(request, session) for request in requests)
    _check_apart(captures)
    for note in dict.fromkeys(note for captured in captures for note in captured.target.notes):
        listener.warn(note)
    from punchin.clients.connect import connect

    for request in requests:
        check_folder(request.out or request.session)
        _check_effects(request)
    with connect(start=True, name="cli") as client:
        tell_version(client, listener)
        return go(client, requests, captures, listener)


def go(client: Client, requests: Sequence[Request], captures: Sequence[Capture], listener: Listener) -> Result:
    """The way from what was captured to what has landed, with a client that is there. Raises as `perform` does."""
    parts: Sequence[Part] = [
        Journey(client, request, captured, listener).roll()
        for request, captured in zip(requests, captures, strict=True)
    ]
    with _kept_takes(each.record.id for part in parts for each in part.rolled):
        parts = _up_to_date(client, parts, listener)
    return _land(client, parts)


def _check_apart(captures: Sequence[Capture]) -> None:
    """Two regions of one track whose fades would meet are found before their takes are made, not after."""
    for one, other in combinations(captures, 2):
        if one.target.track == other.target.track and one.target.origin_s == other.target.origin_s:
            a, b = one.window, other.window
            if a.touched < b.end and b.touched < a.end:
                bars = " and ".join(f"{first}-{last}" for first, last in (one.region.bars, other.region.bars))
                raise Refused(f"bars {bars} of {one.target.track or 'the file'} touch", "select them as one region")


def _check_effects(request: Request) -> None:
    """A chain that cannot work is found before the take is made, not after."""
    chains = {chain for chain in (request.pre_fx, request.return_fx) if chain is not None}
    if chains:
        from punchin.clients import fx

        for chain in chains:
            fx.check(chain)


def land(client: Client, job: str, listener: Listener) -> Result | MadeResult:
    """Land the takes of a done job, whoever asked for it. Raises Refused when it is not done, or cannot be landed."""
    record = client.result(job)
    plan = decode(record.plan, job)
    if record.landed:
        raise Refused(f"job {job} is landed already, in {record.landed}", code="landed")
    if isinstance(plan, FilePlan):
        return making.collect(client, record, plan)
    return _land(client, [_part(client, plan, record, listener)])


def look(client: Client, job: str, listener: Listener) -> tuple[Rolled, ...]:
    """The takes of a done job in their place, measured, with nothing written. Raises as `land` does."""
    record = client.result(job)
    plan = decode(record.plan, job)
    if isinstance(plan, FilePlan):
        raise Refused(f"job {job} made music from a prompt alone: there is no before")
    return _part(client, plan, record, listener).rolled


def _part(client: Client, plan: Plan, record: JobRecord, listener: Listener) -> Part:
    """The takes of a request in order: those of this job, and those of earlier ones that it left as they were."""
    captured = capture_again(plan, opened(plan.request))
    slots = {slot: (record, index, plan.attempt) for index, slot in enumerate(plan.slots)}
    known = Known.of(captured)
    slots |= {slot: (client.result(kept.job), kept.index, kept.attempts) for slot, kept in plan.kept.items()}
    return Part(
        captured, plan, tuple(_rolled(client, captured, plan, *slots[slot], known, listener) for slot in sorted(slots))
    )


class Journey:
    """One request under way: rolls each of its takes until all keep the report's limits or the attempts are used."""

    def __init__(self, client: Client, request: Request, captured: Capture, listener: Listener) -> None:
        self.client, self.request, self.captured, self.listener = client, request, captured, listener
        self.best: dict[int, Rolled] = {}  # by slot: the take's place among the variations

    def roll(self) -> Part:
        """Takes that are ready to land. Raises as `perform` does."""
        with ThreadPoolExecutor(1, "measure") as aside:
            return self._roll_until_good(aside)

    def _roll_until_good(self, aside: ThreadPoolExecutor) -> Part:
        order = order_of(self.request, self.captured, self.client, self.listener)
        assert order.source is not None
        plan = _plan(self.request, self.captured, heard_name(self.request, self.captured, order.source))
        known: Future[Known] | None = None
        while True:
            job = self._submit(order, plan)
            known = known or aside.submit(Known.of, self.captured)  # the engine works, this process only waits
            record = wait(self.client, job, self.listener)
            with _kept_takes([job]):
                for index, slot in enumerate(plan.slots):
                    self._keep_better(slot, self._roll(record, index, plan, known.result()))
            bad = tuple(slot for slot in plan.slots if not self.best[slot].finished.report.ok)
            if not bad or plan.attempt == self.request.max_attempts or not _may_differ(record):
                return Part(self.captured, plan, tuple(self.best[slot] for slot in sorted(self.best)))
            order = msgspec.structs.replace(order, seeds=tuple(seeds_from(order.seeds[-1] + 1, len(bad))))
            plan = msgspec.structs.replace(plan, attempt=plan.attempt + 1, slots=bad, kept=self._kept(bad))
            self._tell(bad, order)

    def _submit(self, order: Order, plan: Plan) -> str:
        job = self.client.submit(order, plan.encode(), self._job_id(plan)).id
        self.listener.say(f"job {job}")
        return job

    def _job_id(self, plan: Plan) -> str | None:
        own = self.request.job_id
        return own if own is None or plan.attempt == 1 else f"{own}-{plan.attempt}"

    def _roll(self, record: JobRecord, index: int, plan: Plan, known: Known) -> Rolled:
        return _rolled(self.client, self.captured, plan, record, index, plan.attempt, known, self.listener)

    def _keep_better(self, slot: int, new: Rolled) -> None:
        """A later roll replaces an earlier one unless it breaks more limits; the attempts count either way."""
        old = self.best.get(slot)
        if old is not None and len(old.finished.report.failed) < len(new.finished.report.failed):
            new = replace(old, attempts=new.attempts)
        self.best[slot] = new

    def _kept(self, bad: tuple[int, ...]) -> dict[int, Kept]:
        good = {slot: rolled for slot, rolled in self.best.items() if slot not in bad}
        return {
            slot: Kept(job=rolled.record.id, index=rolled.record.takes.index(rolled.take), attempts=rolled.attempts)
            for slot, rolled in good.items()
        }

    def _tell(self, bad: tuple[int, ...], order: Order) -> None:
        for slot, seed in zip(bad, order.seeds, strict=True):
            old = self.best[slot]
            self.listener.warn(
                f"take {old.take.seed}: {'; '.join(old.finished.report.failed)}; rolled again with seed {seed} "
                f"(attempt {old.attempts + 1} of {self.request.max_attempts})"
            )


def _rolled(
    client: Client,
    captured: Capture,
    plan: Plan,
    record: JobRecord,
    index: int,
    attempts: int,
    known: Known,
    listener: Listener,
) -> Rolled:
    take = record.takes[index]
    return Rolled(record, take, attempts, finish(captured, plan, client.get_audio(take.audio), known, listener))


def _land(client: Client, parts: Sequence[Part]) -> Result:
    jobs = dict.fromkeys(each.record.id for part in parts for each in part.rolled)
    try:
        with _kept_takes(jobs):
            result = landing.land(parts)
    except Cancelled:
        raise
    except PunchinError as error:
        error.hint = f"{error.hint}\nthe takes are kept; once it is mended: {_later(jobs)}".strip()
        raise
    for job in jobs:
        client.landed(job, str(result.output.absolute()))  # jobs outlive the folder they were asked from
    return result


@contextmanager
def _kept_takes(jobs: Iterable[str]) -> Iterator[None]:
    """A ctrl-C in here costs no take: it says how they land after all."""
    try:
        yield
    except KeyboardInterrupt:
        raise Cancelled("stopped before anything was written; the takes are kept", _later(jobs)) from None


def _later(jobs: Iterable[str]) -> str:
    return " and ".join(f"punchin land {job}" for job in dict.fromkeys(jobs))


def _up_to_date(client: Client, parts: Sequence[Part], listener: Listener) -> Sequence[Part]:
    """The parts as they are, or placed anew where the session was saved while the jobs ran."""
    path = parts[0].captured.session.path
    try:
        now = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PunchinError(f"{path.name} cannot be read any more: {error.strerror}", "put it back") from None
    if now == parts[0].captured.session.sha256:
        return parts
    session = opened(parts[0].plan.request)
    return [_again(client, part, session, listener) for part in parts]


def _again(client: Client, part: Part, session: Session, listener: Listener) -> Part:
    captured = capture_again(part.plan, session)
    known = Known.of(captured)

    def again(each: Rolled) -> Rolled:
        index = each.record.takes.index(each.take)
        return _rolled(client, captured, part.plan, each.record, index, each.attempts, known, listener)

    return Part(captured, part.plan, tuple(again(each) for each in part.rolled))


def _may_differ(record: JobRecord) -> bool:
    """Whether another seed can be better: neither for noise nor for what returns its input."""
    made_by = record.provenance
    return made_by is None or (made_by.trained and made_by.model != "identity")


def _plan(request: Request, captured: Capture, heard_sha256: str) -> Plan:
    window, region = captured.window, captured.region
    return Plan(
        request=replace(request.absolute(), prompt=replace(request.absolute().prompt, text="", lyrics="")),
        heard_sha256=heard_sha256,
        region_s=(region.start_s, region.end_s),
        window=(window.start, window.touched, window.end, window.stop),
        rate_hz=window.rate_hz,
        slots=tuple(range(request.variations)),
    )
