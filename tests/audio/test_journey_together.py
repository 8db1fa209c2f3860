"""Regions of one track that are near each other are one job: heard, made, judged and landed together."""

import numpy as np
import pytest
import rppmaker
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.journey import Prompt, Request, land, look
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.plan import decode
from punchin.clients.journey.redoing import Change, of_file, of_job, request_of
from punchin.clients.journey.travel import go as travel

RATE, BAR_S = 48_000, 2.0


@pytest.fixture
def song(tmp_path):
    """Two tracks of 100 bars at 120 bpm, one item each."""
    rng = np.random.default_rng(0)
    for name in ("Keys", "Bass"):
        at_s = np.arange(200 * RATE) / RATE
        tone = 0.1 * np.sin(2 * np.pi * rng.integers(100, 400) * at_s) + 0.02 * rng.standard_normal(200 * RATE)
        rppmaker.media(tmp_path, f"Media/{name}.wav", tone[None], subtype="FLOAT")
    tracks = (rppmaker.track(name, rppmaker.item(0, 200, f"Media/{name}.wav")) for name in ("Keys", "Bass"))
    return rppmaker.project(tmp_path, *tracks)


def asked(song, *places, **more):
    prompt = Prompt(text="x")
    return [
        Request(task="repaint", session=song, track=t, bars=bars, prompt=prompt, seed=10, **more) for t, bars in places
    ]


def go(requests, make):
    client, heard, session = DirectClient(make), Heard(), opened(requests[0])
    return client, heard, travel(client, requests, [capture(request, session) for request in requests], heard)


def quieter(source, order, seed):
    """Another sound under the mask, the source elsewhere; its seed can be told from it."""
    out = source.copy()
    for first, last in order.mask:
        out[:, first * 1920 : last * 1920] *= 0.95 + seed / 10_000
    return out


def read(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def test_near_regions_are_one_job_far_ones_and_tracks_are_not(song):
    places = [("Keys", (20, 22)), ("Keys", (26, 27)), ("Keys", (80, 81)), ("Bass", (20, 22))]
    client, _, result = go(asked(song, *places, level=False), quieter)
    assert [len(order.mask) for order in client.orders] == [2, 1, 1]
    assert {order.seeds for order in client.orders} == {(10,)}
    assert [(take.track, take.bars) for take in result.takes] == places
    assert set(client.where) == {"direct-0000", "direct-0001", "direct-0002"}
    assert len({take.file for take in result.takes}) == 2, "regions of one item lie in one take"
    order = client.orders[0]
    source = client.blobs[order.source.sha256]
    start_s = 19 * BAR_S - order.mask[0][0] / 25  # of the window
    assert (order.mask[1][0] - order.mask[0][0]) / 25 == pytest.approx(6 * BAR_S, abs=0.05)
    original = read(song.parent / "Media" / "Keys.wav")[:, 0]
    at = round((start_s - 0.0) * RATE)
    near = [lag for lag in range(at - 4000, at + 4000) if np.array_equal(original[lag : lag + 64], source[0, :64])]
    assert len(near) == 1, "the window is the song's own sound"
    assert (order.wanted[1] - order.wanted[0]) / RATE == pytest.approx(8 * BAR_S, abs=0.1)


def test_both_regions_are_made_and_nothing_else(song):
    _, _, result = go(asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), level=False), quieter)
    before, after = read(song.parent / "Media" / "Keys.wav"), read(result.takes[0].file)
    changed = np.flatnonzero((before != after).any(axis=1)) / RATE
    for first, last in ((20, 22), (26, 27)):
        start_s, end_s = (first - 1) * BAR_S, last * BAR_S
        inside = changed[(changed >= start_s - 0.055) & (changed < end_s)]
        assert len(inside) > 0.9 * (end_s - start_s) * RATE
        changed = changed[(changed < start_s - 0.055) | (changed >= end_s)]
        np.testing.assert_allclose(
            after[round(start_s * RATE) : round((end_s - 0.06) * RATE)],
            before[round(start_s * RATE) : round((end_s - 0.06) * RATE)] * np.float32(0.951),
            atol=1e-6,
        )
    assert not len(changed)
    assert [take.report.outside_max_abs_diff for take in result.takes] == [0.0, 0.0]


