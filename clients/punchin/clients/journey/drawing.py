"""What takes changed, to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from punchin.clients.journey import making, travel
from punchin.clients.journey.grid import OnGrid
from punchin.clients.journey.landing import Rolled
from punchin.clients.journey.plan import FilePlan, decode
from punchin.protocol.limits import MODEL_HZ
from punchin.protocol.order import called
from punchin.session import measure, picture
from punchin.session.audiofile import disk_error
from punchin.session.target import file_stem
from punchin.session.tempo import TempoMap

if TYPE_CHECKING:
    from punchin.clients.client import Client
    from punchin.clients.journey.waiting import Listener

AROUND_BARS = 2  # shown on each side of the region


def draw_job(client: Client, job: str, path: Path, listener: Listener) -> tuple[Path, ...]:
    """Write a picture of each take of a done job, region by region: the first in `path`, the others beside it.

    Their names go on with the take's seed, before it the region's number, track and bars where there are several.
    Raises as `travel.look` does, and PunchinError (disk).
    """
    drawn: list[Path] = []
    for label, draw_it in _pictures(client, job, listener):
        drawn.append(path.with_name(f"{path.stem}-{label}{path.suffix}") if drawn else path)
        try:
            draw_it(drawn[-1])
        except OSError as error:
            raise disk_error(drawn[-1], error) from error
    return tuple(drawn)


def _pictures(client: Client, job: str, listener: Listener) -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """What tells each take apart, and how it is drawn."""
    record = client.result(job)
    plan, order = decode(record.plan, job), record.order
    if isinstance(plan, FilePlan):
        for of in making.look(client, record, plan):
            title = f"generate {of.take.seed}: {order.prompt}"
            yield f"{of.take.seed}", partial(_draw_made, of.places[0], plan, title=title)
        return
    parts = travel.look(client, job, listener)
    for number, part in enumerate(parts, 1):
        target = part.captured.target
        bars = "-".join(str(bar) for bar in dict.fromkeys(target.region.bars))
        where = ", ".join(text for text in (target.track, f"bar{'s' * ('-' in bars)} {bars}") if text)
        for rolled in part.rolled:
            seed = rolled.take.seed
            label = f"{number}-{file_stem(f'{target.track} {bars}')}-{seed}" if len(parts) > 1 else f"{seed}"
            title = f"{called(order.task)} {seed}, {where}: {order.prompt}"
            yield label, partial(draw, rolled, title=title)


def draw(rolled: Rolled, path: Path, title: str) -> Path:
    """Write the before/after picture of a take: its region and two bars on each side."""
    placed, whole = rolled.finished.placed, rolled.finished.span
    inside = [line for line in whole.bar_lines_frames if whole.start_frame - 1 <= line <= whole.end_frame + 1]
    bar = (whole.end_frame - whole.start_frame) // max(len(inside) - 1, 1)
    around = AROUND_BARS * (bar + 1) + 1  # bars are rounded, and their lines
    low, high = whole.plays or (0, placed.before.shape[1])
    first, last = max(whole.start_frame - around, low), min(whole.end_frame + around, high)
    lines = [line for line in whole.bar_lines_frames if first <= line <= last]
    number = rolled.finished.first_bar + (whole.bar_lines_frames.index(lines[0]) if lines else 0)
    span = measure.Span(
        whole.rate_hz,
        whole.start_frame - first,
        whole.end_frame - first,
        tuple(line - first for line in lines),
        whole.grid,
        whole.first_s + first / whole.rate_hz,
    )
    before, after = (audio[:, first:last].astype(np.float32) for audio in (placed.before, placed.after))
    report = rolled.finished.report
    picture.before_after(path, before, after, span, placed.fades, title=title, first_bar=number, report=report)
    return path


def _draw_made(made: OnGrid, plan: FilePlan, path: Path, title: str) -> Path:
    """Write the picture of music from a prompt alone, with the bars and beats that were asked for."""
    seconds = made.audio.shape[1] / MODEL_HZ
    tempo = TempoMap.at_bpm(plan.bpm, *(plan.making.signature if plan.making else (4, 4)))
    lines = tuple(round(line_s * MODEL_HZ) for line_s in tempo.bar_lines(0.0, seconds))
    span = measure.Span(MODEL_HZ, 0, made.audio.shape[1], lines, tempo.grid(0.0, seconds))
    picture.alone(path, made.audio, span, title=title, report=made.report)
    return path
