"""A bare audio file as a session: the take comes back in a file that equals it everywhere else."""

import errno
import hashlib
import struct

import mido
import numpy as np
import pytest
import soundfile
from rppmaker import media, noise

from punchin.protocol.errors import OverLimit, PunchinError, Refused
from punchin.session import audiofile, takefiles
from punchin.session.document import LandingTake, land, land_all, open_session

RATE = 44_100


def aimed(path, bars=(2, 3), **how):
    session = open_session(path, **(how or {"bpm": 120}))
    return session.target(None, session.region(bars=bars))


def window(target):
    start, end = target.start_frame - target.lead_frames, target.end_frame
    return target.heard(start / target.rate_hz, end / target.rate_hz)


@pytest.mark.parametrize("subtype", ["MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_what_is_compressed_with_loss_is_refused(tmp_path, subtype):
    """Written again it is another file everywhere, not in the region alone."""
    media(tmp_path, "a.wav", noise(1, 8 * 8_000), 8_000, subtype)
    with pytest.raises(Refused, match=f"a.wav holds {subtype}, which changes all of a file") as refused:
        open_session(tmp_path / "a.wav", bpm=120)
    assert "PCM" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [
        ("a.wav", "PCM_16", 2),
        ("a.wav", "PCM_24", 1),
        ("a.wav", "FLOAT", 2),
        ("a.wav", "PCM_32", 2),
        ("a.flac", "PCM_16", 1),
        ("a.flac", "PCM_24", 2),
        ("a.aiff", "PCM_16", 2),
    ],
)
def test_the_output_is_the_file_with_the_take_in_it(tmp_path, name, subtype, channels):
    a = media(tmp_path, name, noise(channels, 8 * RATE), RATE, subtype)
    path = tmp_path / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    target = aimed(path)
    placed = target.place(window(target) * np.float32(-0.5))
    result = land(target, [LandingTake(placed, "x")])
    assert result.output == tmp_path / f"a-punchin{path.suffix}"
    assert result.take_files == (result.output,)
    old, new = soundfile.info(path), soundfile.info(result.output)
    assert (old.samplerate, old.channels, old.frames, old.subtype, old.format) == (
        new.samplerate,
        new.channels,
        new.frames,
        new.subtype,
        new.format,
    )
    out = soundfile.read(result.output, dtype="float64", always_2d=True)[0].T
    into, back = placed.fades.into.reach_frames, placed.fades.back.reach_frames
    assert np.array_equal(out[:, : 2 * RATE - into], a[:, : 2 * RATE - into])
    assert np.array_equal(out[:, 6 * RATE :], a[:, 6 * RATE :])
    inside = slice(2 * RATE, 6 * RATE - back)
    step = {"PCM_16": 2**-15, "PCM_24": 2**-23}.get(subtype, 2**-24)
    np.testing.assert_allclose(out[:, inside], a[:, inside] * -0.5, atol=step)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest == target.session.sha256


def test_identity_nulls(tmp_path):
    a = media(tmp_path, "a.wav", noise(2, 8 * RATE), RATE, "PCM_16")
    target = aimed(tmp_path / "a.wav")
    result = land(target, [LandingTake(target.place(window(target)), "x")], tmp_path / "out.wav")
    assert np.array_equal(soundfile.read(result.output, dtype="float64", always_2d=True)[0].T, a)


def test_several_takes_are_several_files(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE)
    target = aimed(tmp_path / "a.wav")
    takes = [LandingTake(target.place(window(target)), "x")] * 3
    assert [f.name for f in land(target, takes).take_files] == ["a-punchin.wav", "a-punchin-2.wav", "a-punchin-3.wav"]
    assert [f.name for f in land(target, takes[:1]).take_files] == ["a-punchin-4.wav"]


def test_what_a_wav_holds_beside_its_sound_is_said_to_be_left_out(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE, "PCM_16")
    path = tmp_path / "a.wav"
    plain = path.read_bytes()
    assert aimed(path).notes == ()
    bext = b"bext" + struct.pack("<I", 603) + bytes(604)  # an odd chunk has a byte more
    body = plain[8:12] + bext + plain[12:] + b"cue " + struct.pack("<I", 4) + bytes(4)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert aimed(path).notes == ("what a.wav holds in bext, cue is not in the take's file",)
    result = land(aimed(path), [LandingTake(aimed(path).place(window(aimed(path))), "x")])
    assert b"bext" not in result.output.read_bytes()


def test_a_name_that_is_too_long_for_its_note_leaves_nothing_behind(tmp_path):
    name = "ü" * 118 + ".wav"
    media(tmp_path, name, noise(1, 8 * RATE), RATE, "PCM_16")
    target = aimed(tmp_path / name)
    takes = [LandingTake(target.place(window(target)), f"x {seed}", {"seed": seed}) for seed in (1, 2)]
    with pytest.raises(PunchinError, match="File name too long"):
        land(target, takes)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("there", [b"", b"an older result"])
@pytest.mark.parametrize("trouble", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("last", range(1, 7))
def test_all_takes_are_written_or_none(tmp_path, monkeypatch, there, trouble, last):
    """What `-o` names is replaced when all else is on disk, not before."""
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE)
    out = tmp_path / "o.wav"
    if there:
        out.write_bytes(there)
        takefiles.note_file(out).write_text('{"seed": 7}')
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    target, publish, renames = aimed(tmp_path / "a.wav"), audiofile._publish, []

    def full(name, path):
        renames.append(path)
        if len(renames) == last:
            raise trouble
        publish(name, path)

    monkeypatch.setattr(audiofile, "_publish", full)
    takes = [LandingTake(target.place(window(target)), "x", {"seed": 1})] * 3
    with pytest.raises(KeyboardInterrupt if trouble is KeyboardInterrupt else PunchinError):
        land(target, takes, out)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    monkeypatch.undo()
    assert [file.name for file in land(target, takes, out).take_files] == ["o.wav", "o-2.wav", "o-3.wav"]


def test_several_regions_lie_in_one_file(tmp_path):
    a = media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE, "FLOAT")
    session = open_session(tmp_path / "a.wav", bpm=120)
    targets = [session.target(None, session.region(bars=bars)) for bars in ((1, 1), (3, 3))]
    landings = [(t, [LandingTake(t.place(window(t) * np.float32(0.5)), "x")]) for t in targets]
    results = land_all(landings)
    assert results[0] == results[1]
    out = soundfile.read(results[0].output, always_2d=True)[0].T
    np.testing.assert_allclose(out[:, : round(1.9 * RATE)], a[:, : round(1.9 * RATE)] / 2, atol=1e-7)
    np.testing.assert_array_equal(out[:, 2 * RATE : round(3.9 * RATE)], a[:, 2 * RATE : round(3.9 * RATE)])
    np.testing.assert_allclose(out[0, 4 * RATE : round(5.9 * RATE)], a[0, 4 * RATE : round(5.9 * RATE)] / 2, atol=1e-7)
    with pytest.raises(Refused, match="touch"):
        land_all([landings[0], landings[0]])


