"""Step 8 of a journey: takes get names and a provenance, and are put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchin.clients.journey import kept
from punchin.clients.journey.capture import Capture
from punchin.clients.journey.plan import Place
from punchin.clients.journey.request import Request
from punchin.clients.journey.returning import Finished
from punchin.protocol.order import JobRecord, Provenance, Take, called
from punchin.session import document
from punchin.session.report import Report


@dataclass(frozen=True, slots=True, eq=False)
class Rolled:
    """A take that is ready to land: whose job made it, how often it was rolled, and its audio in place.

    region: which of the plan's places this is, from 0.
    """

    record: JobRecord
    take: Take
    attempts: int
    finished: Finished
    region: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One region's takes, in the order of the variations, and where they belong: what was asked, and the plan of it."""

    captured: Capture
    request: Request
    place: Place
    rolled: tuple[Rolled, ...]


@dataclass(frozen=True, slots=True)
class LandedTake:
    """A take that lies in its file. Takes of several regions of one item lie in the same file."""

    file: Path
    track: str
    bars: tuple[int, int]
    name: str
    seed: int
    attempts: int
    report: Report

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "file": str(self.file.absolute()),
            "track": self.track or None,
            "bars": list(self.bars),
            "name": self.name,
            "seed": self.seed,
            "attempts": self.attempts,
            "report": self.report.to_json(),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a journey gives: all takes, region by region. `rolled` is their audio before and after, in the same order.

    job: the newest one. landing: how they landed, in words.
    """

    job: str
    output: Path
    model: str
    trained: bool
    takes: tuple[LandedTake, ...]
    rolled: tuple[Rolled, ...]
    landing: str

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        takes = [take.to_json() for take in self.takes]
        return {"job": self.job, "output": str(self.output.absolute()), "model": self.model, "takes": takes}


def land(parts: Sequence[Part]) -> Result:
    """Write take files and one document. Raises PunchinError (disk), and leaves no document behind then."""
    rolled = [each for part in parts for each in part.rolled]
    newest = max((each.record for each in rolled), key=lambda record: record.created_ns)
    made_by = newest.provenance or Provenance(model=newest.order.model)
    landings = [(part.captured.target, _takes(part, _partners(part, parts))) for part in parts]
    written = document.land_all(landings, parts[0].request.out)
    landed = [
        LandedTake(file, target.track, target.region.bars, name, each.take.seed, each.attempts, each.finished.report)
        for part, (target, _), files in zip(parts, landings, written, strict=True)
        for file, name, each in zip(files.take_files, files.names, part.rolled, strict=True)
    ]
    how = ", ".join(dict.fromkeys(target.landing for target, _ in landings))
    return Result(newest.id, written[0].output, made_by.model, made_by.trained, tuple(landed), tuple(rolled), how)


def _partners(part: Part, parts: Sequence[Part]) -> list[Part]:
    """The regions that were made at once with a region, but lie in other files: it can only be made again with them."""
    return [
        other
        for other in parts
        if other is not part
        and other.place.passage == part.place.passage
        and not document.share_files(part.captured.target, other.captured.target)
    ]


def _takes(part: Part, partners: Sequence[Part]) -> list[document.LandingTake]:
    return [_take(each, [provenance(other.rolled[i]) for other in partners]) for i, each in enumerate(part.rolled)]


def _take(rolled: Rolled, also: list[dict[str, Any]]) -> document.LandingTake:
    record, seed = rolled.record, rolled.take.seed
    return document.LandingTake(
        rolled.finished.placed,
        take_name(record, seed),
        provenance(rolled) | ({"also": also} if also else {}),
        _who(record, seed),
        warnings(record, rolled.finished.report),
    )


def take_name(record: JobRecord, seed: int) -> str:
    """Task and seed; the demo model says that it is one."""
    made_by = record.provenance
    return f"{_who(record, seed)}{' demo model (tiny)' if made_by and made_by.model == 'punchin-tiny' else ''}"


def warnings(record: JobRecord, report: Report) -> tuple[str, ...]:
    """What a take's name warns of: the limits that it breaks.

    Noise of an untrained model keeps no limit: the report says so, its name need not.
    """
    return tuple(report.failed) if record.provenance is None or record.provenance.trained else ()


def _who(record: JobRecord, seed: int) -> str:
    return f"punchin {called(record.order.task)} {seed}"


def provenance(rolled: Rolled) -> dict[str, Any]:
    """What made a take, as JSON values; see `kept.of`."""
    take = rolled.take
    made = kept.of(rolled.record, take.seed, rolled.attempts, passage=take.passage, region=rolled.region)
    return made | ({"return_fx_sha256": ""} if rolled.finished.report.return_fx_failed else {})  # it landed dry
