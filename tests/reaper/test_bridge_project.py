"""A request as project text: read by another parser, and by the session, it says what the DAW said."""

import json

import numpy as np
import pytest
import rpp
from fakereaper.desk import Desk
from fakereaper.model import Tempo
from msgspec import structs

from punchin.clients.bridge.project import project_text
from punchin.clients.bridge.request import decode
from punchin.clients.bridge.words import journey_requests
from punchin.protocol.errors import OverLimit, Refused
from punchin.session.document import open_session

NOBODY = "{00000000-0000-0000-0000-000000000000}"


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    desk.host.quit()


def asked(desk, action="Repaint selection (last preset)", **words):
    desk.remember_words(**words)
    desk.press(action)
    desk.host.tick()
    return decode(json.dumps(desk.request()).encode())


def opened(desk, request):
    path = desk.folder / "session.rpp"
    path.write_text(project_text(request))
    return open_session(path)


def test_another_parser_reads_the_items_values(desk):
    _track, item = desk.simple(position_s=0.1, D_VOL=0.5, D_FADEINLEN=0.25, C_FADEINSHAPE=1.0, D_FADEINDIR=-0.5)
    item.takes[0].values |= {"D_STARTOFFS": 0.333, "D_VOL": -0.7, "D_PAN": 0.2, "I_CHANMODE": 3.0}
    item.values["B_LOOPSRC"] = 0.0
    tree = rpp.loads(project_text(asked(desk)))
    found = tree.find("TRACK").find("ITEM")
    values = {child[0]: child[1:] for child in found.children if isinstance(child, list)}
    assert float(values["POSITION"][0]) == 0.1
    assert [float(v) for v in values["VOLPAN"]] == [0.5, 0.2, -0.7, -1.0]
    assert float(values["SOFFS"][0]) == 0.333
    assert values["CHANMODE"] == ["3"]
    assert values["LOOP"] == ["0"]
    assert [float(v) for v in values["FADEIN"]] == [1, 0.25, 0, 1, 0, -0.5]
    assert values["IGUID"] == [item.guid]
    assert found.find("SOURCE").children[0][1] == item.takes[0].source.path


def test_the_session_hears_the_sources_own_samples(desk):
    _, item = desk.simple()
    request = asked(desk)
    session = opened(desk, request)
    target = session.target(request.regions[0].target, session.region(time=(2.0, 4.0)))
    heard = target.heard(2.0, 4.0)
    import soundfile

    audio, _ = soundfile.read(item.takes[0].source.path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(heard, audio[96_000:192_000].T)
    assert target.landing == "a take on the item"


def test_a_selection_may_end_after_the_last_item_that_was_sent(desk):
    desk.simple(length_s=3.5)
    request = asked(desk)
    session = opened(desk, request)
    target = session.target(request.regions[0].target, session.region(time=(2.0, 4.0)))
    assert not target.heard(3.5, 4.0).any()
    assert target.landing != "a take on the item"


def test_a_bar_line_a_hair_beside_a_grid_point_is_that_point(desk):
    """The DAW computes both, each its own way."""
    desk.project.tempo = Tempo([(0.0, 120.0, False, 4, 4), (8.0, 90.0, False, 3, 4)])
    desk.simple()
    request = asked(desk)
    late = request.tempo.signatures[1]
    assert late.qn in request.tempo.qn
    moved = structs.replace(late, qn=late.qn * (1 + 2**-52))
    tempo = structs.replace(request.tempo, signatures=(request.tempo.signatures[0], moved))
    session = opened(desk, structs.replace(request, tempo=tempo))
    assert session.tempo.bars_to_seconds(5, 5) == pytest.approx((8.0, 10.0))


def test_ramps_and_odd_signatures_arrive_exactly(desk):
    real = desk.project.tempo = Tempo(
        [(0.0, 120.0, False, 4, 4), (8.0, 120.0, True, 7, 8), (16.0, 150.0, False, 3, 4), (40.0, 60.0, False, 3, 4)]
    )
    desk.simple()
    session = opened(desk, asked(desk))
    for at_s in np.linspace(0.0, 33.0, 67):
        assert float(session.tempo.seconds_to_beats(at_s)) == pytest.approx(real.qn(at_s), abs=5e-4)  # a ramp's chord
    for at_s in np.linspace(0.0, 8.0, 17):
        assert float(session.tempo.seconds_to_beats(at_s)) == pytest.approx(real.qn(at_s), abs=1e-9)
    assert session.tempo.signature_at(1.0) == (4, 4)
    assert session.tempo.signature_at(9.0) == (7, 8)
    assert session.tempo.signature_at(17.5) == (3, 4)


@pytest.mark.parametrize("name", ['say "hi"', "it's", "a`b", "\"'`", "new\nline", "", "日本 ☂"])
def test_any_name_is_one_word_of_the_text(desk, name):
    track, item = desk.simple()
    track.name = name
    item.takes[0].name = name
    tree = rpp.loads(project_text(asked(desk)))
    assert len(tree.find("TRACK").find("ITEM").find("SOURCE").children) == 1
    assert len(tree.findall("TRACK")) == 1


def broken(desk, change):
    desk.simple()
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    request = desk.request()
    change(request)
    return json.dumps(request).encode()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.update(v=1), "v"),
        (lambda r: r.update(id="../../etc"), "id"),
        (lambda r: r.update(instance="a/b"), "instance"),
        (lambda r: r.update(action="format"), "format"),
        (
            lambda r: r["regions"][0].update(target="{00000000-0000-0000-0000-000000000000}"),
            "none of the request's tracks",
        ),
        (lambda r: r["params"].update(seed=-1), "seed"),
        (lambda r: r["params"].update(variations=17), "variations"),
        (lambda r: r["params"].update(context="../"), "context"),
        (lambda r: r["tempo"].update(qn=[1.0, 1.0]), "do not rise"),
        (lambda r: r["tempo"].update(qn=[1.0, 2.0, 3.0]), "3 beats and 2 times"),
        (lambda r: r["project"].update(rate_hz=1), "rate_hz"),
        (lambda r: r["tracks"][0]["items"][0].update(position_s="1"), "position_s"),
        (lambda r: r["tracks"][0]["items"][0]["take"].update(guid="{}\nFILE x"), "guid"),
        (lambda r: r.pop("regions"), "regions"),
        (lambda r: r["regions"].clear(), "regions"),
        (lambda r: r["regions"].extend(r["regions"] * 32), "regions"),
    ],
)
def test_a_request_is_judged_before_it_is_believed(desk, change, word):
    with pytest.raises(Refused, match=word):
        decode(broken(desk, change))


