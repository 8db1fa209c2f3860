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


FILES = {"tempo_map": "tempo.mid", "pre_fx": "dry.toml", "return_fx": "room.toml"}


def moved(folder, **more):
    """What made a take of a loop that was moved into this folder with all that lay beside it."""
    for name in ("loop.wav", "ref.wav", "lora.safetensors", *FILES.values()):
        (folder / name).write_bytes(b"")
    (folder / "takes").mkdir()
    prompt = {"text": "x", "references": ["/gone/ref.wav"], "loras": [["/gone/lora.safetensors", 0.5]]}
    asked = {"task": "repaint", "session": "/gone/loop.wav", "seed": 1, "bars": [5, 6], "prompt": prompt}
    return MADE | {"request": asked | {name: f"/gone/{file}" for name, file in FILES.items()} | more}


@pytest.mark.parametrize("session", [None, "loop.wav"])
def test_what_lay_beside_a_moved_session_is_found_beside_it(tmp_path, session):
    made = moved(tmp_path)
    named, take = (None, tmp_path / "takes" / "x.wav") if session is None else (tmp_path / session, None)
    (request,) = request_of(made, Change(session=named), take)
    assert request.session == tmp_path / "loop.wav"
    assert {name: getattr(request, name) for name in FILES} == {name: tmp_path / file for name, file in FILES.items()}
    assert request.prompt.references == (tmp_path / "ref.wav",)
    assert request.prompt.loras == ((tmp_path / "lora.safetensors", 0.5),)


def test_what_is_still_where_it_was_is_taken_from_there(tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "tempo.mid").write_bytes(b"")
    made = moved(tmp_path / "new", tempo_map=str(tmp_path / "tempo.mid"))
    (request,) = request_of(made, Change(), tmp_path / "new" / "x.wav")
    assert (request.tempo_map, request.pre_fx) == (tmp_path / "tempo.mid", tmp_path / "new" / "dry.toml")


@pytest.mark.parametrize("gone", ["ref.wav", "lora.safetensors", *FILES.values()])
def test_a_file_that_is_gone_is_named_with_where_it_is_looked_for(tmp_path, gone):
    made = moved(tmp_path)
    (tmp_path / gone).unlink()
    with pytest.raises(Refused, match=f"made with is gone: /gone/{gone}") as refused:
        request_of(made, Change(), tmp_path / "x.wav")
    assert str(tmp_path) in refused.value.hint


def test_references_of_music_from_a_prompt_are_found_near_its_file(tmp_path):
    (tmp_path / "ref.wav").write_bytes(b"")
    prompt = {"text": "warm", "references": ["/gone/ref.wav"]}
    made = {"bpm": 90, "bars": 2, "signature": [4, 4], "seed": 1, "out": "/gone/idea.wav", "prompt": prompt}
    making = request_of({"seed": 1, "making": made}, Change(), tmp_path / "idea.wav")
    assert making.prompt.references == (tmp_path / "ref.wav",)
    with pytest.raises(Refused, match=r"gone: /gone/ref\.wav"):
        request_of({"seed": 1, "making": made}, Change())


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"request": {}},
        {"request": ASKED, "seed": "x"},
        {"making": {"bpm": 3}},
        {"request": ASKED, "seed": 1e999},
        {"request": ASKED, "seed": 1, "made_by": None},
    ],
)
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
