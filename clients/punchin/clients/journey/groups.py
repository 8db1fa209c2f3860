"""Which regions are made together: those of one track whose windows meet, in one window. All groups are one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from punchin.clients.journey.capture import Capture, in_one_window
from punchin.clients.journey.request import Request
from punchin.protocol import limits
from punchin.protocol.errors import Refused


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Regions that the model hears in one window, and makes at once from one seed.

    places: which of the job's regions they are, from 0.
    """

    places: tuple[int, ...]
    requests: tuple[Request, ...]
    captures: tuple[Capture, ...]

    @property
    def name(self) -> str:
        """What people call it."""
        pairs = zip(self.captures, self.requests, strict=True)
        return ", ".join(f"{captured.target.track} {request.span}".strip() for captured, request in pairs)


def together(requests: Sequence[Request], captures: Sequence[Capture]) -> list[Group]:
    """Regions of one track (or item) whose windows meet are one group, as long as 600 s hold it.

    So the model hears them as they will be.
    """
    groups: list[list[int]] = []
    for number in range(len(requests)):
        group = next((group for group in groups if _meets(requests, captures, group, number)), None)
        groups.append([number]) if group is None else group.append(number)
    found = []
    for group in groups:
        asked, heard = tuple(requests[n] for n in group), tuple(captures[n] for n in group)
        if len(group) > 1:
            heard = in_one_window(heard, widen=asked[0].context == "auto")
        found.append(Group(tuple(group), asked, heard))
    return found


def check_alike(requests: Sequence[Request]) -> None:
    """Raise OverLimit where one job cannot hold these, and Refused where they ask for more than different places."""
    limits.REGIONS.check(len(requests), "ask for some of them, land, and for the others then")
    first = requests[0]
    for request in requests:
        if replace(_placed_as(request, first), seed=first.seed) != first:
            text = f"{request.place} is asked for in other words than {first.place}, and regions of one job are not"
            raise Refused(text, "ask for each by itself")


def _meets(requests: Sequence[Request], captures: Sequence[Capture], group: Sequence[int], number: int) -> bool:
    """Whether a region may be made together with others: on their track, from their seed, its window meets theirs."""
    first, request, one, captured = requests[group[0]], requests[number], captures[group[0]], captures[number]
    same_axis = one.target.origin_s == captured.target.origin_s and one.target.rate_hz == captured.target.rate_hz
    if (request.track, request.hear) != (first.track, first.hear) or request.seed != first.seed or not same_axis:
        return False
    window, others = captured.window, [captures[n].window for n in group]
    near = any(other.start <= window.stop and window.start <= other.stop for other in others)
    both = [window, *others]
    seconds = (max(each.stop for each in both) - min(each.start for each in both)) / window.rate_hz
    return near and seconds * limits.LATENT_HZ <= limits.WINDOW.high - 2


def _placed_as(request: Request, other: Request) -> Request:
    return replace(request, track=other.track, bars=other.bars, time_s=other.time_s, hear=other.hear)
