"""A take over its limits is rolled again with the next seed, and in the end lands with a warning in its name."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import soundfile
from directclient import DirectClient, Heard
from rppmaker import item, project, track

from punchin.clients.cli.result import measured
from punchin.clients.demo import session_folder
from punchin.clients.journey import Prompt, Request, land, redoing
from punchin.clients.journey.capture import capture, opened
from punchin.clients.journey.plan import decode
from punchin.clients.journey.travel import go as travel
from punchin.protocol.errors import Cancelled, JobFailed, PunchinError, Refused


@pytest.fixture
def session(tmp_path):
    shutil.copytree(session_folder(), tmp_path / "session")
    return tmp_path / "session" / "demo.rpp"


def silent_unless(*good):
    """An engine whose takes are silent, which no limit allows, unless their seed is one of these."""
    return lambda source, order, seed: source if seed in good else np.zeros_like(source)


def go(session, make, model="direct", **more):
    client, heard = DirectClient(make, model), Heard()
    request = Request(
        task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10, **more
    )
    return client, heard, travel(client, [request], [capture(request, opened(request))], heard)


def test_a_good_take_is_rolled_once(session):
    client, heard, result = go(session, silent_unless(10))
    assert [order.seeds for order in client.orders] == [(10,)]
    assert (result.takes[0].seed, result.takes[0].attempts) == (10, 1)
    assert heard.warned == []


def test_a_bad_take_is_rolled_with_the_next_seed(session):
    client, heard, result = go(session, silent_unless(12))
    assert [order.seeds for order in client.orders] == [(10,), (11,), (12,)]
    (take,) = result.takes
    assert (take.seed, take.attempts, take.report.ok) == (12, 3, True)
    assert "CHECK" not in take.name
    assert len(heard.warned) == 2
    assert heard.warned[0].startswith("take 10: loudness difference is -")
    assert heard.warned[0].endswith("rolled again with seed 11 (attempt 2 of 3)")
    assert set(client.where) == {result.job}


def test_only_the_bad_variations_are_rolled_again(session):
    client, _, result = go(session, silent_unless(10, 12, 13), variations=3)
    assert [order.seeds for order in client.orders] == [(10, 11, 12), (13,)]
    assert [(take.seed, take.attempts) for take in result.takes] == [(10, 1), (13, 2), (12, 1)]
    assert set(client.where) == {"direct-0000", "direct-0001"}


def test_in_the_end_it_lands_with_a_warning_in_its_name(session):
    client, heard, result = go(session, silent_unless())
    assert len(client.orders) == 3
    (take,) = result.takes
    assert (take.seed, take.attempts, take.report.ok) == (12, 3, False)
    warning = f"CHECK: {take.report.failed[0]}"
    assert warning in take.name
    assert warning in result.output.read_text()
    assert take.file.stem == "Keys-punchin-repaint-12"
    assert len(heard.warned) == 2


def test_an_untrained_model_is_named_and_not_judged_in_its_name(session):
    client = DirectClient(silent_unless(), "punchin-tiny", trained=False)
    request = Request(task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10)
    result = travel(client, [request], [capture(request, opened(request))], Heard())
    (take,) = result.takes
    assert (take.name, take.file.stem) == ("punchin repaint 10 demo model (tiny)", "Keys-punchin-repaint-10")
    assert not take.report.ok
    assert any("over its limit: " in line for line in measured(take))


@pytest.mark.parametrize("at", ["finish", "landing.land", "_up_to_date"])
def test_a_ctrl_c_after_the_end_of_the_job_says_how_its_takes_land(session, monkeypatch, at):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = sorted(session.parent.rglob("*"))
    client = DirectClient()
    request = Request(task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10)
    with monkeypatch.context() as patch:
        patch.setattr(f"punchin.clients.journey.travel.{at}", interrupt)
        with pytest.raises(Cancelled, match="stopped before anything was written; the takes are kept") as stopped:
            travel(client, [request], [capture(request, opened(request))], Heard())
    assert (stopped.value.exit_code, stopped.value.hint) == (130, "punchin land direct-0000")
    assert sorted(session.parent.rglob("*")) == before
    assert [take.seed for take in land(client, "direct-0000", Heard()).takes] == [10]


def test_what_ends_a_later_attempt_costs_no_take_of_those_before(session, monkeypatch):
    client, result = DirectClient(silent_unless(10)), DirectClient.result
    request = Request(
        task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10, variations=2
    )

    def only_the_first(self, job):
        if job != "direct-0000":
            raise JobFailed("out of memory", "punchin doctor", job=job)
        return result(self, job)

    with monkeypatch.context() as patch:
        patch.setattr(DirectClient, "result", only_the_first)
        with pytest.raises(JobFailed) as failed:
            travel(client, [request], [capture(request, opened(request))], Heard())
    assert len(client.orders) == 2
    assert failed.value.hint == "punchin doctor\nthe takes of the attempts before are kept: punchin land direct-0000"
    assert [take.seed for take in land(client, "direct-0000", Heard()).takes] == [10, 11]


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), Refused("the journal cannot be written", code="disk_full")])
def test_what_goes_wrong_after_the_landing_says_where_the_takes_are(session, monkeypatch, trouble):
    def fail(*_):
        raise trouble

    client = DirectClient()
    monkeypatch.setattr(client, "landed", fail)
    request = Request(task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10)
    with pytest.raises(PunchinError) as told:
        travel(client, [request], [capture(request, opened(request))], Heard())
    output = session.with_name("demo-punchin.rpp")
    assert output.is_file()
    assert f"the takes have landed in {output}" in f"{told.value}\n{told.value.hint}"
    assert told.value.exit_code == (130 if isinstance(trouble, KeyboardInterrupt) else 4)


def test_a_take_without_its_effects_says_so_in_its_report(session, tmp_path, monkeypatch):
    def fail(*_):
        raise PunchinError("effect Gain (1 of 1): gone")

    chain = tmp_path / "warm.toml"
    chain.write_text('[[effect]]\nname = "Gain"\n')
    monkeypatch.setattr("punchin.clients.fx.apply", fail)
    _, heard, result = go(session, silent_unless(10), return_fx=chain)
    (take,) = result.takes
    assert take.report.return_fx_failed == "warm.toml: effect Gain (1 of 1): gone"
    assert (take.report.ok, take.to_json()["report"]["return_fx_failed"]) == (True, take.report.return_fx_failed)
    assert "  without its effects: warm.toml: effect Gain (1 of 1): gone" in measured(take)
    assert heard.warned == ["effect Gain (1 of 1): gone; the take lands without warm.toml"]
    _, _, plain = go(session, silent_unless(10))
    assert plain.takes[0].report.return_fx_failed is None


@pytest.mark.parametrize(
    ("option", "says"),
    [("pre_fx", "on what the model hears (--pre-fx)"), ("return_fx", "on the take (--return-fx)")],
)
def test_a_redo_through_a_chain_that_was_edited_says_so(session, tmp_path, monkeypatch, option, says):
    def perform_all(requests, listener):
        return travel(DirectClient(), requests, [capture(each, opened(each)) for each in requests], listener)

    def again(made):
        heard = Heard()
        redoing.redo(made, redoing.request_of(made, redoing.Change()), heard)
        return heard.warned

    monkeypatch.setattr(redoing, "perform_all", perform_all)
    monkeypatch.setattr("punchin.clients.fx.apply", lambda chain, audio, rate_hz: audio)
    chain = tmp_path / "warm.toml"
    chain.write_text('[[effect]]\nname = "Gain"\n')
    client, _, result = go(session, lambda source, order, seed: source, **{option: chain})
    client.job = client.result
    mades = redoing.of_file(result.takes[0].file), redoing.of_job(client, result.job)
    assert [again(made) for made in mades] == [[], []]
    chain.write_text('[[effect]]\nname = "Gain"\ngain_db = -3\n')
    told = f"the effects {says} are no longer what they were when the first take was made; this one differs"
    assert [again(made) for made in mades] == [[told], [told]]
    unknown = {name: value for name, value in mades[0].items() if name != f"{option}_sha256"}
    assert again(unknown) == [], "made by a punchin that did not keep it"


def test_max_attempts_bounds_it(session):
    client, _, result = go(session, silent_unless(), max_attempts=1)
    assert len(client.orders) == 1
    assert result.takes[0].attempts == 1


def test_a_wide_take_in_a_mono_file_is_as_loud_as_it_was(tmp_path):
    rng = np.random.default_rng(3)
    soundfile.write(tmp_path / "mono.wav", 0.05 * rng.standard_normal(48_000 * 16), 48_000, subtype="PCM_24")
    wide = lambda source, order, seed: 0.2 * rng.standard_normal(source.shape).astype(np.float32)  # noqa: E731
    client, heard = DirectClient(wide), Heard()
    request = Request(
        task="repaint", session=tmp_path / "mono.wav", bpm=120, bars=(3, 5), prompt=Prompt(text="x"), seed=10
    )
    (take,) = travel(client, [request], [capture(request, opened(request))], heard).takes
    assert take.report.lufs_delta == pytest.approx(0, abs=0.1)
    assert (take.attempts, take.report.ok, heard.warned) == (1, True, [])
    assert take.report.context_s == pytest.approx((4.0, 6.0), abs=0.05), "all that sixteen seconds have"


def test_a_region_from_a_trimmed_items_start_on_has_no_seam_there(tmp_path):
    """What the source has before the item is in the take's file, but nobody hears it: no seam, and no context."""
    rng = np.random.default_rng(3)
    loud_then_not = np.concatenate([0.3 * rng.standard_normal(48_000 * 8), 0.01 * rng.standard_normal(48_000 * 16)])
    soundfile.write(tmp_path / "long.wav", loud_then_not, 48_000, subtype="FLOAT")
    path = project(tmp_path, track("Keys", item(4, 12, "long.wav", SOFFS="8")))
    request = Request(task="repaint", session=path, track="Keys", bars=(3, 4), prompt=Prompt(text="x"), seed=10)
    noise = lambda source, order, seed: 0.01 * rng.standard_normal(source.shape).astype(np.float32)  # noqa: E731
    result = travel(DirectClient(noise), [request], [capture(request, opened(request))], Heard())
    (take,), (rolled,) = result.takes, result.rolled
    assert rolled.finished.span.plays == (2 * 48_000, 14 * 48_000)
    assert (take.report.seam_db[0], take.report.outside_max_abs_diff, take.report.ok) == (None, 0.0, True)
    assert take.report.fade_ms >= 20
    assert soundfile.info(take.file).frames == 16 * 48_000


