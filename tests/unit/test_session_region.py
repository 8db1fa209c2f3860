"""Regions by bars and by time, and each way to ask for one that is not there."""

from dataclasses import replace

import pytest

from punchin.protocol.errors import BadUsage, OverLimit, Refused
from punchin.session.region import choose, last_bar
from punchin.session.tempo import TempoMap

TEMPO = TempoMap.at_bpm(120)  # a bar is 2 s


def test_bars_and_time_name_the_same_region():
    by_bars, by_time = choose(TEMPO, 32, (5, 8), None), choose(TEMPO, 32, None, (8.0, 16.0))
    assert by_bars == by_time
    assert (by_bars.start_beats, by_bars.end_beats, by_bars.bars, by_bars.length_s) == (16, 32, (5, 8), 8)


def test_a_part_of_a_bar_names_the_bars_it_touches():
    assert choose(TEMPO, 32, None, (7.5, 8.5)).bars == (4, 5)


def test_a_session_without_audio_has_no_bars_to_choose_from():
    with pytest.raises(Refused, match="which has no bars") as refused:
        choose(TEMPO, 0.0, (5, 8), None)
    assert refused.value.hint == "put audio into it, and save"


@pytest.mark.parametrize("end_s", [32.0, 31.999, 30.1, 32.0 + 1e-9])
def test_a_last_bar_cut_short_counts(end_s):
    assert last_bar(TEMPO, end_s) == 16
    assert choose(TEMPO, end_s, (13, 16), None).end_s == 32


def test_seconds_reach_as_far_as_bars():
    assert choose(TEMPO, 31.0, None, (24.0, 32.0)) == choose(TEMPO, 31.0, (13, 16), None)
    with pytest.raises(Refused, match=r"which ends at 31\.000 s") as refused:
        choose(TEMPO, 31.0, None, (24.0, 32.1))
    assert refused.value.hint == "use --time within 0-32.000"
    with pytest.raises(Refused, match=r"which ends at 0\.000 s"):
        choose(TEMPO, 0.0, None, (0.0, 1.0))


@pytest.mark.parametrize(
    ("bars", "time", "says"),
    [
        ((15, 18), None, "bars 15-18 are outside the session, which has bars 1-16"),
        ((17, 17), None, "bar 17 is outside the session, which has bars 1-16"),
        ((0, 3), None, "bars 0-3 are outside"),
        ((8, 5), None, "bars 8-5 run backwards"),
        (None, (4.0, 4.0), "from 4 s to 4 s has no length"),
        (None, (5.0, 4.0), "has no length"),
        (None, (float("nan"), 4.0), "has no length"),
        (None, (-1.0, 4.0), "outside the session, which ends at 32.000 s"),
        (None, (4.0, 33.0), "outside the session"),
    ],
)
def test_regions_that_are_not_there_are_refused(bars, time, says):
    with pytest.raises(Refused, match=says) as refused:
        choose(TEMPO, 32, bars, time)
    assert refused.value.hint


def test_bars_are_those_of_a_ruler_that_counts_in():
    ruler = replace(TEMPO, first_bar=-3)  # four bars before bar 1
    assert (choose(ruler, 32, (1, 4), None).start_s, choose(ruler, 32, (-3, 0), None).end_s) == (8, 8)
    assert choose(ruler, 32, None, (7.5, 8.5)).bars == (0, 1)
    assert ruler.bar_lines(3, 7).tolist() == [4, 6]
    with pytest.raises(Refused, match="bars 9-13 are outside the session, which has bars -3 to 12") as refused:
        choose(ruler, 32, (9, 13), None)
    assert refused.value.hint == "use bars within --bars=-3-12"
    with pytest.raises(Refused, match="bars -4 to 2 are outside"):
        choose(ruler, 32, (-4, 2), None)
    with pytest.raises(Refused, match="has no bars"):
        choose(ruler, 0.0, (-3, -3), None)


def test_regions_over_the_limit_quote_it():
    with pytest.raises(OverLimit, match=r"region length is 700 s, allowed is 0\.25 to 600"):
        choose(TEMPO, 1000, None, (0.0, 700.0))
    with pytest.raises(OverLimit, match=r"region length is 0\.1 s"):
        choose(TEMPO, 1000, None, (0.0, 0.1))


@pytest.mark.parametrize(("bars", "time"), [(None, None), ((1, 2), (0.0, 4.0))])
def test_bars_or_time(bars, time):
    with pytest.raises(BadUsage):
        choose(TEMPO, 32, bars, time)
