"""What items sound like, against the same sum written out by hand in numpy."""

import os
import sys

import numpy as np
import pytest
from rppmaker import item, media, noise, project, source_of, track

from punchin.protocol.errors import Refused
from punchin.session.document import LandingTake, land, open_session

RATE = 48_000


def heard(path, start_s, end_s, name="Keys", region=(2.0, 4.0)):
    session = open_session(path)
    target = session.target(name, session.region(time=region))
    return target.heard(start_s, end_s), target


def frames(*seconds):
    return [round(s * RATE) for s in seconds]


def test_plain_items_are_their_samples_bit_for_bit(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(2, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0, 8, r"Media\a.wav")))
    out, target = heard(path, 1, 5)
    assert np.array_equal(out, a[:, RATE : 5 * RATE].astype(np.float32))
    assert (target.rate_hz, target.channels, target.subtype, target.notes) == (RATE, 2, "PCM_24", ())


def test_offset_volume_pan_and_polarity(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(1, 5, "Media/a.wav", SOFFS="0.5", VOLPAN="0.5 0.25 -0.8 -1")))
    out, _ = heard(path, 0, 7)
    wanted = np.zeros((2, 7 * RATE))
    wanted[:, RATE : 6 * RATE] = a[0, RATE // 2 : RATE // 2 + 5 * RATE] * 0.5 * -0.8
    wanted[0] *= 0.75  # panned a quarter to the right: the left is lowered
    np.testing.assert_allclose(out, wanted, atol=1e-7)


@pytest.mark.parametrize(
    ("mode", "mix"),
    [
        (0, lambda a: a),
        (1, lambda a: a[::-1]),
        (2, lambda a: np.stack([a.mean(axis=0)] * 2)),
        (3, lambda a: a[[0, 0]]),
        (4, lambda a: a[[1, 1]]),
    ],
)
def test_channel_modes(tmp_path, mode, mix):
    a = media(tmp_path, "Media/a.wav", noise(2, 5 * RATE))
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", CHANMODE=mode)))
    np.testing.assert_allclose(heard(path, 0, 5)[0], mix(a), atol=1e-7)


def test_linear_fades_and_the_sum_of_a_crossfade(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE, 1))
    b = media(tmp_path, "Media/b.wav", noise(1, 5 * RATE, 2))
    path = project(
        tmp_path,
        track(
            "Keys",
            item(0, 3, "Media/a.wav", FADEIN="0 0.5 0 0 0 0 0", FADEOUT="0 0.01 1 0 0 0 0"),  # automatic length wins
            item(2, 3, "Media/b.wav", FADEIN="0 0.01 1 0 0 0 0"),
        ),
    )
    t = np.arange(5 * RATE) / RATE
    wanted = np.zeros(5 * RATE)
    wanted[: 3 * RATE] += a[0, : 3 * RATE] * np.minimum(t / 0.5, 1)[: 3 * RATE] * np.minimum(3 - t, 1)[: 3 * RATE]
    wanted[2 * RATE :] += b[0, : 3 * RATE] * np.minimum(t - 2, 1)[2 * RATE :]
    out, target = heard(path, 0, 5)
    np.testing.assert_allclose(out, np.stack([wanted] * 2), atol=1e-6)
    assert target.notes == ()


# Second and third control point of the curve, by shape and bend: as Cockos published them.
DRAWN = {
    (1, 0): (0.25, 0.5, 0.625, 1.0),
    (5, 0): (0.375, 0.0, 0.625, 1.0),
    (6, 0): (0.875, 0.0, 0.125, 1.0),
    (7, 0): (0.25, 0.375, 0.625, 1.0),
    (0, 1): (0.5, 0.0, 0.75, 0.0),
    (3, -1): (0.25, 1.0, 0.5, 1.0),
    (4, 1): (0.5, 0.0, 0.75, 0.0),
    (2, -1): (0.25, 0.5, 0.625, 1.0),
    (2, 0.5): (0.4375, 0.25, 0.625, 0.5),
}


def drawn(points, x):
    """The height of a cubic from (0, 0) to (1, 1) at x, by the roots of its polynomial."""
    x1, y1, x2, y2 = points
    roots = np.roots([3 * x1 - 3 * x2 + 1, 3 * x2 - 6 * x1, 3 * x1, -x])
    u = next(r.real for r in roots if abs(r.imag) < 1e-9 and -1e-9 <= r.real <= 1 + 1e-9)
    return 3 * (1 - u) ** 2 * u * y1 + 3 * (1 - u) * u * u * y2 + u**3


