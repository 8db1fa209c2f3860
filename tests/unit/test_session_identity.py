"""Whatever lies on a track: what comes back as it went leaves the track sounding as it did, however it lands."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rppmaker import HEAD, item, media, noise, project, track

from punchin.session.document import LandingTake, land, open_session
from punchin.session.rpp_voices import Voice, Voices

RATE = 8_000
TIMES = st.integers(0, 400).map(lambda n: n / 100)
ODD_TIMES = st.floats(0, 4, allow_subnormal=False)


@st.composite
def items(draw):
    """Some items with all that is rendered exactly, at any place, on frames and between them."""
    out = []
    for _ in range(draw(st.integers(1, 4))):
        length = draw(st.one_of(st.integers(5, 300).map(lambda n: n / 100), st.floats(0.05, 3)))
        fade_in, fade_out = draw(st.floats(0, length / 2)), draw(st.floats(0, length / 2))
        volume = draw(st.sampled_from([1, 0.5]))
        fields = {
            "SOFFS": repr(draw(st.one_of(st.just(0.0), st.floats(0, 1)))),
            "VOLPAN": f"{volume} {draw(st.sampled_from([0, 0, 0.5, -1]))} {draw(st.sampled_from([1, -0.7]))} -1",
            "LOOP": draw(st.integers(0, 1)),
            "CHANMODE": draw(st.sampled_from([0, 0, 1, 2, 3, 4])),
            "FADEIN": f"0 {draw(st.sampled_from([0.0, fade_in]))!r} 0 0 0 0 0",
            "FADEOUT": f"0 {draw(st.sampled_from([0.0, fade_out]))!r} 0 0 0 0 0",
            "MUTE": f"{int(draw(st.integers(0, 5)) == 0)} 0",
        }
        start = draw(st.one_of(TIMES, ODD_TIMES))
        out.append(item(repr(start), repr(length), draw(st.sampled_from(["a.wav", "b.wav"])), **fields))
    return out


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(items(), st.sampled_from(["take", "split", "lane", "track"]), ODD_TIMES, st.floats(0.3, 2))
def test_identity_is_inaudible(tmp_path_factory, placed, how, start, length):
    folder = tmp_path_factory.mktemp("any")
    media(folder, "a.wav", noise(2, 2 * RATE, 1), RATE, "FLOAT")
    media(folder, "b.wav", noise(2, 2 * RATE, 2), RATE, "FLOAT")
    session = open_session(project(folder, track("Keys", *placed), head=HEAD.replace("48000", str(RATE))))
    end = min(start + length, session.end_s)
    if end - start < 0.26:
        return
    target = session.target("Keys", session.region(time=(start, end)), how)
    heard = target.heard(target.time_at(target.start_frame - target.lead_frames), target.time_at(target.end_frame))
    result = land(target, [LandingTake(target.place(heard), "x")])
    again = open_session(result.output).project
    after = Voices(again, tuple(Voice(each) for each in again.tracks))
    frames = target.frame_at(0.0), target.frame_at(8.0)
    new = after.frames(target.rate_hz, target.origin_s, *frames)
    np.testing.assert_allclose(new, target.heard(0.0, 8.0), atol=1e-6)


def test_takes_of_takes_stay_exact(tmp_path):
    media(tmp_path, "Media/a.wav", noise(1, 8 * RATE), RATE)
    path = project(tmp_path, track("Keys", item(0.5, 7, "Media/a.wav", VOLPAN="0.5 0 1 -1")))
    session = open_session(path)
    first = session.target("Keys", session.region(time=(2, 4))).heard(0, 8)
    for start in (1.0, 3.0, 3.5, 5.0):
        session = open_session(path)
        target = session.target("Keys", session.region(time=(start, start + 1.5)))
        heard = target.heard(target.time_at(target.start_frame - target.lead_frames), target.time_at(target.end_frame))
        path = land(target, [LandingTake(target.place(heard), "x")]).output
    last = open_session(path)
    assert path.name == "song-punchin-punchin-punchin-punchin.rpp"
    np.testing.assert_array_equal(last.target("1", last.region(time=(2, 4))).heard(0, 8), first)
    assert len(last.project.tracks[0].items[0].takes) == 5


def test_any_name_is_a_name(tmp_path):
    folder = tmp_path / 'it\'s "my" `song` \u2603'
    media(folder, "Media/a b'c\"d.wav", noise(1, 8 * RATE), RATE)
    text = track("Keys", item(0, 8, "X")).replace('FILE "X"', "FILE `Media/a b'c\"d.wav`")
    path = project(folder, text.replace('NAME "Keys"', "NAME `Ke\"y's`"))
    session = open_session(path)
    target = session.target("Ke\"y's", session.region(time=(2, 4)))
    heard = target.heard(target.time_at(target.start_frame - target.lead_frames), target.time_at(target.end_frame))
    result = land(target, [LandingTake(target.place(heard), 'all "three" `of\' them\n')])
    again = open_session(result.output).project.tracks[0].items[0]
    assert again.take.name == "all \"three\" 'of' them "
    assert (folder / again.take.source.file).is_file()
