"""The session is saved again while a take is made: it lands where the region is now, or is refused."""

import numpy as np
import pytest
from directclient import DirectClient, Heard
from rppmaker import item, media, noise, project, track

from punchin.clients.journey import Prompt, Request
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.travel import go
from punchin.protocol.errors import Refused

RATE = 48_000
FILE = "Media/keys.wav"
WHOLE = [item(0, 20, FILE)]
CUT = [item(0, 5.123, FILE), item(5.123, 14.877, FILE, SOFFS="5.123")]
MOVING = "  <TEMPOENVEX\n    PT 0 100 0\n    PT 12.3 131.7 0\n    PT 24 90 0\n  >\n"


def saved_meanwhile(folder, before, after, extra="", region=(8.0, 10.0)):
    """A take of `region` from an engine that returns its input, of a track whose items became others meanwhile."""
    media(folder, FILE, noise(2, 20 * RATE))
    path = project(folder, track("Keys", *before), extra=extra)
    request = Request(task="repaint", session=path, track="Keys", time_s=region, prompt=Prompt(text="x"), seed=1)
    captured = capture(request, opened(request))
    project(folder, track("Keys", *after), extra=extra)
    return go(DirectClient(), [request], [captured], Heard())


@pytest.mark.parametrize(("before", "after"), [(WHOLE, CUT), (CUT, WHOLE)], ids=["cut", "healed"])
@pytest.mark.parametrize("extra", ["", MOVING], ids=["steady", "moving"])
def test_a_cut_that_nobody_hears_costs_no_take(tmp_path, before, after, extra):
    result = saved_meanwhile(tmp_path, before, after, extra)
    placed = result.rolled[0].finished.placed
    assert result.landing == "a take on the item"
    if not extra:  # a moving tempo is warped there and back
        assert np.array_equal(placed.after, placed.before)


@pytest.mark.parametrize("to_s", [1.0, 1.7, 3.0])
def test_an_item_moved_meanwhile_is_not_landed_on(tmp_path, to_s):
    with pytest.raises(Refused, match="has changed since") as refused:
        saved_meanwhile(tmp_path, [item(2, 18, FILE)], [item(to_s, 18, FILE)])
    assert refused.value.code == "changed"


def test_an_item_cut_where_the_takes_lead_would_lie_elsewhere_is_not_landed_on(tmp_path):
    """A take from its item's start on has no lead; the new item, which it would need now, has one."""
    with pytest.raises(Refused, match="has changed since"):
        saved_meanwhile(tmp_path, [item(8, 12, FILE)], [item(8, 1, FILE), item(9, 11, FILE, SOFFS="1")])


def test_a_tempo_map_changed_meanwhile_is_not_landed_by(tmp_path):
    moving = "  <TEMPOENVEX\n    PT 0 100 0\n    PT 12.3 131.7 0\n    PT 24 90 0\n  >\n"
    media(tmp_path, FILE, noise(2, 20 * RATE))
    path = project(tmp_path, track("Keys", item(0, 20, FILE)), extra=moving)
    request = Request(task="repaint", session=path, track="Keys", time_s=(8.0, 10.0), prompt=Prompt(text="x"), seed=1)
    captured = capture(request, opened(request))
    project(tmp_path, track("Keys", item(0, 20, FILE)), extra=moving.replace("131.7", "120"))
    with pytest.raises(Refused, match="has changed since"):
        go(DirectClient(), [request], [captured], Heard())
