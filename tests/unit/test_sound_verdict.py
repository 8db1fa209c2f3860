"""What breaks a limit, by the report alone: just inside passes, just outside is a fault, in words with both numbers."""

from dataclasses import replace

import pytest

from punchin.session.report import Report
from punchin.session.verdict import faults

GOOD = Report(
    length_error_samples=0, outside_max_abs_diff=0.0, fade_ms=50.0, seam_db=(1.0, 1.0), resampled=False, warped=False,
    window_s=30.0, ok=True, seam_before_db=(0.0, 0.0), attacks_db=0.5, tempo_ratio=1.0, phase_ms=0.0, lufs_delta=0.0,
    true_peak_dbfs=-3.0,
)  # fmt: skip


def test_a_good_report_and_one_of_nulls_have_no_faults():
    assert faults(GOOD) == ()
    nothing = dict.fromkeys(
        ["onset_p95_ms", "tempo_ratio", "phase_ms", "lufs_delta", "true_peak_dbfs", "attacks_db", "key_distance"]
    )
    assert faults(replace(GOOD, seam_db=(None, None), seam_before_db=(None, None), **nothing)) == ()


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        ({}, {"length_error_samples": -40}, "length error is -40 samples, allowed is at least 0"),
        ({}, {"outside_max_abs_diff": 1e-9}, "change outside the region is 1e-09 of full scale, allowed is at most 0"),
        ({"seam_db": (2.9, 0.0)}, {"seam_db": (3.1, 0.0)}, "seam is 3.1 dB over the context's bar lines"),
        ({"seam_db": (0.0, 2.9)}, {"seam_db": (0.0, 3.1)}, "seam is 3.1 dB"),
        ({"tempo_ratio": 1.0009}, {"tempo_ratio": 1.0011}, "tempo error is 0.11 %, allowed is at most 0.1"),
        ({"tempo_ratio": 0.9991}, {"tempo_ratio": 0.9989}, "tempo error is -0.11 %, allowed is at least -0.1"),
        ({"tempo_ratio": 1.0009}, {"tempo_ratio": 0.5}, "the take plays at half tempo"),
        ({"tempo_ratio": 1.0009}, {"tempo_ratio": 2.0}, "the take plays at double tempo"),
        ({"phase_ms": 9.9}, {"phase_ms": 10.1}, "phase is 10.1 ms, allowed is at most 10"),
        ({"phase_ms": -9.9}, {"phase_ms": -12.0}, "phase is -12 ms, allowed is at least -10"),
        ({"lufs_delta": -0.9}, {"lufs_delta": -3.0}, "loudness difference is -3 dB, allowed is at least -1"),
        ({"true_peak_dbfs": -0.6}, {"true_peak_dbfs": -0.4}, "true peak over the ceiling is 0.6 dB"),
        (
            {"clipped_samples": 7, "clipped_before": 7},
            {"clipped_samples": 8, "clipped_before": 7},
            "newly clipped samples is 1, allowed is at most 0",
        ),
        ({}, {"silent": True}, "the take is silent"),
    ],
)
def test_a_value_over_its_limit_is_the_one_fault(inside, outside, said):
    assert faults(replace(GOOD, **inside)) == ()
    (fault,) = faults(replace(GOOD, **outside))
    assert fault.startswith(said)


@pytest.mark.parametrize("excuse", [{"seam_before_db": (5.5, 0.0)}, {"attacks_db": 6.2}])
def test_a_seam_that_does_not_stand_out_is_none(excuse):
    """Not over what the edge did before, nor over the take's own attacks; each is measured, not assumed."""
    loud = replace(GOOD, seam_db=(6.0, 0.0))
    assert len(faults(loud)) == 1
    assert faults(replace(loud, **excuse)) == ()
    assert len(faults(replace(loud, attacks_db=5.8, seam_before_db=(4.8, 0.0)))) == 1


def test_a_tempo_or_phase_must_be_surely_wrong():
    """By two standard errors of the tempo, one of the phase: a few loose onsets prove nothing."""
    fast = replace(GOOD, tempo_ratio=1.003)
    assert faults(replace(fast, tempo_error=0.0011)) == ()
    assert len(faults(replace(fast, tempo_error=0.0009))) == 1
    late = replace(GOOD, phase_ms=12.0)
    assert faults(replace(late, phase_error_ms=2.1)) == ()
    assert len(faults(replace(late, phase_error_ms=1.9))) == 1


def test_loudness_is_no_fault_where_the_ceiling_decided():
    assert faults(replace(GOOD, lufs_delta=-3.0, level_held=True)) == ()


def test_the_ceiling_may_be_the_sources_own():
    assert faults(replace(GOOD, true_peak_dbfs=0.8, ceiling_dbtp=0.5)) == ()
