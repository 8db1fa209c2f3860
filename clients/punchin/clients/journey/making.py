"""The short way: music from a prompt alone, into a file of its own. Nothing is heard, nothing is spliced."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from punchin.clients.journey import kept
from punchin.clients.journey.grid import SPARE, on_grid
from punchin.clients.journey.ordering import loras, references, seeds_from, told_bpm, told_signature
from punchin.clients.journey.plan import FilePlan
from punchin.clients.journey.request import Making, check_folder
from punchin.clients.journey.waiting import Listener, tell_version, wait
from punchin.protocol import limits
from punchin.protocol.errors import BadUsage, PunchinError
from punchin.protocol.order import JobRecord, Order
from punchin.session import audiofile, takefiles
from punchin.session.target import hold_name

if TYPE_CHECKING:
    from punchin.clients.client import Client

SUBTYPES = {".wav": "FLOAT", ".flac": "PCM_24", ".aif": "PCM_24", ".aiff": "PCM_24"}


@dataclass(frozen=True, slots=True)
class MadeFile:
    """One take in its file, and what was measured on it."""

    file: Path
    seed: int
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MadeResult:
    """What `make` gives."""

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
        takes = [
            {"file": str(take.file.absolute()), "seed": take.seed, "attempts": 1, "report": take.report}
            for take in self.takes
        ]
        return {"job": self.job, "output": str(self.output.absolute()), "model": self.model, "takes": takes}


def make(making: Making, listener: Listener) -> MadeResult:
    """Music of exactly the asked length. Starts the daemon if none is there. Raises as `perform` does."""
    from punchin.clients.connect import connect

    limits.REGION.check(making.frames / limits.MODEL_HZ, "ask for fewer or more bars")
    if making.out.suffix.lower() not in SUBTYPES:
        raise BadUsage(f'"{making.out}" is no audio file that can be written: {", ".join(SUBTYPES)}')
    check_folder(making.out)
    with connect(start=True, name="cli") as client:
        tell_version(client, listener)
        order = Order(
            task="text2music",
            frames=min(math.ceil(making.frames * SPARE), round(limits.REGION.high * limits.MODEL_HZ)),
            model=making.prompt.model,
            prompt=making.prompt.text,
            lyrics=making.prompt.lyrics,
            language=making.prompt.language,
            bpm=told_bpm(making.bpm, listener),
            key=making.prompt.key,
            signature=told_signature(making.signature, listener),
            references=references(making.prompt, client),
            seeds=tuple(seeds_from(making.seed, making.variations)),
            steps=making.prompt.steps,
            shift=making.prompt.shift,
            guidance=making.prompt.guidance,
            loras=loras(making.prompt, client),
            raw=making.prompt.raw,
        )
        plan = _plan(making)
        record = client.submit(order, plan.encode())
        listener.say(f"job {record.id}")
        return collect(client, wait(client, record.id, listener), plan)


def _plan(making: Making) -> FilePlan:
    asked = making.absolute()
    told = replace(asked, prompt=replace(asked.prompt, text="", lyrics=""))
    return FilePlan(out=str(told.out), bpm=told.bpm, frames=told.frames, making=told)


def collect(client: Client, record: JobRecord, plan: FilePlan) -> MadeResult:
    """Write the takes of a done job: the first to the plan's file, the others beside it with their seeds.

    What made each lies beside it. Raises PunchinError where the disk is full; the takes are kept then.
    """
    try:
        return _write(client, record, plan)
    except PunchinError as error:
        error.hint = f"{error.hint}\nthe takes are kept; once it is mended: punchin land {record.id}".strip()
        raise


def _write(client: Client, record: JobRecord, plan: FilePlan) -> MadeResult:
    out, made_by = Path(plan.out), record.provenance
    files: list[MadeFile] = []
    for index, take in enumerate(record.takes):
        made = on_grid(client.get_audio(take.audio), plan.bpm, plan.frames)
        path = out if index == 0 else hold_name(out.with_name(f"{out.stem}-{take.seed}{out.suffix}"))
        audiofile.write(path, made.audio, limits.MODEL_HZ, SUBTYPES[out.suffix.lower()])
        takefiles.write_note(path, {**kept.of(record, take.seed), takefiles.WHOLE: True})
        files.append(MadeFile(path, take.seed, made.report(record.order, plan)))
    client.landed(record.id, str(out))
    model = made_by.model if made_by else record.order.model
    return MadeResult(record.id, model, made_by is None or made_by.trained, tuple(files))
