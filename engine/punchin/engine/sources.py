"""Where models come from: Hugging Face, ModelScope, or a folder on this machine. Knows no torch.

The hubs are reached through their own client libraries, imported here when they are used; those resume a cut download.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from punchin.protocol.errors import PunchinError, Refused

_DISK: Final = frozenset(  # what a disk says; the rest of the errors that have a number are the network's
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR)
)


class Remote(NamedTuple):
    """A file of a repository: its path there, its size, and its sha256 where the source tells it."""

    path: str
    size_bytes: int
    sha256: str | None


class Source(Protocol):
    """A place that holds repositories by the names that the hubs use."""

    name: str

    def files(self, repository: str) -> Sequence[Remote]:
        """What a repository holds. Raises Refused or PunchinError."""
        ...

    def begun(self, remote: Remote, into: Path) -> int:
        """How many bytes of a file are in `into` already, and will not be fetched again."""
        ...

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Put a file at `into/remote.path`, going on where an earlier try was cut. Raises PunchinError, OSError."""
        ...


class HuggingFace:
    """The Hugging Face hub; HF_ENDPOINT names another server, HF_TOKEN an account."""

    name = "huggingface"

    def files(self, repository: str) -> Sequence[Remote]:
        """What a repository holds."""
        hub = _client("huggingface_hub", "huggingface_hub")
        try:
            info = hub.HfApi().model_info(repository, files_metadata=True)
        except Exception as error:  # the client's errors share no root with those of the network below it
            raise _unreachable(self.name, repository, error) from error
        return [
            Remote(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None)
            for each in info.siblings or []
        ]

    def begun(self, remote: Remote, into: Path) -> int:
        """How many bytes of a file are in `into` already."""
        return _begun(remote, into, ".part")

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Put a file at `into/remote.path`; what has come of it waits in `remote.path + ".part"`.

        The client's own download forgets a cut file when its process ends, so its transfer is called directly.
        """
        hub = _client("huggingface_hub", "huggingface_hub")
        transfer = _client("huggingface_hub.file_download", "huggingface_hub").http_get
        target = into / remote.path
        part = target.with_name(f"{target.name}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and part.stat().st_size > remote.size_bytes:
            part.unlink()
        begun = part.stat().st_size if part.is_file() else 0
        try:
            with part.open("ab") as file:
                headers = hub.utils.build_hf_headers()
                url = hub.hf_hub_url(repository, remote.path)
                transfer(url, file, resume_size=file.tell(), headers=headers, expected_size=remote.size_bytes)
        except Exception as error:
            if "Consistency check failed" in str(error):  # a whole answer of another size: no part of the file
                os.truncate(part, begun)
            _tell(self.name, remote, error)
        part.replace(target)


class ModelScope:
    """The ModelScope hub; MODELSCOPE_ENDPOINT names another server."""

    name = "modelscope"

    def files(self, repository: str) -> Sequence[Remote]:
        """What a repository holds."""
        hub = _client("modelscope_hub", "modelscope-hub")
        try:
            listed = hub.HubApi().list_repo_files(repository, "model")
        except Exception as error:
            raise _unreachable(self.name, repository, error) from error
        return [Remote(each.path, each.size, each.sha256 or None) for each in listed if not each.is_dir]

    def begun(self, remote: Remote, into: Path) -> int:
        """How many bytes of a file are in `into` already."""
        return _begun(remote, into, ".incomplete")

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Put a file at `into/remote.path`; the client keeps what has come of it in `remote.path + ".incomplete"`."""
        hub = _client("modelscope_hub", "modelscope-hub")
        try:
            hub.HubApi().download_file(repository, "model", remote.path, local_dir=into)
        except Exception as error:
            _tell(self.name, remote, error)


class Folder:
    """A folder that somebody else filled: repositories by their names in it, or one repository, or one model."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def files(self, repository: str) -> Sequence[Remote]:
        """What the repository's folder holds, below the names that the hub gives."""
        root = self._root(repository)
        found = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return [Remote(str(path.relative_to(root)), path.stat().st_size, None) for path in found]

    def begun(self, remote: Remote, into: Path) -> int:
        """How many bytes of a file are in `into` already: all of it, or none that counts."""
        return _begun(remote, into, "")

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Copy a file; a file system that can share its blocks does so."""
        target = into / remote.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._root(repository) / remote.path, target)

    def _root(self, repository: str) -> Path:
        owner, _, name = repository.partition("/")
        for place in (self._path / owner / name, self._path / name):
            if place.is_dir():
                return place
        return self._path


def _client(module: str, package: str) -> Any:
    for setting in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(setting, "1")  # the bytes on the disk are shown instead, for all sources alike
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"{package} is not installed", 'pip install "punchin[hub]"') from error


def _unreachable(name: str, repository: str, error: Exception) -> PunchinError:
    other = "modelscope" if name == "huggingface" else "huggingface"
    first = str(error).strip().split("\n")[0] or type(error).__name__
    hint = f"run the same command with `--from {other}`, or `--from FOLDER`"
    return PunchinError(f"{name} does not give {repository}: {first}", hint)


def _begun(remote: Remote, into: Path, suffix: str) -> int:
    """The bytes of a file that is there whole, else of the one with `suffix`, where it waits for the rest."""
    whole, rest = into / remote.path, into / f"{remote.path}{suffix}"
    if whole.is_file() and whole.stat().st_size == remote.size_bytes:
        return remote.size_bytes
    return rest.stat().st_size if suffix and rest.is_file() else 0


def _tell(name: str, remote: Remote, error: Exception) -> NoReturn:
    """Raise what a transfer that failed is told as: the disk's own error where it was the disk, else a cut.

    ModelScope's client wraps the cause in words of its own, in Chinese; Hugging Face's in the same once more.
    """
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno in _DISK:
        raise cause
    said = str(cause).strip() or type(cause).__name__
    text = f"{remote.path} from {name} was cut off: {said.splitlines()[0]}"
    raise PunchinError(text, "run it again; it goes on where it stopped") from error
