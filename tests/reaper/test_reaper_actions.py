"""From the user's selection to a request: what is meant, what is refused, and what a request holds."""

import json

import numpy as np
import pytest
import rpp
import soundfile
from fakereaper import calls_user
from fakereaper.desk import Desk, tone, unpack
from fakereaper.host import Breach
from fakereaper.model import Source, Take, Tempo

from punchin.clients.bridge.project import project_text
from punchin.clients.bridge.request import decode

ASK = "Repaint selection (ask)"
LAST = "Repaint selection (last preset)"


LYRICS = "Lyrics (/ begins a new line; @FILE):"


def ask(desk, action=ASK, **answers):
    desk.host.inputs.append(answers)
    desk.press(action)
    desk.host.tick()


def test_the_time_selection_on_the_selected_track_is_the_region(desk):
    track, item = desk.simple()
    ask(desk, **{"Prompt:": "warm piano, soft"})
    request = desk.request()
    assert (request["v"], request["action"], request["land"]) == (2, "repaint", "take")
    assert request["regions"] == [{"start_s": 2.0, "end_s": 4.0, "target": track.guid}]
    assert request["params"]["prompt"] == "warm piano, soft"
    assert request["project"] == {"path": desk.project.path, "rate_hz": 48_000, "media_folder": str(desk.media)}
    (heard,) = request["tracks"]
    (values,) = heard["items"]
    assert values["guid"] == item.guid
    assert values["source"] == {"path": item.takes[0].source.path, "offset_s": 0.0}
    assert desk.project.undo_log == []


def test_a_razor_edit_goes_before_the_time_selection(desk):
    track, _ = desk.simple()
    track.razor = '1.5 2.5 "" 5 6 "{11111111-2222-3333-4444-555555555555}"'
    ask(desk)
    assert desk.request()["regions"] == [{"start_s": 1.5, "end_s": 2.5, "target": track.guid}]


def test_razor_edits_on_several_tracks_are_one_request(desk):
    track, _ = desk.simple()
    other = desk.project.add_track("Bass")
    other.add_item(0, 8, tone(desk.media / "bass.wav"))
    track.razor, other.razor = '1 2 ""', '3 4 "" 5 6 ""'
    ask(desk)
    request = desk.request()
    names = {heard["guid"]: heard["name"] for heard in request["tracks"]}
    got = [(region["start_s"], names[region["target"]]) for region in request["regions"]]
    assert got == [(1.0, "Keys"), (3.0, "Bass"), (5.0, "Bass")]
    assert [len(heard["items"]) for heard in request["tracks"]] == [1, 1], "an item that two regions hear is told once"
    (record,) = desk.open_jobs().values()
    assert unpack(record)["title"] == "Keys bar 1 and 2 more"


def test_the_same_bars_in_several_lanes_are_one_region(desk):
    track, _ = desk.simple()
    track.razor = '1 2 "" 1 2 "" 3 4 ""'
    ask(desk)
    assert [(region["start_s"], region["end_s"]) for region in desk.request()["regions"]] == [(1.0, 2.0), (3.0, 4.0)]


def test_a_layer_of_the_same_bars_on_two_tracks_is_one_layer(desk):
    desk.simple()
    desk.project.add_track("Bass", selected=True).add_item(0, 8, tone(desk.media / "bass.wav"))
    desk.host.inputs.append({"Instrument:": "strings"})
    desk.press("Layer on new track (ask)")
    request = desk.request()
    assert [len(request["regions"]), len(request["tracks"])] == [1, 2]


def test_one_region_that_cannot_be_heard_refuses_all(desk):
    desk.simple()
    other = desk.project.add_track("Bass", selected=True)
    other.add_item(0, 8, tone(desk.media / "bass.wav"), B_ALLTAKESPLAY=1.0)
    ask(desk)
    assert desk.requests() == []
    assert desk.open_jobs() == {}
    assert "plays all its takes" in desk.host.messages[-1]


