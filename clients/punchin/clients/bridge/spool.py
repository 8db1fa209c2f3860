"""The spool folder: how a DAW's scripts and the bridge talk through files.

    inbox/ID.json          a request, put there by a rename          out/INSTANCE.events    answers, lines only added
    cancel/ID              an empty file asks for a cancel           asked/INSTANCE.tsv     the DAW's notes to itself
    draft/, audio/         requests and sound not complete yet       done/ID.line           the last answer of a job
    work/ID/               a request's project text                  bridge.beat, bridge.lock, bridge.log, status.txt

Only its owner may enter it. What is read from it is judged: names by pattern, sizes by limit, links not followed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import stat
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.version import PACKAGE

log = logging.getLogger(__name__)

FOLDERS: Final = ("inbox", "draft", "out", "asked", "cancel", "audio", "work", "done")
REQUEST_BYTES: Final = 8 * 1024 * 1024  # ten thousand items are half of it
KEEP_S: Final = 30 * 24 * 3600  # answers of jobs that no DAW has asked for since
BEAT_S: Final = 2.0
ID: Final = re.compile(r"^[0-9]{8}-[0-9]{6}-[0-9A-F]{8}$")
_CODED: Final = re.compile(r"[%\t\r\n=]")


def encode(fields: Mapping[str, object]) -> str:
    """One line of key=value pairs, percent-coded, without its end."""
    return "\t".join(f"{_coded(key)}={_coded(value)}" for key, value in fields.items())


def decode(line: str) -> dict[str, str]:
    """The pairs of a line; pieces without = are skipped."""
    pairs = (piece.partition("=") for piece in line.strip("\n").split("\t") if "=" in piece)
    return {urllib.parse.unquote(key): urllib.parse.unquote(value) for key, _, value in pairs}


def _line(text: str) -> bytes:
    return text.encode("utf-8", "replace") + b"\n"  # a file's name may hold what is no text


def _coded(value: object) -> str:
    return _CODED.sub(lambda match: f"%{ord(match[0]):02X}", str(value))


def make(root: Path) -> Spool:
    """The spool at `root`, made if it is missing. Raises PunchinError unless it belongs to this user alone."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        _own(root)
        for name in FOLDERS:
            (root / name).mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise PunchinError(f"the spool {root} cannot be made: {error.strerror}", "punchin install reaper") from error
    return Spool(root)


def _own(root: Path) -> None:
    if os.name != "posix":
        return  # below the user's profile, which Windows keeps to its user
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PunchinError(f"the spool {root} is not a folder of this user", "remove it, then: punchin install reaper")
    if stat.S_IMODE(found.st_mode) & 0o077:
        root.chmod(0o700)


class Spool:
    """A spool that `make` has checked. One bridge writes it; scripts only add files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._saying = threading.Lock()

    def path(self, *parts: str) -> Path:
        """A place in the spool."""
        return self.root.joinpath(*parts)

    def request_ids(self) -> list[str]:
        """Ids of complete requests, the oldest first; other files, and folders, are no requests."""
        found: list[tuple[int, str]] = []
        for path in self.path("inbox").iterdir():
            if path.suffix == ".json" and ID.match(path.stem):
                with contextlib.suppress(FileNotFoundError):
                    facts = path.lstat()
                    if not stat.S_ISDIR(facts.st_mode):
                        found.append((facts.st_mtime_ns, path.stem))
        return [id for _, id in sorted(found)]

    def read_request(self, id: str) -> bytes:
        """The bytes of a request. Raises Refused: too big, no plain file, not this user's; FileNotFoundError."""
        path = self.path("inbox", f"{id}.json")
        try:
            fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Refused(f"request {id} cannot be read: {error.strerror}") from error
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or (os.name == "posix" and found.st_uid != os.getuid()):
                raise Refused(f"request {id} is no plain file of this user")
            if found.st_size > REQUEST_BYTES:
                raise Refused(f"request {id} has {found.st_size} bytes, allowed are {REQUEST_BYTES}", code="too_big")
            return file.read(REQUEST_BYTES)

    def say(self, instance: str, fields: Mapping[str, object]) -> None:
        """Add one event to a DAW's stream: one write, so that a reader sees whole lines or a torn last one.

        Raises OSError on a full disk; then nothing of it stays, for the next line would be read as its end.
        """
        self.repeat(instance, encode(fields))

    def repeat(self, instance: str, line: str) -> None:
        """Add a line that was said before; see `say`."""
        text = _line(line.strip("\n"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)  # Windows would write CR LF
        fd = os.open(self.path("out", f"{instance}.events"), flags, 0o600)
        try:
            with self._saying:
                before = os.fstat(fd).st_size
                if os.write(fd, text) < len(text):
                    os.ftruncate(fd, before)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)

    def keep_answer(self, id: str, fields: Mapping[str, object]) -> None:
        """The last word on a job, for a DAW that was closed when it was said."""
        self._replace(self.path("done", f"{id}.line"), encode(fields))

    def answer(self, id: str) -> str | None:
        """The last word on a job as a line, if it is known."""
        with contextlib.suppress(FileNotFoundError):
            return self.path("done", f"{id}.line").read_text(encoding="utf-8")
        return None

    def forget(self, id: str) -> None:
        """Remove what only served to make a job; its answer stays."""
        shutil.rmtree(self.path("work", id), ignore_errors=True)
        self.path("cancel", id).unlink(missing_ok=True)
        for file in self.path("audio").glob(f"{id}-*.wav"):
            file.unlink(missing_ok=True)
        self.path("inbox", f"{id}.json").unlink(missing_ok=True)

    def cancels(self) -> Iterator[str]:
        """Ids that a DAW wants cancelled; each is told once. A folder among them is nobody's word and stays."""
        for path in self.path("cancel").iterdir():
            if path.is_dir():
                continue
            path.unlink(missing_ok=True)
            if ID.match(path.name):
                yield path.name

    def beat(self) -> None:
        """Say that the bridge lives; a script starts a new one when the last beat is old."""
        self._replace(
            self.path("bridge.beat"), encode({"pid": os.getpid(), "version": PACKAGE, "time": int(time.time())})
        )

    def say_status(self, text: str) -> None:
        """What the DAW's Status action shows of the bridge."""
        self._replace(self.path("status.txt"), text)

    def clean(self, now_s: float) -> None:
        """Remove answers and streams that are older than KEEP_S."""
        for name in ("out", "asked", "done", "draft", "audio"):
            for path in self.path(name).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if now_s - path.stat().st_mtime > KEEP_S:
                        path.unlink()

    def _replace(self, path: Path, text: str) -> None:
        fresh = path.with_name(path.name + ".new")
        fresh.write_bytes(_line(text))
        try:
            fresh.replace(path)
        except PermissionError:  # Windows: a script reads the old one just now; the next beat replaces it
            log.debug("%s is being read", path.name)
