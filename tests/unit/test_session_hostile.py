"""Projects that lie: any field may hold anything, and the answer is a refusal or a sound, never a crash."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rppmaker import item, media, noise, project, source_of, track

from punchin.protocol.errors import OverLimit, PunchinError, Refused
from punchin.session.document import LandingTake, land, open_session

RATE = 8_000
WORDS = st.one_of(
    st.sampled_from(
        ["0", "-1", "1e300", "nan", "inf", "-0.0", "1e-300", "4294967296", "", '"', "{", "0.3", "7", "-1e9", "1e12"]
    ),
    st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=6),
)


def whole(folder):
    media(folder, "a.wav", noise(2, 4 * RATE), RATE)
    second = "      TAKE SEL\n      NAME b\n      TAKEVOLPAN 0.1 0.9 -1\n      SOFFS 0.1\n      PLAYRATE 1 1 0 -1 0 0\n"
    envelope = (
        "  <TEMPOENVEX\n    ACT 1 -1\n    PT 0 120 1 262148 0 1\n    PT 1 100 0 0 0 0\n    PT 3 90 1 196611 0 1\n  >\n"
    )
    fades = {"FADEIN": "0 0.2 0 0 0 0 0", "FADEOUT": "1 0.2 0 1 0 0 0", "YPOS": "0 1 2", "CHANMODE": "2"}
    tracks = (
        track(
            "Keys",
            item(0, 3, "a.wav", takes=second + source_of("a.wav"), **fades),
            extra="    FREEMODE 2\n    LANESOLO 1 0\n",
        ),
        track("Bass", item(0.5, 2, "a.wav", SOFFS="0.2", PLAYRATE="0.5 0 0 -1 0 0"), item(2, 2, "a.wav")),
    )
    return project(folder, *tracks, extra=envelope)


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.data())
def test_no_field_crashes_the_reader(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("lies")
    path = whole(folder)
    lines = path.read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(1, len(lines) - 1))
        words = lines[number].split(" ")
        at = data.draw(st.integers(0, len(words) - 1))
        words[at] = data.draw(WORDS)
        lines[number] = " ".join(words)
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    try:
        session = open_session(path)
        for name, how in (("Keys", "take"), ("Bass", "take"), ("Bass", "lane"), ("Bass", "track")):
            target = session.target(name, session.region(time=(0.8, 1.6)), how)
            start_s, end_s = target.hearable(0, 4)
            heard = target.heard(start_s, end_s)
            assert heard.dtype == np.float32
            new = np.zeros((2, target.lead_frames + target.end_frame - target.start_frame), dtype=np.float32)
            result = land(target, [LandingTake(target.place(new), "x", {"seed": 1})])
            open_session(result.output)
    except PunchinError:
        pass
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x" * 300 + ".wav", "x/" * 3_000 + "a.wav"])
def test_a_name_longer_than_the_systems_names_is_missing_media(tmp_path, name):
    session = open_session(project(tmp_path, track("Keys", item(0, 4, name))))
    with pytest.raises(Refused, match="media file is missing") as refused:
        session.target("Keys", session.region(time=(0.8, 1.6)))
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(("length_s", "rate"), [(1e9, 1.01), (1_000, 50)])
def test_an_item_too_long_to_be_resampled_is_refused(tmp_path, length_s, rate):
    media(tmp_path, "a.wav", noise(2, 4 * RATE), RATE)
    path = project(tmp_path, track("Keys", item(0, length_s, "a.wav", PLAYRATE=f"{rate} 0 0 -1 0 0")))
    session = open_session(path)
    target = session.target("Keys", session.region(time=(0.8, 1.6)))
    with pytest.raises(OverLimit, match="allowed is 0 to 7200") as refused:
        target.heard(0.0, 4.0)
    assert "Glue" in refused.value.hint
