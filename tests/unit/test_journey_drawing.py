"""The picture of a take: what part of the session it shows."""

from types import SimpleNamespace

import numpy as np

from punchin.clients.journey import drawing
from punchin.session.measure import Span


def test_two_bars_on_each_side_though_a_line_is_rounded_past_the_region(tmp_path, monkeypatch):
    """At 97.35 bpm the line at the region's end may fall a frame after it."""
    bar, seen = 118_336, []
    lines = tuple(bar * i + (i == 8) for i in range(17))
    span = Span(48_000, 4 * bar, 8 * bar, lines)
    placed = SimpleNamespace(before=np.zeros((1, 16 * bar)), after=np.zeros((1, 16 * bar)), fades=None)
    rolled = SimpleNamespace(finished=SimpleNamespace(placed=placed, span=span, first_bar=1, report=None))
    monkeypatch.setattr(drawing.picture, "before_after", lambda *words, **named: seen.append((words, named)))
    drawing.draw(rolled, tmp_path / "x.png", "a take")
    ((_, before, _, shown, _), named) = seen[0]
    assert before.shape == (1, 8 * bar)
    assert (shown.start_frame, shown.end_frame, named["first_bar"]) == (2 * bar, 6 * bar, 3)
