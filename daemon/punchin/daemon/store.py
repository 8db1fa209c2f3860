"""Blobs by sha256. A blob's name exists only once its bytes are whole, checked and on disk.

A write is: temporary file, fsync, rename, fsync of the folder. A crash before the rename leaves a part that is
resumed or swept; a crash after it leaves the blob. One thread writes uploads (data), one adopts takes (keeper).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from punchin.daemon.crash import crash_point
from punchin.protocol.errors import PunchinError, Refused

MAX_BEHIND = 8  # pieces taken and not hashed yet
SYNC_EVERY_BYTES = 8 * 1024 * 1024  # keeps little dirty, so that the journal's fsync next door does not wait for it


class StoreFull(Refused):
    """The disk takes no more (`disk_full`), or nothing at all (`disk`); what was stored before is whole."""

    def __init__(self, why: OSError, root: Path) -> None:
        """root: the store's folder, for the bytes that its disk has left."""
        full = why.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        text = f"the blob store cannot be written: {why.strerror or why}"
        with contextlib.suppress(OSError):
            text += f"; the disk of {root} has {shutil.disk_usage(root).free:,} bytes free"
        hint = "free some disk space (punchin gc), then try again" if full else f"see to {root}, then try again"
        super().__init__(text, hint, "disk_full" if full else "disk")


