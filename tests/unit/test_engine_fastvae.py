"""The fast autoencoder computes what the plain one does, whole, in tiles and in part."""

import gc
from dataclasses import replace

import pytest
import torch
from acestep_peers import VAE_SPEC, draw, sound_vae

from punchin.engine.fastvae import FastVae
from punchin.engine.spec import VAE_RELEASED
from punchin.engine.tiles import decode_cone, decode_margin

HOP = VAE_SPEC.hop


@pytest.fixture(scope="module")
def plain():
    return sound_vae()


@pytest.fixture(scope="module")
def fast(plain):
    return FastVae(plain)


def close(got, want, tolerance=1e-5):
    torch.testing.assert_close(got / want.abs().max(), want / want.abs().max(), rtol=0, atol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7, 64])
def test_decoding_is_the_plain_ones(plain, fast, size):
    latent = draw(2, 45, 4)
    close(fast.decode(latent, tile=size), plain.decoder(latent.transpose(1, 2)))


@torch.no_grad()
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 12), (20, 21), (44, 45)])
def test_a_range_is_that_part_of_the_whole(plain, fast, start, stop):
    latent = draw(1, 45, 4)
    close(fast.decode(latent, start, stop), plain.decoder(latent.transpose(1, 2))[..., start * HOP : stop * HOP])


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 9, 96])
def test_encoding_is_the_plain_ones(plain, fast, size):
    audio = draw(2, 2, 30 * HOP + 700)
    got, want = fast.encode(audio, tile=size), plain.encode(audio, tile=1000)
    close(got.mean, want.mean)
    close(got.std, want.std)


@torch.no_grad()
def test_in_bfloat16_it_is_as_near_as_the_plain_one():
    latent = draw(1, 20, 4)
    want = sound_vae().decode(latent)
    plain = sound_vae().to(torch.bfloat16)
    error, own = ((each.decode(latent) - want).square().mean().sqrt() for each in (FastVae(plain), plain))
    assert error < 1.5 * own


@pytest.mark.parametrize(("start", "stop"), [(30, 31), (0, 2), (57, 60)])
def test_the_cone_is_where_gradients_are(plain, start, stop):
    """What a frame range depends on, as autograd sees it: every level's first and last needed entry, exactly."""
    decoder, inputs = plain.decoder, []

    def seen(module, arguments):
        arguments[0].retain_grad()
        inputs.append(arguments[0])

    hooks = [module.register_forward_pre_hook(seen) for module in (decoder.conv1, *decoder.block, decoder.conv2)]
    try:
        audio = decoder(draw(1, 4, 60).requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    audio[..., start * HOP : stop * HOP].square().sum().backward()
    for x, span in zip(inputs, decode_cone(VAE_SPEC, start, stop, 60), strict=True):
        needed = x.grad.abs().sum((0, 1)).nonzero()
        assert (int(needed[0]), int(needed[-1]) + 1) == span


@torch.no_grad()
@pytest.mark.parametrize("strides", [(10, 6, 4, 4, 2), (2, 2), (4, 2, 6)])
def test_other_strides_have_other_cones_and_the_same_result(strides):
    spec = replace(VAE_SPEC, strides=strides, multiples=(1, 2, 4, 8, 16)[: len(strides)])
    plain = sound_vae(spec=spec)
    latent, audio = draw(1, 70, 4), draw(1, 2, 70 * spec.hop + 3)
    whole, margin = plain.decoder(latent.transpose(1, 2)), decode_margin(spec)
    for codec in (plain, FastVae(plain)):
        close(codec.decode(latent, 33, 41, tile=5), whole[..., 33 * spec.hop : 41 * spec.hop])
        close(codec.encode(audio, tile=9).mean, plain.encoder(audio).transpose(1, 2)[..., :4])
    cut = latent[:, 35 - margin : 36 + margin]
    close(plain.decode(cut, margin, margin + 1), whole[..., 35 * spec.hop : 36 * spec.hop])


def test_the_cone_of_the_released_decoder():
    """By hand: 3 entries at the edge, 39 around a block's units, and inputs m - 1 and m for outputs of 2m."""
    cone = decode_cone(VAE_RELEASED, 100, 101, 1000)
    assert cone[-1] == (192_000 - 3, 193_920 + 3)
    assert cone[-2] == ((192_000 - 3 - 39) // 2 - 1, (193_920 + 3 + 39) // 2 + 1)
    assert cone[0] == (91, 110)
    assert decode_cone(VAE_RELEASED, 0, 1, 5)[0] == (0, 5)


def test_it_keeps_nothing_of_the_plain_one_and_cannot_be_trained():
    plain = sound_vae()
    own = {tensor.data_ptr() for tensor in plain.parameters()}
    fast = FastVae(plain)
    del plain
    gc.collect()
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    biases = {p.data_ptr() for name, p in fast.named_parameters() if name.endswith("bias")}
    assert not own & {p.data_ptr() for p in fast.parameters()} - biases
