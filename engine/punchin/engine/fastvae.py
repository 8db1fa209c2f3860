"""The autoencoder for inference: the same function as `Vae`, faster, and in float rounding the same result.

What is different: kernels are folded once; entries are channels last, where convolutions are matrix products that
read whole rows; a transposed convolution with a kernel of two strides is one product; large temporaries are reused,
because fresh pages cost more than the arithmetic done in them; and each level of the decoder computes only the cone
that its tile's output needs.

Axes: B batch, n entries at a level's rate, A audio channels, C latent channels. Here tensors are [B, n, channels].
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, pad

from punchin.engine import vae
from punchin.engine.codec import Codec
from punchin.engine.tiles import Span, Tile, decode_cone


class Scratch:
    """Memory for temporaries, by name, kept from one use to the next; `clear` gives it back."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def like(self, x: Tensor, name: str) -> Tensor:
        """A tensor as x, with any content; whoever used `name` before has lost it."""
        held = self._held.get(name)
        if held is None or held.numel() < x.numel() or held.dtype != x.dtype or held.device != x.device:
            held = self._held[name] = x.new_empty(x.numel())
        return held[: x.numel()].view(x.shape)

    def clear(self) -> None:
        """Forget all of it."""
        self._held.clear()


def _kept(x: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(x.detach().to(dtype), requires_grad=False)


class Snake(nn.Module):
    """x + (e^(-beta/2) * sin(e^alpha * x))^2, made from a plain Snake."""

    def __init__(self, plain: vae.Snake) -> None:
        super().__init__()
        dtype = plain.alpha.dtype
        self.alpha = _kept(plain.alpha.float().exp().flatten(), dtype)
        self.gain = _kept((plain.beta.float().exp() + 1e-9).rsqrt().flatten(), dtype)

    def forward(self, x: Tensor, scratch: Scratch, *, out: Tensor) -> Tensor:
        """Into `out`, which may be x itself."""
        wave = torch.mul(x, self.alpha, out=scratch.like(x, "wave"))
        wave.sin_().mul_(self.gain)
        return torch.addcmul(x, wave, wave, out=out)


class Conv(nn.Module):
    """A plain Conv, folded; a two-dimensional one of height 1, which is where channels last is fast."""

    def __init__(self, plain: vae.Conv) -> None:
        super().__init__()
        self.stride, self.padding, self.dilation = plain.stride, plain.padding, plain.dilation
        kernel = plain.weight()
        self.weight = _kept(kernel[:, :, None].contiguous(memory_format=torch.channels_last), kernel.dtype)
        self.bias = None if plain.bias is None else _kept(plain.bias, kernel.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, inputs] -> [B, n // stride, outputs]."""
        y = conv2d(
            x.transpose(1, 2)[:, :, None], self.weight, self.bias, self.stride, (0, self.padding), (1, self.dilation)
        )
        return y[:, :, 0].transpose(1, 2)


class Pointwise(nn.Module):
    """A plain Conv of kernel 1: a matrix product."""

    def __init__(self, plain: vae.Conv) -> None:
        super().__init__()
        kernel = plain.weight()
        self.weight = _kept(kernel[:, :, 0], kernel.dtype)
        self.bias = _kept(cast(Tensor, plain.bias), kernel.dtype)

    def forward(self, x: Tensor, *, out: Tensor) -> Tensor:
        """[B, n, inputs] -> [B, n, outputs], into `out`."""
        torch.addmm(self.bias, x.flatten(0, 1), self.weight.t(), out=out.flatten(0, 1))
        return out


class Upsampling(nn.Module):
    """A plain ConvTransposed as one product.

    With kernel 2s and stride s, s outputs in a row need the same two inputs: output m*s + r, before cropping, is
    x[m] @ w[..., r] + x[m-1] @ w[..., r + s].
    """

    def __init__(self, plain: vae.ConvTransposed) -> None:
        super().__init__()
        self.stride = plain.stride
        kernel = plain.weight()
        now, before = kernel.permute(2, 1, 0).split(plain.stride)  # each [s, outputs, inputs]
        self.weight = _kept(torch.cat([now, before], dim=2).flatten(0, 1), kernel.dtype)
        self.bias = _kept(cast(Tensor, plain.bias).repeat(plain.stride), kernel.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[B, n, inputs] -> [B, n * stride, outputs]."""
        both = torch.cat([pad(x, (0, 0, 0, 1)), pad(x, (0, 0, 1, 0))], dim=2)
        y = linear(both, self.weight, self.bias).unflatten(2, (self.stride, -1)).flatten(1, 2)
        return y[:, self.padding : -self.padding]

    @property
    def padding(self) -> int:
        """What is cropped at each end."""
        return self.stride // 2


class ResidualUnit(nn.Module):
    """A plain ResidualUnit."""

    def __init__(self, plain: vae.ResidualUnit) -> None:
        super().__init__()
        self.snake1, self.conv1 = Snake(plain.snake1), Conv(plain.conv1)
        self.snake2, self.conv2 = Snake(plain.snake2), Pointwise(plain.conv2)

    def forward(self, x: Tensor, scratch: Scratch) -> Tensor:
        """[B, n, width] -> same, in place: x is the sum afterwards."""
        y = self.conv1(self.snake1(x, scratch, out=scratch.like(x, "unit")))
        return x.add_(self.conv2(self.snake2(y, scratch, out=y), out=scratch.like(x, "unit")))


class Block(nn.Module):
    """The three residual units that both halves' blocks have."""

    def __init__(self, plain: vae.EncoderBlock | vae.DecoderBlock) -> None:
        super().__init__()
        self.snake1 = Snake(plain.snake1)
        self.units = nn.ModuleList(ResidualUnit(each) for each in (plain.res_unit1, plain.res_unit2, plain.res_unit3))
        self.resample = Conv(plain.conv1) if isinstance(plain, vae.EncoderBlock) else Upsampling(plain.conv_t1)

    def residual(self, x: Tensor, scratch: Scratch) -> Tensor:
        """[B, n, width] -> same, in place."""
        for unit in self.units:
            x = unit(x, scratch)
        return x

    def resampled(self, x: Tensor, scratch: Scratch) -> Tensor:
        """[B, n, inputs] -> [B, n * stride or n // stride, outputs]."""
        return self.resample(self.snake1(x, scratch, out=scratch.like(x, "unit")))


class Half(nn.Module):
    """A plain Encoder or Decoder."""

    def __init__(self, plain: vae.Encoder | vae.Decoder) -> None:
        super().__init__()
        self.conv1, self.snake1, self.conv2 = Conv(plain.conv1), Snake(plain.snake1), Conv(plain.conv2)
        self.block = nn.ModuleList(Block(each) for each in cast(Iterable[vae.EncoderBlock], plain.block))

    def blocks(self) -> list[Block]:
        """The blocks in their order."""
        return [cast(Block, block) for block in self.block]


class FastVae(Codec):
    """`Vae` for inference: it keeps no reference to the plain one, and its own state is not the released one."""

    def __init__(self, plain: vae.Vae) -> None:
        super().__init__(plain.spec)
        self.encoder, self.decoder = Half(plain.encoder), Half(plain.decoder)

    @torch.no_grad()
    def mean_and_scale(self, audio: Tensor) -> Tensor:
        """A tile's audio [B, A, n] -> [B, n // hop, 2C], float32."""
        scratch, half = Scratch(), self.encoder
        x = half.conv1(self._typed(audio.transpose(1, 2)))
        for block in half.blocks():
            x = block.resampled(block.residual(x, scratch), scratch)
        return half.conv2(half.snake1(x, scratch, out=x)).float()

    @torch.no_grad()
    def sound(self, latent: Tensor, tile: Tile) -> Tensor:
        """Audio [B, A, (stop - start) * hop], float32, of the tile's kept frames; latent [B, T, C] is the whole."""
        scratch, half, hop = Scratch(), self.decoder, self.spec.hop
        held, *cone, last = decode_cone(self.spec, tile.start, tile.stop, latent.shape[1])
        x = half.conv1(self._typed(latent[:, held.low : held.high]))
        for block, stride, wanted in zip(half.blocks(), reversed(self.spec.strides), cone, strict=True):
            x = block.resampled(x[:, wanted.low - held.low : wanted.high - held.low], scratch)
            x = block.residual(x, scratch)
            held = Span(wanted.low * stride, wanted.high * stride)
        x = x[:, last.low - held.low : last.high - held.low]
        x = half.conv2(half.snake1(x, scratch, out=scratch.like(x, "unit")))
        skip = tile.start * hop - last.low
        return x[:, skip : skip + (tile.stop - tile.start) * hop].transpose(1, 2).float()

    def _typed(self, x: Tensor) -> Tensor:
        return x.to(self.decoder.conv1.weight.dtype)
