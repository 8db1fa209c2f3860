"""Audio on disk: read as arrays, and written whole or not at all. Formats are what libsndfile knows.

Samples travel as `[channels, frames]`, full scale 1.0. Integer files keep every bit: libsndfile scales floats by
2^(b-1) - 1 when it writes and by 2^-(b-1) when it reads, so integers are made here and handed over as integers.
"""

from __future__ import annotations

import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from punchin.protocol.errors import PunchinError, Refused

EXTENSIONS: Final = {"WAV": ".wav", "WAVEX": ".wav", "RF64": ".wav", "FLAC": ".flac", "AIFF": ".aiff"}
FORMATS: Final = {".wav": "WAV", ".flac": "FLAC", ".aif": "AIFF", ".aiff": "AIFF"}
WAV_BYTES: Final = 2**32 - 2**20  # a WAV counts its bytes in 32 bits; above it is written as RF64, which REAPER reads
BLOCK_FRAMES: Final = 2**18  # read or written at once: making integers takes four times a block's memory
INTEGER_BITS: Final = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
SAMPLE_BYTES: Final = {name: bits // 8 for name, bits in INTEGER_BITS.items()} | {"FLOAT": 4, "DOUBLE": 8}
EXACT: Final = frozenset({*SAMPLE_BYTES, "ULAW", "ALAW"})  # what is read is written back as it was, sample by sample
UNWRITTEN: Final = (b"bext", b"iXML", b"cue ", b"smpl", b"inst", b"acid")  # libsndfile does not copy them by itself
_UNKNOWN_FRAMES: Final = 2**62  # what libsndfile says of a streamed FLAC, which does not tell its length
WIDE: Final = frozenset({"PCM_32", "DOUBLE"})  # more bits than a float32 holds


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file says about itself. `format` and `subtype` are libsndfile's names (`WAV`, `PCM_24`)."""

    rate_hz: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def length_s(self) -> float:
        """Frames over rate."""
        return self.frames / self.rate_hz


def info(path: Path | str) -> AudioInfo:
    """Rate, channels, length and format of a file. Raises Refused with the path where it is missing or unreadable."""
    with _open(Path(path)) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format, file.subtype)


def read(path: Path | str, start_frame: int = 0, frames: int | None = None) -> tuple[NDArray[np.float32], int]:
    """Samples `[channels, frames]` as float32, and their rate in Hz. `frames` None reads to the end.

    What lies past the end is not there: the array is shorter. Raises Refused (missing, unreadable, cut short).
    """
    audio, rate_hz = _read(Path(path), start_frame, frames, "float32")
    return audio.astype(np.float32, copy=False), rate_hz


def read_exact(path: Path | str, start_frame: int = 0, frames: int | None = None) -> tuple[NDArray[Any], int]:
    """As `read`, in float64 where float32 would lose bits (PCM_32, DOUBLE): what is written back is the same file."""
    wide = info(path).subtype in WIDE
    return _read(Path(path), start_frame, frames, "float64" if wide else "float32")


def unwritten(path: Path) -> list[str]:
    """What a WAV file tells beside its sound and a file written anew does not: names of chunks, as `bext`."""
    return [name.decode().strip() for name in _chunks(path) if name in UNWRITTEN]


def _chunks(path: Path) -> Iterator[bytes]:
    """The names of a WAV file's chunks in order, as far as they can be followed; nothing of another file."""
    with path.open("rb") as file:
        form, _, kind = struct.unpack("<4sI4s", file.read(12).ljust(12))
        head = file.read(8) if form in (b"RIFF", b"RF64") and kind == b"WAVE" else b""
        while len(head) == 8 and head[:4].isascii() and head[:4].decode().isprintable():
            name, size = struct.unpack("<4sI", head)
            yield name
            file.seek(size + size % 2, os.SEEK_CUR)
            head = file.read(8)


def subtype_for(path: Path, subtype: str) -> str:
    """How samples of a file of `subtype` are written to `path`: alike where it can hold them, else float in a WAV and
    24 bit in others. Raises Refused for a format that cannot be written.
    """
    kind = _kind(path)
    if subtype in SAMPLE_BYTES and soundfile.check_format(kind, subtype):
        return subtype
    return "FLOAT" if kind == "WAV" else "PCM_24"


def _kind(path: Path) -> str:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise Refused(
            f"{path.name}: cannot write {path.suffix or 'a file without extension'}", "use .wav, .flac or .aiff"
        )
    return kind


def write(path: Path | str, audio: NDArray[Any], rate_hz: int, subtype: str = "FLOAT") -> Path:
    """Write `[channels, frames]` to a `.wav`, `.flac` or `.aiff` file, atomically: all of it, or the old one stays.

    Integer subtypes are rounded to the nearest step and clipped at full scale, without dither. Returns the path.
    Raises Refused (a format that cannot be written), PunchinError (no room, no permission; with the system's reason).
    """
    path = Path(path)
    kind = _kind(path)
    if not soundfile.check_format(kind, subtype):
        raise Refused(f"{path.name}: {kind} cannot hold {subtype}", "use a .wav file")
    if kind == "WAV" and _bytes(audio, subtype) > WAV_BYTES:
        kind = "RF64"
    try:
        _replace(path, audio, rate_hz, kind, subtype)
    except OSError as error:
        raise disk_error(path, error) from error
    except soundfile.LibsndfileError as error:
        reason = f"{error.error_string.rstrip('.')}; {_room(path, audio, subtype)}"  # "System error" says nothing
        raise PunchinError(f"cannot write {path}: {reason}", _room_hint(path)) from error
    return path