def test_selected_items_name_the_tracks_of_a_time_selection(desk):
    _track, _ = desk.simple()
    other = desk.project.add_track("Bass")
    other.add_item(0, 8, tone(desk.media / "bass.wav"), selected=True)
    ask(desk)
    assert desk.request()["regions"][0]["target"] == other.guid


def test_without_a_time_selection_touching_items_are_one_region(desk):
    track, first = desk.simple(selected=True)
    desk.project.time_selection = (0.0, 0.0)
    track.add_item(8.0, 4.0, first.takes[0].source.path, selected=True)
    track.add_item(20.0, 4.0, first.takes[0].source.path, selected=True)
    ask(desk)
    spans = [(region["start_s"], region["end_s"]) for region in desk.request()["regions"]]
    assert spans == [(0.0, 12.0), (20.0, 24.0)]


def test_the_region_under_the_cursor_is_the_last_resort(desk):
    desk.simple()
    desk.project.time_selection = (0.0, 0.0)
    desk.project.markers = [
        {"region": False, "start_s": 1.0, "end_s": 0.0, "name": "m", "number": 1},
        {"region": True, "start_s": 2.0, "end_s": 6.0, "name": "verse", "number": 1},
    ]
    desk.project.cursor_s = 3.0
    ask(desk)
    (region,) = desk.request()["regions"]
    assert (region["start_s"], region["end_s"]) == (2.0, 6.0)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("nothing selected", "Nothing is selected"),
        ("no track", "No track is selected"),
        ("too short", "0.10 s long, allowed is 0.25 to 600"),
        ("too long", "700.00 s long, allowed is 0.25 to 600"),
        ("MIDI", "is MIDI"),
        ("take FX", "has take FX"),
        ("envelope", "has take envelopes"),
        ("all takes play", "plays all its takes"),
        ("missing file", "is missing its file"),
        ("8 channels", "more than two channels"),
        ("click source", "plays no file"),
        ("not installed", "punchin install reaper"),
    ],
)
def test_refusals_are_shown_and_nothing_is_asked(desk, change, word):
    track, item = desk.simple()
    take = item.takes[0]
    if change == "nothing selected":
        desk.project.time_selection = (0.0, 0.0)
    elif change == "no track":
        track.selected = False
    elif change == "too short":
        desk.project.time_selection = (2.0, 2.1)
    elif change == "too long":
        desk.project.time_selection = (0.0, 700.0)
    elif change == "MIDI":
        take.source = Source("", "MIDI", 4.0)
    elif change == "take FX":
        take.fx = [False, True]
    elif change == "envelope":
        take.envelopes = 1
    elif change == "all takes play":
        item.values["B_ALLTAKESPLAY"] = 1.0
    elif change == "missing file":
        take.source.path = "/nowhere/keys.wav"
    elif change == "click source":
        take.source = Source("", "CLICK", 8.0)
    elif change == "8 channels":
        take.source.channels = 8
    else:
        (desk.scripts / "bridge.cfg").unlink()
    desk.remember_words()
    desk.press(LAST)
    desk.host.tick()
    assert word in desk.host.messages[0]
    assert desk.requests() == desk.requests("draft") == []
    assert desk.open_jobs() == {}
    assert desk.host.scripts == []


@pytest.mark.parametrize("broken", ["missing", "damaged", "no watcher"])
def test_what_sets_a_portable_reaper_up_is_said_in_full(desk, broken):
    desk.simple()
    desk.remember_words()
    if broken == "missing":
        (desk.scripts / "bridge.cfg").unlink()
    elif broken == "damaged":
        (desk.scripts / "bridge.cfg").write_text("version=0\n")
    else:
        (desk.scripts / "Punchin - watcher.lua").unlink()
    desk.press(LAST)
    assert desk.host.messages[0].endswith(f'Run: punchin install reaper --resource-path "{desk.resource}"')


def test_bypassed_take_fx_are_no_obstacle(desk):
    _, item = desk.simple()
    item.takes[0].fx = [False]
    ask(desk)
    assert len(desk.request()["tracks"][0]["items"]) == 1


