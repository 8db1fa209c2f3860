"""A lock of the operating system on a file: the one truth about who is alive. It goes with its holder's process."""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Final

from punchin.protocol.errors import Refused

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_CLOSED: Final = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.EROFS)
_POLL_S = 0.02  # the system offers no wait with a deadline


class Lock:
    """A held lock; `release` or the end of the process frees it. Made by `take`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def release(self) -> None:
        """Free the lock. The file stays: removing it would let two processes hold two files of one name."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def take(path: Path, wait_s: float = 0.0) -> Lock | None:
    """The lock on `path`, or None if another process holds it for longer than `wait_s` seconds.

    Raises Refused where the file is not ours or its disk knows no locks, OSError where the disk does not take it.
    """
    lock = Lock(_open(path, os.O_CREAT))
    until = time.monotonic() + wait_s
    try:
        while not _try_exclusive(path, lock.fd):
            if time.monotonic() >= until:
                lock.release()
                return None
            time.sleep(_POLL_S)
    except Refused:
        lock.release()
        raise
    return lock


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock. Looking does not keep others from taking it but for an instant.

    Raises Refused where the file is not ours or its disk knows no locks.
    """
    try:
        fd = _open(path)
    except FileNotFoundError:
        return False
    try:
        return not _try_shared(path, fd)
    finally:
        os.close(fd)


def _open(path: Path, more: int = 0) -> int:
    try:
        return os.open(path, os.O_RDWR | more, 0o600)
    except OSError as error:
        if error.errno not in _CLOSED:  # such as root's, who was this user by sudo, or on a disk that is read-only now
            raise
        raise Refused(f"{path} cannot be opened: {error.strerror}", f"ls -ld {path}", "lock") from error


if sys.platform == "win32":

    def _try_exclusive(path: Path, fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    _try_shared = _try_exclusive
else:

    def _try_exclusive(path: Path, fd: int) -> bool:
        return _try(path, fd, fcntl.LOCK_EX)

    def _try_shared(path: Path, fd: int) -> bool:
        return _try(path, fd, fcntl.LOCK_SH)  # two that look do not see each other

    def _try(path: Path, fd: int, kind: int) -> bool:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # a network's, mostly
            hint = "use a folder on a disk of this machine (the daemon's: PUNCHIN_HOME)"
            raise Refused(f"{path} cannot be locked: {error.strerror}", hint, "lock") from error
        return True
