"""Schedule, guidance and sampler: formulas against diffusers and against small cases worked by hand."""

import pytest
import torch
from acestep_peers import draw
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
from diffusers.pipelines.ace_step import AceStepPipeline

from punchin.engine.guidance import Apg, PlainCfg, guided
from punchin.engine.sampler import sample
from punchin.engine.schedule import noised, times, times_after_cover_noise, times_from_strength

TABLE = {  # the original's, for 8 steps
    1.0: [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125],
    2.0: [1, 0.933333, 0.857143, 0.769231, 0.666667, 0.545455, 0.4, 0.222222],
    3.0: [1, 0.954545, 0.9, 0.833333, 0.75, 0.642857, 0.5, 0.3],
}


@pytest.mark.parametrize("shift", TABLE)
def test_the_originals_table(shift):
    assert times(8, shift) == pytest.approx(TABLE[shift], abs=1e-6)


@pytest.mark.parametrize("shift", [1.0, 2.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 8, 13, 50])
def test_times_are_diffusers(steps, shift):
    peer = AceStepPipeline._get_timestep_schedule(None, steps, shift, torch.device("cpu"), torch.float32)
    assert times(steps, shift) == pytest.approx(peer.tolist()[:steps], abs=1e-7)


def test_strength_lowers_u_before_the_shift_and_keeps_the_steps():
    assert times_from_strength(8, 3.0, 1.0) == times(8, 3.0)
    low = times_from_strength(8, 3.0, 0.9)
    assert len(low) == 8
    assert low[0] == pytest.approx(0.964286, abs=1e-6)  # 3 * 0.9 / (1 + 2 * 0.9)
    assert list(low) == sorted(low, reverse=True)


def test_cover_noise_starts_at_the_nearest_time_with_the_steps_that_are_left():
    assert times_after_cover_noise(8, 3.0, 0.0) == times(8, 3.0)
    assert times_after_cover_noise(8, 3.0, 0.3) == times(8, 3.0)[4:]  # 0.75 is nearer to 0.7 than 0.642857
    assert times_after_cover_noise(8, 3.0, 1.0) == times(8, 3.0)[7:]


def test_a_noised_point_lies_on_the_line():
    clean, noise = draw(1, 4, 2), draw(1, 4, 2, seed=1)
    torch.testing.assert_close(noised(clean, noise, 0.25), 0.25 * noise + 0.75 * clean)


def test_apg_is_diffusers_over_several_steps():
    ours, momentum = Apg(7.0), MomentumBuffer(-0.75)
    for step in range(5):
        # a size at which some channels meet the norm's bound and others do not
        conditional, unconditional = draw(2, 40, 8, seed=step), draw(2, 40, 8, seed=50 + step)
        unconditional = conditional + 0.5 * (step + 1) / 3 * (unconditional - conditional)
        want = normalized_guidance(
            conditional,
            unconditional,
            guidance_scale=6.0,
            momentum_buffer=momentum,
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(1,),
        )
        torch.testing.assert_close(ours(conditional, unconditional), want, rtol=0, atol=1e-5)


def test_apg_of_equal_velocities_changes_nothing():
    v = draw(1, 10, 4)
    assert torch.equal(Apg(7.0)(v, v.clone()), v)


def test_plain_cfg_by_hand():
    assert PlainCfg(4.0)(torch.tensor(3.0), torch.tensor(1.0)) == 1 + 4 * 2


def test_the_interval_is_of_t_itself():
    """diffusers would guide where 0.2 <= 1 - t <= 0.5, the mirror image."""
    seen = []

    def unconditional(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    velocity = guided(lambda x, t: torch.ones_like(x), unconditional, PlainCfg(3.0), start=0.2, stop=0.5)
    answers = {t: velocity(torch.zeros(1, 1, 1), t).item() for t in (1.0, 0.5, 0.3, 0.2, 0.1)}
    assert answers == {1.0: 1, 0.5: 3, 0.3: 3, 0.2: 3, 0.1: 1}
    assert seen == [0.5, 0.3, 0.2]


@pytest.mark.parametrize(
    ("steps", "shift", "interval", "wanted"),
    [(8, 3.0, (0.9, 1.0), 3), (8, 3.0, (0.0, 0.3), 1), (50, 1.0, (0.2, 0.8), 31), (50, 1.0, (0.4, 0.6), 11)],
)
def test_the_interval_has_its_ends(steps, shift, interval, wanted):
    """Times are float32: 0.3 is 0.30000001."""
    seen = []
    velocity = guided(lambda x, t: x, lambda x, t: seen.append(t) or x, PlainCfg(3.0), *interval)
    for t in times(steps, shift):
        velocity(torch.zeros(1, 1, 1), t)
    assert len(seen) == wanted


def test_a_straight_flow_arrives_exactly():
    data, noise = draw(2, 6, 3), draw(2, 6, 3, seed=1)
    steps = list(sample(lambda x, t: noise - data, noise, times(8, 3.0)))
    assert [(step.done, step.total) for step in steps] == [(i, 8) for i in range(1, 9)]
    assert steps[-1].t == 0
    torch.testing.assert_close(steps[-1].latent, data, rtol=0, atol=1e-5)
    torch.testing.assert_close(steps[3].latent, noised(data, noise, steps[3].t), rtol=0, atol=1e-5)


def test_a_step_is_one_call_and_leaving_stops_them():
    calls = []

    def velocity(x, t):
        calls.append(t)
        return x

    steps = sample(velocity, draw(1, 4, 2), times(8, 1.0))
    next(steps)
    next(steps)
    steps.close()
    assert calls == [1.0, 0.875]


def test_amend_sees_each_latent_with_its_time_and_has_the_last_word():
    noise, kept = draw(1, 4, 2), draw(1, 4, 2, seed=1)

    def amend(x, t):
        return torch.cat([noised(kept[:, :2], noise[:, :2], t), x[:, 2:]], dim=1)

    for step in sample(lambda x, t: x, noise, times(4, 1.0), amend):
        torch.testing.assert_close(step.latent[:, :2], noised(kept[:, :2], noise[:, :2], step.t))
    assert torch.equal(step.latent[:, :2], kept[:, :2])
