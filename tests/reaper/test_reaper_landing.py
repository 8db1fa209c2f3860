"""From a done job to takes in the project: one undo step, whatever happened to the items meanwhile."""

import pytest
from fakereaper.desk import Desk, tone
from fakereaper.host import FUNCTIONS, Breach
from fakereaper.model import Item, Project, Track
from reaperjobs import asked, names

FADES = ("D_FADEINLEN", "D_FADEOUTLEN", "D_FADEINLEN_AUTO", "D_FADEOUTLEN_AUTO")


def test_a_take_lands_on_the_item_in_one_undo_step(desk):
    _, item = desk.simple()
    job, before = asked(desk), desk.project.dump()
    desk.say(job=job, kind="accepted", text="queued")
    desk.say(job=job, kind="progress", text="diffusing 3 of 8, about 4 s")
    desk.done(job)
    assert names(item) == ["keys.wav", "punchin repaint 1"]
    assert item.active == 1
    take = item.takes[1]
    assert take.source.path.endswith(f"take-{job}-1-1.wav")
    assert take.ext["P_EXT:punchin"] == '{"seed": 1}'
    assert (item.start_s, item.end_s) == (0.0, 8.0)
    assert desk.project.undo_log == ["punchin: Keys bar 2"]
    assert desk.open_jobs() == {}
    assert any("diffusing 3 of 8" in text for text in desk.host.help)
    desk.project.undo()
    assert desk.project.dump() == before


def test_several_takes_are_one_step_and_the_first_is_active(desk):
    _, item = desk.simple()
    desk.done(asked(desk, variations="3"), count=3)
    assert names(item)[1:] == ["punchin repaint 1", "punchin repaint 2", "punchin repaint 3"]
    assert item.active == 1
    assert len(desk.project.undo_log) == 1


def test_the_new_take_has_the_old_ones_gain_pan_and_channels(desk):
    _, item = desk.simple()
    item.takes[0].values |= {"D_VOL": 0.5, "D_PAN": -0.25, "I_CHANMODE": 2.0}
    desk.done(asked(desk))
    got = item.takes[1].values
    assert (got["D_VOL"], got["D_PAN"], got["I_CHANMODE"]) == (0.5, -0.25, 2.0)


def test_a_file_that_begins_before_the_item_is_offset(desk):
    """Takes keep the source's own frames, so their first one may lie a part of a frame before the item."""
    _, item = desk.simple(position_s=1.0)
    desk.done(asked(desk), position_s=0.999990)
    assert item.takes[1].values["D_STARTOFFS"] == pytest.approx(10e-6, abs=1e-9)


def test_a_moved_item_is_followed(desk):
    _, item = desk.simple()
    job = asked(desk)
    item.values["D_POSITION"] = 20.0
    desk.done(job)
    assert names(item) == ["keys.wav", "punchin repaint 1"]
    assert item.takes[1].values["D_STARTOFFS"] == 0.0


def test_a_take_lands_on_its_item_beside_one_that_crossfades_into_it(desk):
    """Pieces of one recording, each split at a bar line with REAPER's usual overlap."""
    track, item = desk.simple(position_s=2.0, length_s=2.0)
    left = track.add_item(0.0, 2.01, item.takes[0].source.path)
    track.items.reverse()
    desk.done(asked(desk), position_s=2.0, length_s=2.0, item=item.guid)
    assert names(item) == ["keys.wav", "punchin repaint 1"]
    assert len(left.takes) == len(desk.project.tracks) == 1


def test_a_take_lands_on_an_item_that_ends_a_hair_before_its_bar(desk):
    _, item = desk.simple(length_s=3.9995)
    desk.done(asked(desk), length_s=3.9995, item=item.guid)
    assert names(item) == ["keys.wav", "punchin repaint 1"]


def test_a_take_of_captured_sound_is_not_sent_through_its_channel_mode_again(desk):
    _, item = desk.simple()
    item.takes[0].values |= {"D_PITCH": 1.0, "I_CHANMODE": 1.0, "D_PAN": -0.25, "D_PANLAW": 0.7}
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(60)
    desk.done(desk.request()["id"])
    got = item.takes[1].values
    assert (got["I_CHANMODE"], got["D_PAN"], got["D_PANLAW"]) == (0.0, -0.25, 0.7)


def test_nor_in_the_right_half_of_an_item_that_was_split_meanwhile(desk):
    _, item = desk.simple()
    item.takes[0].values |= {"D_PITCH": 1.0, "I_CHANMODE": 1.0}
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(60)
    with desk.editing() as edit:
        right = edit("SplitMediaItem", item, 1.0)
    desk.done(desk.request()["id"])
    assert right.takes[1].values["I_CHANMODE"] == 0.0


