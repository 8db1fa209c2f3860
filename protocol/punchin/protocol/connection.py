"""How a client finds the daemon: one file of mode 0600 in a folder of mode 0700, written when the daemon is ready."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from punchin.protocol import home
from punchin.protocol.errors import Refused

NAME: Final = "daemon.json"


class Connection(Struct, frozen=True, kw_only=True):
    """What the file holds. `server_key` is CURVE's, in Z85; "" where the sockets are ipc in the private folder."""

    control: str
    events: str
    data: str
    instance: str
    pid: int
    version: str
    protocol: int
    started_ns: int
    server_key: str = ""


def folder() -> Path:
    """The private folder of sockets, locks and the connection file.

    Raises Refused if it is another user's, or cannot be made.
    """
    path = home.runtime()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if sys.platform != "win32":
            found = path.stat()
            if found.st_uid != os.getuid():
                raise Refused(f"{path} belongs to user {found.st_uid}, not to {os.getuid()}", "set PUNCHIN_HOME")
            if stat.S_IMODE(found.st_mode) != 0o700:
                path.chmod(0o700)
    except OSError as error:
        text = f"{path}, the folder of the daemon's sockets, cannot be used: {error.strerror}"
        raise Refused(text, "set PUNCHIN_HOME to a folder of yours", "folder") from error
    return path


def file() -> Path:
    """The connection file."""
    return folder() / NAME


def daemon_lock() -> Path:
    """Held by the daemon as long as it lives."""
    return folder() / "daemon.lock"


def spawn_lock() -> Path:
    """Held by a client while it starts a daemon."""
    return folder() / "spawn.lock"


def write(connection: Connection) -> None:
    """Make the daemon findable: all of the file at once, readable by its user alone. Raises Refused."""
    path = file()
    temporary = path.with_name(f"{NAME}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(msgspec.json.encode(connection))
        temporary.replace(path)
    except OSError as error:
        text = f"{path}, by which clients find the daemon, cannot be written: {error.strerror}"
        raise Refused(text, "free space on its disk, or set PUNCHIN_HOME to a folder of yours", "folder") from error


def read() -> Connection | None:
    """What the last daemon wrote; None if there is nothing, or nothing readable. It may be dead since."""
    return _decoded(file())


def leads_to(instance: str) -> bool:
    """Whether clients find that life of a daemon. Not where the folder is gone, which is not made again for a look."""
    found = _decoded(home.runtime() / NAME)
    return found is not None and found.instance == instance


def _decoded(path: Path) -> Connection | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Connection)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
