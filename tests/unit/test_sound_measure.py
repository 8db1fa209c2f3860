"""The report on planted faults: each is judged, and clean audio passes."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from punchin.session.measure import Before, Made, Span, outside_max_abs_diff, report
from punchin.session.splice import Fade, Fades, choose, lead_frames, splice
from punchin.session.tempo import TempoMap

RATE = 48_000
BAR = 2 * RATE
START, END = 4 * BAR, 6 * BAR
SPAN = Span(RATE, START, END, tuple(range(0, 10 * BAR + 1, BAR)))
FADES = Fades(Fade(2400), Fade(1920))
MADE = Made(resampled=False, warped=False, window_s=30.0)
FIXED = [
    "length_error_samples", "outside_max_abs_diff", "fade_ms", "seam_db", "onset_p95_ms", "tempo_ratio", "lufs_delta",
    "true_peak_dbfs", "resampled", "warped", "window_s", "ok",
]  # fmt: skip


def chords(seed=0, level=0.08):
    """Ten bars, a new chord each: struck, then held."""
    rng = np.random.default_rng(seed)
    t = np.arange(BAR) / RATE
    bars = []
    for _ in range(10):
        root = 110 * 2 ** (rng.integers(0, 12) / 12)
        envelope = np.minimum(1, t / 0.005) * np.exp(-t) * np.minimum(1, (2 - t) / 0.01)
        bars.append(level * envelope * sum(np.sin(2 * np.pi * root * h * t) / h for h in (1, 1.25, 1.5, 2, 3, 4)))
    return np.tile(np.concatenate(bars), (2, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def before():
    return chords()


@pytest.fixture(scope="module")
def after(before):
    """Another performance, spliced as the journey does."""
    take = chords(seed=1)[:, START - lead_frames(START, RATE) : END]
    return splice(before, take, START, END, FADES)


def test_clean_audio_passes(before, after):
    for result in (
        report(Before.of(before, SPAN), after, FADES, MADE),
        report(Before.of(before, SPAN), before.copy(), FADES, MADE),
    ):
        assert result.ok, result.failed
        assert result.length_error_samples == 0
        assert result.outside_max_abs_diff == 0.0
        assert result.fade_ms == 50.0
        assert result.fade_out_ms == 40.0
        assert max(result.seam_db) < 3


def test_json_has_the_fixed_keys_and_no_nan(before, after):
    text = json.dumps(report(Before.of(before, SPAN), after, FADES, MADE).to_json(), allow_nan=False)
    data = json.loads(text)
    assert list(data)[: len(FIXED)] == FIXED
    assert isinstance(data["seam_db"], list)
    assert len(data["seam_db"]) == 2
    assert data["ok"] is True
    silent = np.zeros_like(before)
    data = json.loads(json.dumps(report(Before.of(silent, SPAN), silent, FADES, MADE).to_json(), allow_nan=False))
    assert data["seam_db"] == [None, None]
    assert data["lufs_delta"] is None
    assert data["true_peak_dbfs"] is None
    assert data["ok"] is True


@pytest.mark.parametrize("frame", [0, START - 2401, END, 10 * BAR - 1])
def test_one_float_outside_fails(before, after, frame):
    touched = after.copy()
    touched[1, frame] = np.nextafter(touched[1, frame], np.float32(1))
    result = report(Before.of(before, SPAN), touched, FADES, MADE)
    assert not result.ok
    assert result.outside_max_abs_diff > 0
    assert "outside" in result.failed[0]


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_far_outside_is_unchanged_too(before):
    """A file may hold it where nobody listens: it is the same there afterwards, and numpy has nothing to say."""
    odd = before.copy()
    odd[0, -2:] = np.nan, np.inf
    assert outside_max_abs_diff(odd, odd.copy(), SPAN, FADES) == 0.0


@pytest.mark.parametrize("frame", [START - 2400, START, END - 1])
def test_inside_is_free(before, after, frame):
    touched = after.copy()
    touched[1, frame] += 1e-4
    assert report(Before.of(before, SPAN), touched, FADES, MADE).outside_max_abs_diff == 0.0


def test_40_samples_short_fails(before, after):
    result = report(Before.of(before, SPAN), after[:, :-40], FADES, MADE)
    assert result.length_error_samples == -40
    assert not result.ok


@pytest.mark.parametrize(("edge", "index"), [(START, 0), (END, 1)])
def test_a_click_at_an_edge_fails(before, after, edge, index):
    clicked = after.copy()
    clicked[:, edge - 300] += 0.3
    result = report(Before.of(before, SPAN), clicked, FADES, MADE)
    assert result.seam_db[index] > 3
    assert result.seam_db[1 - index] < 3
    assert [text for text in result.failed if text.startswith("seam")]


def test_the_takes_own_attacks_are_measured(before, after):
    """A take that strikes hard all along has a hard first stroke too; clicks at its edge alone stand out."""
    strokes = after.copy()
    for frame in range(START - 300, END, RATE // 2):
        strokes[:, frame : frame + 20] += 0.3
    result = report(Before.of(before, SPAN), strokes, FADES, MADE)
    assert result.seam_db[0] > 3
    assert result.attacks_db == pytest.approx(result.seam_db[0], abs=1.5)
    assert report(Before.of(before, SPAN), after, FADES, MADE).attacks_db is None, "too few to tell"


def test_a_jump_that_was_there_before_is_no_fault(before):
    clicked = before.copy()
    clicked[:, START - 300] += 0.3
    result = report(Before.of(clicked, SPAN), clicked.copy(), FADES, MADE)
    assert result.seam_db[0] > 3
    assert result.seam_before_db == result.seam_db
    assert result.ok


@pytest.mark.parametrize("db", [-3.0, 3.0])
def test_3_db_fails(before, db):
    take = before[:, START - lead_frames(START, RATE) : END] * np.float32(10 ** (db / 20))
    after = splice(before, take, START, END, FADES)
    result = report(Before.of(before, SPAN), after, FADES, MADE)
    assert result.lufs_delta == pytest.approx(db, abs=0.2)
    assert not result.ok
    assert report(
        Before.of(before, SPAN), after, FADES, replace(MADE, level_held=True)
    ).ok  # where the ceiling had the last word


def test_where_there_was_silence_the_context_says_how_loud(before):
    hole = before.copy()
    hole[:, START - 2400 : END] = 0
    result = report(Before.of(hole, SPAN), before, FADES, MADE)
    assert result.lufs_delta == pytest.approx(0, abs=1.5)  # other chords than those around it
    louder = report(Before.of(hole, SPAN), np.where(hole == 0, 2 * before, hole), FADES, MADE)
    assert louder.lufs_delta == pytest.approx(result.lufs_delta + 6.02, abs=0.05)


def test_over_the_ceiling_and_clipped_fails(before, after):
    hot = after.copy()
    hot[:, START + BAR] = 1.2
    result = report(Before.of(before, SPAN), hot, FADES, MADE)
    assert result.true_peak_dbfs > 1
    assert result.clipped_samples == 2
    assert len([text for text in result.failed if "peak" in text or "clipped" in text]) == 2
    loud = before.copy()
    loud[:, START + BAR] = 1.2
    assert report(Before.of(loud, SPAN), hot, FADES, MADE).ok  # the source itself peaked there


def test_what_clips_in_the_fade_is_told(before):
    """Under the first fade the take is heard before the region begins; the region itself is quiet."""
    take = chords(seed=1)[:, START - 2400 : END]
    take[:, 2200:2400] *= 1.3 / np.abs(take[:, 2200:2400])
    after = splice(before, take, START, END, FADES)
    result = report(Before.of(before, SPAN), after, FADES, MADE)
    assert result.clipped_samples == np.count_nonzero(np.abs(after) >= 1) > 100
    assert result.true_peak_dbfs >= 20 * np.log10(np.abs(after).max())
    assert len([text for text in result.failed if "peak" in text or "clipped" in text]) == 2


def test_silence_instead_of_music_is_told(before):
    take = np.zeros((2, END - START + 2400), np.float32)
    fades = choose(before, take, START, END, RATE)
    for level in (0.0, 1e-4):  # nothing at all, or a floor of noise
        noise = (level * np.random.default_rng(0).standard_normal(take.shape)).astype(np.float32)
        silenced = splice(before, noise, START, END, fades)
        result = report(Before.of(before, SPAN), silenced, fades, replace(MADE, level_held=True))
        assert result.silent
        assert result.failed == ("the take is silent",)
        assert not report(Before.of(silenced, SPAN), silenced, fades, MADE).silent, "there was none before either"
        assert report(Before.of(silenced, SPAN), silenced, fades, MADE, anew=True).failed == ("the take is silent",)


def test_the_end_of_a_loop_is_no_bar_line_to_judge_a_click_by():
    """What sounds until the file's end jumps there, which excuses nothing in the middle."""
    steady = np.tile(0.1 * np.sin(2 * np.pi * 220 * np.arange(10 * BAR) / RATE + 1), (2, 1)).astype(np.float32)
    clicked = steady.copy()
    clicked[:, START] += 0.02
    (fault,) = report(Before.of(steady, SPAN), clicked, FADES, MADE).failed
    assert fault.startswith("seam")


