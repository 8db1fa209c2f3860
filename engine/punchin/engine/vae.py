"""The Oobleck autoencoder: stereo audio at 48 kHz to 64 latent channels at 25 Hz, and back.

Axes: B batch, A audio channels, n audio frames, T latent frames, C latent channels. Latents are [B, T, C] everywhere
outside this module. Attribute names are the checkpoint's, and so are `weight_g` and `weight_v`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, softplus

from punchin.engine.spec import VaeSpec
from punchin.engine.tiles import DILATIONS, EDGE_KERNEL, LAST_ENCODER_KERNEL, decode_margin, encode_margin, tiles
from punchin.protocol.errors import Refused

DECODE_TILE = 64  # latent frames; with 9 + 9 of margin 12 % is computed twice, and memory stays under 0.2 GB
ENCODE_TILE = 128


class Posterior(NamedTuple):
    """What the encoder knows of a latent: mean and deviation, both [B, T, C]."""

    mean: Tensor
    std: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """A draw. The noise is made in float32 on the generator's device, so that a seed means one result."""
        noise = torch.randn(self.mean.shape, generator=generator, device=generator.device)
        return self.mean + self.std * noise.to(self.mean)


class Decoded(NamedTuple):
    """A finished piece: audio [B, A, n] of latent frames [start, stop)."""

    start: int
    stop: int
    audio: Tensor


class Encoded(NamedTuple):
    """A finished piece: the posterior of latent frames [start, stop)."""

    start: int
    stop: int
    posterior: Posterior


class Snake(nn.Module):
    """x + sin^2(e^alpha * x) / (e^beta + 1e-9), with alpha and beta per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(1, channels, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, n] -> same."""
        return x + (self.alpha.exp() * x).sin().square() / (self.beta.exp() + 1e-9)


class NormedConv(nn.Module):
    """A convolution whose weight is direction times length: v * g / |v|, the norm over all axes but the first.

    The released files hold g and v, so they are the parameters here. torch's old `weight_norm` names them so too but
    is deprecated and warns; its new one renames them.
    """

    def __init__(self, shape: tuple[int, int, int], stride: int, padding: int, dilation: int, bias: int) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = stride, padding, dilation
        direction = torch.empty(shape)
        if not direction.is_meta:
            nn.init.kaiming_uniform_(direction, a=5**0.5)
        self.weight_g = nn.Parameter(direction.flatten(1).norm(dim=1)[:, None, None])
        self.weight_v = nn.Parameter(direction)
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None

    def weight(self) -> Tensor:
        """The kernel itself, computed in float32, in the parameters' type."""
        v = self.weight_v.float()
        return (v * (self.weight_g.float() / v.flatten(1).norm(dim=1)[:, None, None])).to(self.weight_v.dtype)


class Conv(NormedConv):
    """Convolution; at stride 1 it keeps the length."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, bias: bool = True
    ) -> None:
        padding = dilation * (kernel - 1) // 2 if stride == 1 else stride // 2
        super().__init__((outputs, inputs, kernel), stride, padding, dilation, outputs if bias else 0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, n] -> [B, outputs, n // stride]."""
        return conv1d(x, self.weight(), self.bias, self.stride, self.padding, self.dilation)


class ConvTransposed(NormedConv):
    """Transposed convolution with a kernel of two strides. Its norm is per input: that axis comes first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__((inputs, outputs, 2 * stride), stride, stride // 2, 1, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, n] -> [B, outputs, n * stride]."""
        return conv_transpose1d(x, self.weight(), self.bias, self.stride, self.padding)


class ResidualUnit(nn.Module):
    """snake, dilated convolution, snake, pointwise convolution, and the input added."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.snake1 = Snake(width)
        self.conv1 = Conv(width, width, EDGE_KERNEL, dilation=dilation)
        self.snake2 = Snake(width)
        self.conv2 = Conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, n] -> same."""
        return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class EncoderBlock(nn.Module):
    """Three residual units, then `stride` frames become one."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.res_unit1, self.res_unit2, self.res_unit3 = (ResidualUnit(inputs, d) for d in DILATIONS)
        self.snake1 = Snake(inputs)
        self.conv1 = Conv(inputs, outputs, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, n] -> [B, outputs, n // stride]."""
        return self.conv1(self.snake1(self.res_unit3(self.res_unit2(self.res_unit1(x)))))


class DecoderBlock(nn.Module):
    """One frame becomes `stride`, then three residual units."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.snake1 = Snake(inputs)
        self.conv_t1 = ConvTransposed(inputs, outputs, stride)
        self.res_unit1, self.res_unit2, self.res_unit3 = (ResidualUnit(outputs, d) for d in DILATIONS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, n] -> [B, outputs, n * stride]."""
        return self.res_unit3(self.res_unit2(self.res_unit1(self.conv_t1(self.snake1(x)))))