def test_a_landing_that_fails_half_way_leaves_splits_as_they_were(desk, monkeypatch):
    desk.simple()
    job = asked(desk, land="split")
    monkeypatch.setitem(FUNCTIONS, "AddTakeToMediaItem", lambda script, item: script.host.breach("no takes today"))
    with pytest.raises(Breach):
        desk.done(job, how="split", position_s=1.97, length_s=2.03)
    assert desk.host.crossfades_splits


def test_an_item_moved_to_another_track_is_followed(desk):
    track, item = desk.simple()
    job = asked(desk)
    other = desk.project.add_track("Other")
    track.items.remove(item)
    other.items.append(item)
    item.track = other
    desk.done(job)
    assert len(item.takes) == 2


def test_a_trimmed_item_is_followed_and_the_take_is_offset_as_much(desk):
    _, item = desk.simple()
    job = asked(desk)
    item.values |= {"D_POSITION": 1.5, "D_LENGTH": 4.0}
    item.takes[0].values["D_STARTOFFS"] = 1.5
    desk.done(job)
    assert item.takes[1].values["D_STARTOFFS"] == pytest.approx(1.5)


def test_an_item_split_before_the_region_is_followed_into_its_right_half(desk):
    _track, item = desk.simple()
    job = asked(desk)
    with desk.editing() as edit:
        right = edit("SplitMediaItem", item, 1.0)
    desk.done(job)
    assert len(item.takes) == 1
    assert names(right) == ["keys.wav", "punchin repaint 1"]
    assert right.takes[1].values["D_STARTOFFS"] == pytest.approx(1.0)
    assert len(desk.project.tracks) == 1


def test_the_same_file_elsewhere_is_not_taken_for_the_item(desk):
    """A looped sample stands on a track many times; only a piece that did not move apart is the item's."""
    track, item = desk.simple()
    track.add_item(8.0, 8.0, item.takes[0].source.path)
    job = asked(desk)
    track.items.remove(item)
    item.alive = False
    desk.done(job)
    assert [len(each.takes) for each in track.items] == [1]
    assert len(desk.project.tracks) == 2


@pytest.mark.parametrize("change", ["deleted", "split inside", "trimmed away", "other rate", "locked", "longer"])
def test_what_cannot_be_followed_lands_on_a_new_track(desk, change):
    track, item = desk.simple()
    job = asked(desk)
    if change == "deleted":
        track.items.remove(item)
        item.alive = False
    elif change == "split inside":
        with desk.editing() as edit:
            edit("SplitMediaItem", item, 3.0)
    elif change == "trimmed away":
        item.values["D_LENGTH"] = 3.0
    elif change == "other rate":
        item.takes[0].values["D_PLAYRATE"] = 1.5
    elif change == "locked":
        item.values["C_LOCK"] = 1.0
    else:
        item.values["D_LENGTH"] = 9.0
    desk.done(job)
    assert all(len(each.takes) == 1 for each in track.items)
    assert [each.name for each in desk.project.tracks] == ["Keys", "Keys bar 2"]
    new = desk.project.tracks[1].items[0]
    assert (new.start_s, new.end_s) == (2.0, 4.0)
    assert new.takes[0].values["D_STARTOFFS"] == 2.0
    assert "changed meanwhile" in desk.host.console[-1]
    assert len(desk.project.undo_log) == 1 + change.startswith("split")


def test_a_deleted_track_still_gets_its_take(desk):
    track, item = desk.simple()
    job = asked(desk)
    desk.project.tracks.remove(track)
    track.alive = item.alive = False
    desk.done(job)
    assert len(desk.project.tracks) == 1
    assert len(desk.project.tracks[0].items) == 1


def test_split_landing_mutes_what_it_replaces_and_deletes_nothing(desk):
    track, _item = desk.simple()
    job, before = asked(desk, land="split"), desk.project.dump()
    desk.done(job, how="split", position_s=1.97, length_s=2.03)
    spans = [(each.start_s, round(each.end_s, 9), each.values["B_MUTE"], len(each.takes)) for each in track.items]
    assert sorted(spans) == [(0.0, 1.97, 0.0, 1), (1.97, 4.0, 0.0, 1), (1.97, 4.0, 1.0, 1), (4.0, 8.0, 0.0, 1)]
    new = track.items[-1]
    assert names(new) == ["punchin repaint 1"]
    assert (new.values["D_FADEINLEN"], new.values["D_FADEOUTLEN"]) == (0.0, 0.0)
    assert len(desk.project.undo_log) == 1
    desk.project.undo()
    assert desk.project.dump() == before


