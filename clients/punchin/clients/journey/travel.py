"""The way of a region from the session to the daemon and back, as `punchin repaint` and the DAW bridge go it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from punchin.clients.journey import landing, making
from punchin.clients.journey.capture import Capture, capture, capture_again, opened, together
from punchin.clients.journey.landing import Part, Result, Rolled
from punchin.clients.journey.making import MadeResult
from punchin.clients.journey.ordering import heard_name, order_of, seeds_from
from punchin.clients.journey.plan import FilePlan, Kept, Plan, decode
from punchin.clients.journey.request import Request, check_folder
from punchin.clients.journey.returning import Known, finish
from punchin.clients.journey.waiting import Listener, tell_version, wait
from punchin.protocol import limits
from punchin.protocol.errors import Cancelled, PunchinError, Refused
from punchin.protocol.order import JobRecord, Order
from punchin.session.document import Session

if TYPE_CHECKING:
    from punchin.clients.client import Client

MOST_REGIONS = 8  # of one job: its plan, which travels in one message, names each with all that was asked of it


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
        part for regions in jobs(requests, captures) for part in Journey(client, *regions, listener).roll()
    ]
    with _kept_takes(each.record.id for part in parts for each in part.rolled):
        parts = _up_to_date(client, parts, listener)
    return _land(client, parts)


def jobs(
    requests: Sequence[Request], captures: Sequence[Capture]
) -> list[tuple[tuple[Request, ...], tuple[Capture, ...]]]:
    """What is made together: regions of one track (or item) whose windows meet are one job, as long as 600 s hold it.

    So the model hears them as they will be, and makes both from one seed. The order of the requests stays.
    """
    groups: list[list[tuple[Request, Capture]]] = []
    for pair in zip(requests, captures, strict=True):
        group = next((group for group in groups if _meets(group, *pair)), None)
        groups.append([pair]) if group is None else group.append(pair)
    out = []
    for group in groups:
        asked, heard = zip(*group, strict=True)
        out.append((asked, heard if len(heard) == 1 else together(heard, widen=asked[0].context == "auto")))
    return out


def _meets(group: Sequence[tuple[Request, Capture]], request: Request, captured: Capture) -> bool:
    """Whether a region may be made together with others: the same is asked of it, and its window meets theirs."""
    first, one = group[0]
    same_axis = one.target.origin_s == captured.target.origin_s and one.target.rate_hz == captured.target.rate_hz
    if replace(request, bars=first.bars, time_s=first.time_s) != first or not same_axis:
        return False
    window, others = captured.window, [each.window for _, each in group]
    near = any(other.start <= window.stop and window.start <= other.stop for other in others)
    if not near or len(group) == MOST_REGIONS:
        return False
    both = [window, *others]
    seconds = (max(each.stop for each in both) - min(each.start for each in both)) / window.rate_hz
    return seconds * limits.LATENT_HZ <= limits.WINDOW.high - 2


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
    return _land(client, _parts(client, plan, record, listener))


def look(client: Client, job: str, listener: Listener) -> tuple[Rolled, ...]:
    """The takes of a done job in their place, measured, with nothing written. Raises as `land` does."""
    record = client.result(job)
    plan = decode(record.plan, job)
    if isinstance(plan, FilePlan):
        raise Refused(f"job {job} made music from a prompt alone: there is no before")
    return tuple(rolled for part in _parts(client, plan, record, listener) for rolled in part.rolled)


def _parts(client: Client, plan: Plan, record: JobRecord, listener: Listener) -> list[Part]:
    """The takes of a request in order: those of this job, and those of earlier ones that it left as they were."""
    session = opened(plan.request)
    captures = [capture_again(place, session) for place in plan.regions]
    known = [Known.of(captured) for captured in captures]
    slots = {slot: (record, index, plan.attempt) for index, slot in enumerate(plan.slots)}
    slots |= {slot: (client.result(kept.job), kept.index, kept.attempts) for slot, kept in plan.kept.items()}
    takes = [_rolled(client, captures, plan, *slots[slot], known, listener) for slot in sorted(slots)]
    return _by_region(captures, plan, takes)


def _by_region(captures: Sequence[Capture], plan: Plan, takes: Sequence[tuple[Rolled, ...]]) -> list[Part]:
    return [
        Part(captured, place, tuple(take[i] for take in takes))
        for i, (captured, place) in enumerate(zip(captures, plan.regions, strict=True))
    ]


class Journey:
    """Requests under way that are one job: rolls each take until all its regions keep the report's limits, or the
    attempts are used.
    """

    def __init__(
        self, client: Client, requests: Sequence[Request], captures: Sequence[Capture], listener: Listener
    ) -> None:
        self.client, self.requests, self.captures, self.listener = client, requests, captures, listener
        self.request = requests[0]
        self.best: dict[int, tuple[Rolled, ...]] = {}  # by slot, the take's place among the variations: each region

    def roll(self) -> list[Part]:
        """Takes that are ready to land, region by region. Raises as `perform` does."""
        with ThreadPoolExecutor(1, "measure") as aside:
            return self._roll_until_good(aside)

    def _roll_until_good(self, aside: ThreadPoolExecutor) -> list[Part]:
        order = order_of(self.request, self.captures, self.client, self.listener)
        assert order.source is not None
        plan = _plan(self.requests, self.captures, heard_name(self.request, self.captures[0], order.source))
        known: list[Future[Known]] = []
        while True:
            job = self._submit(order, plan)
            known = known or [aside.submit(Known.of, each) for each in self.captures]  # this process only waits
            record = wait(self.client, job, self.listener)
            with _kept_takes([job]):
                for index, slot in enumerate(plan.slots):
                    self._keep_better(slot, self._roll(record, index, plan, [each.result() for each in known]))
            bad = tuple(slot for slot in plan.slots if _faults(self.best[slot]))
            if not bad or plan.attempt == self.request.max_attempts or not _may_differ(record):
                return _by_region(self.captures, plan, [self.best[slot] for slot in sorted(self.best)])
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

    def _roll(self, record: JobRecord, index: int, plan: Plan, known: Sequence[Known]) -> tuple[Rolled, ...]:
        return _rolled(self.client, self.captures, plan, record, index, plan.attempt, known, self.listener)

    def _keep_better(self, slot: int, new: tuple[Rolled, ...]) -> None:
        """A later roll replaces an earlier one unless it breaks more limits; the attempts count either way."""
        old = self.best.get(slot)
        if old is not None and len(_faults(old)) < len(_faults(new)):
            new = tuple(replace(each, attempts=new[0].attempts) for each in old)
        self.best[slot] = new

    def _kept(self, bad: tuple[int, ...]) -> dict[int, Kept]:
        good = {slot: takes[0] for slot, takes in self.best.items() if slot not in bad}
        return {
            slot: Kept(job=rolled.record.id, index=rolled.record.takes.index(rolled.take), attempts=rolled.attempts)
            for slot, rolled in good.items()
        }

    def _tell(self, bad: tuple[int, ...], order: Order) -> None:
        for slot, seed in zip(bad, order.seeds, strict=True):
            old = self.best[slot][0]
            self.listener.warn(
                f"take {old.take.seed}: {'; '.join(_faults(self.best[slot]))}; rolled again with seed {seed} "
                f"(attempt {old.attempts + 1} of {self.request.max_attempts})"
            )


def _faults(take: Sequence[Rolled]) -> list[str]:
    """What is wrong with a take, in any of its regions."""
    return [text for rolled in take for text in rolled.finished.report.failed]


def _rolled(
    client: Client,
    captures: Sequence[Capture],
    plan: Plan,
    record: JobRecord,
    index: int,
    attempts: int,
    known: Sequence[Known],
    listener: Listener,
) -> tuple[Rolled, ...]:
    """One take of a job, region by region."""
    take = record.takes[index]
    made, wanted = client.get_audio(take.audio), record.order.wanted or (0, record.order.frames)
    return tuple(
        Rolled(record, take, attempts, finish(captured, plan, made, wanted, facts, listener), region)
        for region, (captured, facts) in enumerate(zip(captures, known, strict=True))
    )


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
    _tell_landed(client, jobs, result.output.absolute())  # jobs outlive the folder they were asked from
    return result


def _tell_landed(client: Client, jobs: Iterable[str], output: Path) -> None:
    """Have it journaled. What goes wrong here is told, and so is that the takes are in their place all the same."""
    there = f"the takes have landed in {output}"
    try:
        for job in jobs:
            client.landed(job, str(output))
    except KeyboardInterrupt:
        raise Cancelled(f"stopped; {there}") from None
    except PunchinError as error:
        error.hint = f"{error.hint}\n{there}".strip()
        raise


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
        made, wanted = client.get_audio(each.take.audio), each.record.order.wanted or (0, each.record.order.frames)
        return replace(each, finished=finish(captured, part.plan, made, wanted, known, listener))

    return Part(captured, part.plan, tuple(again(each) for each in part.rolled))


def _may_differ(record: JobRecord) -> bool:
    """Whether another seed can be better: neither for noise nor for what returns its input."""
    made_by = record.provenance
    return made_by is None or (made_by.trained and made_by.model != "identity")


def _plan(requests: Sequence[Request], captures: Sequence[Capture], heard_sha256: str) -> Plan:
    """Where a job's takes belong, its regions in order."""
    places = []
    for request, captured in zip(requests, captures, strict=True):
        window, region, asked = captured.window, captured.region, request.absolute()
        places.append(
            Plan(
                request=replace(asked, prompt=replace(asked.prompt, text="", lyrics="")),
                heard_sha256=heard_sha256,
                region_s=(region.start_s, region.end_s),
                window=(window.start, window.touched, window.end, window.stop),
                rate_hz=window.rate_hz,
                slots=tuple(range(request.variations)),
            )
        )
    return msgspec.structs.replace(places[0], also=tuple(places[1:]))
