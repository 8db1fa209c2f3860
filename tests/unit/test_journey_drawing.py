"""The pictures of a job: one for each take, and what part of the session it shows."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from directclient import DirectClient, Heard

from punchin.clients.demo import session_folder
from punchin.clients.journey import Prompt, Request, drawing, making
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.request import Making
from punchin.clients.journey.travel import go
from punchin.protocol.errors import PunchinError
from punchin.session.measure import Span


@pytest.fixture
def seen(monkeypatch):
    """What is drawn, without drawing it: the file's name, the title, and the first sound."""
    out = []

    def note(path, audio, *_, title, **__):
        path.touch()
        out.append((path.name, title, audio))

    monkeypatch.setattr(drawing.picture, "before_after", note)
    monkeypatch.setattr(drawing.picture, "alone", note)
    return out


def perform(folder, client, *tracks, **more):
    shutil.copytree(session_folder(), folder / "session")
    asked = {"task": "repaint", "session": folder / "session" / "demo.rpp", "bars": (5, 6), "seed": 10} | more
    requests = [Request(track=track, prompt=Prompt(text="warm"), **asked) for track in tracks]
    session = opened(requests[0])
    return go(client, requests, [capture(request, session) for request in requests], Heard())


def test_each_take_of_each_region_has_a_picture(tmp_path, seen):
    client = DirectClient()
    result = perform(tmp_path, client, "Keys", "Bass", variations=2)
    drawn = drawing.draw_job(client, result.job, tmp_path / "x.png", Heard())
    names = ["x.png", "x-1-Keys-5-6-11.png", "x-2-Bass-5-6-10.png", "x-2-Bass-5-6-11.png"]
    assert drawn == tuple(tmp_path / name for name in names)
    assert [name for name, _, _ in seen] == names
    titles = [title for _, title, _ in seen]
    assert titles[0] == "repaint 10, Keys, bars 5-6: warm"
    assert titles[3] == "repaint 11, Bass, bars 5-6: warm"
    assert not np.array_equal(seen[0][2], seen[2][2])


def test_variations_of_one_region_are_named_by_their_seeds(tmp_path, seen):
    client = DirectClient()
    result = perform(tmp_path, client, "Keys", variations=3, bars=(5, 5))
    drawn = drawing.draw_job(client, result.job, tmp_path / "x.png", Heard())
    assert [path.name for path in drawn] == ["x.png", "x-11.png", "x-12.png"]
    assert seen[0][1] == "repaint 10, Keys, bar 5: warm"


def test_music_from_a_prompt_alone_has_pictures_too(tmp_path, seen):
    client = DirectClient()
    asked = Making(
        prompt=Prompt(text="dusty"), bpm=120, bars=2, signature=(4, 4), out=tmp_path / "new.wav", seed=7, variations=2,
        max_attempts=1,
    )  # fmt: skip
    result = making.go(client, asked, Heard())
    drawn = drawing.draw_job(client, result.job, tmp_path / "x.png", Heard())
    assert [path.name for path in drawn] == ["x.png", "x-8.png"]
    assert (seen[1][1], seen[1][2].shape) == ("generate 8: dusty", (2, 4 * 48_000))


def test_a_picture_that_cannot_be_written_is_told(tmp_path):
    client = DirectClient()
    result = perform(tmp_path, client, "Keys")
    (tmp_path / "x.png").mkdir()
    with pytest.raises(PunchinError, match=r"cannot write .*x\.png: Is a directory"):
        drawing.draw_job(client, result.job, tmp_path / "x.png", Heard())


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
    assert before.shape == (1, 8 * bar + 6)
    assert (shown.start_frame, shown.end_frame, named["first_bar"]) == (2 * bar + 3, 6 * bar + 3, 3)
    assert shown.bar_lines_frames[0] == 3, "the line two bars before is in it, however bars are rounded"
