"""The Oobleck autoencoder: stereo audio at 48 kHz to 64 latent channels at 25 Hz, and back.

Axes: B batch, A audio channels, n audio frames, T latent frames, C latent channels. Latents are [B, T, C] everywhere
outside this module. Attribute names are the checkpoint's, and so are `weight_g` and `weight_v`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d

from punchin.engine.codec import Codec
from punchin.engine.spec import VaeSpec
from punchin.engine.tiles import DILATIONS, EDGE_KERNEL, LAST_ENCODER_KERNEL, Tile


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


class Vae(Codec):
    """Both halves as released: the plain computation, for training and as the measure of the fast one."""

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__(spec)
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)

    def mean_and_scale(self, audio: Tensor) -> Tensor:
        """A tile's audio [B, A, n] -> [B, n // hop, 2C], float32."""
        return self.encoder(self._typed(audio)).float().transpose(1, 2)

    def sound(self, latent: Tensor, tile: Tile) -> Tensor:
        """Audio [B, A, (stop - start) * hop], float32, of the tile's kept frames; latent [B, T, C] is the whole."""
        audio = self.decoder(self._typed(latent[:, tile.low : tile.high].transpose(1, 2))).float()
        skip = (tile.start - tile.low) * self.spec.hop
        return audio[..., skip : skip + (tile.stop - tile.start) * self.spec.hop]

    def _typed(self, x: Tensor) -> Tensor:
        return x.to(self.encoder.conv1.weight_v.dtype)
