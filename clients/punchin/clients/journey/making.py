"""The short way: music from a prompt alone, into a file of its own. Nothing is heard, nothing is spliced."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchin.clients.journey import kept, landing
from punchin.clients.journey.ending import write_out
from punchin.clients.journey.grid import SPARE, OnGrid, on_grid
from punchin.clients.journey.ordering import loras, references, seeds_from, told_bpm, told_signature
from punchin.clients.journey.plan import FilePlan
from punchin.clients.journey.request import Making, check_folder
from punchin.clients.journey.rolling import Placing, Roll, roll, rolled
from punchin.clients.journey.waiting import Listener, tell_version
from punchin.protocol import limits
from punchin.protocol.errors import BadUsage
from punchin.protocol.order import JobRecord, Order, Provenance, Take
from punchin.session.report import Report
from punchin.session.target import with_warnings
from punchin.session.whole import WholeFile, write_all

if TYPE_CHECKING:
    from punchin.clients.client import Client

SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24", ".aif": "PCM_24", ".aiff": "PCM_24"}


@dataclass(frozen=True, slots=True)
class MadeFile:
    """One take in its file, and what was measured on it. name: as a DAW shows it, with a warning where it needs one."""

    file: Path
    name: str
    seed: int
    attempts: int
    report: Report

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "file": str(self.file.absolute()),
            "name": self.name,
            "seed": self.seed,
            "attempts": self.attempts,
            "report": self.report.to_json(),
        }


@dataclass(frozen=True, slots=True)
class MadeResult:
    """What `make` gives. job: the newest one."""

    job: str
    model: str
    trained: bool
    takes: tuple[MadeFile, ...]

    @property
    def output(self) -> Path:
        """The first take's file."""
        return self.takes[0].file

    def to_json(self) -> dict[str, Any]:
        """The object of `--json`, as for a region; what does not apply is null."""
        takes = [take.to_json() for take in self.takes]
        return {"job": self.job, "output": str(self.output.absolute()), "model": self.model, "takes": takes}


def make(making: Making, listener: Listener) -> MadeResult:
    """Music of exactly the asked length, rolled again while it breaks a limit. Starts the daemon if none is there.

    Raises as `perform` does.
    """
    from punchin.clients.connect import connect

    limits.REGION.check(making.frames / limits.MODEL_HZ, "ask for fewer or more bars")
    _check_form(making.out)
    check_folder(making.out)
    with connect(start=True, name="cli") as client:
        tell_version(client, listener)
        return go(client, making, listener)


def go(client: Client, making: Making, listener: Listener) -> MadeResult:
    """From what is asked to what has landed, with a client that is there. Raises as `perform` does."""
    prompt = making.prompt
    order = Order(
        task="text2music",
        frames=min(math.ceil(making.frames * SPARE), round(limits.REGION.high * limits.MODEL_HZ)),
        model=prompt.model,
        prompt=prompt.text,
        lyrics=prompt.lyrics,
        language=prompt.language,
        bpm=told_bpm(making.bpm, listener),
        key=prompt.key,
        signature=told_signature(making.signature, listener),
        references=references(prompt, client),
        seeds=tuple(seeds_from(making.seed, making.variations)),
        steps=prompt.steps,
        shift=prompt.shift,
        guidance=prompt.guidance,
        loras=loras(prompt, client),
        raw=prompt.raw,
    )
    plan = _plan(making)
    takes = roll(client, order, plan, making.max_attempts, _placing(client, plan), listener)
    return _land(client, takes, plan)


def collect(client: Client, record: JobRecord, plan: FilePlan) -> MadeResult:
    """Land the takes of a done job. Raises PunchinError where the disk is full; the takes are kept then."""
    _check_form(Path(plan.out))
    return _land(client, look(client, record, plan), plan)


def look(client: Client, record: JobRecord, plan: FilePlan) -> list[Roll[OnGrid]]:
    """The takes of a done job on their grid, measured, with nothing written."""
    return rolled(client, record, plan, _placing(client, plan))


def _check_form(out: Path) -> None:
    if out.suffix.lower() not in SUBTYPES:
        raise BadUsage(f'"{out}" is no audio file that can be written: {", ".join(SUBTYPES)}')


def _plan(making: Making) -> FilePlan:
    asked = making.absolute()
    told = replace(asked, prompt=replace(asked.prompt, text="", lyrics=""))
    slots = tuple(range(told.variations))
    return FilePlan(out=str(told.out), bpm=told.bpm, frames=told.frames, making=told, slots=slots)


def _placing(client: Client, plan: FilePlan) -> Placing[OnGrid]:
    """How a take comes onto the grid that was asked for, and is measured there."""

    def place(record: JobRecord, take: Take, _: int) -> tuple[OnGrid]:
        return (on_grid(client.get_audio(take.audio), plan.bpm, plan.frames, record.order.frames / limits.MODEL_HZ),)

    return place


def _land(client: Client, takes: Sequence[Roll[OnGrid]], plan: FilePlan) -> MadeResult:
    return write_out(client, (each.record.id for each in takes), lambda: _write(takes, Path(plan.out)))


def _write(takes: Sequence[Roll[OnGrid]], out: Path) -> MadeResult:
    """The first take in `out`, the others beside it with their seeds; what made each lies beside it."""
    named = [(of, _name(of)) for of in takes]
    seeded = (out.with_name(f"{out.stem}-{of.take.seed}{out.suffix}") for of in takes[1:])
    files = [
        WholeFile(path, of.places[0].audio, kept.of(of.record, of.take.seed, of.attempts) | {"name": name})
        for path, (of, name) in zip((out, *seeded), named, strict=True)
    ]
    paths = write_all(files, limits.MODEL_HZ, SUBTYPES[out.suffix.lower()], replace=True)
    made = tuple(
        MadeFile(path, name, of.take.seed, of.attempts, of.places[0].report)
        for path, (of, name) in zip(paths, named, strict=True)
    )
    newest = max((of.record for of in takes), key=lambda record: record.created_ns)
    engine = newest.provenance or Provenance(model=newest.order.model)
    return MadeResult(newest.id, engine.model, engine.trained, made)


def _name(of: Roll[OnGrid]) -> str:
    """A take's name, as a DAW shows it."""
    name = landing.take_name(of.record, of.take.seed)
    return with_warnings(name, landing.warnings(of.record, of.places[0].report))
