"""The autoencoder against 64 principal components of whole latent frames: distance to the ear, and SI-SDR."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from punchin.engine.codec import Codec
from punchin.protocol.limits import HOP
from punchin.training.spectrum import distance, si_sdr_db


@dataclass(frozen=True, slots=True)
class CodecFigures:
    """Means over the items, of the autoencoder and of the components."""

    distance: float
    si_sdr_db: float
    components_distance: float
    components_si_sdr_db: float

    @property
    def ratio(self) -> float:
        """The autoencoder's distance in parts of the components'."""
        return self.distance / self.components_distance


def components(audio: Tensor, count: int = 64) -> Tensor:
    """The `count` directions [2*1920, count] of stereo latent frames that hold most of audio [B, 2, n]."""
    frames = _frames(audio).flatten(0, 1).double()
    if len(frames) < frames.shape[1]:  # then the smaller product has the same directions
        powers, rows = torch.linalg.eigh(frames @ frames.T)
        vectors = frames.T @ rows / powers.clamp(min=1e-12).sqrt()
    else:
        _, vectors = torch.linalg.eigh(frames.T @ frames)
    return vectors.flip(1)[:, :count].float()


def projected(audio: Tensor, basis: Tensor) -> Tensor:
    """Audio [B, 2, n], n a multiple of 1920, as far as the components hold it."""
    kept = _frames(audio) @ basis @ basis.T
    return kept.unflatten(-1, (2, HOP)).permute(0, 2, 1, 3).flatten(2)


@torch.no_grad()
def measure(codec: Codec, basis: Tensor, audio: Tensor) -> CodecFigures:
    """Both ways for held-out audio [B, 2, n], n a multiple of 1920, one item after the other."""
    rows: list[list[float]] = []
    for item in audio.split(1):
        both = codec.decode(codec.encode(item).mean), projected(item, basis)
        rows.append([float(each) for heard in both for each in (distance(heard, item), si_sdr_db(heard, item))])
    return CodecFigures(*torch.tensor(rows).mean(0).tolist())


def _frames(audio: Tensor) -> Tensor:
    """[B, 2, n] -> [B, n // 1920, 2 * 1920]."""
    return audio.unflatten(-1, (-1, HOP)).permute(0, 2, 1, 3).flatten(2)
