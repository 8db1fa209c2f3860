"""Audio to latent and back in exact tiles, whatever computes a tile.

Axes: B batch, A audio channels, n audio frames, T latent frames, C latent channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from punchin.engine.spec import VaeSpec
from punchin.engine.tiles import Tile, decode_margin, encode_margin, tiles
from punchin.protocol.errors import Refused

DECODE_TILE: Final = 64  # latent frames: small beside a song, large beside the margin
ENCODE_TILE: Final = 96


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


class Codec(nn.Module, ABC):
    """An autoencoder in exact tiles: a result does not depend on the tile size, up to float rounding.

    Audio in and out is float32 [B, A, n] at `spec.rate_hz`, latents are float32 [B, T, C], whatever type the weights
    have. `encode_tiles` and `decode_tiles` yield between tiles, so that a caller can stop or report there.
    """

    def __init__(self, spec: VaeSpec) -> None:
        super().__init__()
        self.spec = spec

    @abstractmethod
    def mean_and_scale(self, audio: Tensor) -> Tensor:
        """A tile's audio [B, A, n] -> [B, n // hop, 2C], float32."""

    @abstractmethod
    def sound(self, latent: Tensor, tile: Tile) -> Tensor:
        """Audio [B, A, (stop - start) * hop], float32, of the tile's kept frames; latent [B, T, C] is the whole."""

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
            both = self.mean_and_scale(audio[..., low * hop : end])[:, start - low : stop - low]
            mean, scale = both.chunk(2, dim=-1)
            yield Encoded(start, stop, Posterior(mean, softplus(scale) + 1e-4))

    def decode(self, latent: Tensor, start: int = 0, stop: int | None = None, tile: int = DECODE_TILE) -> Tensor:
        """Audio [B, A, (stop - start) * hop] of latent frames [start, stop): exactly that part of the whole."""
        return torch.cat([piece.audio for piece in self.decode_tiles(latent, start, stop, tile)], dim=-1)

    def decode_tiles(
        self, latent: Tensor, start: int = 0, stop: int | None = None, tile: int = DECODE_TILE
    ) -> Iterator[Decoded]:
        """As `decode`, piece by piece in order, `tile` latent frames each. Raises Refused for a range outside."""
        length = latent.shape[1]
        stop = length if stop is None else stop
        if not 0 <= start < stop <= length:
            raise Refused(f"latent frames {start} to {stop} were asked for; there are {length}")
        for piece in tiles(start, stop, length, tile, decode_margin(self.spec)):
            yield Decoded(piece.start, piece.stop, self.sound(latent, piece))