def test_what_cannot_be_heard_outside_the_region_is_left_out_and_told(desk):
    track, _ = desk.simple()
    midi = track.add_item(8.0, 4.0, name="riff")
    midi.takes.append(Take(midi, Source("", "MIDI", 4.0), "riff"))
    ask(desk)
    assert len(desk.request()["tracks"][0]["items"]) == 1
    assert any('"riff" at 8.00 s is MIDI' in text for text in desk.host.help)


def test_what_cannot_be_heard_may_touch_the_region(desk):
    """A bar line and the item that begins at it, each computed its own way."""
    track, _ = desk.simple(length_s=4.0)
    midi = track.add_item(4.0 - 1e-9, 4.0, name="riff")
    midi.takes.append(Take(midi, Source("", "MIDI", 4.0), "riff"))
    ask(desk)
    assert len(desk.request()["tracks"][0]["items"]) == 1


def test_muted_items_and_silent_lanes_are_not_heard(desk):
    track, item = desk.simple()
    track.values["I_FREEMODE"] = 2.0
    item.values["C_LANEPLAYS"] = 1.0
    track.add_item(0.0, 8.0, item.takes[0].source.path, C_LANEPLAYS=0.0)
    track.add_item(0.0, 8.0, item.takes[0].source.path, B_MUTE=1.0, C_LANEPLAYS=1.0)
    ask(desk)
    assert [each["guid"] for each in desk.request()["tracks"][0]["items"]] == [item.guid]


def test_items_of_lanes_that_are_gone_from_view_are_not_heard(desk):
    """REAPER 7: a track that had fixed lanes keeps their items, and says -1 of them."""
    track, item = desk.simple()
    track.add_item(0.0, 8.0, item.takes[0].source.path, C_LANEPLAYS=-1.0)
    ask(desk)
    assert [each["guid"] for each in desk.request()["tracks"][0]["items"]] == [item.guid]


@pytest.mark.parametrize(
    ("bars", "spans"),
    [("1", [(0.0, 4.0)]), ("0", [(0.0, 4.0)]), (" 1 ", [(0.0, 4.0)]), ("auto", [(0.0, 4.0), (20.0, 4.0)])],
)
def test_a_number_of_bars_reaches_no_further(desk, bars, spans):
    track, item = desk.simple(length_s=4.0)
    track.add_item(20.0, 4.0, item.takes[0].source.path)
    desk.remember_words(context=bars)
    desk.press(LAST)
    items = desk.request()["tracks"][0]["items"]
    assert [(each["position_s"], each["length_s"]) for each in items] == spans
    assert desk.request()["params"]["context"] == bars.strip()


def test_a_layer_hears_tracks_in_their_polarity(desk):
    track, item = desk.simple()
    track.values["D_VOL"] = 0.5
    inverted = desk.project.add_track("Keys inverted")
    inverted.values["B_PHASE"] = 1.0
    inverted.add_item(0.0, 8.0, item.takes[0].source.path)
    desk.host.inputs.append({"Instrument:": "strings"})
    desk.press("Layer on new track (ask)")
    (one, other) = desk.request()["tracks"]
    assert [one["volume"], other["volume"]] == [0.5, -1.0]
    tree = rpp.loads(project_text(decode(json.dumps(desk.request()).encode())))
    assert [float(each.find("VOLPAN")[1]) for each in tree.findall("TRACK")] == [0.5, -1.0]


@pytest.mark.parametrize(("action", "has"), [(ASK, True), ("Cover selection (ask)", True),
                                             ("Layer on new track (ask)", False),
                                             ("Extract to new track (ask)", False)])  # fmt: skip
def test_the_dialog_asks_for_a_strength_where_one_counts(desk, action, has):
    desk.simple()
    ask(desk, action)
    assert any(caption.startswith("Strength") for caption in desk.host.dialogs[0][1]) is has


