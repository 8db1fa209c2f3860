"""The autoencoder against diffusers, and its tiles against the whole."""

import pytest
import torch
from acestep_peers import SMALL_VAE, VAE_SPEC, draw, sound_vae, taught
from diffusers import AutoencoderOobleck

from punchin.engine import codec
from punchin.engine.spec import VAE_RELEASED
from punchin.engine.tiles import decode_margin, encode_margin, tiles
from punchin.engine.vae import Vae
from punchin.protocol.errors import Refused

HOP = VAE_SPEC.hop


@pytest.fixture(scope="module")
def ours():
    return sound_vae()


@pytest.fixture(scope="module")
def theirs(ours):
    with pytest.warns(FutureWarning, match="weight_norm"):
        peer = AutoencoderOobleck(**SMALL_VAE)
    return taught(peer, ours)


def close(got, want):
    """Within 1e-5 of the signal's size: random weights make it large."""
    torch.testing.assert_close(got / want.abs().max(), want / want.abs().max(), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("frames", [HOP, 5 * HOP, 12 * HOP + 1000])
def test_encode_is_diffusers(ours, theirs, frames):
    audio = draw(2, 2, frames)
    want = theirs.encode(audio).latent_dist
    got = ours.encode(audio)
    assert got.mean.shape == (2, frames // HOP, 4)
    close(got.mean, want.mode().transpose(1, 2))
    close(got.std, want.std.transpose(1, 2))


@torch.no_grad()
def test_decode_is_diffusers(ours, theirs):
    latent = draw(2, 13, 4)
    want = theirs.decode(latent.transpose(1, 2)).sample
    assert want.shape == (2, 2, 13 * HOP)
    assert ours.decode(latent).dtype == torch.float32
    close(ours.decode(latent), want)


def test_the_released_margins():
    assert (decode_margin(VAE_RELEASED), encode_margin(VAE_RELEASED)) == (9, 7)


@torch.no_grad()
@pytest.mark.parametrize("size", [1, 7, 40])
def test_tiles_are_the_whole(ours, size):
    latent, audio = draw(1, 45, 4), draw(1, 2, 45 * HOP + 700)
    close(ours.decode(latent, tile=size), ours.decoder(latent.transpose(1, 2)))
    close(ours.encode(audio, tile=size).mean, ours.encoder(audio).transpose(1, 2)[..., :4])


@torch.no_grad()
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 12), (20, 21), (30, 45)])
def test_a_range_is_that_part_of_the_whole(ours, start, stop):
    latent = draw(1, 45, 4)
    close(ours.decode(latent, start, stop), ours.decoder(latent.transpose(1, 2))[..., start * HOP : stop * HOP])


@torch.no_grad()
@pytest.mark.parametrize("half", ["decode", "encode"])
def test_one_frame_less_of_margin_would_show(ours, monkeypatch, half):
    """So the margin is not merely enough: it is the smallest, and these tests would see one too small."""
    name = f"{half}_margin"
    exact = getattr(codec, name)
    monkeypatch.setattr(codec, name, lambda spec: exact(spec) - 1)
    with pytest.raises(AssertionError):
        test_tiles_are_the_whole(ours, 7)


@torch.no_grad()
def test_tiles_come_in_order_and_can_be_left(ours):
    latent = draw(1, 45, 4)
    pieces = ours.decode_tiles(latent, 5, 40, tile=10)
    first = next(pieces)
    assert (first.start, first.stop, first.audio.shape) == (5, 15, (1, 2, 10 * HOP))
    assert [(p.start, p.stop) for p in pieces] == [(15, 25), (25, 35), (35, 40)]


def test_tiles_stay_inside():
    assert list(tiles(0, 10, 10, 4, 3)) == [(0, 4, 0, 7), (4, 8, 1, 10), (8, 10, 5, 10)]


@torch.no_grad()
def test_a_posterior_sample_is_its_seeds(ours):
    posterior = ours.encode(draw(1, 2, 4 * HOP))
    one, same, other = (posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(one, posterior.mean + posterior.std * noise)


@torch.no_grad()
def test_what_cannot_be_is_refused_with_its_numbers(ours):
    with pytest.raises(Refused, match=f"1919 frames; one latent frame takes {HOP}"):
        ours.encode(draw(1, 2, 1919))
    with pytest.raises(Refused, match="3 to 11 were asked for; there are 10"):
        ours.decode(draw(1, 10, 4), 3, 11)
    with pytest.raises(Refused, match="4 to 4"):
        ours.decode(draw(1, 10, 4), 4, 4)


def test_a_small_encoder_still_ends_in_mean_and_scale():
    """A toy width must not narrow the latent: released files have encoder_hidden_size = 2 x latent channels."""
    from dataclasses import replace

    model = Vae(replace(VAE_SPEC, encoder_width=2))
    assert model.encode(draw(1, 2, HOP)).mean.shape == (1, 1, 4)