def test_split_files_may_reach_further_than_their_item(desk):
    """Handles: the user can pull the new item's edges out."""
    track, _ = desk.simple()
    job = asked(desk, land="split")
    desk.done(job, how="split", position_s=1.5, length_s=3.0, item_s=1.97, item_length_s=2.03)
    new = track.items[-1]
    assert (new.start_s, new.end_s) == (1.97, 4.0)
    assert new.takes[0].values["D_STARTOFFS"] == pytest.approx(0.47)


def test_split_landing_follows_items_that_moved_together(desk):
    track, item = desk.simple()
    second = track.add_item(8.0, 4.0, item.takes[0].source.path)
    desk.project.time_selection = (7.0, 9.0)
    job = asked(desk)
    for each in (item, second):
        each.values["D_POSITION"] += 10.0
    desk.done(job, how="split", position_s=6.97, length_s=2.03)
    assert track.items[-1].start_s == pytest.approx(16.97)
    assert len(desk.project.tracks) == 1


def test_split_landing_goes_to_a_new_track_when_items_moved_apart(desk):
    track, item = desk.simple()
    second = track.add_item(8.0, 4.0, item.takes[0].source.path)
    desk.project.time_selection = (7.0, 9.0)
    job = asked(desk)
    second.values["D_POSITION"] += 1.0
    desk.done(job, how="split", position_s=6.97, length_s=2.03)
    assert [each.values["B_MUTE"] for each in track.items] == [0.0, 0.0]
    assert len(desk.project.tracks) == 2


def test_a_split_is_a_cut_though_splits_overlap_and_fade(desk):
    track, _item = desk.simple()
    desk.host.split_overlap_s = (0.006, 0.004)
    desk.done(asked(desk, land="split"), how="split", position_s=1.97, length_s=2.03)
    old = sorted(track.items[:-1], key=lambda each: each.start_s)
    assert [(i.start_s, round(i.end_s, 9), i.values["B_MUTE"]) for i in old] == [
        (0.0, 1.97, 0.0), (1.97, 4.0, 1.0), (4.0, 8.0, 0.0)
    ]  # fmt: skip
    assert [round(i.takes[0].values["D_STARTOFFS"], 9) for i in old] == [0.0, 1.97, 4.0]
    assert desk.host.crossfades_splits, "the user's preference is as it was"
    assert {i.values[name] for i in (old[0], old[2]) for name in FADES} == {0.0, -1.0}


def test_a_split_mutes_what_ends_where_its_region_begins(desk):
    """The new item holds the end of the one before too, in its first fade: both would play at once."""
    track, item = desk.simple(position_s=2.0, length_s=2.0)
    before = track.add_item(0.0, 2.0, item.takes[0].source.path)
    desk.project.time_selection = (2.0, 4.0)
    desk.done(asked(desk, land="split"), how="split", position_s=1.945, length_s=2.055)
    assert [(i.start_s, round(i.end_s, 9), i.values["B_MUTE"]) for i in track.items] == [
        (2.0, 4.0, 1.0), (0.0, 1.945, 0.0), (1.945, 2.0, 1.0), (1.945, 4.0, 0.0)
    ]  # fmt: skip
    assert before.values["D_FADEOUTLEN_AUTO"] == -1.0


def test_a_split_mutes_what_begins_inside_a_fade_that_it_is_cut_behind(desk):
    track, item = desk.simple(length_s=4.5, D_FADEOUTLEN=1.0)
    after = track.add_item(4.2, 3.8, item.takes[0].source.path, D_FADEINLEN=0.3)
    job = asked(desk, land="split")
    desk.done(job, how="split", position_s=1.97, length_s=2.53, item_s=1.97, item_length_s=2.53)
    assert (after.start_s, after.end_s, after.values["B_MUTE"]) == (4.2, 4.5, 1.0)
    assert [round(i.start_s, 9) for i in track.items if not i.values["B_MUTE"]] == [0.0, 4.5, 1.97]