def test_the_last_bar_ends_with_the_file(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE - 500), RATE)
    target = aimed(tmp_path / "a.wav", (4, 4))
    assert target.end_frame == 8 * RATE - 500
    assert target.region.end_s == pytest.approx(8 - 500 / RATE)


def test_a_layer_is_a_file_of_its_own_beside_the_session(tmp_path):
    a = media(tmp_path, "a.wav", noise(2, 8 * RATE), RATE)
    session = open_session(tmp_path / "a.wav", bpm=120)
    target = session.layer(session.region(bars=(2, 3)), "Warm Strings")
    np.testing.assert_array_equal(target.heard(0, 8), a.astype(np.float32))
    new = noise(2, target.lead_frames + 4 * RATE, 9).astype(np.float32)
    result = land(target, [LandingTake(target.place(new), "x")])
    assert result.output.name == "a-punchin-Warm-Strings.wav"
    out = soundfile.read(result.output, always_2d=True)[0].T
    assert out.shape == a.shape
    assert not out[:, : round(1.94 * RATE)].any()
    assert not out[:, 6 * RATE :].any()
    inside = slice(2 * RATE, round(5.9 * RATE))
    np.testing.assert_allclose(out[:, inside], new[:, target.lead_frames :][:, : inside.stop - 2 * RATE], atol=2**-15)
    with pytest.raises(Refused, match="without tracks"):
        session.layer(session.region(bars=(2, 3)), "Strings", ["Keys"])


