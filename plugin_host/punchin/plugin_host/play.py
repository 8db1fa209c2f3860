"""An audio file, heard: for a quick listen without opening the DAW."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from punchin.protocol import limits
from punchin.protocol.errors import BadUsage, PunchinError, Refused

CURE = "play it in the DAW, or on a machine with an audio device"
BLOCK_S = 0.2  # Ctrl-C is heard this often


def play(path: Path, device: str | None = None) -> None:
    """Play the whole file on an output device, the system's own if none is named, and return when it has ended.

    Raises Refused without a device or with a file that cannot be read, listing the devices there are; OverLimit for
    more than two channels; PunchinError for a device that cannot be opened or stops.
    """
    try:
        from pedalboard.io import AudioFile, AudioStream
    except ImportError as error:
        raise Refused(f"playing needs pedalboard: {error}", "pip install 'punchin[host]'") from error
    if not path.is_file():
        raise BadUsage(f"no file at {path}") if not path.exists() else Refused(f"{path} is not a file")
    try:
        file = AudioFile(str(path))
    except ValueError as error:
        raise Refused(f"{path} cannot be read as audio: {str(error).strip()}") from error
    with file:
        limits.CHANNELS.check(file.num_channels, f"mix {path.name} down to stereo")
        with _open(AudioStream, device, file.samplerate) as stream:
            try:
                _stream(file, stream)
            except (ValueError, RuntimeError) as error:
                raise PunchinError(f"playing {path.name} stopped: {' '.join(str(error).split())}", CURE) from error


def _open(kind: Any, device: str | None, rate_hz: float) -> Any:
    names = list(kind.output_device_names)
    if not names:
        raise Refused("this machine has no audio output device", CURE)
    name = device or kind.default_output_device_name or names[0]
    if name not in names:
        raise Refused(f'no output device "{name}"; there are {", ".join(names)}')
    try:
        return kind(output_device_name=name, sample_rate=rate_hz)
    except (ValueError, RuntimeError) as error:
        raise PunchinError(f'the output device "{name}" cannot be opened: {error}', CURE) from error


def _stream(file: Any, stream: Any) -> None:
    from pedalboard.io import StreamResampler

    resample = None
    if stream.sample_rate != file.samplerate:  # for the ear alone: nothing is kept
        resample = StreamResampler(file.samplerate, stream.sample_rate, file.num_channels)
    block = int(BLOCK_S * file.samplerate)
    while file.tell() < file.frames:
        audio = file.read(block)
        _write(stream, audio if resample is None else resample.process(audio))
    if resample is not None:
        _write(stream, resample.process())  # what it held back


def _write(stream: Any, audio: NDArray[np.float32]) -> None:
    stream.write(np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio, stream.sample_rate)