@pytest.mark.parametrize("land", ["split", "lane"])
def test_a_neighbour_that_begins_between_two_frames_keeps_its_fade(seven, land):
    """Frames of the new item's file lie a little beside the neighbour's edge."""
    track, item = seven.simple(length_s=3.99999)
    track.add_item(3.99999, 4.0, item.takes[0].source.path, D_FADEINLEN=0.5)
    job = asked(seven, land=land)
    seven.done(job, how=land, position_s=1.97, length_s=2.03, item_s=1.97, item_length_s=2.03)
    behind = [i for i in track.items if round(i.start_s, 5) == 3.99999]
    assert {(i.values["B_MUTE"], i.values["D_FADEINLEN"], round(i.end_s, 5)) for i in behind} == {(0.0, 0.5, 7.99999)}
    assert len(behind) == 1 + (land == "lane")


def test_a_split_where_nothing_was_lies_in_a_lane_that_plays(seven):
    track, _ = seven.simple()
    track.values |= {"I_FREEMODE": 2.0, "I_NUMFIXEDLANES": 3.0, "C_LANEPLAYS:0": 0.0, "C_LANEPLAYS:1": 1.0}
    seven.project.time_selection = (10.0, 12.0)
    seven.done(asked(seven), how="split", position_s=9.97, length_s=2.03)
    assert track.items[-1].values["I_FIXEDLANE"] == 1.0
    assert "landed where nothing was" in seven.host.console[-1]


@pytest.mark.parametrize("land", ["split", "lane", "track"])
def test_a_new_item_moves_with_the_group_of_what_it_replaces(seven, land):
    seven.simple(I_GROUPID=3.0)
    seven.done(asked(seven, land=land), how=land, position_s=1.97, length_s=2.03)
    new = next(item for item in seven.project.items() if names(item) == ["punchin repaint 1"])
    assert new.values["I_GROUPID"] == 3.0


def test_a_lane_is_cut_though_splits_overlap_and_fade(seven):
    track, _item = seven.simple()
    seven.host.split_overlap_s = (0.01, 0.0)
    seven.done(asked(seven, land="lane"), how="lane", position_s=1.5, length_s=3.0, item_s=1.97, item_length_s=2.03)
    lane = sorted((i for i in track.items if i.values["I_FIXEDLANE"]), key=lambda each: each.start_s)
    assert [(i.start_s, round(i.end_s, 9), i.values["B_MUTE"]) for i in lane] == [
        (0.0, 1.97, 0.0), (1.97, 4.0, 1.0), (1.97, 4.0, 0.0), (4.0, 8.0, 0.0)
    ]  # fmt: skip
    assert {i.values[name] for i in lane for name in FADES} == {0.0, -1.0}


def test_track_landing_follows_an_item_that_moved(desk):
    track, item = desk.simple()
    job = asked(desk, land="track")
    item.values["D_POSITION"] = 10.0
    desk.done(job, how="track", position_s=1.97, length_s=2.03)
    assert [(i.start_s, round(i.end_s, 9), i.values["B_MUTE"]) for i in track.items] == [
        (10.0, 11.97, 0.0), (11.97, 14.0, 1.0), (14.0, 18.0, 0.0)
    ]  # fmt: skip
    new = desk.project.tracks[1].items[0]
    assert (new.start_s, round(new.end_s, 9), new.takes[0].values["D_STARTOFFS"]) == (11.97, 14.0, 0.0)


def test_track_landing_mutes_the_original_on_a_new_track(desk):
    track, _ = desk.simple()
    desk.done(asked(desk, land="track"), how="track", position_s=1.97, length_s=2.03)
    assert [each.values["B_MUTE"] for each in track.items] == [0.0, 1.0, 0.0]
    new = desk.project.tracks[1].items[0]
    assert (new.start_s, new.end_s) == (1.97, 4.0)


def test_lane_landing_plays_the_whole_track_on_a_new_lane(seven):
    track, item = seven.simple()
    before = seven.project.dump()
    seven.done(asked(seven, land="lane"), how="lane", position_s=1.5, length_s=3.0, item_s=1.97, item_length_s=2.03)
    assert (track.values["I_FREEMODE"], track.values["I_NUMFIXEDLANES"]) == (2.0, 2.0)
    assert (track.values["C_LANEPLAYS:1"], track.strings["P_LANENAME:1"]) == (1.0, "punchin repaint 1")
    played = [i for i in track.items if i.values["I_FIXEDLANE"] and not i.values["B_MUTE"]]
    lane = sorted((i.start_s, round(i.end_s, 9), i.takes[0].name) for i in played)
    assert lane == [(0.0, 1.97, "keys.wav"), (1.97, 4.0, "punchin repaint 1"), (4.0, 8.0, "keys.wav")]
    assert (item.start_s, item.end_s, item.values["B_MUTE"]) == (0.0, 8.0, 0.0)
    guids = [i.guid for i in track.items] + [take.guid for i in track.items for take in i.takes]
    assert len(set(guids)) == len(guids)
    seven.project.undo()
    assert seven.project.dump() == before