class UnknownBlob(Refused):
    """No such blob here."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"blob {sha256[:12]} is not in the store", "submit the job again", "unknown_blob")


class DamagedBlob(Refused):
    """The disk gave other bytes than it was given."""

    def __init__(self, sha256: str) -> None:
        text = f"blob {sha256[:12]} was damaged on the daemon's disk, and is removed"
        super().__init__(text, "run the same command again: what is missing is sent anew", "damaged_blob")


class Upload:
    """A blob under way: bytes are appended in order, hashed as they come."""

    def __init__(self, part: Path, sha256: str, size_bytes: int) -> None:
        self.sha256, self.size_bytes = sha256, size_bytes
        self.part = part
        self.file = part.open("ab", buffering=0)
        self.hash = hashlib.sha256()
        self.offset = self._resume()
        self._hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")  # while the next pieces come;
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="sync")  # one each: the disk must not hold the hash
        self._unfinished: deque[Future[None]] = deque()

    def _resume(self) -> int:
        size = min(self.part.stat().st_size, self.size_bytes)
        os.truncate(self.part, size)
        with self.part.open("rb") as held:
            while piece := held.read(1024 * 1024):
                self.hash.update(piece)
        return size

    def append(self, piece: memoryview) -> None:
        """Take the next bytes, which must not change. Raises OSError; the part then ends where it ended before."""
        try:
            crash_point("store.write")
            rest = piece
            while rest:  # a disk that fills up takes a part of it
                rest = rest[self.file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.part, self.offset)
            raise
        before, self.offset = self.offset, self.offset + len(piece)
        self._unfinished.append(self._hasher.submit(self.hash.update, piece))
        if self.offset // SYNC_EVERY_BYTES != before // SYNC_EVERY_BYTES:
            self._unfinished.append(self._syncer.submit(os.fdatasync, self.file.fileno()))
        while len(self._unfinished) > MAX_BEHIND:
            self._unfinished.popleft().result()

    def close(self) -> None:
        """Close the file; what is there can be resumed. Raises OSError if what was taken did not reach the disk."""
        self._hasher.shutdown(wait=True)
        self._syncer.shutdown(wait=True)
        self.file.close()
        while self._unfinished:
            self._unfinished.popleft().result()


class Store:
    """The folder of blobs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._aging = threading.RLock()  # a sweep looks and removes, other threads make young
        self.blobs, self.parts, self.takes = root / "blobs", root / "parts", root / "takes"
        for folder in (self.blobs, self.parts, self.takes):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def path(self, sha256: str) -> Path:
        """Where a blob is, if it is there."""
        return self.blobs / sha256[:2] / sha256[2:]

    def size(self, sha256: str) -> int | None:
        """A blob's bytes, or None if it is not there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, sha256: str, offset: int, length: int) -> tuple[bytes, int]:
        """Up to `length` bytes from `offset`, and the blob's size. Raises UnknownBlob, or Refused past its end."""
        try:
            with self.path(sha256).open("rb", buffering=0) as blob:
                size = os.fstat(blob.fileno()).st_size
                if offset > size or (offset == size and size):
                    raise Refused(f"offset is {offset}, the blob has {size} bytes", code="bad_offset")
                return os.pread(blob.fileno(), length, offset), size
        except FileNotFoundError:
            raise UnknownBlob(sha256) from None

    def check(self, sha256: str) -> None:
        """Read a blob whole. Raises UnknownBlob, OSError; DamagedBlob where its bytes are others now: it is removed, so
        that the next put brings them again.
        """
        path = self.path(sha256)
        try:
            with path.open("rb") as blob:
                if hashlib.file_digest(blob, "sha256").hexdigest() == sha256:
                    return
                with self._aging:
                    if os.path.samestat(os.fstat(blob.fileno()), path.stat()):  # not put again meanwhile
                        path.unlink()
        except FileNotFoundError:
            raise UnknownBlob(sha256) from None
        raise DamagedBlob(sha256)

    def begin(self, sha256: str, size_bytes: int) -> Upload:
        """Begin an upload, or go on with one. Raises StoreFull."""
        try:
            crash_point("store.begin")
            return Upload(self.parts / sha256, sha256, size_bytes)
        except OSError as error:
            raise StoreFull(error, self.root) from error

    def finish(self, upload: Upload) -> None:
        """Make a whole upload a blob. Raises Refused (`hash_mismatch`; the part is gone), StoreFull."""
        try:
            upload.close()
        except OSError as error:
            raise StoreFull(error, self.root) from error
        found = upload.hash.hexdigest()
        if found != upload.sha256:
            upload.part.unlink(missing_ok=True)
            text = f"the bytes sent have sha256 {found[:12]}, announced was {upload.sha256[:12]}"
            raise Refused(text, "send them again", "hash_mismatch")
        try:
            self._keep(upload.part, upload.sha256)
        except OSError as error:
            raise StoreFull(error, self.root) from error

    def adopt(self, path: Path, size_bytes: int) -> str:
        """Make a finished file of the worker a blob; returns its sha256. Raises PunchinError, StoreFull."""
        found = path.stat().st_size
        if found != size_bytes:
            raise PunchinError(f"the engine said {size_bytes} bytes, its take file has {found}")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            crash_point("store.adopt")
            self._keep(path, sha256)
        except OSError as error:
            raise StoreFull(error, self.root) from error
        return sha256

    def _keep(self, path: Path, sha256: str) -> None:
        target = self.path(sha256)
        if not target.parent.exists():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self.blobs)
        crash_point("store.sync")
        with path.open("rb") as file:
            os.fsync(file.fileno())
        crash_point("store.rename")
        with self._aging:
            path.replace(target)
            self.touch(sha256)  # its age counts from now: a sweep spares the young
        crash_point("store.folder")
        _sync_folder(target.parent)

    def out_dir(self, job: str, attempt: int) -> Path:
        """The folder for the takes of one attempt."""
        return self.takes / f"{job}.{attempt}"

    def make_out_dir(self, job: str, attempt: int) -> Path:
        """The folder for the takes of one attempt, new and empty. Raises StoreFull."""
        folder = self.out_dir(job, attempt)
        try:
            self.drop_out_dir(folder)
            folder.mkdir(mode=0o700)
            crash_point("store.attempt")
        except OSError as error:
            raise StoreFull(error, self.root) from error
        return folder

    def drop_out_dir(self, folder: Path) -> None:
        """Remove what an attempt left behind. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            for left in folder.iterdir():
                left.unlink(missing_ok=True)
            crash_point("store.drop")
            folder.rmdir()

    def drop_attempts(self) -> None:
        """Remove the leftovers of all attempts: at start, when none runs."""
        for folder in self.takes.iterdir():
            if folder.is_dir():  # not a stray file, such as a file manager leaves
                self.drop_out_dir(folder)

    def everything(self) -> Iterator[tuple[str, int, float]]:
        """Each blob's sha256, bytes and age in seconds: negative where the clock was ahead."""
        now_s = time.time()
        for folder in sorted(self.blobs.iterdir()):
            if not folder.is_dir():
                continue  # a stray file, such as a file manager leaves
            for blob in sorted(folder.iterdir()):
                with contextlib.suppress(FileNotFoundError):  # found damaged, and removed, meanwhile
                    found = blob.stat()
                    yield folder.name + blob.name, found.st_size, now_s - found.st_mtime

    def remove_old(self, sha256: str, age_s: float) -> bool:
        """Remove a blob that nothing refers to, unless it was made young meanwhile: whether it went."""
        crash_point("store.sweep")
        path = self.path(sha256)
        with self._aging, contextlib.suppress(FileNotFoundError):
            if abs(time.time() - path.stat().st_mtime) > age_s:
                path.unlink()
                return True
        return False

    def touch(self, sha256: str) -> bool:
        """Make a blob young, so that no sweep takes it before its job is in the journal. False if it is not there."""
        now_s = time.time()  # by this clock, also on another machine's disk
        try:
            with self._aging:
                os.utime(self.path(sha256), (now_s, now_s))
        except FileNotFoundError:
            return False
        return True

    def drop_old_parts(self, age_s: float) -> None:
        """Remove uploads that nobody went on with for `age_s` seconds."""
        now_s = time.time()
        for part in self.parts.iterdir():
            with contextlib.suppress(FileNotFoundError):  # it became a blob meanwhile
                if abs(now_s - part.stat().st_mtime) > age_s:  # a date far ahead is a clock's that was wrong
                    part.unlink()


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot, say so like this
            raise
    finally:
        os.close(fd)
