"""Codes are those of diffusers and of vector-quantize-pytorch, and every index comes back as itself."""

import pytest
import torch
from acestep_peers import BLOCK_ARGUMENTS, SPEC, draw, stirred, taught
from diffusers.pipelines.ace_step.modeling_ace_step import AceStepAudioTokenDetokenizer, AceStepAudioTokenizer
from vector_quantize_pytorch import ResidualFSQ

from punchin.engine import tokenizer
from punchin.engine.tokenizer import AudioDetokenizer, AudioTokenizer, Quantizer, whole_codes

LEVELS = [8, 8, 8, 5, 5, 5]


def spread(quantizer):
    """Codes of a random projection crowd around the middle; four times as wide, they use all levels."""
    quantizer.project_in.weight.data *= 4
    return quantizer


@pytest.fixture(scope="module")
def ours():
    model = stirred(AudioTokenizer(SPEC.tokenizer), seed=5)
    spread(model.quantizer)
    return model


@torch.no_grad()
@pytest.mark.parametrize("frames", [5, 1000, 1003])
def test_codes_are_diffusers(ours, frames):
    peer = AceStepAudioTokenizer(**BLOCK_ARGUMENTS, audio_acoustic_hidden_dim=8, fsq_dim=48)
    taught(peer, ours, absent=[key for key in peer.state_dict() if "quantizer" in key and "project" not in key])
    latent, silence = draw(2, frames, 8), draw(1, 20, 8, seed=7)
    want, indices = peer.tokenize(latent, silence)
    got = ours(whole_codes(latent, silence, ours.pool))
    assert torch.equal(got.indices, indices.squeeze(-1))
    assert frames < 100 or got.indices.unique().numel() > 200
    torch.testing.assert_close(got.states, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_quantizing_is_vector_quantize_pytorchs():
    """The library that the original was trained with. Its code maths are compared, its buffers are its own."""
    ours = spread(stirred(Quantizer(SPEC.tokenizer), seed=6))
    peer = ResidualFSQ(dim=48, levels=LEVELS, num_quantizers=1).eval()
    peer.load_state_dict(ours.state_dict(), strict=False)
    h = draw(3, 2000, 48)
    want, indices = peer(h)
    got = ours(h)
    assert torch.equal(got.indices, indices.squeeze(-1))
    assert got.indices.unique().numel() > 1000
    torch.testing.assert_close(got.states, want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_every_index_comes_back_as_itself():
    """With an identity in place of the projections, the states are the code values: quantizing them again is exact."""
    quantizer = Quantizer(SPEC.tokenizer)
    quantizer.project_in, quantizer.project_out = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    for linear in (quantizer.project_in, quantizer.project_out):
        linear.weight.copy_(torch.eye(6))
        linear.bias.zero_()
    indices = torch.arange(64_000)[None]
    values = quantizer.states(indices)
    assert values.unique(dim=1).shape[1] == 64_000
    # The soft clamp is undone first, so that what arrives at the rounding is the code value itself.
    soft = 1 + 1 / (torch.tensor(LEVELS).float() - 1)
    assert torch.equal(quantizer((values / soft).atanh() * soft).indices, indices)


@torch.no_grad()
def test_states_of_indices_are_those_they_came_from(ours):
    codes = ours(draw(1, 500, 8))
    torch.testing.assert_close(ours.quantizer.states(codes.indices), codes.states, rtol=0, atol=1e-6)
    peer = ResidualFSQ(dim=48, levels=LEVELS, num_quantizers=1).eval()
    peer.load_state_dict(ours.quantizer.state_dict(), strict=False)
    want = peer.get_output_from_indices(codes.indices[..., None])
    torch.testing.assert_close(ours.quantizer.states(codes.indices), want, rtol=0, atol=1e-5)


@torch.no_grad()
def test_bfloat16_weights_quantize_in_float32(ours):
    """The same bfloat16 weights, held as float32, give the same codes: no rounding on the way."""
    half = spread(stirred(Quantizer(SPEC.tokenizer), seed=6)).to(torch.bfloat16)
    wide = spread(stirred(Quantizer(SPEC.tokenizer), seed=6)).to(torch.bfloat16).float()
    h = draw(1, 500, 48).to(torch.bfloat16)
    assert torch.equal(half(h).indices, wide(h.float()).indices)
    assert half(h).states.dtype == torch.bfloat16


def test_gradients_pass_through_the_rounding(ours):
    quantizer = stirred(Quantizer(SPEC.tokenizer), seed=6)
    h = draw(1, 50, 48).requires_grad_()
    quantizer(h).states.square().sum().backward()
    assert (h.grad.abs().sum(-1) > 0).all()
    assert quantizer.project_in.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_detokenizer_is_diffusers():
    ours = stirred(AudioDetokenizer(SPEC.tokenizer), seed=8)
    peer = taught(AceStepAudioTokenDetokenizer(**BLOCK_ARGUMENTS, audio_acoustic_hidden_dim=8), ours)
    states = draw(2, 9, 48)
    got = ours(states)
    assert got.shape == (2, 45, 8)
    torch.testing.assert_close(got, peer(states), rtol=0, atol=1e-5)


def test_silence_fills_the_last_code():
    latent, silence = draw(2, 13, 8), draw(1, 20, 8, seed=7)
    whole = whole_codes(latent, silence, 5)
    assert torch.equal(whole[:, :13], latent)
    assert torch.equal(whole[:, 13:], silence[:, :2].expand(2, -1, -1))
    assert torch.equal(whole_codes(latent[:, :10], silence, 5), latent[:, :10])


@torch.no_grad()
def test_how_many_codes_are_worked_on_at_once_changes_nothing(ours, monkeypatch):
    detokenizer = stirred(AudioDetokenizer(SPEC.tokenizer), seed=8)
    latent = draw(2, 100, 8)
    want = ours(latent)
    heard = detokenizer(want.states)
    monkeypatch.setattr(tokenizer, "GROUPS", 7)
    got = ours(latent)
    assert torch.equal(got.indices, want.indices)
    torch.testing.assert_close(detokenizer(got.states), heard, rtol=0, atol=1e-5)