def test_sound_that_no_file_could_hold_is_refused(desk):
    _, item = desk.simple()
    item.takes[0].values["D_PLAYRATE"] = 1.001
    item.values["D_LENGTH"] = 12_000.0
    ask(desk)
    assert desk.requests() == []
    assert desk.open_jobs() == {}
    assert 'Item "keys.wav" is 200 min long' in desk.host.messages[-1]


def test_a_layer_hears_what_it_can_and_tells_what_it_cannot(desk):
    desk.simple()
    synth = desk.project.add_track("Synth").add_item(0.0, 8.0, name="riff")
    synth.takes.append(Take(synth, Source("", "MIDI", 8.0), "riff"))
    ask(desk, "Layer on new track (ask)", **{"Instrument:": "strings"})
    assert [len(each["items"]) for each in desk.request()["tracks"]] == [1, 0]
    assert any('"riff" at 0.00 s is MIDI' in text for text in desk.host.console)


def test_a_layer_over_a_track_that_is_not_heard_is_made_of_the_others(desk):
    track, _ = desk.simple()
    track.selected = False
    other = desk.project.add_track("Old", selected=True)
    other.values["B_MUTE"] = 1.0
    other.add_item(0, 8, tone(desk.media / "old.wav"))
    ask(desk, "Layer on new track (ask)", **{"Instrument:": "strings"})
    request = desk.request()
    assert request["regions"][0]["target"] == request["tracks"][0]["guid"] == track.guid


def test_a_layer_where_all_is_muted_is_refused(desk):
    track, _ = desk.simple()
    track.values["B_MUTE"] = 1.0
    ask(desk, "Layer on new track (ask)", **{"Instrument:": "strings"})
    assert "All tracks are muted" in desk.host.messages[0]


def test_a_layer_does_not_hear_what_a_muted_folder_holds(desk):
    desk.simple()
    for name, depth in (("Refs", 1.0), ("Old", -1.0), ("Bass", 0.0)):
        other = desk.project.add_track(name)
        other.values |= {"I_FOLDERDEPTH": depth, "B_MUTE": float(name == "Refs")}
        other.add_item(0, 8, tone(desk.media / f"{name}.wav"))
    ask(desk, "Layer on new track (ask)", **{"Instrument:": "strings"})
    assert [each["name"] for each in desk.request()["tracks"]] == ["Keys", "Bass"]


def test_layer_hears_all_unmuted_tracks_and_lands_on_a_new_one(desk):
    track, _ = desk.simple()
    for name, muted in (("Bass", 0.0), ("Old", 1.0)):
        other = desk.project.add_track(name)
        other.values["B_MUTE"] = muted
        other.add_item(0, 8, tone(desk.media / f"{name}.wav"))
    ask(desk, "Layer on new track (ask)", **{"Instrument:": "strings"})
    request = desk.request()
    assert (request["action"], request["land"], request["regions"][0]["target"]) == ("layer", "track", track.guid)
    assert [each["name"] for each in request["tracks"]] == ["Keys", "Bass"]
    assert request["params"]["instrument"] == "strings"


def test_extract_and_cover_ask_what_they_need(desk):
    desk.simple()
    ask(desk, "Extract to new track (ask)", **{"Instrument:": "vocals"})
    assert desk.request()["action"] == "extract"
    ask(desk, "Cover selection (ask)", **{"Prompt:": "ska"})
    assert sorted(each["action"] for each in desk.requests()) == ["cover", "extract"]


def test_the_last_words_come_back_and_the_seed_does_not(desk):
    desk.simple()
    ask(desk, **{"Prompt:": "a % b\tc", "Seed (empty: a new one):": "7", "Strength 0 to 1 (empty: all new):": "0,5"})
    first = desk.request()
    (desk.spool / "inbox" / f"{first['id']}.json").unlink()
    assert (first["params"]["seed"], first["params"]["strength"]) == (7, 0.5)
    desk.press(LAST)
    desk.host.tick()
    again = desk.request()
    assert again["params"]["prompt"] == "a % b\tc"
    assert again["params"]["strength"] == 0.5
    assert again["params"]["seed"] != 7


