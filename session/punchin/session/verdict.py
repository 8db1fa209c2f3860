"""Whether a take keeps its limits (`protocol.limits`, TAKE_...), judged by its report alone."""

from __future__ import annotations

from punchin.protocol import limits
from punchin.protocol.limits import Limit
from punchin.session.report import Report

SURE = 2.0  # standard errors that a tempo must lie outside its limit: a few loose onsets prove nothing
STANDING_OUT_DB = 1.0  # a seam that jumps no more than this over what was there before is no fault


def faults(report: Report) -> tuple[str, ...]:
    """Each limit that the take breaks, as a sentence with the number and the limit. Empty is a good take.

    A value that could not be measured breaks nothing. A seam is at fault only if it also stands out from what the same
    edge did before and from the take's own attacks; loudness only where the ceiling did not have the last word.
    """
    found = [
        _broken(limits.TAKE_LENGTH, report.length_error_samples),
        _broken(limits.TAKE_OUTSIDE, report.outside_max_abs_diff),
        *(_seam(report, side) for side in (0, 1)),
        _tempo(report),
        _phase(report),
        None if report.level_held else _broken(limits.TAKE_LOUDNESS, report.lufs_delta),
        _peak(report),
        _broken(limits.TAKE_CLIPPED, max(report.clipped_samples - report.clipped_before, 0)),
        "the take is silent" if report.silent else None,
    ]
    return tuple(text for text in found if text)


def _seam(report: Report, side: int) -> str | None:
    seam, before = report.seam_db[side], report.seam_before_db[side]
    if seam is None or (before is not None and seam <= before + STANDING_OUT_DB):
        return None
    if report.attacks_db is not None and seam <= report.attacks_db:
        return None
    return _broken(limits.TAKE_SEAM, seam)


def _tempo(report: Report) -> str | None:
    """Half and double tempo by name, else the slope where it is surely over its limit."""
    if report.tempo_ratio is None:
        return None
    if report.tempo_ratio in (0.5, 2.0):
        return f"the take plays at {'half' if report.tempo_ratio < 1 else 'double'} tempo"
    slope = 100 * (report.tempo_ratio - 1)
    return _broken(limits.TAKE_TEMPO, slope) if _surely(limits.TAKE_TEMPO, slope, 100 * report.tempo_error) else None


def _phase(report: Report) -> str | None:
    if report.phase_ms is None or not _surely(limits.TAKE_PHASE, report.phase_ms, report.phase_error_ms / SURE):
        return None
    return _broken(limits.TAKE_PHASE, report.phase_ms)


def _peak(report: Report) -> str | None:
    over = None if report.true_peak_dbfs is None else report.true_peak_dbfs - report.ceiling_dbtp
    return _broken(limits.TAKE_PEAK, over)


def _surely(limit: Limit, value: float, error: float) -> bool:
    """Outside even if it is off by its error."""
    return value - SURE * error > limit.high or value + SURE * error < limit.low


def _broken(limit: Limit, value: float | None) -> str | None:
    """A sentence with the number and the limit where `value` is outside it."""
    if value is None or limit.low <= value <= limit.high:
        return None
    edge = f"at most {limit.high:g}" if value > limit.high else f"at least {limit.low:g}"
    return f"{limit.name} is {value:.3g} {limit.unit}".rstrip() + f", allowed is {edge}"