def test_the_next_lane_is_made_of_what_plays(seven):
    track, _item = seven.simple()
    seven.done(asked(seven, land="lane"), how="lane", position_s=1.97, length_s=2.03)
    (seven.spool / "inbox" / f"{seven.request()['id']}.json").unlink()
    for each in track.items:
        each.values["C_LANEPLAYS"] = each.values["I_FIXEDLANE"]
    seven.project.time_selection = (5.0, 6.0)
    seven.done(asked(seven, land="lane"), how="lane", position_s=4.97, length_s=1.03)
    played = [i for i in track.items if i.values["I_FIXEDLANE"] == 2 and not i.values["B_MUTE"]]
    lane = sorted((i.start_s, round(i.end_s, 9)) for i in played)
    assert lane == [(0.0, 1.97), (1.97, 4.0), (4.0, 4.97), (4.97, 6.0), (6.0, 8.0)]


def test_a_variation_of_a_lane_hears_the_original(seven):
    track, _item = seven.simple()
    seven.done(asked(seven, land="lane"), how="lane", position_s=1.97, length_s=2.03)
    (seven.spool / "inbox" / f"{seven.request()['id']}.json").unlink()
    for each in track.items:
        each.values["C_LANEPLAYS"] = each.values["I_FIXEDLANE"]
        each.selected = names(each) == ["punchin repaint 1"]
    seven.press("New variation")
    heard = [(i["take"]["name"], i["position_s"], i["length_s"]) for i in seven.request()["tracks"][0]["items"]]
    assert sorted((name, at_s, round(at_s + length_s, 9)) for name, at_s, length_s in heard) == [
        ("keys.wav", 0.0, 1.97), ("keys.wav", 1.97, 4.0), ("keys.wav", 4.0, 8.0)
    ]  # fmt: skip


def test_lanes_are_refused_where_reaper_has_none(tmp_path):
    desk = Desk(tmp_path, lua="5.3", version="6.24")
    desk.simple()
    desk.remember_words(land="lane")
    desk.press("Repaint selection (last preset)")
    assert "Fixed lanes need REAPER 7" in desk.host.messages[0]


def test_lanes_are_refused_on_a_track_of_free_items(seven):
    track, _ = seven.simple()
    track.values["I_FREEMODE"] = 1.0
    seven.remember_words(land="lane")
    seven.press("Repaint selection (last preset)")
    assert 'Track "Keys" positions its items freely, so it has no lanes' in seven.host.messages[0]
    assert seven.requests() == []


def test_a_track_that_got_free_items_meanwhile_keeps_them(seven):
    track, item = seven.simple()
    job = asked(seven, land="lane")
    track.values["I_FREEMODE"] = 1.0
    seven.done(job, how="lane")
    assert track.values["I_FREEMODE"] == 1.0
    assert [len(track.items), len(item.takes)] == [1, 1]
    assert [each.name for each in seven.project.tracks] == ["Keys", "Keys bar 2"]


def test_what_was_heard_through_effects_lands_on_a_new_track_and_mutes_the_original(desk):
    track, _ = desk.simple()
    job = asked(desk, post_fx="yes")
    desk.done(job, how="track", position_s=1.5, length_s=3.0, item_s=1.97, item_length_s=2.03)
    assert [(i.start_s, i.values["B_MUTE"]) for i in track.items] == [(0.0, 0.0), (1.97, 1.0), (4.0, 0.0)]
    new = desk.project.tracks[1].items[0]
    assert (new.start_s, round(new.end_s, 9)) == (1.97, 4.0)


def test_a_layer_lands_on_a_track_of_its_own_and_mutes_nothing(desk):
    track, _item = desk.simple()
    desk.remember_words("layer", instrument="strings")
    desk.host.inputs.append({})
    desk.press("Layer on new track (ask)")
    desk.host.tick(30)
    desk.done(desk.request()["id"], how="track", position_s=2.0, length_s=2.0)
    assert [each.name for each in desk.project.tracks] == ["Keys", "strings bar 2"]
    assert [each.values["B_MUTE"] for each in track.items] == [0.0]
    new = desk.project.tracks[1].items[0]
    assert (new.start_s, new.end_s, new.takes[0].values["D_STARTOFFS"]) == (2.0, 4.0, 0.0)


