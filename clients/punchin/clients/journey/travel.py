"""The way of a region from the session to the daemon and back, as `punchin repaint` and the DAW bridge go it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from punchin.clients.journey import landing, making
from punchin.clients.journey.capture import Capture, capture, capture_again, opened
from punchin.clients.journey.ending import kept_takes, write_out
from punchin.clients.journey.groups import Group, check_alike, together
from punchin.clients.journey.landing import Part, Result, Rolled
from punchin.clients.journey.making import MadeResult
from punchin.clients.journey.ordering import heard_name, order_of
from punchin.clients.journey.plan import FilePlan, Place, Plan, decode
from punchin.clients.journey.request import Request, check_folder
from punchin.clients.journey.returning import Finished, Known, ReturnFx, finish
from punchin.clients.journey.rolling import Placing, Roll, roll, rolled
from punchin.clients.journey.waiting import Listener, tell_version
from punchin.protocol import limits
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.order import JobRecord, Order, Take
from punchin.session import document
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
    """As `perform`, for several regions of one session, of one track or several: one job, which lands as a whole.

    requests: up to 32 that ask for the same but for `track`, `hear`, `bars`, `time_s` and `seed`. One that cannot be
    made refuses them all, by its name.
    """
    check_alike(requests)
    session = opened(requests[0])
    captures = tuple(_captured(request, session, len(requests)) for request in requests)
    _check_apart(requests, captures)
    for note in dict.fromkeys(note for captured in captures for note in captured.target.notes):
        listener.warn(note)
    for request, captured in zip(requests, captures, strict=True):
        if request.is_audio and request.bars:
            listener.say(f"  {request.span}{_counted(captured)}")
    from punchin.clients.connect import connect

    check_folder(requests[0].out or requests[0].session)
    _check_effects(requests[0], captures[0].target.rate_hz)
    with connect(start=True, name="cli") as client:
        tell_version(client, listener)
        return go(client, requests, captures, listener)


def go(client: Client, requests: Sequence[Request], captures: Sequence[Capture], listener: Listener) -> Result:
    """The way from what was captured to what has landed, with a client that is there. Raises as `perform` does."""
    effects = ReturnFx(requests[0].return_fx, listener)
    parts: Sequence[Part] = _made(client, together(requests, captures), effects, listener)
    with kept_takes(each.record.id for part in parts for each in part.rolled):
        parts = _up_to_date(client, parts, effects)
    return _land(client, parts)


def _captured(request: Request, session: Session, count: int) -> Capture:
    """What a request's region sounds like; where there are several, an error says which it is of."""
    try:
        return capture(request, session)
    except Refused as error:
        raise error.of(request.place if count > 1 else "") from None


def _counted(captured: Capture) -> str:
    """Where bars lie in an audio file, whose grid nobody sees before: a signature left out moves them all."""
    region, (beats, unit) = captured.region, captured.session.tempo.signature_at(captured.region.start_s)
    return f" in {beats}/{unit}: {region.start_s:.2f}-{region.end_s:.2f} s"


def _check_apart(requests: Sequence[Request], captures: Sequence[Capture]) -> None:
    """Regions that cannot land together, as their fades meet, are found before their takes are made, not after."""
    if requests[0].is_layer and not requests[0].is_audio:
        return  # each lands on a track of its own
    for one, other in combinations(captures, 2):
        if document.same_track(one.target, other.target) and one.target.origin_s == other.target.origin_s:
            a, b = one.window, other.window
            if a.touched < b.end and b.touched < a.end:
                bars = " and ".join(f"{first}-{last}" for first, last in (one.region.bars, other.region.bars))
                raise Refused(f"bars {bars} of {one.target.track or 'the file'} touch", "select them as one region")
    document.check_together([each.target for each in captures])


def _check_effects(request: Request, rate_hz: int) -> None:
    """A chain that cannot work is found before the take is made, not after. rate_hz: of what is heard."""
    for chain, at_hz in ((request.pre_fx, rate_hz), (request.return_fx, limits.MODEL_HZ)):
        if chain is not None:
            from punchin.clients import fx

            fx.check(chain, at_hz)


def land(client: Client, job: str, listener: Listener, out: Path | None = None) -> Result | MadeResult:
    """Land the takes of a done job, whoever asked for it. Raises Refused when it is not done, or cannot be landed.

    out: what to write instead of the document, or of the first file, that was asked for.
    """
    record = client.result(job)
    plan = decode(record.plan, job)
    if out is not None:
        check_folder(out)
        plan = plan.elsewhere(out.absolute())
    if record.landed:
        raise Refused(f"job {job} is landed already, in {record.landed}", code="landed")
    if isinstance(plan, FilePlan):
        return making.collect(client, record, plan)
    return _land(client, _parts(client, plan, record, listener))


def look(client: Client, job: str, listener: Listener) -> list[Part]:
    """The takes of a done job in their place, measured, with nothing written. Raises as `land` does."""
    record = client.result(job)
    plan = decode(record.plan, job)
    if isinstance(plan, FilePlan):
        raise Refused(f"job {job} made music from a prompt alone: it has no place in a session")
    return _parts(client, plan, record, listener)


