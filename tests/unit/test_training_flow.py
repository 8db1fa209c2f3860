"""The flow's loss against what DiffSynth-Studio and the original publish of theirs."""

import math

import pytest
import torch

from punchin.protocol.errors import BadUsage
from punchin.training import flow


def test_diffsynths_weights_are_as_published():
    weights, times = flow.diffsynth_weights(), flow.diffsynth_times()
    assert float(weights.sum()) == pytest.approx(1000, abs=0.01)
    assert float(weights[0]) == 0
    assert int(weights.argmax()) == 750
    assert float(times[750]) == pytest.approx(0.5, abs=1e-6)
    assert float(weights.max()) == pytest.approx(1.798, abs=5e-4)
    by_hand = [math.exp(-2 * ((1000 * t - 500) / 1000) ** 2) for t in times.tolist()]
    low = min(by_hand)
    total = sum(each - low for each in by_hand)
    torch.testing.assert_close(weights, torch.tensor([(y - low) * 1000 / total for y in by_hand]), rtol=1e-4, atol=1e-4)


def test_diffsynth_draws_every_time_alike_with_its_own_weight():
    t, weights = flow.draw("diffsynth", 50_000, torch.Generator().manual_seed(0))
    index = (flow.diffsynth_times()[None] - t[:200, None]).abs().argmin(1)
    torch.testing.assert_close(weights[:200], flow.diffsynth_weights()[index])
    assert float(weights.mean()) == pytest.approx(1, abs=0.02)
    assert float((t > 0.75).float().mean()) == pytest.approx(0.5, abs=0.01)  # u = 1/2 shifts to 3/4


def test_logit_normal_is_the_larger_of_two():
    t, weights = flow.draw("logit_normal", 50_000, torch.Generator().manual_seed(0))
    assert bool((weights == 1).all())
    middle = torch.logit(t).median()  # the median of the larger of two: where the normal's distribution is sqrt(1/2)
    want = -0.4 + torch.special.ndtri(torch.tensor(0.5**0.5))
    assert float(middle) == pytest.approx(float(want), abs=0.02)


def test_unknown_times_are_refused():
    with pytest.raises(BadUsage, match="diffsynth, logit_normal"):
        flow.draw("uniform", 3, torch.Generator())  # type: ignore[arg-type]


def test_the_loss_is_zero_for_the_true_velocity_and_counts_only_what_counts():
    data, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    ones = torch.ones(2)
    assert float(flow.loss(noise - data, data, noise, ones)) == 0
    wrong = noise - data
    wrong[1, 3:] += 2.0
    counts = torch.ones(2, 5)
    assert float(flow.loss(wrong, data, noise, ones, counts)) == pytest.approx(4 * 2 / 5 / 2)
    counts[1, 3:] = 0
    assert float(flow.loss(wrong, data, noise, ones, counts)) == 0
    assert float(flow.loss(wrong, data, noise, torch.tensor([1.0, 0.5]))) == pytest.approx(4 * 2 / 5 / 2 / 2)


def test_noised_runs_from_data_to_noise():
    data, noise = torch.randn(3, 4, 2), torch.randn(3, 4, 2)
    at = flow.noised(data, noise, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(at[0], data[0])
    assert torch.equal(at[1], noise[1])
    torch.testing.assert_close(at[2], 0.25 * noise[2] + 0.75 * data[2])