@pytest.mark.parametrize(("shape", "bend"), DRAWN)
def test_curved_fades_are_the_ones_reaper_draws_and_are_noted(tmp_path, shape, bend):
    media(tmp_path, "Media/a.wav", np.full((1, 6 * RATE), 0.5), subtype="FLOAT")
    fades = {"FADEIN": f"{shape} 2 0 {shape} 0 {bend} 0", "FADEOUT": f"{shape} 2 0 {shape} 0 {-bend} 0"}
    path = project(tmp_path, track("Keys", item(0, 6, "Media/a.wav", **fades)))
    out, target = heard(path, 0, 6, region=(1.0, 5.0))
    for x in (0.05, 0.3, 0.5, 0.8, 0.97):
        at = round(x * 2 * RATE)
        assert out[0, at] / 0.5 == pytest.approx(drawn(DRAWN[shape, bend], at / (2 * RATE)), abs=2e-6)
        assert out[0, 6 * RATE - at] / 0.5 == pytest.approx(out[0, at] / 0.5, abs=2e-6)  # the same, from the end
    assert [f"has shape {shape}" in note for note in target.notes] == [True, True]


@pytest.mark.parametrize("shape", [0, 2, 3, 4])
def test_straight_fades_are_exact_whatever_their_name(tmp_path, shape):
    media(tmp_path, "Media/a.wav", np.full((1, 5 * RATE), 0.5))
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", FADEIN=f"{shape} 3 0 {shape} 0 0 0")))
    out, target = heard(path, 0, 5)
    np.testing.assert_allclose(out[0, : 3 * RATE], 0.5 * np.arange(3 * RATE) / (3 * RATE), atol=1e-7)
    assert target.notes == ()