def _parts(client: Client, plan: Plan, record: JobRecord, listener: Listener) -> list[Part]:
    """The takes of a request in order: those of this job, and those of earlier ones that it left as they were."""
    session = opened(plan.request)
    captures = [capture_again(plan.asked(place), place, session) for place in plan.places]
    known = [Known.of(captured, plan.request) for captured in captures]
    placing = _placing(client, captures, plan, lambda: known, ReturnFx(plan.request.return_fx, listener))
    return _by_place(captures, plan, rolled(client, record, plan, placing))


def _made(client: Client, groups: Sequence[Group], effects: ReturnFx, listener: Listener) -> list[Part]:
    """Takes that are ready to land, region by region. Raises as `perform` does."""
    request = groups[0].requests[0]
    order = order_of(groups, client, listener)
    plan = _plan(groups, order)
    by_place = {place: each for group in groups for place, each in zip(group.places, group.captures, strict=True)}
    captures = [by_place[place] for place in sorted(by_place)]
    with ThreadPoolExecutor(1, "measure") as aside:
        known = [aside.submit(Known.of, each, request) for each in captures]  # this process only waits meanwhile
        placing = _placing(client, captures, plan, lambda: [each.result() for each in known], effects)
        takes = roll(client, order, plan, request.max_attempts, placing, listener, request.job_id)
    return _by_place(captures, plan, takes)


def _placing(
    client: Client,
    captures: Sequence[Capture],
    plan: Plan,
    known: Callable[[], Sequence[Known]],
    effects: ReturnFx,
) -> Placing[Finished]:
    """How a take comes into its place in each region of its passage, and is measured there."""

    def placing(record: JobRecord, take: Take, slot: int) -> tuple[Finished, ...]:
        made, wanted = client.get_audio(take.audio), record.order.passages[take.passage].span
        return tuple(
            finish(captured, plan.request, made, wanted, facts, effects)
            for captured, place, facts in zip(captures, plan.places, known(), strict=True)
            if place.passage == slot // plan.request.variations
        )

    return placing


def _by_place(captures: Sequence[Capture], plan: Plan, takes: Sequence[Roll[Finished]]) -> list[Part]:
    """Each place with its takes, of all of them: passage by passage, and in each take region by region."""
    parts, before, variations = list[Part](), Counter[int](), plan.request.variations
    for number, (captured, place) in enumerate(zip(captures, plan.places, strict=True)):
        own = takes[place.passage * variations : (place.passage + 1) * variations]
        nth = before[place.passage]
        made = tuple(Rolled(of.record, of.take, of.attempts, of.places[nth], number) for of in own)
        parts.append(Part(captured, plan.asked(place), place, made))
        before[place.passage] += 1
    return parts


def _land(client: Client, parts: Sequence[Part]) -> Result:
    made_by = (each.record.id for part in parts for each in part.rolled)
    return write_out(client, made_by, lambda: landing.land(parts))


def _up_to_date(client: Client, parts: Sequence[Part], effects: ReturnFx) -> Sequence[Part]:
    """The parts as they are, or placed anew where the session was saved while the jobs ran."""
    path = parts[0].captured.session.path
    try:
        now = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PunchinError(f"{path.name} cannot be read any more: {error.strerror}", "put it back") from None
    if now == parts[0].captured.session.sha256:
        return parts
    session = opened(parts[0].request)
    return [_again(client, part, session, effects) for part in parts]


def _again(client: Client, part: Part, session: Session, effects: ReturnFx) -> Part:
    captured = capture_again(part.request, part.place, session)
    known = Known.of(captured, part.request)

    def again(each: Rolled) -> Rolled:
        made, wanted = client.get_audio(each.take.audio), each.record.order.passages[each.take.passage].span
        return replace(each, finished=finish(captured, part.request, made, wanted, known, effects))

    return replace(part, captured=captured, rolled=tuple(again(each) for each in part.rolled))


def _plan(groups: Sequence[Group], order: Order) -> Plan:
    """Where the order's takes belong, each group a passage; its regions in the order in which they were asked for."""
    places: dict[int, Place] = {}
    for passage, group in enumerate(groups):
        source = order.passages[passage].source
        assert source is not None
        heard_sha256 = heard_name(group.requests[0], group.captures[0], source)
        for number, request, captured in zip(group.places, group.requests, group.captures, strict=True):
            window, region = captured.window, captured.region
            places[number] = Place(
                passage=passage,
                heard_sha256=heard_sha256,
                region_s=(region.start_s, region.end_s),
                window=(window.start, window.touched, window.end, window.stop),
                rate_hz=window.rate_hz,
                track=request.track,
                bars=request.bars,
                time_s=request.time_s,
                hear=request.hear,
            )
    asked = groups[0].requests[0].absolute()
    return Plan(
        request=replace(asked, prompt=replace(asked.prompt, text="", lyrics="")),
        places=tuple(places[number] for number in sorted(places)),
        pre_fx_sha256=_digest(asked.pre_fx),
        return_fx_sha256=_digest(asked.return_fx),
        slots=tuple(range(len(order.rolls))),
    )


def _digest(chain: Path | None) -> str:
    """See `fx.digest`; "" without a chain."""
    if chain is None:
        return ""
    from punchin.clients import fx

    return fx.digest(chain)
