"""Attention in blocks is attention under a band mask."""

import pytest
import torch
from acestep_peers import SPEC, draw, stirred

from punchin.engine import band as band_module
from punchin.engine.band import BLOCK, BLOCKS_FROM, Blocks, attention, band, band_mask, blocks
from punchin.engine.dit import Dit


def qkv(length, batch=2):
    return draw(batch, 4, length, 16), draw(batch, 2, length, 16, seed=1), draw(batch, 2, length, 16, seed=2)


@pytest.mark.parametrize("window", [1, 37, 128])
@pytest.mark.parametrize("length", [1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_are_the_masked_whole(length, window):
    q, k, v = qkv(length)
    want = attention(q, k, v, band_mask(window, length, q.device))
    got = attention(q, k, v, blocks(window, length, q.device))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", [band_mask, blocks])
def test_on_a_gpu_no_mask_meets_groups(form, monkeypatch):
    """None of CUDA's fused kernels takes both; what is repeated for them is heard the same."""
    q, k, v = qkv(300)
    mask = form(37, 300, q.device)
    want, seen, real = attention(q, k, v, mask), [], band_module.scaled_dot_product_attention
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(band_module, "scaled_dot_product_attention",
                        lambda *given, **more: seen.append(given) or real(*given, **more))  # fmt: skip
    torch.testing.assert_close(attention(q, k, v, mask), want, rtol=0, atol=1e-5)
    assert [each.shape[1] for each in seen[0]] == [4, 4, 4]
    attention(q, k, v, None)
    assert [each.shape[1] for each in seen[1]] == [4, 2, 2], "without a mask flash takes groups"


def test_a_window_of_another_width_shows():
    q, k, v = qkv(600)
    want = attention(q, k, v, band_mask(37, 600, q.device))
    got = attention(q, k, v, blocks(36, 600, q.device))
    assert (got - want).abs().max() > 1e-3


def test_the_form_follows_the_length():
    device = torch.device("cpu")
    assert band(128, 129, device) is None
    assert isinstance(band(128, 130, device), torch.Tensor)
    assert isinstance(band(128, BLOCKS_FROM, device), Blocks)


@torch.no_grad()
def test_a_velocity_does_not_depend_on_the_form(monkeypatch):
    model = stirred(Dit(SPEC.dit), seed=1)
    x, t, context, condition = draw(1, 120, 8), torch.tensor([0.5]), draw(1, 120, 16), draw(1, 7, 48)
    want = model(x, t, context, condition)
    monkeypatch.setattr(band_module, "BLOCKS_FROM", 1)
    torch.testing.assert_close(model(x, t, context, condition), want, rtol=0, atol=1e-5)
