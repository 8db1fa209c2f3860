"""A stage's way: exact after every stop, its learning rate as told, refusals before anything is overwritten."""

from dataclasses import replace

import pytest
import torch

from punchin.protocol.errors import JobFailed, Refused
from punchin.training.console import Line, length
from punchin.training.recipes.loop import Progress, Run, Stage
from punchin.training.recipes.plan import SMOKE

PLAN = replace(SMOKE, steps={"toy": 23}, record_steps=4, warmup=3)


class Toy(Stage[torch.Tensor]):
    name = "toy"
    device = torch.device("cpu")
    peak_lr = 0.05
    weight_decay = 0.1

    def __init__(self, bad_at=None):
        torch.manual_seed(0)
        self.module, self.bad_at = (
            torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)),
            bad_at,
        )

    def prepare(self, step):
        return torch.randn(16, 3, generator=torch.Generator().manual_seed(step))

    def loss(self, step, prepared):
        wanted = prepared.sum(1, keepdim=True)
        loss = (self.module(prepared) - wanted).square().mean()
        return loss * float("nan") if step == self.bad_at else loss


def run(tmp_path, stage=None, plan=PLAN, **settings):
    return Run(stage or Toy(), tmp_path / "toy.safetensors", plan, 60, settings)


def weights(some):
    return torch.cat([p.detach().flatten() for p in some.stage.module.parameters()])


@pytest.fixture
def quiet(tmp_path):
    with (tmp_path / "log").open("w") as out:
        yield Line(out)


@pytest.mark.parametrize("stops", [(1,), (4,), (7, 2), (5, 5, 5, 5)])
def test_it_goes_on_exactly_after_every_stop(tmp_path, quiet, stops):
    whole = run(tmp_path / "whole")
    assert whole.go(quiet, lambda: False)
    for count in stops:
        left = iter([False] * (count - 1) + [True] * 9)
        assert not run(tmp_path / "broken").go(quiet, lambda left=left: next(left))
    last = run(tmp_path / "broken")
    assert last.progress.step == sum(stops)
    assert last.go(quiet, lambda: False)
    assert torch.equal(weights(last), weights(whole))
    assert [*last.progress.losses] == [*whole.progress.losses]
    for each in (last, whole):
        each.finish()
    assert torch.equal(weights(last), weights(whole)), "the averages too"


def test_the_loss_falls_and_a_done_stage_stays_done(tmp_path, quiet):
    first = run(tmp_path)
    first.go(quiet, lambda: False)
    losses = [loss for _, loss in first.progress.losses]
    assert losses[-1] < losses[0] / 2
    again = run(tmp_path)
    assert again.progress.done
    assert again.go(quiet, lambda: True)
    assert torch.equal(weights(again), weights(first))


def test_the_rate_rises_stays_and_falls():
    at = Progress(decay_from=75, end=100)
    rates = []
    for step in range(100):
        at.step = step
        rates.append(at.rate(10))
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:75] == [1.0] * 66
    assert rates[75:99] == pytest.approx([(100 - step) / 25 for step in range(75, 99)])
    assert min(rates[75:]) > 0


def test_time_decides_the_end_once(tmp_path, quiet):
    some = Run(Toy(), tmp_path / "t.safetensors", replace(PLAN, steps=None), 1e-9, {})
    some.go(quiet, lambda: False)
    assert (some.progress.decay_from, some.progress.end, some.progress.step) == (4, 5, 5)


def test_more_time_goes_on_from_the_end(tmp_path, quiet):
    timed = replace(PLAN, steps=None)
    Run(Toy(), tmp_path / "t.safetensors", timed, 1e-9, {}).go(quiet, lambda: False)
    assert Run(Toy(), tmp_path / "t.safetensors", timed, 1e-9, {}).progress.done
    more = Run(Toy(), tmp_path / "t.safetensors", timed, 3600, {})
    assert (more.progress.done, more.progress.decay_from, more.progress.step) == (False, None, 5)
    assert not more.go(quiet, lambda: True)
    assert more.progress.step == 6


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(tmp_path, quiet):
    bad = run(tmp_path, Toy(bad_at=9))
    with pytest.raises(JobFailed, match="step 12 is nan") as caught:
        bad.go(quiet, lambda: False)
    assert "last good checkpoint" in caught.value.hint
    kept = run(tmp_path)
    assert kept.progress.step == 8
    assert bool(weights(kept).isfinite().all())


def test_another_configuration_is_refused_and_nothing_overwritten(tmp_path, quiet):
    run(tmp_path, plan=PLAN, recipe=1).go(quiet, lambda: False)
    before = (tmp_path / "toy.safetensors").read_bytes()
    with pytest.raises(Refused, match=r"'recipe': 1.*'recipe': 2"):
        run(tmp_path, recipe=2)
    assert (tmp_path / "toy.safetensors").read_bytes() == before


def test_lengths_in_words():
    assert [length(s) for s in (0, 59.6, 61, 3600, 3725)] == [
        "0 s",
        "1 min 00 s",
        "1 min 01 s",
        "1 h 00 min",
        "1 h 02 min",
    ]