def _bytes(audio: NDArray[Any], subtype: str) -> int:
    """How many bytes a file of this audio may take."""
    return audio.size * SAMPLE_BYTES.get(subtype, 8)


def _room(path: Path, audio: NDArray[Any], subtype: str) -> str:
    """How many bytes a file of this audio may take, and how many its disk has."""
    free = f"{shutil.disk_usage(path.parent).free:,}" if path.parent.is_dir() else "no"
    return f"it takes up to {_bytes(audio, subtype):,} bytes, the disk has {free} free"


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file with `data`, atomically and on disk when it returns. Raises PunchinError with the reason."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _publish(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> PunchinError:
    """The error that a failed write becomes: what, where, why, and what to do."""
    return PunchinError(f"cannot write {path}: {error.strerror or error}", _room_hint(path, error.errno))


def _room_hint(path: Path, number: int | None = errno.ENOSPC) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"make room on the disk of {path.parent}"
    if number in (errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG):
        return "that name is taken or too long: name another with -o, or set another recording path in the project"
    return f"choose a folder that can be written, with -o; {path.parent} cannot"


def _named(path: Path | str) -> Any:
    """A name as soundfile opens it: as bytes (its types do not tell) where names are, for old ones are no UTF-8."""
    return os.fsencode(path) if os.name == "posix" else path


def _open(path: Path) -> soundfile.SoundFile:
    if path.is_dir():
        raise Refused(f"{path} is a folder, not an audio file", "name a file")
    if not path.is_file():
        raise Refused(f"media file is missing: {path}", "put the file back, or relink it in the DAW and save")
    try:
        file = soundfile.SoundFile(_named(path))
    except (soundfile.LibsndfileError, OSError) as error:
        reason = getattr(error, "error_string", None) or str(error)
        raise Refused(
            f"media file is not readable: {path}: {reason}", "open it in the DAW and export it again"
        ) from error
    if file.frames >= _UNKNOWN_FRAMES:
        file.close()
        raise Refused(f"{path} does not say how long it is", "open it in the DAW and export it again")
    return file


def _read(
    path: Path, start_frame: int, frames: int | None, dtype: Literal["float32", "float64"]
) -> tuple[NDArray[Any], int]:
    with _open(path) as file:
        start = min(max(start_frame, 0), file.frames)
        wanted = file.frames - start if frames is None else min(max(frames, 0), file.frames - start)
        try:
            _go_to(file, start)
            samples = file.read(wanted, dtype=dtype, always_2d=True)
        except soundfile.LibsndfileError as error:
            raise Refused(f"media file is not readable: {path}: {error.error_string}") from error
        if len(samples) != wanted:
            raise Refused(f"media file is cut short: {path} promises {wanted} frames from {start}, has {len(samples)}")
        return np.ascontiguousarray(samples.T), file.samplerate


def _go_to(file: soundfile.SoundFile, frame: int) -> None:
    """Make `frame` the next one that is read. A Vorbis file is decoded up to there: a 4 min file's end takes 0.4 s."""
    if file.subtype != "VORBIS":
        file.seek(frame)
        return
    for at in range(0, frame, BLOCK_FRAMES):  # libsndfile 1.2.2 seeks up to a block too late in the last Ogg page
        file.read(min(BLOCK_FRAMES, frame - at), dtype="float32")


def _as_stored(samples: NDArray[Any], subtype: str) -> NDArray[Any]:
    bits = INTEGER_BITS.get(subtype)
    if bits is None:
        return samples.astype(np.float64 if subtype == "DOUBLE" else np.float32, copy=False)
    if bits == 32:
        samples = samples.astype(np.float64)  # below, float32 holds each step
    full = samples.dtype.type(2 ** (bits - 1))
    steps = np.clip(np.rint(samples * full), -full, full - 1)
    if bits == 16:
        return steps.astype(np.int16)
    return steps.astype(np.int32) << (32 - bits)  # libsndfile takes the upper bits


def _replace(path: Path, audio: NDArray[Any], rate_hz: int, kind: str, subtype: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        with soundfile.SoundFile(_named(name), "w", rate_hz, audio.shape[0], subtype, format=kind) as file:
            for start in range(0, audio.shape[1], BLOCK_FRAMES):
                file.write(_as_stored(np.ascontiguousarray(audio[:, start : start + BLOCK_FRAMES].T), subtype))
        with open(name, "rb+") as file:
            os.fsync(file.fileno())
        _publish(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _publish(name: str, path: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(name, 0o666 & ~mask)  # mkstemp's 0600 would hide the file from a DAW of another user
    os.replace(name, path)
    if hasattr(os, "O_DIRECTORY"):  # the rename itself reaches the disk
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
