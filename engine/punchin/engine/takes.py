"""Audio between daemon and worker: files of raw interleaved little-endian float32. Knows no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from punchin.protocol.errors import Refused
from punchin.protocol.limits import MODEL_HZ
from punchin.protocol.link import MadeTake, Part, Run
from punchin.protocol.order import Blob

Audio = NDArray[np.float32]  # [channels, frames]
Report = Callable[[str, int, int], None]  # phase, done, total
Offer = Callable[[Part], None]  # a stretch that can be heard already


def read_blob(blob: Blob, files: Mapping[str, str], what: str) -> Audio:
    """The audio of `blob`, [channels, frames]. Refused: not sent, of another length or rate, not finite."""
    if blob.rate_hz != MODEL_HZ:
        raise Refused(f"{what} is at {blob.rate_hz} Hz, the engine takes {MODEL_HZ}", "resample it first", code="rate")
    path = files.get(blob.sha256)
    if path is None:
        raise Refused(f"{what} did not come with the job: {blob.sha256[:12]}")
    try:
        size = Path(path).stat().st_size
        if size != blob.size_bytes:
            expected = f"{blob.frames} frames of {blob.channels} channels are {blob.size_bytes}"
            raise Refused(f"{what} has {size} bytes, {expected}", code="length")
        samples = np.fromfile(path, dtype="<f4")
    except OSError as error:
        raise Refused(f"{what} cannot be read: {error.strerror}: {path}") from error
    bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
    if bad:
        raise Refused(f"{what} has {bad} samples that are not finite", code="not_finite")
    return np.ascontiguousarray(samples.astype(np.float32, copy=False).reshape(blob.frames, blob.channels).T)


def write_take(run: Run, passage: int, seed: int, audio: Audio) -> MadeTake:
    """A take's file, complete and on the disk. Raises OSError."""
    path = _path(run.out_dir, f"take-{passage}-{seed}.f32")
    with path.open("wb") as file:
        file.write(_interleaved(audio))
        file.flush()
        os.fsync(file.fileno())
    channels, frames = audio.shape
    return MadeTake(passage=passage, seed=seed, path=str(path), channels=channels, frames=frames)


def write_part(run: Run, passage: int, seed: int, index: int, start_frame: int, audio: Audio) -> Part:
    """A stretch's file, complete; the daemon brings it to the disk. Raises OSError."""
    path = _path(run.out_dir, f"part-{passage}-{seed}-{index}.f32")
    path.write_bytes(_interleaved(audio))
    channels, frames = audio.shape
    return Part(
        job=run.job,
        passage=passage,
        seed=seed,
        index=index,
        start_frame=start_frame,
        path=str(path),
        channels=channels,
        frames=frames,
    )


def _path(folder: str, name: str) -> Path:
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder) / name


def _interleaved(audio: Audio) -> bytes:
    return np.ascontiguousarray(audio.T, dtype="<f4").tobytes()