def test_an_edge_at_the_files_end_has_no_seam(before):
    span = Span(RATE, 0, 10 * BAR, SPAN.bar_lines_frames)
    result = report(Before.of(before, span), before, Fades(Fade(0), Fade(2400)), MADE)
    assert result.seam_db == (None, None)
    assert result.fade_ms == 0.0


def test_failures_read_as_sentences(before, after):
    assert report(Before.of(before, SPAN), after[:, :-40], FADES, MADE).failed[0] == (
        "length error is -40 samples, allowed is at least 0"
    )


def test_no_compiler_runs_on_the_users_time():
    """Numba would cost seconds and megabytes on the first report; nothing here may pull it in."""
    code = (
        "import sys, numpy as np\n"
        "from punchin.session import measure, picture, splice, warp\n"
        "audio = np.random.default_rng(0).uniform(-.1, .1, (2, 96000)).astype(np.float32)\n"
        "fades = splice.choose(audio, audio[:, :60000], 20000, 60000, 48000)\n"
        "span = measure.Span(48000, 20000, 60000, (0, 10000, 80000))\n"
        "made = measure.Made(resampled=False, warped=False, window_s=2.0)\n"
        "assert measure.report(measure.Before.of(audio, span), audio, fades, made).ok\n"
        "warp.warp(audio, 48000, warp.Warp(np.array([0., 2.]), np.array([0., 2.2])))\n"
        "assert not {'numba', 'librosa', 'torch'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_was_there_is_measured_once_for_all_takes(before, after):
    """A value made ahead, whatever fades a splice then chooses, says what one made for this very take would say."""
    grid = TempoMap.at_bpm(120).grid(0, 20)
    span = replace(SPAN, grid=grid)
    ahead = Before.of(before, span)
    for fades in (FADES, Fades(Fade(960), Fade(1440)), Fades(Fade(2400, 120), Fade(960, 240))):
        width = max(fades.into.reach_frames, fades.back.reach_frames)
        alone = replace(ahead, edges={})  # nothing known of any width: measured now
        assert ahead.edges_at(width) == alone.edges_at(width)
        assert alone.edges_at(width).habit.width_frames == width
        for take in (after, np.roll(after, 300, axis=1), 2 * before):
            assert report(ahead, take, fades, MADE) == report(Before.of(before.copy(), span), take, fades, MADE)
            assert report(ahead, take, fades, MADE) == report(alone, take, fades, MADE)


def left_alone(audio, first):
    """The hearing of an item that is panned hard left."""
    return audio * np.array([[1], [0]], np.float32)


def test_only_what_is_heard_has_seams_and_a_key(before, after):
    """The side that is not played holds loud music: it may not cover a click in the other."""
    loud = 10 * chords(seed=3)[1]
    was, now = (np.stack([audio[0], loud]) for audio in (before, after))
    now[0, START - 300] += 0.3
    result = report(Before.of(was, SPAN, left_alone), now, FADES, MADE)
    alone = report(Before.of(left_alone(was, 0), SPAN), left_alone(now, 0), FADES, MADE)
    assert result == alone
    assert result.seam_db[0] > 3
    assert not result.ok


def test_only_what_is_heard_is_in_time():
    """A take that plays 60 ms late, where the unheard side goes on in time."""
    grid = TempoMap.at_bpm(120).grid(0, 20)
    span = replace(SPAN, grid=grid)
    at_s = np.arange(10 * BAR) / RATE
    on, late = (0.3 * np.sin(2100 * at_s) * np.exp(-25 * ((at_s - by) % 0.5)) for by in (0.0, 0.06))
    was = np.stack([on, on]).astype(np.float32)
    now = was.copy()
    now[0, START:END] = late[START:END]
    result = report(Before.of(was, span, left_alone), now, FADES, MADE)
    assert result.phase_ms == pytest.approx(60, abs=30)
    assert [text for text in result.failed if text.startswith("phase")]


def test_what_is_heard_far_from_the_region_is_asked_for_where_it_lies(before):
    """In a long file a part of it is heard: each frame of it under the gain that it has there."""
    fade = np.linspace(0.2, 1, 50 * BAR).astype(np.float32)
    long = np.tile(before, (1, 5))
    span = Span(RATE, 42 * BAR, 44 * BAR, tuple(range(0, 50 * BAR + 1, BAR)), plays=(BAR, 49 * BAR))
    take = long.copy()
    take[:, span.start_frame : span.end_frame] *= 0.9
    faded = report(
        Before.of(long, span, lambda audio, first: audio * fade[first:][: audio.shape[1]]), take, FADES, MADE
    )
    whole = report(Before.of(long * fade, span), take * fade, FADES, MADE)
    assert replace(faded, outside_max_abs_diff=0.0) == replace(whole, outside_max_abs_diff=0.0)


@pytest.mark.parametrize("frame", [2**20 + 5, 2**21 + 10 * RATE])
def test_a_change_far_from_the_region_is_seen(frame):
    """Later than what is compared at once, on either side."""
    end = 2**20 + 5 * RATE
    was = np.zeros((1, end + 2**20 + 20 * RATE), dtype=np.float32)
    now = was.copy()
    now[0, frame] = 0.5
    assert outside_max_abs_diff(was, now, Span(RATE, end - RATE, end), Fades(Fade(2400), Fade(1920))) == 0.5
