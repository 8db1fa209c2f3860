"""What a journey gave, for people or for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from punchin.clients.cli.talk import Talk
from punchin.clients.journey.landing import LandedTake, Result
from punchin.clients.journey.making import MadeFile, MadeResult
from punchin.protocol import models
from punchin.session.report import Report
from punchin.session.tempo import in_bars


def write(result: Result | MadeResult, as_json: bool, out: TextIO, talk: Talk, **more: Any) -> None:
    """The output's path on `out` and what was measured as talk; or one JSON object, with `more` in it."""
    talk.rest()
    demo_model(result.model, result.trained, talk)
    for take in result.takes:
        for line in measured(take):
            talk.say(line)
    if as_json:
        print(json.dumps(result.to_json() | more), file=out)
    else:
        print(result.output, file=out)


def replaces(output: Path | None, talk: Talk) -> None:
    """Say first that a file of the output's name gives way to it."""
    if output is not None and output.exists():
        talk.warn(f"{output} is there already; it is replaced when all is made")


def demo_model(model: str, trained: bool, talk: Talk) -> None:
    """Say it plainly when this was not a real model, and how to get one."""
    if model != "punchin-tiny":
        return
    turbo = models.BY_NAME["turbo"]
    what = "" if trained else ", untrained: what it plays is noise, in the right place"
    talk.warn(f"made by the demo model (tiny){what}")
    talk.say(f"      a real one: punchin models pull turbo   ({turbo.size_bytes / 1e9:.1f} GB)")


def measured(take: LandedTake | MadeFile) -> list[str]:
    """A take's report in a few lines."""
    report, where = take.report, f"{take.track} {in_bars(take.bars)}: " if isinstance(take, LandedTake) else ""
    rolled = f", rolled {take.attempts} times" if take.attempts > 1 else ""
    return [
        f"{where.lstrip()}{take.name}{rolled}",
        f"  {take.file}",
        *(_joined(report) if isinstance(take, LandedTake) else _in_time(report)),
        *([f"  without its effects: {report.return_fx_failed}"] if report.return_fx_failed else []),
        *(f"  over its limit: {text}" for text in report.failed),
    ]


def _joined(report: Report) -> list[str]:
    """How a region's take lies in its session."""
    seams = ", ".join("-" if db is None else f"{db:+z.1f}" for db in report.seam_db)
    loudness = "" if report.lufs_delta is None else f", loudness {report.lufs_delta:+z.1f} LU"
    peak = "" if report.true_peak_dbfs is None else f", peak {report.true_peak_dbfs:.1f} dBTP"
    around = sum(seconds or 0.0 for seconds in report.context_s)
    return [
        f"  length error {report.length_error_samples} samples, outside max difference {report.outside_max_abs_diff:g}",
        f"  fade {report.fade_ms:.0f} ms, seams {seams} dB{loudness}{peak}",
        f"  heard {report.window_s:.1f} s, {around:.1f} s of it around the region",
    ]


def _in_time(report: Report) -> list[str]:
    """How music from a prompt alone lies on its grid."""
    now, phase = report.tempo_ratio, report.phase_ms
    told = "no beat to measure a tempo by" if now is None else f"tempo x {now:.4f} of what was asked"
    if report.warped:
        told += f", stretched from x {report.tempo_ratio_played:.4f}"
    late = "" if phase is None else f", phase {phase:+z.1f} ms"
    turned = f", turned down by {-report.gain_db:.1f} dB" if report.gain_db else ""
    return [f"  {told}{late}{turned}"]