@pytest.mark.parametrize("model", ["identity"])
def test_what_cannot_differ_is_not_rolled_again(session, model):
    client, _, _ = go(session, silent_unless(), model)
    assert len(client.orders) == 1


def test_a_later_landing_gives_the_same_takes(session, tmp_path):
    """The plan of the last roll knows the takes of the earlier ones."""
    client, heard, result = go(session, silent_unless(10, 12, 13), variations=3)
    again = land(client, result.job, heard)
    assert [take.seed for take in again.takes] == [10, 13, 12]
    assert [take.attempts for take in again.takes] == [1, 2, 1]
    for old, new in zip(result.takes, again.takes, strict=True):
        assert old.file != new.file
        assert old.file.read_bytes() == new.file.read_bytes()


@pytest.mark.parametrize("bare", [False, True])
def test_a_last_bar_that_the_session_cuts_short_lands_later_too(tmp_path, bare):
    sound = np.random.default_rng(3).uniform(-0.1, 0.1, 48_000 * 15)
    soundfile.write(tmp_path / "keys.wav", sound, 48_000, subtype="PCM_24")
    path = tmp_path / "keys.wav" if bare else project(tmp_path, track("Keys", item(0, 15, "keys.wav")))
    where = {"bpm": 120} if bare else {"track": "Keys"}
    request = Request(task="repaint", session=path, bars=(7, 8), prompt=Prompt(text="x"), seed=10, **where)
    client = DirectClient(silent_unless(10))
    result = travel(client, [request], [capture(request, opened(request))], Heard())
    again = land(client, result.job, Heard())
    assert result.takes[0].file.read_bytes() == again.takes[0].file.read_bytes()
    soundfile.write(tmp_path / "keys.wav", sound[: 48_000 * 13], 48_000, subtype="PCM_24")
    if not bare:
        project(tmp_path, track("Keys", item(0, 13, "keys.wav")))
    with pytest.raises(Refused, match="has changed since"):
        land(client, result.job, Heard())


