"""The way of a region from the session to the daemon and back, as `punchin repaint` and the DAW bridge go it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec

from punchin.clients.journey import landing, making
from punchin.clients.journey.capture import Capture, capture, capture_again, opened, together
from punchin.clients.journey.ending import kept_takes, write_out
from punchin.clients.journey.landing import Part, Result, Rolled
from punchin.clients.journey.making import MadeResult
from punchin.clients.journey.ordering import heard_name, order_of
from punchin.clients.journey.plan import FilePlan, Plan, decode
from punchin.clients.journey.request import Request, check_folder
from punchin.clients.journey.returning import Finished, Known, finish
from punchin.clients.journey.rolling import Place, Roll, roll, rolled
from punchin.clients.journey.waiting import Listener, tell_version
from punchin.protocol import limits
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.order import JobRecord, Take
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
    parts: Sequence[Part] = [part for regions in jobs(requests, captures) for part in _made(client, *regions, listener)]
    with kept_takes(each.record.id for part in parts for each in part.rolled):
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
    place = _placing(client, captures, plan, lambda: known, listener)
    return _by_region(captures, plan, rolled(client, record, plan, place))


def _made(client: Client, requests: Sequence[Request], captures: Sequence[Capture], listener: Listener) -> list[Part]:
    """Takes that are ready to land, of requests that are one job, region by region. Raises as `perform` does."""
    request = requests[0]
    order = order_of(request, captures, client, listener)
    assert order.source is not None
    plan = _plan(requests, captures, heard_name(request, captures[0], order.source))
    with ThreadPoolExecutor(1, "measure") as aside:
        known = [aside.submit(Known.of, each) for each in captures]  # this process only waits meanwhile
        place = _placing(client, captures, plan, lambda: [each.result() for each in known], listener)
        takes = roll(client, order, plan, request.max_attempts, place, listener, request.job_id)
    return _by_region(captures, plan, takes)


def _placing(
    client: Client,
    captures: Sequence[Capture],
    plan: Plan,
    known: Callable[[], Sequence[Known]],
    listener: Listener,
) -> Place[Finished]:
    """How a take comes into its place in each region, and is measured there."""

    def place(record: JobRecord, take: Take) -> tuple[Finished, ...]:
        made, wanted = client.get_audio(take.audio), record.order.wanted or (0, record.order.frames)
        return tuple(
            finish(captured, plan, made, wanted, facts, listener)
            for captured, facts in zip(captures, known(), strict=True)
        )

    return place


def _by_region(captures: Sequence[Capture], plan: Plan, takes: Sequence[Roll[Finished]]) -> list[Part]:
    return [
        Part(captured, place, tuple(Rolled(of.record, of.take, of.attempts, of.places[i], i) for of in takes))
        for i, (captured, place) in enumerate(zip(captures, plan.regions, strict=True))
    ]


def _land(client: Client, parts: Sequence[Part]) -> Result:
    made_by = (each.record.id for part in parts for each in part.rolled)
    return write_out(client, made_by, lambda: landing.land(parts))


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
