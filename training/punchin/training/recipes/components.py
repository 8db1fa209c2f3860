"""An autoencoder that begins as the best linear code of its size, so that training starts from music, not from noise.

Each stage of the encoder takes `stride` frames of its channels and keeps the directions in which renders vary most; the
decoder's stage is the transpose. What is left at the rate of latents, some hundred components, goes through a linear
code that hears the frame before and after, and is played from three on each side: frames overlap, and so 48 latents
hold more (SI-SDR 11.5 dB on held-out songs) than 64 components of whole frames (10.9 dB). The other sixteen latents are
levels of `bands`. The encoder stays so; the decoder learns the rest from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from punchin.engine.vae import (
    Conv,
    ConvTransposed,
    Decoder,
    DecoderBlock,
    EncoderBlock,
    NormedConv,
    ResidualUnit,
    Snake,
    Vae,
)
from punchin.training.recipes import bands

STRAIGHT: Final = -6.0  # log of a snake's frequency: x + sin^2(0.0025 x) is x
QUIET: Final = 1e-4  # spread of the decoder's weights that nothing uses; zeros would have no direction to learn from
FEW: Final = 4  # songs by which the decoder's units are scaled
STEPS, SONGS, PEAK_LR = 400, 8, 2e-3  # of fitting the overlapping code


@torch.no_grad()
def begin_as_components(vae: Vae, audio: Tensor, log_std: float = -6.0) -> None:
    """Set every weight of `vae` from renders `audio` [B, 2, n]; the posterior's deviation is about e^log_std.

    Components come out with unit variance on these renders, then the levels as `bands` has them.
    """
    encoder, decoder = vae.encoder, vae.decoder
    downs = [block for block in encoder.block if isinstance(block, EncoderBlock)]
    ups = [block for block in decoder.block if isinstance(block, DecoderBlock)]
    for module in encoder.modules():
        if isinstance(module, Snake):
            nn.init.constant_(module.alpha, STRAIGHT)
        if isinstance(module, ResidualUnit):
            set_kernel(module.conv2, torch.zeros_like(module.conv2.weight_v))
    for straight in (decoder, *ups):
        nn.init.constant_(straight.snake1.alpha, STRAIGHT)
    _widen(encoder.conv1, decoder.conv2)
    _listen(encoder.conv1, downs[0], first=2)
    x = audio
    copies = len(bands.SCALES)  # the first stage adds the scales up
    for down, up, carried in zip(downs, reversed(ups), _carried(vae.spec.strides), strict=True):
        x, copies = _stage(down.conv1, up.conv_t1, x, carried, copies), 1
    _bottom(encoder.conv2, decoder.conv1, x, audio.square().sum((1, 2)), log_std)
    few = audio[:FEW]
    _bend(decoder, vae.encode(few, few.shape[-1] // vae.spec.hop).mean.transpose(1, 2))


def _widen(first: Conv, last: Conv) -> None:
    """Two channels become the first two of many; the decoder's last layer takes them back."""
    kernel = torch.zeros_like(first.weight_v)
    kernel[:2, :, kernel.shape[2] // 2] = torch.eye(2)
    set_kernel(first, kernel)
    back = torch.randn_like(last.weight_v) * QUIET
    back[:, :2, back.shape[2] // 2] = torch.eye(2)
    set_kernel(last, back)


def _listen(layer: Conv, block: EncoderBlock, first: int) -> None:
    """The bands' filters, each once for each scale, on channels from `first` on; the block's snake is their sin^2."""
    kernels = [layer.weight().clone()]
    units = (block.res_unit1, block.res_unit2, block.res_unit3)
    kernels += [torch.zeros_like(unit.conv1.weight_v) for unit in units]
    passing = torch.zeros_like(block.res_unit1.conv2.weight_v)
    channel = first
    for sides, chain in bands.BANDS:
        for scale in bands.SCALES:
            kernels[0][channel] = torch.tensor(sides)[:, None] * torch.tensor(chain[0])
            for kernel, taps in zip(kernels[1:], chain[1:], strict=True):
                kernel[channel, channel] = torch.tensor(taps) - torch.tensor(bands.NOTHING)  # a unit adds its input
            passing[channel, channel] = 1
            block.snake1.alpha[:, channel] = math.log(scale)
            channel += 1
    set_kernel(layer, kernels[0])
    for unit, kernel in zip(units, kernels[1:], strict=True):
        set_kernel(unit.conv1, kernel)
        set_kernel(unit.conv2, passing)


def _carried(strides: Sequence[int]) -> list[Tensor]:
    """How each stage carries the levels, [out, in, stride]: the last ones keep parts of time apart, the others mean."""
    left, parts = bands.PARTS, list[int]()
    for stride in reversed(strides):
        parts.insert(0, math.gcd(stride, left))
        left //= parts[0]
    whole: list[Tensor] = []
    count, held = len(bands.BANDS), 1  # parts of time in a frame
    for stride, new in zip(strides, parts, strict=True):
        means = torch.eye(new).repeat_interleave(stride // new, dim=1) * (new / stride)  # [new, stride]
        carried = torch.einsum("bc,nt,pq->bnpcqt", torch.eye(count), means, torch.eye(held))
        held *= new
        whole.append(carried.flatten(3, 4).flatten(0, 2))
    return whole


def _stage(down: Conv, up: ConvTransposed, x: Tensor, carried: Tensor, copies: int) -> Tensor:
    """Fit one stride: the components x [B, c, n], as many as there is room for beside the levels that are carried."""
    stride, used = down.stride, x.shape[1]
    outputs, inputs = carried.shape[:2]
    basis = _components(_blocks(x, stride), down.weight_v.shape[0] - outputs)  # [k, used * stride]
    made, levels = slice(len(basis)), slice(len(basis), len(basis) + outputs)
    taps = slice(down.padding, down.padding + stride)  # the kernel has two strides; its middle is the block itself
    kernel = torch.zeros_like(down.weight_v)
    kernel[made, :used, taps] = basis.unflatten(1, (used, stride))
    kernel[levels, used : used + copies * inputs, taps] = carried.repeat_interleave(copies, dim=1)
    set_kernel(down, kernel)
    back = torch.randn_like(up.weight_v) * QUIET
    back[made, :used, taps] = basis.unflatten(1, (used, stride))
    back[levels, used : used + inputs, taps] = (carried > 0).float()  # held until the next
    set_kernel(up, back)
    return torch.einsum("kd,bdn->bkn", basis, _blocks(x, stride))


def _bottom(last: Conv, first: Conv, x: Tensor, energy: Tensor, log_std: float) -> None:
    """The latents: the overlapping code, then the levels; the posterior's scales are small and constant."""
    latents, used = first.weight_v.shape[1], x.shape[1]
    code, play = _overlapping(x, energy, latents - bands.COUNT)
    made, levels = slice(len(code)), slice(len(code), latents)
    kernel = torch.zeros_like(last.weight_v)
    kernel[made, :used] = code
    kernel[levels, used : used + bands.COUNT, kernel.shape[2] // 2] = bands.GAIN * torch.eye(bands.COUNT)
    set_kernel(last, kernel)
    assert last.bias is not None
    last.bias[latents:] = math.log(math.expm1(math.exp(log_std)))  # softplus of it is e^log_std
    back = torch.randn_like(first.weight_v) * QUIET
    back[:used, made] = play
    back[used : used + bands.COUNT, levels, back.shape[2] // 2] = torch.eye(bands.COUNT)
    set_kernel(first, back)


@torch.enable_grad()
def _overlapping(x: Tensor, energy: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The linear code of x [B, c, T] in `count` channels with the best SI-SDR: how to make it [count, c, 3] and to play
    it [c, count, 7]. `energy` [B] of the audio. It begins as the components and is found by gradient; its channels
    have unit variance.
    """
    basis = _components(x, count)
    code, play = x.new_zeros(count, x.shape[1], 3), x.new_zeros(x.shape[1], count, 7)
    code[:, :, 1], play[:, :, 3] = basis, basis.T
    optimizer = torch.optim.Adam([code.requires_grad_(True), play.requires_grad_(True)], lr=PEAK_LR)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0, STEPS)
    for _ in range(STEPS):
        songs = torch.randint(len(x), (min(SONGS, len(x)),))
        error = (x[songs] - conv1d(conv1d(x[songs], code, padding=1), play, padding=3)).square().sum((1, 2))
        outside = (energy[songs] - x[songs].square().sum((1, 2))).clamp(min=0)  # what no component holds
        optimizer.zero_grad()
        ((error + outside) / energy[songs].clamp(min=1e-9)).clamp(min=1e-9).log().mean().backward()
        optimizer.step()
        falling.step()
    spread = conv1d(x, code, padding=1).std(dim=(0, 2)).clamp(min=1e-3)[:, None]
    return (code / spread[..., None]).detach(), (play * spread).detach()


def _bend(decoder: Decoder, latent: Tensor) -> None:
    """Let the residual units mix what they hear at random, so loud that their second snakes bend it; latent [B, C, T].

    x + sin^2(x) is a line where x is small, and sound is: units that began at its own scale heard an eighth to a
    hundredth of what bends, and stayed lines. Each channel gets a deviation of 1; what a unit adds begins `QUIET`.
    """
    for unit in (module for module in decoder.modules() if isinstance(module, ResidualUnit)):
        nn.init.constant_(unit.snake1.alpha, STRAIGHT)
        mixing = torch.randn_like(unit.conv1.weight_v)
        set_kernel(unit.conv1, mixing / mixing[0].numel() ** 0.5)
        set_kernel(unit.conv2, torch.randn_like(unit.conv2.weight_v) * QUIET)
        heard = list[Tensor]()
        with unit.conv1.register_forward_hook(lambda *call, heard=heard: heard.append(call[2])):
            decoder(latent)
        unit.conv1.weight_g.div_(heard[0].std((0, 2))[:, None, None].clamp(min=QUIET))


def _blocks(x: Tensor, stride: int) -> Tensor:
    """[B, c, n] -> [B, c * stride, n // stride]."""
    whole = x[..., : x.shape[-1] // stride * stride]
    return whole.unflatten(-1, (-1, stride)).permute(0, 1, 3, 2).flatten(1, 2)


def _components(x: Tensor, most: int) -> Tensor:
    """Orthonormal directions [k, d] in which x [B, d, n] is largest, k = min(most, d); means are not removed."""
    flat = x.transpose(1, 2).reshape(-1, x.shape[1]).double()
    _, vectors = torch.linalg.eigh(flat.T @ flat)
    return vectors.flip(1)[:, : min(most, x.shape[1])].T.float()


def set_kernel(layer: NormedConv, kernel: Tensor) -> None:
    """Give a layer that kernel and no bias. A row of zeros has a length of 0 and any direction."""
    length = kernel.flatten(1).norm(dim=1)[:, None, None]
    layer.weight_v.copy_(torch.where(length > 0, kernel, torch.ones_like(kernel)))
    layer.weight_g.copy_(length)
    if layer.bias is not None:
        layer.bias.zero_()
