"""What is asked for when a take is to be made again: what was kept of it, and what shall be otherwise."""

from pathlib import Path

import pytest

from punchin.clients.journey.redoing import Change, request_of
from punchin.protocol.errors import Refused

ASKED = {
    "task": "repaint", "session": "/nowhere/song.rpp", "prompt": {"text": "warm"}, "seed": 10, "track": "Keys",
    "bars": [5, 6], "variations": 3, "max_attempts": 3, "out": "/nowhere/named.rpp",
}  # fmt: skip
MADE = {"seed": 12, "attempts": 3, "made_by": {"model": "turbo"}, "request": ASKED}
HERE = Change(session=Path("song.rpp"))


def test_the_same_take_is_made_once_whatever_its_report():
    """A take that landed with CHECK in its name was the last of three rolls: rolled again it would be another one."""
    (request,) = request_of(MADE, HERE)
    assert (request.seed, request.variations, request.max_attempts, request.out) == (12, 1, 1, None)
    (sister,) = request_of(MADE, Change(session=Path("song.rpp"), seed=20, variations=2))
    assert (sister.seed, sister.variations, sister.max_attempts) == (20, 2, 3)


@pytest.mark.parametrize(
    ("asked", "was", "said", "wanted"),
    [("", "turbo", "", "turbo"), ("base", "base", "", "base"), ("", "turbo", "sft", "sft"), ("", "gone", "", "")],
)
def test_the_model_that_made_it_makes_it_again(asked, was, said, wanted):
    made = MADE | {"made_by": {"model": was}, "request": ASKED | {"prompt": {"text": "warm", "model": asked}}}
    (request,) = request_of(made, Change(session=Path("song.rpp"), model=said))
    assert request.prompt.model == wanted


def test_a_session_that_is_gone_is_named_with_what_to_do():
    with pytest.raises(Refused, match=r"is gone: /nowhere/song\.rpp") as refused:
        request_of(MADE, Change(), Path("take.wav"))
    assert "--session FILE" in refused.value.hint


@pytest.mark.parametrize("broken", [{}, {"request": {}}, {"request": ASKED, "seed": "x"}, {"making": {"bpm": 3}}])
def test_what_cannot_be_read_is_refused(broken):
    with pytest.raises(Refused, match="cannot be read"):
        request_of(broken, HERE)


@pytest.mark.parametrize(("was", "named"), [("/nowhere/song.rpp", "loop.wav"), ("/nowhere/loop.wav", "song.rpp")])
def test_a_session_of_another_kind_is_refused_without_naming_options_that_redo_lacks(was, named):
    made = MADE | {"request": ASKED | {"session": was}}
    with pytest.raises(Refused, match=f"{named} is an? .*, the take was made for an? ") as refused:
        request_of(made, Change(session=Path(named)))
    assert "--session" in refused.value.hint


def test_music_from_a_prompt_is_refused_a_session_instead_of_leaving_it_unread():
    out = {"out": "/nowhere/idea.wav", "prompt": {"text": "warm"}}
    with pytest.raises(Refused, match="no session"):
        request_of({"making": {"bpm": 90, "bars": 2, "signature": [4, 4], "seed": 1} | out}, HERE)
