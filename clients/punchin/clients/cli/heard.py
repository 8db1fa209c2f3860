"""How far a job's takes can be heard while they are made, and, where asked for, in WAV files that grow.

A file is a valid one after each stretch: whoever opens it again hears more.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import Refused
from punchin.protocol.limits import MODEL_HZ

if TYPE_CHECKING:
    from punchin.clients.client import Client
    from punchin.protocol.messages import Preview
    from punchin.protocol.order import JobRecord

SAID_EVERY_S: Final = 10.0  # a line for each stretch would be a hundred lines for a song
_HINT: Final = "choose another folder for --save"


class Heard:
    """Of one job. `add` each preview as it comes."""

    def __init__(self, client: Client, record: JobRecord, folder: Path | None, talk: Talk) -> None:
        """folder: where the files go, `ID-SEED.wav`, or `ID-N-SEED.wav` of passage N from 1; None keeps none.

        Raises Refused where it cannot be made.
        """
        self._client, self._order, self._job, self._folder, self._talk = client, record.order, record.id, folder, talk
        self._frames: dict[tuple[int, int], int] = {}  # by passage and seed
        self._said: dict[tuple[int, int], int] = {}
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Refused(f"{folder} cannot be made: {error.strerror}", _HINT) from error

    def add(self, preview: Preview) -> None:
        """Keep a stretch and say how far it is now. Raises Refused where the file cannot be written."""
        take, end = (preview.passage, preview.seed), preview.start_frame + preview.frames
        if preview.start_frame > self._frames.get(take, 0):
            return  # one before it was lost: what can be heard ends there, the take comes whole
        label = self._order.label(preview.passage)
        number = f"{preview.passage + 1}-" if label else ""
        path = None if self._folder is None else self._folder / f"{self._job}-{number}{preview.seed}.wav"
        if path is not None:
            grow(path, preview.start_frame, self._client.get(preview.sha256), preview.channels)
        self._frames[take] = end
        start, stop = self._order.passages[preview.passage].span
        said = self._said.get(take)
        if said is None or end == stop - start or end - said >= SAID_EVERY_S * MODEL_HZ:
            self._said[take] = end
            where = path or "with --save FOLDER"
            far = f"{end / MODEL_HZ:.2f} of {(stop - start) / MODEL_HZ:.2f} s of seed {preview.seed}"
            self._talk.say(f"  {f'{label}: ' if label else ''}{far} can be heard: {where}")


def grow(path: Path, start_frame: int, data: bytes, channels: int) -> None:
    """Let a float WAV at 48 kHz have interleaved `data` from `start_frame` on, as its end. Raises Refused."""
    frame_bytes = 4 * channels
    try:
        with path.open("r+b" if start_frame else "wb") as file:
            if not start_frame:
                file.write(_header(0, channels))
            file.seek(_HEADER_BYTES + start_frame * frame_bytes)
            file.write(data)
            file.truncate()
            file.seek(0)  # last: until now the file is the shorter one
            file.write(_header(start_frame + len(data) // frame_bytes, channels))
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", _HINT) from error


_FORMAT: Final = "<4sI4s 4sIHHIIHHH 4sII 4sI"
_HEADER_BYTES: Final = struct.calcsize(_FORMAT)


def _header(frames: int, channels: int) -> bytes:
    """RIFF WAVE of IEEE float (format 3): with the size of an empty extension, and the frames in a `fact`."""
    frame_bytes, data_bytes = 4 * channels, 4 * channels * frames
    return struct.pack(
        _FORMAT,
        *(b"RIFF", _HEADER_BYTES - 8 + data_bytes, b"WAVE"),
        *(b"fmt ", 18, 3, channels, MODEL_HZ, MODEL_HZ * frame_bytes, frame_bytes, 32, 0),
        *(b"fact", 4, frames),
        *(b"data", data_bytes),
    )