def test_a_region_over_its_limit_says_the_limit(desk):
    with pytest.raises(OverLimit, match=r"allowed is 0\.25 to 600"):
        decode(broken(desk, lambda r: r["regions"][0].update(end_s=1000.0)))


def meant(desk, request):
    (request,) = journey_requests(request, desk.folder / "session.rpp")
    return request


def test_the_dialogs_words_are_the_command_lines(desk):
    track, _ = desk.simple()
    words = {"prompt": "--help -x 'y'", "lyrics": "one / two", "key": "C minor", "strength": "0,25", "variations": "3",
             "seed": "7", "context": "4", "model": "turbo", "land": "split"}  # fmt: skip
    ask_words = {k: v for k, v in words.items() if k != "seed"}
    request = asked(desk, **ask_words)
    got = meant(desk, request)
    assert (got.task, got.track, got.land, got.time_s) == ("repaint", track.guid, "split", (2.0, 4.0))
    assert (got.prompt.text, got.prompt.lyrics, got.prompt.key) == ("--help -x 'y'", "one\ntwo", "C minor")
    assert (got.prompt.strength, got.variations, got.context, got.prompt.model) == (0.25, 3, 4, "turbo")
    assert (got.seed, got.job_id) == (request.params.seed, request.id)


def test_a_preset_says_what_the_dialog_left_open(desk, home):
    (home / "config").mkdir()
    (home / "config" / "presets.toml").write_text('[soft]\nprompt = "felt piano"\nstrength = 0.4\nsteps = 12\n')
    desk.simple()
    got = meant(desk, asked(desk, preset="soft", prompt="", variations="2"))
    assert (got.prompt.text, got.prompt.strength, got.prompt.steps, got.variations) == ("felt piano", 0.4, 12, 2)


def test_a_preset_that_is_not_there_is_refused(desk):
    desk.simple()
    with pytest.raises(Refused, match='no preset "loud"'):
        meant(desk, asked(desk, preset="loud"))


@pytest.mark.parametrize(("action", "task"), [("Layer", "lego"), ("Extract", "extract")])
def test_layers_hear_all_tracks_and_extracts_their_own(desk, action, task):
    track, _ = desk.simple()
    desk.host.inputs.append({"Instrument:": "strings"})
    desk.press(f"{action} {'on' if action == 'Layer' else 'to'} new track (ask)")
    got = meant(desk, decode(json.dumps(desk.request()).encode()))
    assert (got.task, got.track, got.prompt.instrument, got.level) == (task, None, "strings", False)
    assert got.hear == (() if action == "Layer" else (track.guid,))