def test_variations_of_a_take_hear_the_original_and_land_beside_it(desk):
    _, item = desk.simple()
    desk.done(asked(desk))
    first = desk.request()
    (desk.spool / "inbox" / f"{first['id']}.json").unlink()
    item.selected = True
    desk.press("New variation")
    desk.host.tick(20)
    again = desk.request()
    assert again["regions"] == first["regions"]
    assert again["tracks"][0]["items"][0]["source"] == first["tracks"][0]["items"][0]["source"]
    assert again["params"]["prompt"] == "warm piano"
    assert again["params"]["seed"] != first["params"]["seed"]
    desk.done(again["id"])
    assert len(item.takes) == 3
    assert item.active == 2


def test_a_variation_lands_in_time_whichever_take_is_active_by_then(desk):
    """The item was trimmed since, and the user compares with the original while the variation is made."""
    _, item = desk.simple(position_s=1.5, length_s=6.5)
    desk.done(asked(desk), position_s=0.5, length_s=7.5)
    (desk.spool / "inbox" / f"{desk.request()['id']}.json").unlink()
    first = item.takes[1]
    item.selected, item.values["D_LENGTH"] = True, 4.0
    desk.press("New variation")
    desk.host.tick(20)
    item.active = 0
    desk.done(desk.request()["id"], position_s=0.5, length_s=7.5)
    assert len(desk.project.tracks) == 1
    assert item.takes[2].values["D_STARTOFFS"] == pytest.approx(first.values["D_STARTOFFS"])


def test_a_variation_after_a_change_of_tempo_is_of_the_same_bars(desk):
    """With REAPER's usual timebase all takes of an item play faster then, and the item is shorter."""
    _, item = desk.simple(position_s=1.0, length_s=7.0)
    desk.done(asked(desk), position_s=0.5, length_s=7.5)
    (desk.spool / "inbox" / f"{desk.request()['id']}.json").unlink()
    item.values |= {"D_POSITION": 0.5, "D_LENGTH": 3.5}
    for take in item.takes:
        take.values["D_PLAYRATE"] = 2.0
    item.selected = True
    desk.press("New variation")
    desk.host.tick(60)
    again = desk.request()
    assert [(region["start_s"], region["end_s"]) for region in again["regions"]] == [(1.0, 2.0)]
    desk.done(again["id"], position_s=0.25, length_s=3.75)
    assert item.takes[2].values["D_STARTOFFS"] == pytest.approx(0.25)


def test_a_variation_of_a_take_that_was_discarded_lands_on_a_new_track(desk):
    _, item = desk.simple()
    desk.done(asked(desk))
    (desk.spool / "inbox" / f"{desk.request()['id']}.json").unlink()
    item.selected = True
    desk.press("New variation")
    desk.host.tick(20)
    item.takes.pop().alive, item.active = False, 0
    desk.done(desk.request()["id"])
    assert names(item) == ["keys.wav"]
    assert len(desk.project.tracks) == 2


def test_variations_of_a_split_item_hear_what_is_muted_below(desk):
    track, _item = desk.simple()
    desk.done(asked(desk, land="split"), how="split", position_s=1.97, length_s=2.03)
    (desk.spool / "inbox" / f"{desk.request()['id']}.json").unlink()
    new = track.items[-1]
    new.selected = True
    desk.host.inputs.append({"Number of takes:": "2"})
    desk.press("More variations (ask)")
    desk.host.tick(20)
    again = desk.request()
    assert again["regions"][0]["start_s"] == pytest.approx(2.0)
    assert again["params"]["variations"] == 2
    spans = sorted((i["position_s"], round(i["length_s"], 6)) for i in again["tracks"][0]["items"])
    assert spans == [(0.0, 1.97), (1.97, 2.03), (4.0, 4.0)]
    desk.done(again["id"], position_s=1.97, length_s=2.03, count=2)
    assert len(new.takes) == 3


def test_new_tracks_keep_to_the_folder_of_the_old_one(desk):
    """Its effects and its fader are on them too; what comes after the folder stays out of it."""
    track, _ = desk.simple()
    for depth, name in ((1.0, "Band"), (1.0, "Rhythm")):
        desk.project.tracks.insert(0, Track(desk.project, name))
        desk.project.tracks[0].values["I_FOLDERDEPTH"] = depth
    track.values["I_FOLDERDEPTH"] = -2.0
    desk.project.add_track("After")
    track.razor = '1 2 "" 5 6 ""'
    job, before = asked(desk, land="track"), desk.project.dump()
    spans = (0.97, 1.03), (4.97, 1.03)
    desk.all_done(job, [desk.landed(job, n, "track", *span) for n, span in enumerate(spans, start=1)])
    depths = [(each.name, each.values["I_FOLDERDEPTH"]) for each in desk.project.tracks]
    assert depths == [
        ("Rhythm", 1.0), ("Band", 1.0), ("Keys", 0.0), ("Keys bar 1", 0.0), ("Keys bar 3", -2.0), ("After", 0.0)
    ]  # fmt: skip
    desk.project.undo()
    assert desk.project.dump() == before


