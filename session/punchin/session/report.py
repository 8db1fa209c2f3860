"""What was measured on a take: the keys that `--json` prints, and nothing assumed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Pair = tuple[float | None, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The measured facts of one landed take. None is what does not apply, and never fails.

    The first twelve names are fixed: other people's scripts read them. `verdict` judges by these values alone.
    """

    length_error_samples: int  # frames of the result minus frames wanted
    outside_max_abs_diff: float | None  # over every sample before start - fade_ms and from the region's end on
    fade_ms: float | None  # from the first fade's start to the region's start
    seam_db: Pair  # flux at each edge over the 95th percentile at the context's bar lines
    onset_p95_ms: float | None = None  # 95 % of the onsets lie this near to a sixteenth or triplet (reported only)
    tempo_ratio: float | None = None  # over the source's tempo, or the grid's; 0.5 is half tempo, 2 double
    lufs_delta: float | None = None  # the region's loudness after minus before (a silent one's: the context's), dB
    true_peak_dbfs: float | None = None  # of the region after, and of the 55 ms before it, where a fade may lie
    resampled: bool
    warped: bool
    window_s: float  # what the model heard, region and context
    ok: bool  # every measured value is within its limit
    context_s: Pair = (None, None)  # of that, before and after the region
    fade_out_ms: float = 0.0  # from the second fade's start to the region's end
    seam_before_db: Pair = (None, None)  # the same edges before the splice
    attacks_db: float | None = None  # the take's own attacks, on the seams' scale
    tempo_error: float = 0.0  # one standard error of tempo_ratio
    tempo_ratio_played: float | None = None  # of music from a prompt alone, before it was stretched onto its grid
    phase_ms: float | None = None  # how late it plays against the source's own groove, or the grid
    phase_error_ms: float = 0.0  # one standard error of it
    gain_db: float = 0.0  # what the level match did, or the ceiling alone
    level_held: bool = False  # the ceiling or full scale had the last word, or the level match was off
    ceiling_dbtp: float = -1.0  # or the source's own true peak, where that is higher
    clipped_samples: int = 0  # there, at or over full scale
    clipped_before: int = 0
    silent: bool = False  # RMS under -70 dBFS up to the second fade, though sound was there or asked for
    key_before: str | None = None  # of the region before and after (reported only)
    key_after: str | None = None
    key_distance: int | None = None  # steps on the circle of fifths, 0 to 6
    ungain_held_frames: int = 0  # too quiet to un-gain; the source's samples stayed
    grid_error_ms: float | None = None  # the tempo map's own approximation
    return_fx_failed: str | None = None  # why the take landed without the effects that were asked for
    notes: tuple[str, ...] = ()  # what was approximated on the way, or is unusual, in words
    failed: tuple[str, ...] = ()  # the limits it broke, in words with numbers

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`: tuples as lists, None as null, no NaN anywhere."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
