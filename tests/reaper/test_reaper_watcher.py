"""The watcher between a job and its take: it waits, follows projects and restarts, and costs nothing."""

import json

import numpy as np
import pytest
import soundfile
from fakereaper.desk import pack, unpack
from fakereaper.model import Project
from reaperjobs import asked, close_project

from punchin.clients.install.reaper import install, uninstall


def test_recording_waits_for_its_end(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.project.play_state = 5
    desk.done(job)
    assert len(item.takes) == 1
    assert any("waits for the end of the recording" in text for text in desk.host.help)
    desk.project.play_state = 0
    desk.host.tick(6)
    assert len(item.takes) == 2


def test_a_project_behind_another_tab_still_gets_its_take(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.host.projects.append(Project("/other.rpp"))
    desk.host.current = 1
    desk.done(job)
    assert len(item.takes) == 2
    assert desk.host.projects[1].undo_log == []


def test_a_new_track_waits_until_its_project_is_in_front(desk):
    """REAPER adds tracks to the active tab only."""
    track, item = desk.simple()
    job = asked(desk)
    track.items.remove(item)
    item.alive = False
    desk.host.projects.append(Project("/other.rpp"))
    desk.host.current = 1
    desk.done(job)
    assert [len(project.tracks) for project in desk.host.projects] == [1, 0]
    desk.host.tick(60)
    assert desk.host.calls["PCM_Source_CreateFromFile"] == 0  # none is left open ten times a second
    desk.host.current = 0
    desk.host.tick(6)
    assert [len(project.tracks) for project in desk.host.projects] == [2, 0]


def test_a_project_closed_while_its_take_waits_keeps_it_for_later(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.project.play_state = 5
    desk.done(job)
    closed = close_project(desk)
    desk.host.tick(61 * 30)
    assert desk.host.scripts == [], "the watcher waits for nothing any more"
    closed.play_state = 0
    desk.host.projects[0] = closed
    desk.press("Collect finished")
    desk.done(job)
    assert len(item.takes) == 2


def test_a_long_job_is_collected_whole(desk):
    """REAPER cuts what it enumerates after 1023 bytes; two regions on captured takes are longer."""
    _, item = desk.simple()
    item.takes[0].values["D_PITCH"] = 1.0
    bass = desk.project.add_track("Bass with quite a long name", selected=True)
    bass.add_item(0.0, 8.0, item.takes[0].source.path).takes[0].values["D_PITCH"] = 1.0
    desk.remember_words(prompt="warm piano " * 20)
    desk.press("Repaint selection (last preset)")
    desk.host.tick(90)
    job, before = desk.request()["id"], dict(desk.open_jobs())
    assert len(before[job]) > 1023
    desk.press("Status")
    assert "Keys bar 2 and 1 more" in desk.host.messages[0]
    desk.press("Collect finished")
    assert desk.open_jobs() == before


def test_a_draft_of_an_earlier_run_is_answered_in_this_one(desk):
    begin_to_read(desk)
    desk.host.quit()
    desk.press("Collect finished")
    desk.host.tick(60)
    request = desk.request()
    assert request["instance"] == desk.host.ext["PUNCHIN", "instance"]
    desk.done(request["id"])
    assert len(desk.project.tracks[0].items[0].takes) == 2


def test_a_closed_project_keeps_its_job_for_later(desk):
    desk.simple()
    job = asked(desk)
    closed = desk.host.projects.pop()
    desk.host.projects.append(Project("/other.rpp"))
    desk.done(job)
    assert job in desk.open_jobs(closed)
    assert desk.host.projects[0].undo_log == []


def test_a_project_opened_again_collects_what_ended_meanwhile(desk):
    """In the same run of REAPER: the event came, and no tab had its project."""
    _, item = desk.simple()
    job = asked(desk)
    closed = close_project(desk)
    desk.done(job)
    desk.host.projects[0] = closed
    (desk.spool / "inbox" / f"{job}.json").unlink()
    desk.press("Collect finished")
    assert desk.request()["jobs"] == [job]
    desk.done(job)
    assert len(item.takes) == 2


def begin_to_read(desk):
    """A key was pressed, and the sound of a take that is pitched is being read."""
    _, item = desk.simple()
    item.takes[0].values["D_PITCH"] = 1.0
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(5)


def test_a_project_closed_while_its_audio_is_read_goes_on_when_it_is_back(desk):
    begin_to_read(desk)
    closed = close_project(desk)
    desk.host.tick(60)
    assert desk.requests() == list((desk.spool / "audio").iterdir()) == []
    desk.host.projects[0] = closed
    desk.press("Collect finished")
    desk.host.tick(16)
    desk.press("Collect finished")
    desk.host.tick(60)
    assert desk.request()["action"] == "repaint"
    assert len(list((desk.spool / "audio").iterdir())) == 1


def test_a_watcher_that_begins_again_reads_the_audio_that_is_still_wanted(desk):
    begin_to_read(desk)
    desk.host.scripts.clear()
    desk.host.ext.pop(("PUNCHIN", "watcher"))
    desk.press("Collect finished")
    desk.host.tick(60)
    assert [request["action"] for request in desk.requests()] == ["repaint"]


def test_an_event_that_is_faster_than_the_note_of_its_job_ends_it(desk):
    desk.simple()
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.done(desk.request()["id"])
    desk.host.tick(61 * 30)
    assert desk.host.scripts == []


def test_an_undo_of_the_users_costs_no_take(desk):
    """The project's notes may go back with an undo: the watcher remembers what it was asked for."""
    _, item = desk.simple()
    job = asked(desk)
    desk.open_jobs().clear()
    desk.say(job=job, kind="progress", text="diffusing 3 of 8")
    assert desk.host.help[-1] == "Punchin: Keys bar 2 diffusing 3 of 8"
    desk.done(job)
    desk.done(job)
    assert len(item.takes) == 2
    desk.host.tick(61 * 30)
    assert desk.host.scripts == []


@pytest.mark.parametrize("told", [True, False])
def test_nor_does_it_in_a_project_that_got_its_name_meanwhile(desk, told):
    """Also where no word came between its first name and the undo."""
    _, item = desk.simple()
    desk.project.path = ""
    job = asked(desk)
    desk.project.path = "/song/song.rpp"
    if told:
        desk.say(job=job, kind="progress", text="diffusing 3 of 8")
    desk.open_jobs().clear()
    desk.done(job)
    assert len(item.takes) == 2


def test_a_project_opened_in_place_of_one_without_a_name_gets_nothing(desk):
    track, item = desk.simple()
    desk.project.path = ""
    job = asked(desk)
    desk.project.path = "/other.rpp"
    desk.open_jobs().clear()
    desk.project.tracks.remove(track)
    desk.project.add_track("Keys").add_item(0.0, 8.0, item.takes[0].source.path)
    desk.done(job)
    assert [len(each.takes) for each in desk.project.tracks[0].items] == [1]
    assert desk.project.undo_log == []


def test_a_missing_take_file_is_told_and_leaves_no_undo_step(desk):
    _, item = desk.simple()
    desk.done(asked(desk), file1=str(desk.media / "gone.wav"))
    assert len(item.takes) == 1
    assert desk.project.undo_log == []
    assert "cannot read" in desk.host.console[-1]


def test_an_api_that_refuses_half_way_leaves_both_counters_balanced(desk, monkeypatch):
    _, _item = desk.simple()
    job = asked(desk)

    def refuse(script, take):
        raise RuntimeError("no")

    from fakereaper import host

    monkeypatch.setitem(host.FUNCTIONS, "SetActiveTake", refuse)
    desk.done(job)  # the fake raises if a counter is off at the tick's end
    assert desk.project.undo_log == ["punchin: Keys bar 2 (failed half-way)"]
    assert "refused the landing" in desk.host.console[-1]


def test_torn_garbled_and_doubled_events_do_no_harm(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.say(raw=b"\x00\xff\xfe garbage\n\n=\t=\tjob\n")
    desk.say(job="20990101-000000-00000000", kind="done")
    desk.say(job=job, kind="no such kind")
    whole = f"job={job}\tkind=progress\ttext=half and half\n".encode()
    desk.say(raw=whole[:20])
    assert not any("half and half" in text for text in desk.host.help)
    desk.say(raw=whole[20:])
    assert any("half and half" in text for text in desk.host.help)
    desk.done(job)
    desk.done(job)
    assert len(item.takes) == 2


def test_a_damaged_done_event_is_told(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.all_done(job, [desk.landed(job, 1) | {"position_s": "x"}])
    assert len(item.takes) == 1
    assert "damaged" in desk.host.console[-1]


@pytest.mark.parametrize(("kind", "word"), [("failed", "out of memory"), ("cancelled", "nothing was changed")])
def test_the_end_without_a_take_is_told_and_closes_the_job(desk, kind, word):
    desk.simple()
    desk.say(job=asked(desk), kind=kind, text="out of memory", hint="punchin ps")
    assert word in desk.host.console[-1]
    assert ("out of memory; punchin ps\n" in desk.host.console[-1]) == (kind == "failed")
    assert desk.open_jobs() == {}


def test_a_restarted_reaper_collects_what_was_left(desk):
    _, item = desk.simple()
    job = asked(desk)
    first = desk.host.ext["PUNCHIN", "instance"]
    desk.host.quit()
    desk.press("Collect finished")
    desk.host.tick(10)
    request = next(each for each in desk.requests() if each["action"] == "collect")
    assert request["jobs"] == [job]
    assert request["instance"] != first
    desk.done(job)
    assert len(item.takes) == 2


def test_a_restarted_reaper_hears_of_its_cancel(desk):
    desk.simple()
    job = asked(desk)
    (desk.spool / "inbox" / f"{job}.json").unlink()
    desk.host.quit()
    desk.press("Cancel")
    desk.host.tick(10)
    request = desk.request()
    assert (request["action"], request["jobs"]) == ("collect", [job])
    assert request["instance"] == desk.host.ext["PUNCHIN", "instance"]
    assert [path.name for path in (desk.spool / "cancel").iterdir()] == [job]
    desk.say(job=job, kind="cancelled")
    assert desk.open_jobs() == {}


def test_a_restarted_watcher_goes_on_where_it_was(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.say(job=job, kind="note", text="once")
    restart_watcher(desk)
    assert sum("once" in text for text in desk.host.console) == 1
    desk.done(job)
    assert len(item.takes) == 2


def restart_watcher(desk):
    watcher = desk.host.scripts[-1]
    watcher.deferred = []
    watcher.end()
    desk.press("watcher")
    desk.host.tick(30)


def test_a_take_that_waits_survives_a_restart_of_the_watcher(desk):
    _, item = desk.simple()
    job = asked(desk)
    desk.project.play_state = 5
    desk.done(job)
    desk.say(kind="told", text="once more")
    restart_watcher(desk)
    desk.project.play_state = 0
    desk.host.tick(6)
    assert len(item.takes) == 2
    restart_watcher(desk)
    assert len(item.takes) == 2
    assert sum("once more" in text for text in desk.host.console) == 2


def test_the_watcher_ends_a_minute_after_the_last_job(desk):
    desk.simple()
    desk.done(asked(desk))
    desk.host.tick(60 * 30 + 10)
    assert desk.host.scripts == []
    assert ("PUNCHIN", "watcher") not in desk.host.ext


@pytest.mark.parametrize("before", [2, 3, 4, 5, 6])
def test_a_key_pressed_as_the_watcher_ends_is_followed(desk, before):
    _, item = desk.simple()
    first = asked(desk)
    desk.done(first)
    desk.host.tick(1785 - before)  # `done` took 15 of its 1800
    assert desk.host.scripts, "it is still there"
    desk.press("Repaint selection (last preset)")
    desk.host.tick(60)
    (second,) = {each["id"] for each in desk.requests()} - {first}
    desk.done(second)
    assert len(item.takes) == 3


def test_streams_that_began_anew_are_read_from_their_start(desk):
    """Uninstalled and installed again while REAPER is open: it remembers how far it had read in files that are gone."""
    _, item = desk.simple()
    job = asked(desk)
    for number in range(40):
        desk.say(job=job, kind="progress", text=f"step {number} of 40, and words that take some room")
    desk.done(job)
    desk.host.tick(60 * 30 + 10)
    uninstall(desk.resource)
    install(desk.resource)
    desk.beat()
    desk.done(asked(desk))
    assert len(item.takes) == 3


def test_an_error_in_a_draft_ends_it_and_not_the_watcher(desk):
    _, item = desk.simple()
    other = asked(desk)
    item.takes[0].values["D_PITCH"] = 1.0
    desk.press("Repaint selection (last preset)")
    (job,) = desk.open_jobs().keys() - {other}
    record = unpack(desk.open_jobs()[job])
    desk.open_jobs()[job] = pack(**record | {"captures": record["captures"].replace("length_s=", "length=")})
    desk.host.tick(60)
    assert any("REAPER refused its audio" in text for text in desk.host.console)
    item.takes[0].values["D_PITCH"] = 0.0
    desk.done(other)
    assert len(item.takes) == 2
    assert desk.open_jobs() == {}


def test_an_idle_watcher_costs_three_calls_and_one_open_in_100_ms(desk):
    desk.simple()
    job = asked(desk)
    desk.say(job=job, kind="accepted")
    desk.host.tick(60)
    calls, opens, was = desk.host.total_calls, desk.host.opens, dict(desk.host.calls)
    desk.host.tick(300)  # ten seconds
    assert desk.host.total_calls - calls <= 3 * 100
    assert desk.host.opens - opens <= 100
    assert {name for name, count in desk.host.calls.items() if count != was[name]} == {"defer"}


def test_waveforms_are_built_piece_by_piece_and_finished(seven):
    _, item = seven.simple()
    seven.done(asked(seven))
    assert item.takes[1].source.peaks_left is None
    assert seven.host.calls["PCM_Source_BuildPeaks"] == 5


def test_a_waveform_is_dropped_when_its_take_is_undone(seven):
    seven.simple()
    seven.done(asked(seven), count=6)
    assert seven.host.calls["PCM_Source_BuildPeaks"] < 6 * 5
    seven.project.undo()
    seven.host.tick(30)


def test_a_waveform_is_dropped_when_its_project_is_closed(seven):
    seven.simple()
    seven.done(asked(seven), count=6)
    close_project(seven)
    seven.host.tick(30)
    assert seven.host.calls["PCM_Source_BuildPeaks"] < 6 * 5


def test_a_bridge_that_does_not_answer_is_started_again(desk):
    desk.simple()
    asked(desk)
    (desk.spool / "bridge.beat").unlink()
    desk.host.tick(11 * 30)
    assert len(desk.host.processes) == 1
    assert "punchin doctor" in desk.host.console[-1]


def test_audio_that_no_file_holds_is_written_before_the_request_goes(desk):
    """Stretched, reversed or faster takes: REAPER itself gives the samples, a second a tick."""
    _track, item = desk.simple()
    item.takes[0].values["D_PLAYRATE"] = 2.0
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    assert desk.requests() == []
    assert len(desk.requests("draft")) == 1
    desk.host.tick(60)
    request = desk.request()
    source = request["tracks"][0]["items"][0]["source"]
    written, rate_hz = soundfile.read(source["path"], dtype="float32", always_2d=True)
    original, _ = soundfile.read(item.takes[0].source.path, dtype="float32", always_2d=True)
    assert rate_hz == 48_000
    assert soundfile.info(source["path"]).subtype == "FLOAT"
    twice = np.tile(original, (3, 1))[: 2 * len(written) : 2]
    np.testing.assert_array_equal(written, twice)
    assert source["offset_s"] == 0.0


def test_a_take_is_read_in_one_go_and_anew_when_it_changes(desk):
    """What stretches a take has a state: begun anew each second, it would click each second."""
    begin_to_read(desk)
    assert desk.host.calls["CreateTakeAudioAccessor"] == 1
    take = desk.project.tracks[0].items[0].takes[0]
    take.values["D_PLAYRATE"] = 2.0
    desk.host.tick(60)
    assert desk.host.calls["CreateTakeAudioAccessor"] == desk.host.calls["DestroyAudioAccessor"] == 2
    written, _ = soundfile.read(desk.request()["tracks"][0]["items"][0]["source"]["path"], dtype="float32")
    original, _ = soundfile.read(take.source.path, dtype="float32")
    np.testing.assert_array_equal(written, np.tile(original, (3, 1))[: 2 * len(written) : 2])


def test_a_take_that_never_stands_still_fails_the_job(desk):
    begin_to_read(desk)
    values = desk.project.tracks[0].items[0].takes[0].values
    for _ in range(30):
        values["D_PITCH"] += 0.1
        desk.host.tick(1)
    assert "changes while its audio is read" in desk.host.console[-1]
    assert desk.open_jobs() == {}


def test_a_take_deleted_while_its_audio_is_read_fails_the_job(desk):
    track, item = desk.simple()
    item.takes[0].values["D_PITCH"] = 1.0
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(5)
    track.items.remove(item)
    desk.host.tick(30)
    assert desk.requests("draft") == desk.requests() == list((desk.spool / "audio").iterdir()) == []
    assert "deleted" in desk.host.console[-1]
    assert desk.open_jobs() == {}


def test_sixteen_takes_with_long_lyrics_land(desk):
    """One line of over 256 KiB: provenance says the lyrics for each take, with six bytes a letter."""
    _, item = desk.simple()
    made = json.dumps({"request": {"prompt": {"lyrics": "\u611b" * 2_600}}})
    desk.done(asked(desk, variations="16"), count=16, **{f"provenance{number}": made for number in range(1, 17)})
    assert desk.stream.stat().st_size > 240_000
    desk.host.tick(60)
    assert len(item.takes) == 17
    assert not desk.open_jobs()


def test_a_damaged_note_of_one_job_costs_no_other(desk):
    _, item = desk.simple()
    good, bad = asked(desk), "20260101-000000-0000ABCD"
    desk.open_jobs()[bad] = "x"
    desk.press("Collect finished")
    desk.host.tick(30)
    desk.say(job=bad, kind="progress", text="half")
    desk.done(good)
    desk.host.tick(60)
    assert len(item.takes) == 2