def test_loops_wrap_and_unlooped_items_fall_silent(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, RATE))
    looped = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", SOFFS="0.25")), name="l.rpp")
    np.testing.assert_allclose(heard(looped, 0, 5)[0][0], np.tile(a[0], 6)[RATE // 4 :][: 5 * RATE], atol=1e-7)
    once = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", SOFFS="0.25", LOOP=0)), name="o.rpp")
    out = heard(once, 0, 5)[0]
    assert not out[:, 3 * RATE // 4 :].any()
    np.testing.assert_allclose(out[0, : 3 * RATE // 4], a[0, RATE // 4 :], atol=1e-7)


def test_sections_play_their_part_and_wrap_within_it(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 3 * RATE))
    section = (
        "      <SOURCE SECTION\n        LENGTH 1\n        STARTPOS 0.5\n        OVERLAP 0.01\n"
        '        <SOURCE WAVE\n          FILE "Media/a.wav"\n        >\n      >\n'
    )
    path = project(tmp_path, track("Keys", item(0, 5, section)))
    part = a[0, RATE // 2 : RATE // 2 + RATE]
    np.testing.assert_allclose(heard(path, 0, 5)[0][0], np.tile(part, 5), atol=1e-7)


def test_playrate_resamples_by_the_ratio_of_a_sine(tmp_path):
    t = np.arange(10 * RATE) / RATE
    media(tmp_path, "Media/a.wav", 0.5 * np.sin(2 * np.pi * 440 * t)[None], subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", PLAYRATE="1.5 0 0 -1 0 0.0025")))
    out, target = heard(path, 0, 5)
    middle = slice(RATE // 10, 5 * RATE - RATE // 10)
    wanted = 0.5 * np.sin(2 * np.pi * 660 * t)[: 5 * RATE]
    np.testing.assert_allclose(out[0, middle], wanted[middle], atol=1e-5)
    assert target.notes == ("item 1 plays at rate 1.5; it is resampled",)


def test_neighbours_of_another_rate_keep_their_time(tmp_path):
    t = np.arange(10 * 44_100) / 44_100
    media(tmp_path, "Media/a.wav", noise(1, 4 * RATE, level=0), subtype="FLOAT")
    media(tmp_path, "Media/b.wav", 0.5 * np.sin(2 * np.pi * 300 * t)[None], rate_hz=44_100, subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(0, 4, "Media/a.wav"), item(4, 4, "Media/b.wav", SOFFS="0.1")))
    out, target = heard(path, 0, 8)
    assert target.rate_hz == RATE
    middle = np.arange(round(4.1 * RATE), round(7.9 * RATE))
    wanted = 0.5 * np.sin(2 * np.pi * 300 * (middle / RATE - 4 + 0.1))
    assert np.abs(out[0, middle] - wanted).max() < 0.5 * 2 * np.pi * 300 / RATE / 2 + 1e-3  # half a frame


def test_an_item_between_two_frames_is_heard_on_its_own_frames(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 8 * RATE))
    path = project(tmp_path, track("Keys", item(0.5 + 0.3 / RATE, 7, "Media/a.wav", SOFFS=str(100.4 / RATE))))
    out, target = heard(path, 1, 5)
    at = target.frame_at(1)
    assert np.array_equal(out[0], a[0, 100 + at : 100 + at + 4 * RATE].astype(np.float32))
    assert target.origin_s == pytest.approx(0.5 + 0.3 / RATE - 0.4 / RATE, abs=1e-12)


def test_muted_items_other_takes_and_silent_lanes_are_not_heard(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE, 1))
    b = media(tmp_path, "Media/b.wav", noise(1, 5 * RATE, 2))
    media(tmp_path, "Media/c.wav", noise(1, 5 * RATE, 3))
    second = "      TAKE SEL\n      NAME two\n      TAKEVOLPAN 0 0.5 -1\n      SOFFS 0\n" + source_of("Media/b.wav")
    third = "      TAKE\n      NAME three\n" + source_of("Media/c.wav")
    path = project(
        tmp_path,
        track(
            "Keys",
            item(0, 5, "Media/a.wav", takes=second + third, YPOS="0 0.5 2"),
            item(0, 5, "Media/c.wav", MUTE="1 0", YPOS="0 0.5 2"),
            item(0, 5, "Media/c.wav", YPOS="0.5 0.5 2"),
            item(2, 0, "Media/c.wav", YPOS="0 0.5 2"),
            extra="    FREEMODE 2\n    LANESOLO 1 0 0 0 0 0 0 0\n",
        ),
    )
    np.testing.assert_allclose(heard(path, 0, 5)[0][0], b[0] * 0.5, atol=1e-7)
    assert a.any()


EMPTY_TAKES = {  # the file of the first take, what follows it, ALLTAKES, whether the audio is heard
    "null": ("Media/a.wav", "      TAKE NULL SEL\n", 0, False),
    "null, not active": ("Media/a.wav", "      TAKE NULL\n", 0, True),
    "topmost, without a line of its own": (None, "      TAKE\n" + source_of("Media/a.wav"), 0, False),
    "topmost, not active": (None, "      TAKE SEL\n" + source_of("Media/a.wav"), 0, True),
    "topmost, all play": (None, "      TAKE\n" + source_of("Media/a.wav"), 1, True),
    "null, all play": ("Media/a.wav", "      TAKE NULL SEL\n", 1, True),
}


@pytest.mark.parametrize("which", EMPTY_TAKES)
def test_an_empty_take_is_silence_where_it_is_active(tmp_path, which):
    file, takes, all_play, sounds = EMPTY_TAKES[which]
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE, 1))
    path = project(tmp_path, track("Keys", item(0, 5, file, takes=takes, ALLTAKES=all_play)))
    np.testing.assert_allclose(heard(path, 0, 5)[0][0], a[0] if sounds else 0 * a[0], atol=1e-7)


def test_an_empty_item_with_a_take_marker_is_silence(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE, 1))
    empty = item(2, 1, "      <SOURCE EMPTY\n      >\n", extra='      TKM 0.5 "here" 0\n')
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav"), empty))
    out, target = heard(path, 0, 5)
    np.testing.assert_allclose(out[0], a[0], atol=1e-7)
    assert target.landing == "a take on the item"


@pytest.mark.parametrize(
    ("mute", "sounds"), [("0 0", True), ("1 0", False), ("0 -1", True), ("1 -1", True), ("0 1", False), ("1 1", False)]
)
def test_an_items_solo_outdoes_mutes(tmp_path, mute, sounds):
    media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", MUTE=mute)))
    assert heard(path, 0, 5)[0].any() == sounds


REFUSED = {
    "stretch markers": {"extra": "      SM 0 0 + 1 1.1\n"},
    "pitched by 2 semitones": {"PLAYRATE": "1 1 2 -1 0 0.0025"},
    "rate 1.2 with its pitch preserved": {"PLAYRATE": "1.2 1 0 -1 0 0.0025"},
    r"take envelope \(volume\)": {"extra": "      <VOLENV\n        ACT 1 -1\n        PT 0 0.5 0\n      >\n"},
    "take effects": {"extra": "      <TAKEFX\n        BYPASS 0 0 0\n        <JS x y\n        >\n      >\n"},
    "channel mode 5": {"CHANMODE": 5},
    "plays all its 2 takes": {"ALLTAKES": 1, "takes": "      TAKE\n" + source_of("Media/a.wav")},
    "is MIDI": {"file": source_of("x.mid", "MIDI")},
    "is video": {"file": source_of("x.mp4", "VIDEO")},
    "plays LTC": {"file": source_of("", "LTC")},
    "offline media": {"file": source_of("Media/a.wav", "_OFFLINE_WAVE")},
    "reversed": {
        "file": "      <SOURCE SECTION\n        LENGTH 1\n        MODE 2\n" + source_of("Media/a.wav") + "      >\n"
    },
    "starts 0.5 s before its media does": {
        "file": "      <SOURCE SECTION\n        LENGTH 1\n        STARTPOS -0.5\n"
        + source_of("Media/a.wav")
        + "      >\n"
    },
    "media file is missing": {"file": "Media/gone.wav"},
    "media file is not readable": {"file": "Media/bad.wav"},
    "has 4 channels, allowed is 1 to 2": {"file": "Media/four.wav"},
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_rendered_is_refused_by_name_with_what_to_do(tmp_path, says):
    media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    media(tmp_path, "Media/four.wav", noise(4, 100))
    (tmp_path / "Media/bad.wav").write_bytes(b"RIFF....junk")
    fields = dict(REFUSED[says])
    path = project(tmp_path, track("Keys", item(0, 5, fields.pop("file", "Media/a.wav"), **fields)))
    before = path.read_bytes()
    session = open_session(path)
    with pytest.raises(Refused, match=says) as refused:
        session.target("Keys", session.region(time=(2, 4)))
    assert refused.value.hint
    assert path.read_bytes() == before


def test_what_is_bypassed_or_inactive_does_not_matter(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    extra = (
        "      <TAKEFX\n        BYPASS 1 0 0\n        <JS x y\n        >\n      >\n"
        "      <VOLENV\n        ACT 0 -1\n        PT 0 0.5 0\n      >\n"
    )
    path = project(tmp_path, track("Keys", item(0, 5, "Media/a.wav", extra=extra)))
    np.testing.assert_allclose(heard(path, 0, 5)[0][0], a[0], atol=1e-7)


def test_context_ends_where_it_cannot_be_rendered(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    path = project(
        tmp_path,
        track("Keys", item(0, 1, source_of("x.mid", "MIDI")), item(1, 4, "Media/a.wav"), item(5, 2, "Media/gone.wav")),
    )
    session = open_session(path)
    target = session.target("Keys", session.region(time=(2, 4)))
    assert target.hearable(0, 7) == (1, 5)
    assert target.heard(1, 5).any()
    with pytest.raises(Refused, match="MIDI"):
        target.heard(0, 5)


def test_media_is_found_through_windows_paths_and_the_recording_folder(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    for i, file in enumerate((r"Media\a.wav", "a.wav", r"C:\Users\me\song\Media\a.wav", str(tmp_path / "Media/a.wav"))):
        path = project(tmp_path, track("Keys", item(0, 5, file)), name=f"{i}.rpp")
        np.testing.assert_allclose(heard(path, 0, 5)[0][0], a[0], atol=1e-7)


def test_names_that_are_no_utf8_can_be_said_and_typed(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    path = project(tmp_path, track("Caf", item(0, 5, "Media/a.wav")))
    path.write_bytes(path.read_bytes().replace(b'"Caf"', b'"Caf\xe9"').replace(b"item one", b"na\xefve"))
    session = open_session(path)
    region = session.region(time=(1, 3))
    assert session.target("Caf\u00e9", region).track == "Caf\u00e9"
    with pytest.raises(Refused, match="1 Caf\u00e9") as refused:
        session.target("Keys", region)
    assert str(refused.value).encode()
    assert session.project.document.dump() == path.read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system takes no name that is no text")
def test_media_whose_name_is_no_utf8_is_read(tmp_path):
    a = media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    os.rename(tmp_path / "Media/a.wav", os.fsencode(tmp_path / "Media") + b"/caf\xe9.wav")
    path = project(tmp_path, track("Keys", item(0, 5, "Media/XX.wav")))
    path.write_bytes(path.read_bytes().replace(b"XX", b"caf\xe9"))
    np.testing.assert_allclose(heard(path, 0, 5)[0][0], a[0], atol=1e-7)


def test_tracks_are_named_numbered_or_known_by_guid(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 5 * RATE))
    keys = track("Keys", item(0, 5, "Media/a.wav"))
    session = open_session(project(tmp_path, keys, track("Bass"), track("Bass"), track("")))
    region = session.region(time=(1, 3))
    guid = session.project.tracks[0].guid
    for name in ("Keys", "keys", "1", guid, guid.strip("{}").lower()):
        assert session.target(name, region).track == "Keys"
    with pytest.raises(Refused, match="the tracks are: 1 Keys, 2 Bass, 3 Bass, 4") as refused:
        session.target("Drums", region)
    assert refused.value.hint == "use one of these, or its number"
    with pytest.raises(Refused, match="2 tracks are named 'Bass'") as refused:
        session.target("Bass", region)
    assert refused.value.hint == "choose by number: 2 or 3"  # --track, or --hear of a layer, which knows no --track
    with pytest.raises(Refused, match="no track is named"):
        session.target(None, region)


def midi(start_s, length_s):
    return item(start_s, length_s, source_of("x.mid", "MIDI"))


@pytest.mark.parametrize("how", ["take", "split", "lane", "track"])
@pytest.mark.parametrize("rate_hz", [48_000, 44_100])
def test_what_cannot_be_rendered_may_touch_a_region(tmp_path, how, rate_hz):
    """At 137 bpm no bar line lies on a frame, and what REAPER writes of one has 14 digits."""
    bar_s = 4 * 60 / 137
    media(tmp_path, "Media/a.wav", noise(2, 16 * rate_hz), rate_hz)
    first, second = round(2 * bar_s, 14), round(3 * bar_s, 14)
    around = midi(0, first + 1e-9), midi(second - 1e-9, 8)
    path = project(tmp_path, track("Keys", item(first, bar_s, "Media/a.wav"), *around), tempo="137 4 4")
    session = open_session(path)
    target = session.target("Keys", session.region(bars=(3, 3)), how)
    assert target.lead_frames <= 1
    assert target.hearable(0, 20) == pytest.approx((first, second), abs=1e-8)
    low, high = (target.frame_at(at_s) for at_s in target.hearable(0, 20))
    assert not target.resamples(low, high)
    heard = target.heard(target.time_at(low), target.time_at(high))
    placed = target.place(heard[:, heard.shape[1] - target.lead_frames - target.end_frame + target.start_frame :])
    assert np.array_equal(placed.after, placed.before)
    landed = land(target, [LandingTake(placed, "x")]).output.read_text()
    assert landed.count("<SOURCE MIDI") == (4 if how == "lane" else 2), "neither was cut"


@pytest.mark.parametrize("how", ["take", "split"])
def test_the_lead_begins_where_something_ends_that_cannot_be_rendered(tmp_path, how):
    media(tmp_path, "Media/a.wav", noise(2, 8 * RATE))
    keys = item(1.5 if how == "take" else 1.97, 4, "Media/a.wav")
    path = project(tmp_path, track("Keys", midi(0, 1.97), keys))
    session = open_session(path)
    target = session.target("Keys", session.region(time=(2, 4)), how)
    assert target.lead_frames == round(0.03 * RATE)
    placed = target.place(target.heard(1.97, 4.0))
    assert np.array_equal(placed.after, placed.before)
    with pytest.raises(Refused, match="MIDI"):
        session.target("Keys", session.region(time=(1.96, 4)), how)
