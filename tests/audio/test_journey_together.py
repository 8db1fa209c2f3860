"""Regions of a session are one job, of several tracks too: judged and landed together, near ones in one window."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rppmaker
import soundfile
from directclient import DirectClient, Heard

from punchin.clients.client import new_job_id
from punchin.clients.journey import Prompt, Request, land, look, perform_all
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.plan import Kept, Place, Plan, decode
from punchin.clients.journey.redoing import Change, of_file, of_job, request_of
from punchin.clients.journey.travel import go as travel
from punchin.protocol import limits
from punchin.protocol.errors import OverLimit, Refused
from punchin.protocol.messages import PLAN_BYTES

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


def quieter(source, passage, seed):
    """Another sound under the mask, the source elsewhere; its seed can be told from it."""
    out = source.copy()
    for first, last in passage.mask:
        out[:, first * 1920 : last * 1920] *= 0.95 + seed / 10_000
    return out


def read(path):
    return soundfile.read(path, dtype="float32", always_2d=True)[0]


def test_near_regions_are_one_passage_far_ones_and_tracks_are_more(song):
    places = [("Keys", (20, 22)), ("Keys", (26, 27)), ("Keys", (80, 81)), ("Bass", (20, 22))]
    client, _, result = go(asked(song, *places, level=False), quieter)
    (order,) = client.orders
    assert [len(passage.mask) for passage in order.passages] == [2, 1, 1]
    assert {passage.seeds for passage in order.passages} == {(10,)}
    names = "Keys bars 20-22, Keys bars 26-27", "Keys bars 80-81", "Bass bars 20-22"
    assert tuple(passage.name for passage in order.passages) == names
    assert [(take.track, take.bars) for take in result.takes] == places
    assert client.where == {"direct-0000": str(result.output)}
    assert len({take.file for take in result.takes}) == 2, "regions of one item lie in one take"
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
    client, _, result = go(requests, lambda source, passage, seed: source)
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
    def silent_at_first(source, passage, seed):
        out = quieter(source, passage, seed)
        if seed < 12:
            out[:, passage.mask[1][0] * 1920 : passage.mask[1][1] * 1920] = 0
        return out

    requests = asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), variations=2, level=False)
    client, heard, result = go(requests, silent_at_first)
    assert [order.seeds for order in client.orders] == [(10, 11), (12, 13)]
    assert [(take.bars, take.seed, take.attempts) for take in result.takes] == [
        ((20, 22), 12, 2), ((20, 22), 13, 2), ((26, 27), 12, 2), ((26, 27), 13, 2),
    ]  # fmt: skip
    assert len(heard.warned) == 2


def test_a_fault_in_any_region_stands_in_the_takes_name(song):
    def silent_at_the_end(source, passage, seed):
        out = quieter(source, passage, seed)
        out[:, passage.mask[1][0] * 1920 : passage.mask[1][1] * 1920] = 0
        return out

    requests = asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), max_attempts=1, level=False)
    _, _, result = go(requests, silent_at_the_end)
    good, bad = result.takes
    assert (good.report.ok, bad.report.ok) == (True, False)
    assert good.name == bad.name == f"punchin repaint 10 CHECK: {'; '.join(bad.report.failed)}"
    assert good.name in result.output.read_text()
    assert good.file.stem == "Keys-punchin-repaint-10"


def test_a_later_landing_and_a_redo_bring_both(song):
    client, heard, result = go(asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), level=False), quieter)
    assert len(decode(client.result(result.job).plan, result.job).places) == 2
    assert [part.rolled[0].region for part in look(client, result.job, heard)] == [0, 1]
    again = land(client, result.job, heard)
    assert [take.bars for take in again.takes] == [(20, 22), (26, 27)]
    assert np.array_equal(read(again.takes[0].file), read(result.takes[0].file))
    client.job = client.result
    for made in (of_file(result.takes[0].file), of_job(client, result.job)):
        requests = request_of(made, Change())
        assert [(request.bars, request.seed) for request in requests] == [((20, 22), 10), ((26, 27), 10)]
        _, _, redone = go(list(requests), quieter)
        assert np.array_equal(read(redone.takes[0].file), read(result.takes[0].file))


def test_what_was_made_together_is_made_again_together_in_whatever_files_it_lies(song):
    requests = asked(song, ("Keys", (20, 22)), ("Keys", (26, 27)), ("Bass", (20, 22)), level=False, land="split")
    client, _, result = go(requests, quieter)
    assert [len(passage.mask) for passage in client.orders[0].passages] == [2, 1]
    assert len({take.file for take in result.takes}) == 3
    for n, bars in ((0, [(20, 22), (26, 27)]), (1, [(26, 27), (20, 22)]), (2, [(20, 22)])):
        again = request_of(of_file(result.takes[n].file), Change())
        assert [request.bars for request in again] == bars
        _, _, redone = go(list(again), quieter)
        assert np.array_equal(read(redone.takes[0].file), read(result.takes[n].file))


def test_context_that_was_asked_for_is_not_widened(song):
    client, _, result = go(asked(song, ("Keys", (20, 22)), ("Keys", (24, 27)), context=1, level=False), quieter)
    (order,) = client.orders
    assert order.frames / RATE == pytest.approx(10 * BAR_S, abs=0.2)
    assert result.takes[0].report.context_s == pytest.approx((BAR_S, 6 * BAR_S), abs=0.1)
    client, _, _ = go(asked(song, ("Keys", (20, 29)), ("Keys", (31, 40)), level=False), quieter)
    assert client.orders[0].frames / RATE >= 80 * BAR_S / 2, "half of it is context"


def silent_bass(source, passage, seed):
    """A take of the bass is silent, which no limit allows, until its second seed."""
    return np.zeros_like(source) if "Bass" in passage.name and seed < 12 else quieter(source, passage, seed)


def test_parts_land_in_the_order_in_which_they_were_asked_for(song):
    places = [("Keys", (26, 27)), ("Bass", (20, 22)), ("Keys", (20, 22))]
    client, _, result = go(asked(song, *places, level=False), quieter)
    assert [len(passage.mask) for passage in client.orders[0].passages] == [2, 1]
    assert [(take.track, take.bars) for take in result.takes] == places
    assert [take.report.outside_max_abs_diff for take in result.takes] == [0.0] * 3


def test_only_the_passage_that_breaks_a_limit_is_rolled_again(song):
    places = [("Bass", (20, 22)), ("Keys", (20, 22)), ("Keys", (80, 81))]
    client, heard, result = go(asked(song, *places, variations=2, level=False), silent_bass)
    assert [[(p.name, p.seeds) for p in order.passages] for order in client.orders] == [
        [("Bass bars 20-22", (10, 11)), ("Keys bars 20-22", (10, 11)), ("Keys bars 80-81", (10, 11))],
        [("Bass bars 20-22", (12, 13))],
    ]  # fmt: skip
    assert [(take.track, take.seed, take.attempts) for take in result.takes] == [
        ("Bass", 12, 2), ("Bass", 13, 2), ("Keys", 10, 1), ("Keys", 11, 1), ("Keys", 10, 1), ("Keys", 11, 1),
    ]  # fmt: skip
    assert len(heard.warned) == 2
    assert heard.warned[0].startswith("Bass bars 20-22: take 10: ")
    assert heard.warned[0].endswith("; rolled again with seed 12 (attempt 2 of 3)")
    assert set(client.where) == {"direct-0000", "direct-0001"}

    again = land(client, result.job, heard)
    assert [(take.track, take.bars, take.seed) for take in again.takes] == [
        (take.track, take.bars, take.seed) for take in result.takes
    ]  # fmt: skip
    for one, other in zip(result.takes, again.takes, strict=True):
        assert np.array_equal(read(one.file), read(other.file))

    client.job = client.result
    requests = request_of(of_job(client, result.job), Change())
    assert [(each.track, each.bars, each.seed) for each in requests] == [
        (*places[0], 12),
        (*places[1], 10),
        (*places[2], 10),
    ]
    redone_by, _, redone = go(list(requests), quieter)
    assert [passage.seeds for passage in redone_by.orders[0].passages] == [(12,), (10,), (10,)]
    for one, other in zip(result.takes[::2], redone.takes, strict=True):
        assert np.array_equal(read(one.file), read(other.file))
    bass = request_of(of_file(result.takes[1].file), Change())
    assert [(each.track, each.bars, each.seed) for each in bass] == [("Bass", (20, 22), 13)], "each take by itself, too"


def test_the_last_roll_may_be_of_some_passages_twice(song):
    """Attempts of different passages do not meet: each goes on from its own seeds."""

    def bad(source, passage, seed):
        ok = seed in ((10, 12) if "Bass" in passage.name else (13, 14))
        return quieter(source, passage, seed) if ok else np.zeros_like(source)

    client, _, result = go(asked(song, ("Bass", (20, 22)), ("Keys", (20, 22)), variations=2, level=False), bad)
    assert [[p.seeds for p in order.passages] for order in client.orders] == [
        [(10, 11)] * 2,
        [(12,), (12, 13)],
        [(14,)],
    ]
    assert [(take.track, take.seed, take.attempts) for take in result.takes] == [
        ("Bass", 10, 1), ("Bass", 12, 2), ("Keys", 14, 3), ("Keys", 13, 2),
    ]  # fmt: skip
    assert [take.seed for take in land(client, result.job, Heard()).takes] == [10, 12, 14, 13]


def test_unequal_parts_come_back_as_they_went(tmp_path):
    """Mono and stereo, of two rates, one shorter than a window, and a region that is silent in a track that sounds."""
    rng, files = np.random.default_rng(2), {}
    for name, channels, seconds, rate_hz in (("a", 1, 60, 48_000), ("b", 2, 60, 44_100), ("c", 2, 3, 48_000)):
        sound = rng.uniform(-0.2, 0.2, (channels, seconds * rate_hz))
        if name == "b":
            sound[:, 10 * rate_hz : 18 * rate_hz] = 0
        rppmaker.media(tmp_path, f"Media/{name}.wav", sound, rate_hz, subtype="FLOAT")
        files[name] = tmp_path / "Media" / f"{name}.wav"
    tracks = [rppmaker.track(name, rppmaker.item(0, 3 if name == "c" else 60, f"Media/{name}.wav")) for name in files]
    path = rppmaker.project(tmp_path, *tracks)
    places = [("a", (3, 3)), ("b", (6, 8)), ("c", (1, 1))]
    client, _, result = go(asked(path, *places, max_attempts=1), lambda source, passage, seed: source)
    (order,) = client.orders
    assert len({passage.frames for passage in order.passages}) == 3
    assert [(take.track, take.bars) for take in result.takes] == places
    for take in result.takes:
        before, after = read(files[take.track]), read(take.file)
        assert before.shape == after.shape
        assert (take.report.length_error_samples, take.report.outside_max_abs_diff) == (0, 0.0)
        if take.track == "b":  # resampled: noise rings a little into the silence
            before, after = before[round(10.1 * 44_100) :], after[round(10.1 * 44_100) :]
        assert np.abs(before - after).max() <= (1e-4 if take.track == "b" else 0.0)


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([("Keys", (5, 6)), ("Nobody", (5, 6))], "Nobody"),
        ([("Keys", (5, 6)), ("Quiet", (5, 6))], 'Quiet bars 5-6: track "Quiet" is silent'),
        ([("Keys", (5, 6)), ("Bass", (400, 500))], "Bass bars 400-500: "),
        ([("Keys", (5, 6)), ("Keys", (6, 7))], "bars 5-6 and 6-7 of Keys touch"),
    ],
)
def test_one_that_cannot_be_made_refuses_all_by_its_name(song, monkeypatch, places, said):
    text = song.read_text().rstrip().removesuffix(">") + rppmaker.track("Quiet") + ">\n"
    song.write_bytes(text.encode())
    monkeypatch.setattr("punchin.clients.connect.connect", None)  # nobody is asked
    before = sorted(song.parent.rglob("*"))
    with pytest.raises(Refused) as refused:
        perform_all(asked(song, *places), Heard())
    assert said in str(refused.value)
    assert sorted(song.parent.rglob("*")) == before


def test_two_tracks_of_one_name_are_two_tracks(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 32 * RATE))
    rppmaker.media(tmp_path, "Media/a.wav", sound, subtype="FLOAT")
    both = [rppmaker.track("Keys", rppmaker.item(0, 32, "Media/a.wav")) for _ in range(2)]
    client = DirectClient(quieter)
    client.skew = ""
    monkeypatch.setattr("punchin.clients.connect.connect", lambda **_: nullcontext(client))
    result = perform_all(asked(rppmaker.project(tmp_path, *both), ("1", (5, 6)), ("2", (6, 7))), Heard())
    assert [(take.track, take.bars) for take in result.takes] == [("Keys", (5, 6)), ("Keys", (6, 7))]
    changed = [np.flatnonzero((read(take.file) != sound.T.astype(np.float32)).any(axis=1)) for take in result.takes]
    assert [round(at[-1] / RATE) for at in changed] == [12, 14]


def test_lanes_that_cannot_be_are_refused_before_the_work(song, monkeypatch):
    monkeypatch.setattr("punchin.clients.connect.connect", None)
    with pytest.raises(Refused, match="two regions of track 'Keys' cannot land in one lane each"):
        perform_all(asked(song, ("Bass", (5, 6)), ("Keys", (5, 6)), ("Keys", (20, 21)), land="lane"), Heard())


def test_what_is_not_asked_for_alike_is_not_one_job(song):
    one, other = asked(song, ("Keys", (5, 6)), ("Bass", (5, 6)))
    with pytest.raises(Refused, match="Bass bars 5-6 is asked for in other words than Keys bars 5-6"):
        perform_all([one, replace(other, prompt=Prompt(text="y"))], Heard())
    with pytest.raises(OverLimit, match="number of regions is 33, allowed is 1 to 32"):
        perform_all([one] * 33, Heard())


def test_a_tempo_that_the_model_is_not_told_is_said_once(tmp_path):
    rppmaker.media(tmp_path, "Media/a.wav", rppmaker.noise(1, 20 * RATE), subtype="FLOAT")
    tracks = [rppmaker.track(name, rppmaker.item(0, 20, "Media/a.wav")) for name in "ab"]
    path = rppmaker.project(tmp_path, *tracks, tempo="400 7 8")
    _, heard, _ = go(asked(path, ("a", (3, 4)), ("b", (3, 4)), max_attempts=1), quieter)
    assert len(heard.warned) == 2


def test_the_plan_of_the_largest_job_fits_into_its_message(song):
    """32 regions with 16 variations each, all but one of which are kept, in a deep folder."""
    deep = Path("/", *["a folder with a long name"] * 30, "song.rpp")
    kept = {slot: Kept(job=new_job_id() + "-10", index=slot, attempts=10) for slot in range(511)}
    place = Place(
        passage=31, heard_sha256="5f" * 32, region_s=(1_000.123456789, 1_100.123456789), rate_hz=48_000,
        window=(10_000_000, 20_000_000, 30_000_000, 40_000_000), track="{11111111-0000-4000-8000-000000000001}",
        time_s=(1_000.123456789, 1_100.123456789),
    )  # fmt: skip
    request = replace(asked(song, ("Keys", (5, 6)))[0], session=deep, out=deep, variations=16)
    plan = Plan(request=request, places=(place,) * limits.MAX_REGIONS, slots=(511,), kept=kept,
                pre_fx_sha256="5f" * 32, return_fx_sha256="5f" * 32)  # fmt: skip
    assert len(plan.encode()) <= PLAN_BYTES
    assert decode(plan.encode(), "x") == plan
