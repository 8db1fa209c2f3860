"""The diffusion transformer against diffusers, and its prepared path against the plain one."""

import pytest
import torch
from acestep_peers import SPEC, draw, stirred, taught
from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel

from punchin.engine.dit import Dit


@pytest.fixture(scope="module")
def ours():
    return stirred(Dit(SPEC.dit), seed=1)


@pytest.fixture(scope="module")
def theirs(ours):
    model = AceStepTransformer1DModel(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        in_channels=24,
        audio_acoustic_hidden_dim=8,
        sliding_window=4,
        encoder_hidden_size=48,
    )
    return taught(model, ours)


def inputs(frames, batch=2, tokens=7):
    return (
        draw(batch, frames, 8),
        torch.tensor([0.3, 0.954545])[:batch],
        draw(batch, frames, 16),
        draw(batch, tokens, 48),
    )


@torch.no_grad()
@pytest.mark.parametrize("frames", [2, 9, 10, 37, 64])  # odd and even; 5 patches fill the window exactly
def test_velocity_is_diffusers(ours, theirs, frames):
    x, t, context, condition = inputs(frames)
    want = theirs(x, t, t, condition, context, return_dict=False)[0]
    got = ours(x, t, context, condition)
    assert want.abs().max() > 0.1
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_check_can_fail(ours, theirs):
    """One patch more in the band is a different model."""
    x, t, context, condition = inputs(64)
    want = theirs(x, t, t, condition, context, return_dict=False)[0]
    wider = stirred(Dit(SPEC.dit), seed=1)
    object.__setattr__(wider.spec.block, "window", 5)
    try:
        assert (wider(x, t, context, condition) - want).abs().max() > 1e-3
    finally:
        object.__setattr__(wider.spec.block, "window", 4)


@torch.no_grad()
def test_a_prepared_condition_serves_every_step_and_batch(ours):
    x, _, context, condition = inputs(21)
    prepared = ours.prepare(condition[:1])
    for at in (1.0, 0.75, 0.3):
        t = torch.full((2,), at)
        want = ours(x, t, context, condition[:1].expand(2, -1, -1))
        torch.testing.assert_close(ours.velocity(x, t, context, prepared), want, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_modulation_of_a_whole_schedule_at_once_is_that_of_each_time(ours):
    x, _, context, condition = inputs(21, batch=1)
    prepared, times = ours.prepare(condition), torch.tensor([1.0, 0.954545, 0.3])
    whole = ours.modulation(times)
    for i, t in enumerate(times):
        one = type(whole)(whole.table[i : i + 1], whole.out[i : i + 1])
        want = ours.velocity(x, t[None], context, prepared)
        torch.testing.assert_close(ours.steered(x, one, context, prepared), want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_matrix_product_gets_whole_rows(ours):
    """A Linear whose input is not contiguous copies its weight for each batch item: several times slower."""
    x, t, context, condition = inputs(33)
    model, seen = stirred(Dit(SPEC.dit), seed=1), []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(lambda _, given, name=name: seen.append((name, given[0].is_contiguous())))
    model(x, t, context, condition)
    assert len(seen) > 50
    assert [name for name, whole in seen if not whole] == []


@torch.no_grad()
def test_bfloat16_weights_take_and_give_float32(ours):
    x, t, context, condition = inputs(12)
    half = stirred(Dit(SPEC.dit), seed=1).to(torch.bfloat16)
    got = half(x, t, context, condition)
    assert got.dtype == torch.float32
    want = ours(x, t, context, condition)
    assert (got - want).abs().max() < 0.1 * want.abs().max()


@torch.no_grad()
def test_the_sinusoid_is_made_of_float32_times():
    """0.954545 is 0.953125 in bfloat16: in thousandths, 953.1 and not 954.5."""
    half = stirred(Dit(SPEC.dit), seed=1).to(torch.bfloat16)
    near, nearer = (half.time_embed(torch.tensor([t])).out.float() for t in (0.953125, 0.954545))
    assert not torch.equal(near, nearer)


def test_gradients_reach_every_weight(ours):
    x, t, context, condition = inputs(16)
    model = stirred(Dit(SPEC.dit), seed=1)
    model(x, t, context, condition).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


@torch.no_grad()
def test_a_padded_batch_is_its_items_alone(ours):
    """Captions of different length in one training batch: what is padding changes nothing."""
    x, t, context, condition = inputs(10)
    condition[1, 4:] *= 100  # the padding is loud, so that it would be heard
    valid = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    together = ours(x, t, context, condition, valid)
    for i, length in enumerate((7, 4)):
        alone = ours(x[i : i + 1], t[i : i + 1], context[i : i + 1], condition[i : i + 1, :length])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
    seen = (ours(x, t, context, condition)[1] - together[1]).abs().max()
    assert seen > 1e-4, "without `valid` the padding is seen"