def test_the_first_press_asks_for_words(desk):
    desk.simple()
    desk.host.inputs.append({"Prompt:": "rain"})
    desk.press(LAST)
    assert desk.request()["params"]["prompt"] == "rain"


def test_a_cancelled_dialog_asks_nothing(desk):
    desk.simple()
    desk.host.inputs.append(None)
    desk.press(ASK)
    assert desk.requests() == []
    assert desk.host.messages == []


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("Strength 0 to 1 (empty: all new):", "2", '"2", allowed is 0 to 1'),
        ("Number of takes (empty: 1):", "17", "allowed is 1 to 16"),
        ("Seed (empty: a new one):", "-1", "allowed is 0 to 4294967295"),
        ("Bars heard around (auto; whole; 4):", "many", "auto, whole or a number"),
        ("Land as (take; split; lane; track):", "cloud", "take, split, lane or track"),
    ],
)
def test_a_wrong_answer_is_named_with_what_is_allowed(desk, field, value, word):
    desk.simple()
    ask(desk, **{field: value})
    assert word in desk.host.messages[0]
    assert desk.requests() == []


def test_answers_longer_than_the_dialog_holds_are_refused(desk):
    desk.simple()
    ask(desk, **{"Prompt:": "la " * 400})
    assert "over 1022 bytes" in desk.host.messages[0]
    assert desk.requests() == []
    assert ("PUNCHIN", "last_repaint") not in desk.host.persisted


def test_lyrics_come_from_a_file(desk):
    desk.simple()
    item = desk.project.tracks[0].items[0]
    words = desk.folder / "words.txt"
    words.write_bytes(b"on 24/7\r\n" * 500)
    ask(desk, **{"Prompt:": "pop", LYRICS: f"@{words}"})
    first = desk.request()
    assert first["params"]["lyrics"] == "on 24/7\n" * 500
    desk.done(first["id"])
    (desk.spool / "inbox" / f"{first['id']}.json").unlink()
    item.selected = True
    desk.press("New variation")
    assert desk.request()["params"]["lyrics"] == "on 24/7\n" * 500


@pytest.mark.parametrize("data", [None, b"caf\xe9 noir", b"l" * 20_001])
def test_lyrics_that_cannot_be_read_are_refused(desk, data):
    desk.simple()
    words = desk.folder / "words.txt"
    if data is not None:
        words.write_bytes(data)
    ask(desk, **{"Prompt:": "pop", LYRICS: f"@{words}"})
    assert "allowed is @ and the path of a text file (UTF-8, at most 20000 characters)" in desk.host.messages[0]


def test_names_that_need_care_come_through(desk):
    folder = desk.folder / "my \"best\" 'söng' 100%"
    folder.mkdir()
    track = desk.project.add_track('Keys "left"\tα', selected=True)
    item = track.add_item(0, 8, tone(folder / "take 1.wav"), name='say "hi" \\ 音')
    desk.project.time_selection = (2.0, 4.0)
    ask(desk, **{"Prompt:": 'quo"te \\ tab\t ☂'})
    request = desk.request()
    assert request["tracks"][0]["name"] == 'Keys "left"\tα'
    assert request["tracks"][0]["items"][0]["source"]["path"] == item.takes[0].source.path
    assert request["tracks"][0]["items"][0]["take"]["name"] == 'say "hi" \\ 音'
    assert request["params"]["prompt"] == 'quo"te \\ tab\t ☂'


def test_a_constant_tempo_is_two_points(desk):
    desk.project.tempo = Tempo([(0.0, 97.0, False, 4, 4)])
    desk.simple()
    ask(desk)
    tempo = desk.request()["tempo"]
    assert len(tempo["qn"]) == 2
    assert tempo["seconds"][1] == pytest.approx(tempo["qn"][1] * 60 / 97, abs=1e-12)
    assert tempo["signatures"] == [{"qn": 0.0, "numerator": 4, "denominator": 4}]