@pytest.mark.parametrize("rate_hz", [48_000, 44_100])
def test_what_comes_back_as_it_went_nulls_in_both(tmp_path, rate_hz):
    at_s = np.arange(60 * rate_hz) / rate_hz
    sound = 0.1 * np.stack([np.sin(2 * np.pi * 440 * at_s), np.sin(2 * np.pi * 1_700 * at_s)])
    rppmaker.media(tmp_path, "Media/a.wav", sound, rate_hz, subtype="FLOAT")
    envelope = "" if rate_hz == 48_000 else "  <TEMPOENVEX\n    PT 0 120 1\n    PT 8 90 1\n    PT 20 131.7 1\n  >\n"
    path = rppmaker.project(tmp_path, rppmaker.track("K", rppmaker.item(0, 60, "Media/a.wav")), extra=envelope)
    requests = asked(path, ("K", (4, 5)), ("K", (9, 11)), max_attempts=1)
    client, _, result = go(requests, lambda source, order, seed: source)
    assert len(client.orders) == 1
    assert [take.report.warped for take in result.takes] == [bool(envelope)] * 2
    before, after = read(tmp_path / "Media" / "a.wav"), read(result.takes[0].file)
    if envelope:
        assert [take.report.lufs_delta for take in result.takes] == pytest.approx([0, 0], abs=0.2)
    else:
        assert np.array_equal(before, after)
    assert [(take.report.length_error_samples, take.report.outside_max_abs_diff) for take in result.takes] == [
        (0, 0)
    ] * 2


def test_a_fault_in_one_region_rolls_the_take_again_for_both(song):
    def silent_at_first(source, order, seed):
        out = quieter(source, order, seed)
        if seed < 12:
            out[:, order.mask[1][0] * 1920 : order.mask[1][1] * 1920] = 0
        return out

    requests = asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), variations=2, level=False)
    client, heard, result = go(requests, silent_at_first)
    assert [order.seeds for order in client.orders] == [(10, 11), (12, 13)]
    assert [(take.bars, take.seed, take.attempts) for take in result.takes] == [
        ((20, 22), 12, 2), ((20, 22), 13, 2), ((26, 27), 12, 2), ((26, 27), 13, 2),
    ]  # fmt: skip
    assert len(heard.warned) == 2


def test_a_later_landing_and_a_redo_bring_both(song):
    client, heard, result = go(asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), level=False), quieter)
    assert len(decode(client.result(result.job).plan, result.job).regions) == 2
    assert [rolled.region for rolled in look(client, result.job, heard)] == [0, 1]
    again = land(client, result.job, heard)
    assert [take.bars for take in again.takes] == [(20, 22), (26, 27)]
    assert np.array_equal(read(again.takes[0].file), read(result.takes[0].file))
    client.job = client.result
    for made in (of_file(result.takes[0].file), of_job(client, result.job)):
        requests = request_of(made, Change())
        assert [(request.bars, request.seed) for request in requests] == [((20, 22), 10), ((26, 27), 10)]
        _, _, redone = go(list(requests), quieter)
        assert np.array_equal(read(redone.takes[0].file), read(result.takes[0].file))


def test_context_that_was_asked_for_is_not_widened(song):
    client, _, result = go(asked(song, ("Keys", (20, 22)), ("Keys", (24, 27)), context=1, level=False), quieter)
    (order,) = client.orders
    assert order.frames / RATE == pytest.approx(10 * BAR_S, abs=0.2)
    assert result.takes[0].report.context_s == pytest.approx((BAR_S, 6 * BAR_S), abs=0.1)
    client, _, _ = go(asked(song, ("Keys", (20, 29)), ("Keys", (31, 40)), level=False), quieter)
    assert client.orders[0].frames / RATE >= 80 * BAR_S / 2, "half of it is context"
