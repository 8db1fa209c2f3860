"""The window around a region: long enough, within the session, and all that is touched lies under the mask."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchin.clients.journey.window import around, auto_context
from punchin.protocol.errors import OverLimit

RATES = st.sampled_from([8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000, 44_099])


@st.composite
def regions(draw):
    rate_hz = draw(RATES)
    session = draw(st.integers(1, 700)) * rate_hz + draw(st.integers(0, rate_hz))
    start = draw(st.integers(0, session - rate_hz // 4))
    length = min(draw(st.integers(rate_hz // 4, 590 * rate_hz)), session - start)
    origin = draw(st.integers(-100, 100)) * 317
    lead = min(draw(st.integers(0, rate_hz // 18)), start)
    return rate_hz, origin, session, start + origin, start + length + origin, lead


@given(regions())
def test_a_window_holds_what_is_touched(drawn):
    rate_hz, origin, session, start, end, lead = drawn
    context_s = auto_context((start - origin) / rate_hz, (end - start) / rate_hz, (origin + session - end) / rate_hz)
    window = around((start, end), (origin, origin + session), lead, rate_hz, context_s)
    assert origin <= window.start <= window.touched == start - lead < window.end == end <= window.stop
    assert window.stop <= max(origin + session, end)
    first, last = window.mask
    latent = rate_hz / 25  # in the target's frames
    assert first * latent <= window.touched - window.start
    assert last * latent >= window.end - window.start
    assert (last - first) * latent < window.end - window.touched + 2 * latent
    assert last <= math.ceil(window.model_frames / 1920) <= 15_000
    if rate_hz % 25 == 0:
        assert (window.touched - window.start) * 25 % rate_hz == 0, "the touched part begins on a latent frame"


@given(regions())
def test_what_comes_back_covers_the_region_in_phase(drawn):
    rate_hz, origin, session, start, end, lead = drawn
    window = around((start, end), (origin, origin + session), lead, rate_hz, (15.0, 15.0))
    first, last = window.wanted
    assert 0 <= first < last <= window.model_frames
    assert first * rate_hz % 48_000 == 0, "the first frame is a frame of both rates"
    assert window.start + first * rate_hz // 48_000 <= window.touched
    assert window.start + last * rate_hz / 48_000 >= min(window.end, window.stop) - 1e-6


@given(st.floats(0, 700), st.floats(0.25, 590), st.floats(0, 700))
def test_auto_context_is_long_and_shared(before_s, length_s, after_s):
    got_before_s, got_after_s = auto_context(before_s, length_s, after_s)
    assert 0 <= got_before_s <= before_s
    assert 0 <= got_after_s <= after_s
    total_s, window_s = got_before_s + got_after_s, got_before_s + length_s + got_after_s
    assert window_s < 600
    enough_s = min(max(30.0, 2 * length_s), 599)
    assert window_s >= enough_s or total_s == pytest.approx(before_s + after_s)
    if min(before_s, after_s) >= total_s / 2:
        assert got_before_s == pytest.approx(got_after_s)


@pytest.mark.parametrize(
    ("region_s", "session_s", "context_s"),
    [
        ((100, 110), 700, (10, 10)),  # 30 s in all
        ((100, 140), 700, (20, 20)),  # half of it context
        ((100, 500), 700, (100, 100)),  # what 600 s leave
        ((2, 12), 700, (2, 18)),  # what the session has before, the rest after
    ],
)
def test_a_report_says_how_much_context_there_was(region_s, session_s, context_s):
    start, end = region_s
    wanted_s = auto_context(start, end - start, session_s - end)
    region, bounds = (start * 48_000, end * 48_000), (0, session_s * 48_000)
    window = around(region, bounds, min(2640, start * 48_000), 48_000, wanted_s)
    assert window.context_s(region[0]) == pytest.approx(context_s, abs=0.2)
    assert window.seconds <= 600


def test_a_window_that_is_too_long_names_the_limit():
    with pytest.raises(OverLimit, match="allowed is 128 to 15000"):
        around((48_000, 96_000), (0, 48_000 * 700), 0, 48_000, (1.0, 650.0))