def two_tracks(desk):
    """An item on each, both selected; the items."""
    _, item = desk.simple()
    bass = desk.project.add_track("Bass", selected=True)
    return item, bass.add_item(0.0, 8.0, tone(desk.media / "bass.wav"))


def test_several_tracks_land_in_one_undo_step(desk):
    item, bass = two_tracks(desk)
    job, before = asked(desk, variations="2"), desk.project.dump()
    desk.all_done(job, [desk.landed(job, 1, count=2), desk.landed(job, 2, count=2)], count=2)
    for n, each in enumerate((item, bass), start=1):
        assert [take.source.path[-7:] for take in each.takes[1:]] == [f"{n}-1.wav", f"{n}-2.wav"]
        assert each.active == 1
    assert desk.project.undo_log == ["punchin: Keys bar 2 and 1 more"]
    assert desk.open_jobs() == {}
    desk.project.undo()
    assert desk.project.dump() == before


def test_one_whose_item_is_gone_lands_on_a_new_track_the_other_where_it_belongs(desk):
    item, bass = two_tracks(desk)
    job = asked(desk)
    bass.track.items.remove(bass)
    desk.all_done(job, [desk.landed(job, 1), desk.landed(job, 2)])
    assert names(item)[1:] == ["punchin repaint 1"]
    (new,) = desk.project.tracks[-1].items
    assert (desk.project.tracks[-1].name, new.start_s, new.end_s) == ("Bass bar 2", 2.0, 4.0)
    assert len(desk.project.undo_log) == 1
    assert "landed on a new track: the item was changed meanwhile" in desk.host.console[-1]


@pytest.mark.parametrize("trouble", ["damaged", "unreadable", "unknown region"])
def test_where_one_cannot_land_none_does(desk, trouble):
    item, bass = two_tracks(desk)
    job = asked(desk)
    bad = {"damaged": {"item_s": "x"}, "unreadable": {"file1": str(desk.media / "gone.wav")}}
    items = [desk.landed(job, 1), desk.landed(job, 2) | bad.get(trouble, {"regions": "7"})]
    desk.all_done(job, items)
    assert [len(each.takes) for each in (item, bass)] == [1, 1]
    assert desk.project.undo_log == []
    assert "cannot read" in desk.host.console[-1] or "damaged" in desk.host.console[-1]


def test_all_wait_where_one_needs_a_track_and_another_tab_is_in_front(desk):
    item, bass = two_tracks(desk)
    job = asked(desk)
    bass.track.items.remove(bass)
    desk.host.projects.insert(0, Project("/other.rpp"))
    desk.all_done(job, [desk.landed(job, 1), desk.landed(job, 2)])
    assert len(item.takes) == 1
    desk.host.projects.pop(0)
    desk.host.tick(10)
    assert len(item.takes) == 2


def test_regions_of_one_item_are_one_take_and_so_are_their_variations(desk):
    track, item = desk.simple()
    track.razor = '1 2 "" 5 6 ""'
    job = asked(desk)
    first = desk.request()
    (desk.spool / "inbox" / f"{job}.json").unlink()
    desk.all_done(job, [desk.landed(job, 1, position_s=-0.5, length_s=9.0, regions="1 2")])
    assert names(item) == ["keys.wav", "punchin repaint 1"]
    assert item.takes[1].values["D_STARTOFFS"] == 0.5
    item.selected = True
    desk.press("New variation")
    desk.host.tick(20)
    again = desk.request()
    assert [(r["start_s"], r["end_s"]) for r in again["regions"]] == [(1.0, 2.0), (5.0, 6.0)]
    assert again["tracks"] == first["tracks"]
    desk.all_done(again["id"], [desk.landed(again["id"], 1, regions="1 2")])
    assert [take.values["D_STARTOFFS"] for take in item.takes] == [0.0, 0.5, 0.0]
    assert item.active == 2