def test_ramps_steps_and_signatures_are_in_the_grid(desk):
    desk.project.tempo = Tempo([(0.0, 120.0, False, 4, 4), (8.0, 120.0, True, 7, 8), (16.0, 140.0, False, 4, 4)])
    desk.simple()
    ask(desk)
    tempo = desk.request()["tempo"]
    real = desk.project.tempo
    assert tempo["signatures"][:2] == [
        {"qn": 0.0, "numerator": 4, "denominator": 4},
        {"qn": 16.0, "numerator": 7, "denominator": 8},
    ]
    assert all(abs(real.seconds(qn) - s) < 1e-9 for qn, s in zip(tempo["qn"], tempo["seconds"], strict=True))
    steps = [b - a for a, b in zip(tempo["qn"], tempo["qn"][1:], strict=False) if 17 <= a < 30]
    assert set(steps) == {0.25}


def test_bars_are_numbered_as_on_the_ruler(seven):
    """A count-in of two bars before bar 1."""
    seven.simple()
    seven.project.bar_offset = -2
    seven.remember_words(context="0")
    seven.press(LAST)
    (record,) = seven.open_jobs().values()
    assert unpack(record)["title"] == "Keys bar 0"
    request = seven.request()
    assert request["tempo"]["first_bar"] == -1
    assert "\n  PROJOFFS 0 -2 0\n" in project_text(decode(json.dumps(request).encode()))


def test_bars_from_before_bar_0_are_told_with_a_word(seven):
    seven.simple()
    seven.project.bar_offset = -2
    seven.project.time_selection = (0.0, 4.0)
    ask(seven)
    (record,) = seven.open_jobs().values()
    assert unpack(record)["title"] == "Keys bars -1 to 0"


FX = "Hear track FX (yes: on a new track):"


