"""A region at a moving tempo goes to the model at a steady one and comes back in time, to the judge's own clicks."""

from dataclasses import replace

import mido
import numpy as np
import pytest
import rppmaker
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.journey import Prompt, Request
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.travel import go as travel
from punchin.protocol.errors import Refused

pytestmark = pytest.mark.slow

RATE = 48_000
TICKS = 480


def ritardando(beat):
    """120 to 60 bpm over 32 beats, after eight steady ones."""
    return 120.0 if beat < 8 else max(120.0 - (beat - 8) * 60 / 32, 60.0)


def jumps(beat):
    return (174.0, 87.0, 131.7)[min(int(beat // 12), 2)]


def gentle(beat):
    """Within 10 %, up and down."""
    return 100.0 * (1 + 0.05 * np.sin(beat / 3))


def sevens(beat):
    return 126.0 if beat < 14 else 112.0


CASES = {  # tempo of a beat, signature changes (beat -> n/d), region in seconds by its beats, attack's floor in dB
    "ritardando": (ritardando, {}, (12, 28), -4.0),
    "jumps": (jumps, {}, (8, 30), -4.0),
    "gentle": (gentle, {}, (8, 24), -2.0),
    "7/8 to 4/4": (sevens, {0: (7, 8), 14: (4, 4)}, (7, 22), -2.0),
}
STEP = 0.25  # a tempo event each sixteenth: what the MIDI file says is exactly the map


def tempo_map(path, bpm_of, signatures, beats=48):
    """A MIDI file, and the time of each quarter by the same arithmetic."""
    track, times, now, pending = mido.MidiTrack(), [], 0.0, 0
    for i in range(int(beats / STEP)):
        beat = i * STEP
        if beat in signatures:
            n, d = signatures[beat]
            track.append(mido.MetaMessage("time_signature", numerator=n, denominator=d, time=pending))
            pending = 0
        tempo = round(60e6 / bpm_of(beat))
        track.append(mido.MetaMessage("set_tempo", tempo=tempo, time=pending))
        if beat == int(beat):
            times.append(now)
        now += STEP * tempo / 1e6
        pending = round(STEP * TICKS)
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(path)
    return np.array(times), now


def clicks(times, end_s):
    """A short tone burst at each quarter."""
    audio = np.zeros(round(end_s * RATE))
    at = np.arange(round(0.03 * RATE)) / RATE
    burst = 0.5 * np.sin(2 * np.pi * 1_500 * at) * np.exp(-at / 0.006)
    for time in times:
        first = round(time * RATE)
        audio[first : first + len(burst)] += burst[: len(audio) - first]
    return audio.astype(np.float32)


def onset(audio, near):
    """The frame within 30 ms of `near` where the level first passes a tenth of the peak there, and that peak."""
    reach = round(0.03 * RATE)
    piece = np.abs(audio[max(near - reach, 0) : near + reach])
    return max(near - reach, 0) + int(np.argmax(piece > 0.1 * piece.max())), piece.max()


@pytest.mark.parametrize("case", CASES)
def test_clicks_come_back_in_time(case, tmp_path):
    bpm_of, signatures, (first, last), floor_db = CASES[case]
    times, end_s = tempo_map(tmp_path / "map.mid", bpm_of, signatures)
    before = clicks(times, end_s)
    soundfile.write(tmp_path / "song.wav", before, RATE, subtype="FLOAT")
    start_s, stop_s = float(times[first]), float(times[last])
    client, heard = DirectClient(), Heard()
    request = Request(
        task="repaint", session=tmp_path / "song.wav", tempo_map=tmp_path / "map.mid", time_s=(start_s, stop_s),
        prompt=Prompt(text="clicks"), seed=1, max_attempts=1, level=False,
    )  # fmt: skip
    result = travel(client, [request], [capture(request, opened(request))], heard)
    (take,) = result.takes
    assert take.report.warped is True
    assert take.report.length_error_samples == 0
    assert take.report.outside_max_abs_diff == 0.0
    after, _ = soundfile.read(result.output, dtype="float32")
    assert len(after) == len(before)
    begin, end = round(start_s * RATE) - round(take.report.fade_ms * RATE / 1000), round(stop_s * RATE)
    assert np.array_equal(after[:begin], before[:begin])
    assert np.array_equal(after[end:], before[end:])
    for time in times[first + 1 : last]:
        near = round(time * RATE)
        (was, loud), (now, loud_now) = onset(before, near), onset(after, near)
        assert abs(now - was) / RATE < 0.002, f"click at {time:.3f} s is {1000 * (now - was) / RATE:.2f} ms off"
        assert 20 * np.log10(loud_now / loud) >= floor_db


@pytest.mark.parametrize("case", CASES)
def test_the_model_hears_a_steady_tempo(case, tmp_path):
    """The clicks in the window that was sent are evenly spaced, at the tempo that the prompt says."""
    bpm_of, signatures, (first, last), _ = CASES[case]
    times, end_s = tempo_map(tmp_path / "map.mid", bpm_of, signatures)
    soundfile.write(tmp_path / "song.wav", clicks(times, end_s), RATE, subtype="FLOAT")
    client = DirectClient()
    request = Request(
        task="repaint", session=tmp_path / "song.wav", tempo_map=tmp_path / "map.mid",
        time_s=(float(times[first]), float(times[last])), prompt=Prompt(text="clicks"), seed=1, max_attempts=1,
    )  # fmt: skip
    travel(client, [request], [capture(request, opened(request))], Heard())
    (order,) = client.orders
    sent = client.blobs[order.source.sha256][0]
    loud = np.flatnonzero(np.abs(sent) > 0.15)
    starts = loud[np.r_[True, np.diff(loud) > 0.1 * RATE]][1:]  # the first one may be cut by the window's start
    period = 60 / order.bpm
    steps = np.diff(starts) / RATE / period
    np.testing.assert_allclose(steps, np.round(steps), atol=0.004 / period)
    lo, hi = (frame * 1920 / RATE for frame in order.mask[0])
    inside = [start for start in starts / RATE if lo - 0.01 <= start < hi - 0.07]
    assert len(inside) >= last - first, "the mask covers the region's clicks"


def test_a_region_that_ends_with_the_session_comes_back(tmp_path):
    """Rounding sets the end of what comes back and the end of the window apart."""
    end_s = 7.461538461538461
    before = clicks([3.0, 4.0, 5.0, 6.0, 7.0], end_s)
    rppmaker.media(tmp_path, "keys.wav", before[None])
    points = "  <TEMPOENVEX\n    PT 0 120 0 262148 0 1\n    PT 2 130 1\n  >\n"
    keys = rppmaker.track("Keys", rppmaker.item(0, end_s, "keys.wav"))
    path = rppmaker.project(tmp_path, keys, extra=points)
    request = Request(task="repaint", session=path, prompt=Prompt(text="x"), seed=1, track="Keys", bars=(3, 4))
    captured = capture(request, opened(request))
    way, (first, last) = captured.way, captured.way.wanted
    back = way.back(way.there(captured.heard)[:, first:last])
    assert back.shape[1] == captured.window.model_frames - way.first
    begins = captured.window.start + way.first
    for near in (4 * RATE, 5 * RATE, 6 * RATE, 7 * RATE):
        (was, _), (now, _) = onset(before, near), onset(back[0], near - begins)
        assert abs(begins + now - was) / RATE < 0.002


def test_a_steady_tempo_is_left_alone(tmp_path):
    times, end_s = tempo_map(tmp_path / "map.mid", lambda beat: 97.35, {})
    before = clicks(times, end_s)
    soundfile.write(tmp_path / "song.wav", before, RATE, subtype="FLOAT")
    request = Request(
        task="repaint", session=tmp_path / "song.wav", tempo_map=tmp_path / "map.mid", bars=(3, 5),
        prompt=Prompt(text="clicks"), seed=1,
    )  # fmt: skip
    result = travel(DirectClient(), [request], [capture(request, opened(request))], Heard())
    assert result.takes[0].report.warped is False
    assert np.array_equal(soundfile.read(result.output, dtype="float32")[0], before)


@pytest.mark.parametrize(("shape", "note"), [(0, False), (5, True)])
def test_a_projects_tempo_envelope_is_followed(shape, note, tmp_path):
    """120 to 60 bpm linear in time in a REAPER project at 44.1 kHz, its item trimmed; as a Bezier only on demand."""
    rate_hz, offset_s = 44_100, 1.5
    eighths = np.arange(0.5, 44, 0.5)
    # b(t) = 8 + 2 u - u**2 / 48 with u = t - 4 over 24 s: the integral of 120 bpm falling to 60
    times = np.where(eighths <= 8, eighths / 2, 4 + 48 - np.sqrt(np.maximum(48**2 - 48 * (eighths - 8), 0)))
    audio = np.zeros(round((32 + offset_s) * rate_hz))
    at = np.arange(round(0.03 * rate_hz)) / rate_hz
    burst = 0.5 * np.sin(2 * np.pi * 1_500 * at) * np.exp(-at / 0.006)
    for time in times:
        first = round((time + offset_s) * rate_hz)
        audio[first : first + len(burst)] += burst[: len(audio) - first]
    rppmaker.media(tmp_path, "Media/a.wav", audio[None], rate_hz, subtype="FLOAT")
    envelope = f"  <TEMPOENVEX\n    PT 0 120 1\n    PT 4 120 {shape}\n    PT 28 60 1\n  >\n"
    item = rppmaker.item(0, 31, "Media/a.wav", SOFFS=offset_s)
    path = rppmaker.project(tmp_path, rppmaker.track("Keys", item), extra=envelope)
    request = Request(
        task="repaint", session=path, track="Keys", bars=(4, 8), prompt=Prompt(text="x"), seed=1, max_attempts=1,
        level=False, approximate=note,
    )  # fmt: skip
    if note:
        with pytest.raises(Refused, match="Bezier"):
            opened(replace(request, approximate=False))
    (take,) = travel(DirectClient(), [request], [capture(request, opened(request))], Heard()).takes
    assert (take.report.warped, take.report.resampled) == (True, True)
    assert (take.report.length_error_samples, take.report.outside_max_abs_diff) == (0, 0.0)
    assert any("Bezier" in text for text in take.report.notes) is note
    after = soundfile.read(take.file, dtype="float32")[0]
    media, file = round(offset_s * rate_hz), 0 if len(after) < len(audio) else round(offset_s * rate_hz)
    start_s, end_s = (4 + 48 - np.sqrt(48**2 - 48 * (beat - 8)) for beat in (12, 32))
    inside = times[(times > start_s + 0.01) & (times < end_s - 0.05)]
    assert len(inside) == 39
    for time in inside:
        near = round(time * rate_hz)
        (was, loud), (now, loud_now) = onset(audio, near + media), onset(after, near + file)
        assert abs((now - file) - (was - media)) / rate_hz < 0.002
        assert 20 * np.log10(loud_now / loud) >= -4
