"""A DAW's request as the command line that means the same, so that presets, defaults and checks are the CLI's own."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from punchin.clients.bridge.request import Cover, Extract, Layer, RegionRequest, Repaint
from punchin.session.rpp import number

if TYPE_CHECKING:
    from punchin.clients import journey
    from punchin.protocol.order import Task

VERBS: Final[dict[type[RegionRequest], tuple[str, Task]]] = {
    Repaint: ("repaint", "repaint"),
    Cover: ("cover", "cover"),
    Layer: ("layer", "lego"),
    Extract: ("extract", "extract"),
}


def journey_requests(asked: RegionRequest, session: Path) -> list[journey.Request]:
    """The request as the journey knows it, region by region; takes go into `landed-NAME` beside the session.

    Raises BadUsage and Refused as the command line does. A layer hears every track, an extract the target alone.
    """
    from punchin.clients.cli import perform
    from punchin.clients.cli.arguments import Parser

    verb, task = VERBS[type(asked)]
    parser = Parser(prog=f"punchin {verb}")
    getattr(perform, f"{verb}_arguments")(parser)
    args = parser.read(words(asked, session), io.StringIO())
    assert args is not None  # no word of ours asks for help: values stand behind their option's =
    (first,) = perform.requests_of(task, args)
    requests = []
    for region in asked.regions:
        track = None if first.track is None else region.target
        hear = (region.target,) if first.hear else ()
        span = region.start_s, region.end_s
        requests.append(replace(first, track=track, hear=hear, time_s=span, job_id=asked.id))
    return requests


def words(asked: RegionRequest, session: Path) -> list[str]:
    """The command line behind `punchin VERB`, for the first region.

    What the dialog left empty is not said, so that a preset can say it.
    """
    params, region = asked.params, asked.regions[0]
    options = {
        "time": f"{number(region.start_s)}-{number(region.end_s)}",
        "output": str(session.with_name(f"landed-{session.name}")),
        "context": params.context,
        "seed": str(params.seed),
        "preset": params.preset,
        "prompt": params.prompt,
        "lyrics": params.lyrics,
        "key": params.key,
        "model": params.model,
        "variations": "" if params.variations is None else str(params.variations),
    }
    if isinstance(asked, Repaint | Cover):
        options |= {"track": region.target, "land": asked.land}
        options["strength"] = "" if params.strength is None else number(params.strength)
    else:
        options["instrument"] = params.instrument
    if isinstance(asked, Extract):
        options["hear"] = region.target
    said = [f"--{name}={value}" for name, value in options.items() if value]
    if not params.prompt and not params.preset:
        said.append("--prompt=")
    return [str(session), *said]