def test_track_fx_are_heard_when_asked_for_and_settings_come_back(desk):
    track, item = desk.simple()
    other = desk.project.add_track("Bass", selected=True)
    desk.project.time_selection = (2.0, 4.0)
    other.selected = False
    info, strings = dict(desk.project.info), dict(desk.project.strings)
    ask(desk, **{FX: "yes"})
    request = desk.request()
    assert request["land"] == "track"
    (heard,) = request["tracks"][0]["items"]
    assert (heard["position_s"], heard["length_s"]) == (0.0, 8.0)
    rendered, _ = soundfile.read(heard["source"]["path"], dtype="float32", always_2d=True)
    original, _ = soundfile.read(item.takes[0].source.path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(rendered, 0.5 * original)
    assert (desk.project.info, desk.project.strings) == (info, strings)
    assert (track.selected, other.selected) == (True, False)


def test_a_stopped_rendering_asks_nothing_and_settings_come_back(desk, monkeypatch):
    desk.simple()
    info, strings = dict(desk.project.info), dict(desk.project.strings)
    monkeypatch.setitem(calls_user.ACTIONS, 42230, lambda host, project: None)
    ask(desk, **{FX: "yes"})
    assert "was stopped" in desk.host.messages[0]
    assert desk.requests() == []
    assert (desk.project.info, desk.project.strings) == (info, strings)


def test_pressing_twice_asks_twice(desk):
    desk.simple()
    desk.remember_words()
    for _ in range(2):
        desk.press(LAST)
        desk.host.tick()
    ids = {each["id"] for each in desk.requests()}
    assert len(ids) == 2
    assert set(desk.open_jobs()) == ids
    assert sum(script.path.name == "Punchin - watcher.lua" for script in desk.host.scripts) == 1


def test_the_bridge_is_started_only_when_it_does_not_beat(desk):
    desk.simple()
    desk.remember_words(prompt='"; rm -rf ~')
    desk.press(LAST)
    desk.host.tick()
    assert desk.host.processes == []
    (desk.spool / "bridge.beat").write_text("pid=1\tversion=0\ttime=5\n")
    desk.press(LAST)
    (command,) = desk.host.processes
    assert command.endswith(f'"-m" "punchin.clients.bridge" "{desk.spool}"')
    assert "rm -rf" not in command


def test_cancel_leaves_a_mark_for_each_open_job(desk):
    desk.simple()
    desk.remember_words()
    desk.press(LAST)
    desk.host.tick()
    desk.press("Cancel")
    assert {path.name for path in (desk.spool / "cancel").iterdir()} == set(desk.open_jobs())


@pytest.mark.parametrize("ticks", [0, 5])
def test_cancel_of_a_draft_needs_no_bridge(desk, ticks):
    """Before its audio is read, or in the middle of it: nobody waits for an answer then, and no sound stays behind."""
    _, item = desk.simple()
    item.takes[0].values["D_PITCH"] = 2.0
    desk.remember_words()
    desk.press(LAST)
    desk.host.tick(ticks)
    assert len(desk.requests("draft")) == 1
    desk.press("Cancel")
    desk.host.tick(12 * 30)
    assert desk.open_jobs() == {}
    assert desk.requests() == []
    assert list((desk.spool / "audio").iterdir()) == []
    assert not any("answer" in text for text in desk.host.console)
    desk.host.tick(61 * 30)
    assert desk.host.scripts == []


def test_cancel_with_nothing_open_says_so(desk):
    desk.press("Cancel")
    assert "Nothing of this project" in desk.host.messages[0]


def test_status_names_open_jobs_and_the_bridge(desk):
    desk.simple()
    desk.remember_words()
    desk.press(LAST)
    (desk.spool / "status.txt").write_text("diffusing 3 of 8")
    desk.press("Status")
    assert "Keys bar 2" in desk.host.messages[0]
    assert "The bridge runs." in desk.host.messages[0]
    assert "diffusing 3 of 8" in desk.host.messages[0]


def test_free_the_gpu_is_a_request_and_its_answer_is_told(desk):
    desk.press("Free the GPU")
    desk.host.tick(5)
    assert desk.request()["action"] == "free"
    desk.say(kind="told", text="the model was unloaded")
    assert "the model was unloaded" in desk.host.console[-1]


def test_news_is_spoken_where_osara_is(tmp_path):
    desk = Desk(tmp_path, extensions=["osara_outputMessage"])
    desk.simple()
    desk.remember_words()
    desk.press(LAST)
    desk.host.tick(20)
    desk.done(desk.request()["id"])
    assert "landed on the item" in desk.host.spoken[-1]


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("reaper.GetSet_AudioAccessorStartTime()", "does not exist"),
        ("reaper.Undo_EndBlock2(0, 'x')", "takes 3 to 3 arguments"),
        ("reaper.CountMediaItems('0')", "not an open project"),
        ("reaper.GetMediaItem(0, 1.5)", "wants integer"),
        ("reaper.PreventUIRefresh(1)", "PreventUIRefresh is off by 1"),
        ("reaper.Undo_BeginBlock2(0)", "left open"),
        ("reaper.InsertTrackAtIndex(0, false)", "outside an undo block"),
        ("reaper.Mine = 1", "wrote to reaper.Mine"),
        ("pcall(function() reaper.NoSuch() end)", "does not exist"),
        (("local i = reaper.GetMediaItem(0, 0) local t = reaper.GetMediaItem_Track(i)"
         " reaper.Undo_BeginBlock2(0) reaper.DeleteTrackMediaItem(t, i) reaper.Undo_EndBlock2(0, 'x', -1)"
         " reaper.GetActiveTake(i)"), "stale MediaItem"),
    ],
)  # fmt: skip
def test_the_fake_is_strict(desk, tmp_path, code, word):
    """A fake that lets everything pass would prove nothing."""
    desk.simple()
    script = tmp_path / "wrong.lua"
    script.write_text(code)
    with pytest.raises(Breach, match=word):
        desk.host.run(script)