def test_two_regions_of_one_item_may_be_split_off(desk):
    track, _ = desk.simple()
    track.razor = '1 2 "" 5 6 ""'
    job, before = asked(desk, land="split"), desk.project.dump()
    spans = (0.97, 1.03), (4.97, 1.03)
    desk.all_done(job, [desk.landed(job, n, "split", *span) for n, span in enumerate(spans, start=1)])
    found = sorted((i.start_s, round(i.end_s, 9), i.values["B_MUTE"], i.takes[0].name) for i in track.items)
    assert found == [
        (0.0, 0.97, 0.0, "keys.wav"), (0.97, 2.0, 0.0, "punchin repaint 1"), (0.97, 2.0, 1.0, "keys.wav"),
        (2.0, 4.97, 0.0, "keys.wav"), (4.97, 6.0, 0.0, "punchin repaint 1"), (4.97, 6.0, 1.0, "keys.wav"),
        (6.0, 8.0, 0.0, "keys.wav"),
    ]  # fmt: skip
    assert len(desk.project.undo_log) == 1
    desk.project.undo()
    assert desk.project.dump() == before


def test_discard_others_keeps_the_users_own_takes_and_the_kept(desk):
    _, item = desk.simple()
    desk.done(asked(desk, variations="4"), count=4)
    item.selected = True
    item.active = 2
    desk.press("Keep take")
    desk.host.tick()
    item.active = 3
    desk.press("Discard other takes")
    desk.host.tick()
    assert names(item) == ["keys.wav", "punchin repaint 2", "punchin repaint 3"]
    assert item.takes[item.active].name == "punchin repaint 3"
    desk.press("Next take")
    assert item.active == 0


def test_discard_others_leaves_a_locked_item_alone_and_says_so(desk):
    _, item = desk.simple()
    desk.done(asked(desk, variations="2"), count=2)
    item.selected = True
    item.values["C_LOCK"] = 1.0
    before = desk.project.dump()
    desk.press("Discard other takes")
    assert desk.project.dump() == before
    assert "0 take(s) discarded; 1 item(s) are locked and keep theirs" in desk.host.console[-1]
    item.values["C_LOCK"] = 0.0
    desk.host.tick()
    desk.press("Discard other takes")
    assert "1 take(s) discarded" in desk.host.console[-1]
    assert len(item.takes) == 2


def test_a_discard_of_nothing_leaves_no_undo_step(desk):
    _, item = desk.simple()
    item.selected = True
    desk.press("Discard other takes")
    assert not desk.project.undo_log
    assert "0 take(s) discarded" in desk.host.console[-1]


def test_discard_others_leaves_the_take_that_plays(desk):
    """Between others: where the last one goes, REAPER plays the one before it by chance."""
    _, item = desk.simple()
    desk.done(asked(desk, variations="4"), count=4)
    item.selected, item.active = True, 2
    desk.press("Keep take")
    desk.host.tick()
    item.active, playing = 1, item.takes[1].name
    desk.press("Discard other takes")
    desk.host.tick()
    assert item.takes[item.active].name == playing


@pytest.mark.parametrize("change", [("C_LOCK", 1.0), ("D_LENGTH", 3.0)])
@pytest.mark.parametrize("land", ["split", "track"])
def test_what_was_locked_or_trimmed_meanwhile_is_neither_cut_nor_muted(desk, land, change):
    track, item = desk.simple()
    job = asked(desk, land=land)
    item.values[change[0]] = change[1]
    end_s = item.end_s
    desk.done(job, how=land, position_s=1.97, length_s=2.03, item_s=1.97, item_length_s=2.03)
    assert (item.start_s, item.end_s, item.values["B_MUTE"], len(track.items)) == (0.0, end_s, 0.0, 1)


def test_a_new_item_lies_between_milliseconds_and_has_none_of_the_users_default_fades(desk, monkeypatch):
    fades = {"D_FADEINLEN": 0.01, "D_FADEOUTLEN": 0.01, "D_FADEINLEN_AUTO": 0.005, "D_FADEOUTLEN_AUTO": 0.005}
    track, _ = desk.simple()
    job = asked(desk, land="split")
    monkeypatch.setattr(Item, "DEFAULTS", Item.DEFAULTS | fades | {"B_LOOPSRC": 1})
    desk.done(job, how="split", position_s=1.97031, length_s=2.02969)
    new = track.items[-1]
    assert new.start_s == 1.97031
    without = {"D_FADEINLEN": 0, "D_FADEOUTLEN": 0, "D_FADEINLEN_AUTO": -1, "D_FADEOUTLEN_AUTO": -1, "B_LOOPSRC": 0}
    assert {name: new.values[name] for name in without} == without