def test_a_session_with_another_tempo_is_not_landed_on(session):
    client, heard, result = go(session, silent_unless(10))
    landed = capture_of(session).heard_sha256
    assert decode(client.result(result.job).plan, result.job).places[0].heard_sha256 == landed
    text = session.read_bytes()
    session.write_bytes(text.replace(b"VOLPAN 1 0 1 -1", b"VOLPAN 1 0.5 1 -1"))
    with pytest.raises(Refused, match="has changed since") as raised:
        land(client, result.job, heard)
    assert raised.value.code == "changed"


def capture_of(session):
    request = Request(task="repaint", session=session, track="Keys", bars=(5, 6), prompt=Prompt(text="x"), seed=10)
    return capture(request, opened(request))


def test_a_job_without_a_plan_cannot_be_landed(session):
    client, heard, _ = go(session, silent_unless(10))
    order = client.orders[0]
    record = client.submit(order)
    with pytest.raises(Refused, match="has no landing plan"):
        land(client, record.id, heard)
    record = client.submit(order, b"\x93\x01\x02")
    with pytest.raises(Refused, match="cannot be read"):
        land(client, record.id, heard)


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"VOLPAN": "0.1 0 1 -1"}, 0.9),  # in its file the take is over full scale, in the DAW 20 dB down
        ({"FADEIN": "0 3 0 0 0 0 0"}, 0.3),  # under the fade the take is divided by next to nothing
    ],
)
def test_a_take_is_judged_by_what_is_heard_of_it(tmp_path, fields, level):
    rng = np.random.default_rng(3)
    soundfile.write(tmp_path / "keys.wav", level * rng.uniform(-1, 1, 48_000 * 12), 48_000, subtype="PCM_24")
    path = project(tmp_path, track("Keys", item(2, 12, "keys.wav", **fields)))
    request = Request(task="repaint", session=path, track="Keys", bars=(2, 3), prompt=Prompt(text="x"), seed=10)
    noise = lambda source, order, seed: 0.05 * rng.standard_normal(source.shape).astype(np.float32)  # noqa: E731
    result = travel(DirectClient(noise), [request], [capture(request, opened(request))], Heard())
    (take,), (rolled,) = result.takes, result.rolled
    assert np.abs(rolled.finished.placed.after).max() > 1.0, "that is what the file holds"
    assert (take.attempts, take.report.failed, take.report.clipped_samples) == (1, (), 0)
    landed = opened(replace(request, session=result.output))
    heard = landed.target("Keys", landed.region(bars=(2, 3))).heard(2.0, 6.0)
    assert take.report.true_peak_dbfs == pytest.approx(20 * np.log10(np.abs(heard).max()), abs=1.0)