class Encoder(nn.Module):
    """Audio to mean and scale, before they are split."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = [spec.encoder_width * multiple for multiple in (1, *spec.multiples)]
        self.conv1 = Conv(spec.audio_channels, widths[0], EDGE_KERNEL)
        self.block = nn.ModuleList(
            EncoderBlock(*pair, stride) for pair, stride in zip(pairwise(widths), spec.strides, strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = Conv(widths[-1], 2 * spec.latent_channels, LAST_ENCODER_KERNEL)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, A, n] -> [B, 2C, n // hop]."""
        x = self.conv1(audio)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class Decoder(nn.Module):
    """Latent to audio. No final tanh: the output may leave [-1, 1]."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        widths = [spec.decoder_width * multiple for multiple in reversed((1, *spec.multiples))]
        self.conv1 = Conv(spec.latent_channels, widths[0], EDGE_KERNEL)
        self.block = nn.ModuleList(
            DecoderBlock(*pair, stride) for pair, stride in zip(pairwise(widths), reversed(spec.strides), strict=True)
        )
        self.snake1 = Snake(widths[-1])
        self.conv2 = Conv(widths[-1], spec.audio_channels, EDGE_KERNEL, bias=False)

    def forward(self, latent: Tensor) -> Tensor:
        """[B, C, T] -> [B, A, T * hop]."""
        x = self.conv1(latent)
        for block in self.block:
            x = block(x)
        return self.conv2(self.snake1(x))


class Vae(nn.Module):
    """Both halves, always in exact tiles: a result does not depend on the tile size, up to float rounding.

    Audio in and out is float32 [B, A, n] at `spec.rate_hz`, latents are float32 [B, T, C], whatever type the weights
    have. `encode_tiles` and `decode_tiles` yield between tiles, so that a caller can stop or report there.
    """

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)

    def encode(self, audio: Tensor, tile: int = ENCODE_TILE) -> Posterior:
        """The posterior of n // hop latent frames; its mean is the latent to use. Raises Refused under one frame."""
        parts = [piece.posterior for piece in self.encode_tiles(audio, tile)]
        return Posterior(*(torch.cat(each, dim=1) for each in zip(*parts, strict=True)))

    def encode_tiles(self, audio: Tensor, tile: int = ENCODE_TILE) -> Iterator[Encoded]:
        """As `encode`, piece by piece in order, `tile` latent frames each."""
        hop, frames = self.spec.hop, audio.shape[-1]
        if frames < hop:
            raise Refused(f"audio has {frames} frames; one latent frame takes {hop}", hint="give longer audio")
        length = frames // hop
        for start, stop, low, high in tiles(0, length, length, tile, encode_margin(self.spec)):
            end = frames if high == length else high * hop  # the last tile hears what no whole frame is left of
            both = self.encoder(self._typed(audio[..., low * hop : end])).float()
            mean, scale = both[..., start - low : stop - low].transpose(1, 2).chunk(2, dim=-1)
            yield Encoded(start, stop, Posterior(mean, softplus(scale) + 1e-4))

    def decode(self, latent: Tensor, start: int = 0, stop: int | None = None, tile: int = DECODE_TILE) -> Tensor:
        """Audio [B, A, (stop - start) * hop] of latent frames [start, stop): exactly that part of the whole."""
        return torch.cat([piece.audio for piece in self.decode_tiles(latent, start, stop, tile)], dim=-1)

    def decode_tiles(
        self, latent: Tensor, start: int = 0, stop: int | None = None, tile: int = DECODE_TILE
    ) -> Iterator[Decoded]:
        """As `decode`, piece by piece in order, `tile` latent frames each. Raises Refused for a range outside."""
        hop, length = self.spec.hop, latent.shape[1]
        stop = length if stop is None else stop
        if not 0 <= start < stop <= length:
            raise Refused(f"latent frames {start} to {stop} were asked for; there are {length}")
        for piece in tiles(start, stop, length, tile, decode_margin(self.spec)):
            audio = self.decoder(self._typed(latent[:, piece.low : piece.high].transpose(1, 2))).float()
            skip = (piece.start - piece.low) * hop
            yield Decoded(piece.start, piece.stop, audio[..., skip : skip + (piece.stop - piece.start) * hop])

    def _typed(self, x: Tensor) -> Tensor:
        return x.to(self.encoder.conv1.weight_v.dtype)