def test_heard_beyond_the_file_is_silence(tmp_path):
    a = media(tmp_path, "a.wav", noise(1, RATE), RATE)
    session = open_session(tmp_path / "a.wav", bpm=240)
    target = session.target(None, session.region(time=(0.2, 0.8)))
    out = target.heard(-0.5, 2)
    assert out.shape == (2, round(2 * RATE) - round(-0.5 * RATE))
    assert np.array_equal(out[:, RATE // 2 : RATE // 2 + RATE], a[[0, 0]].astype(np.float32))
    assert not out[:, : RATE // 2].any()
    assert not out[:, RATE // 2 + RATE :].any()


def test_a_tempo_map_gives_the_bars(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE)
    file = mido.MidiFile()
    file.tracks.append(mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(240))]))
    file.save(tmp_path / "map.mid")
    target = aimed(tmp_path / "a.wav", (2, 2), tempo_map=tmp_path / "map.mid")
    assert (target.start_frame, target.end_frame) == (RATE, 2 * RATE)


def test_a_span_ends_with_the_file_and_is_long_enough_then_too(tmp_path):
    media(tmp_path, "a.wav", noise(1, 7 * RATE + RATE // 2), RATE)
    session = open_session(tmp_path / "a.wav", 120)
    assert session.region(time=(7.0, 8.0)).end_s == 7.5
    with pytest.raises(OverLimit, match=r"region length is -0\.1"):
        session.region(time=(7.6, 8.0))
    with pytest.raises(OverLimit, match=r"region length is 0\.1"):
        session.region(time=(7.4, 8.0))


def test_a_signature_gives_the_bars(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE)
    target = aimed(tmp_path / "a.wav", (2, 2), bpm=120, signature=(7, 8))
    assert (target.region.start_s, target.region.end_s) == (1.75, 3.5)
    tempo = mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(120))
    mido.MidiFile(tracks=[mido.MidiTrack([tempo])]).save(tmp_path / "map.mid")
    mapped = aimed(tmp_path / "a.wav", (2, 2), tempo_map=tmp_path / "map.mid", signature=(7, 8))
    assert mapped.region == target.region


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path):
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8_000, 1, "PCM_U8") as file:
        for _ in range(61):
            file.write(np.zeros(60 * 8_000))
    with pytest.raises(Refused, match=r"audio file length is 3660 s, allowed is 0\.25 to 3600"):
        open_session(tmp_path / "long.wav", bpm=120)


def test_a_file_that_is_too_short_is_not_to_be_cut(tmp_path):
    media(tmp_path, "short.wav", noise(1, RATE // 5), RATE)
    with pytest.raises(Refused, match=r"audio file length is 0\.2 s, allowed is 0\.25 to 3600") as refused:
        open_session(tmp_path / "short.wav", bpm=120)
    assert refused.value.hint == "choose a longer file"


def test_what_a_bare_file_cannot_be_is_refused(tmp_path):
    media(tmp_path, "a.wav", noise(1, 8 * RATE), RATE)
    media(tmp_path, "six.wav", noise(6, 100), RATE)
    (tmp_path / "a.mp3").write_bytes(b"")
    path = tmp_path / "a.wav"
    region = open_session(path, bpm=120).region(bars=(1, 2))
    for says, call in (
        ("needs one tempo", lambda: open_session(path)),
        ("needs one tempo", lambda: open_session(path, 120, tmp_path / "x.mid")),
        ("tempo of 0 to 0 bpm at 0 s, allowed is over 0 to under 10000", lambda: open_session(path, 0)),
        ("time signature of 0/4, allowed is 1 and up over 1 to 255", lambda: open_session(path, 120, signature=(0, 4))),
        ("is missing", lambda: open_session(tmp_path / "none.wav", 120)),
        ("is a folder, no session", lambda: open_session(tmp_path, 120)),
        ("is no session", lambda: open_session(tmp_path / "a.mp3", 120)),
        ("has 6 channels, allowed is 1 to 2", lambda: open_session(tmp_path / "six.wav", 120)),
        ("without tracks", lambda: open_session(path, 120).target("Keys", region)),
        ("no lane to land on", lambda: open_session(path, 120).target(None, region, "lane")),
        ("outside the session, which has bars 1-4", lambda: aimed(path, (4, 5))),
        ("never written", lambda: land(aimed(path), [LandingTake(aimed(path).place(window(aimed(path))), "x")], path)),
        ("is no .wav", lambda: land(aimed(path), [LandingTake(aimed(path).place(window(aimed(path))), "x")], "x.flac")),
    ):
        with pytest.raises(Refused, match=says) as refused:
            call()
        assert refused.value.hint
    (tmp_path / "p.rpp").write_text('<REAPER_PROJECT 0.1 "7" 1\n>\n')
    with pytest.raises(Refused, match="tempo of its own"):
        open_session(tmp_path / "p.rpp", bpm=120)
