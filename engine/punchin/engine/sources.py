"""Where models come from: Hugging Face, ModelScope, or a folder on this machine. Knows no torch.

The hubs are reached through their own client libraries, imported here when they are used; those resume a cut download.
"""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from punchin.protocol.errors import PunchinError, Refused


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

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Put a file at `into/remote.path`, going on where an earlier try was cut. Raises PunchinError."""
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
        try:
            with part.open("ab") as file:
                headers = hub.utils.build_hf_headers()
                url = hub.hf_hub_url(repository, remote.path)
                transfer(url, file, resume_size=file.tell(), headers=headers, expected_size=remote.size_bytes)
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError):
                raise
            raise _cut(self.name, remote, error) from error
        except Exception as error:
            raise _cut(self.name, remote, error) from error
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

    def fetch(self, repository: str, remote: Remote, into: Path) -> None:
        """Put a file at `into/remote.path`."""
        hub = _client("modelscope_hub", "modelscope-hub")
        try:
            hub.HubApi().download_file(repository, "model", remote.path, local_dir=into)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise
            raise _cut(self.name, remote, error) from error


class Folder:
    """A folder that somebody else filled: repositories by their names in it, or one repository, or one model."""

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path

    def files(self, repository: str) -> Sequence[Remote]:
        """What the repository's folder holds, below the names that the hub gives."""
        root = self._root(repository)
        found = [path for path in sorted(root.rglob("*")) if path.is_file()]
        return [Remote(str(path.relative_to(root)), path.stat().st_size, None) for path in found]

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
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bytes on the disk are shown instead, for all sources alike
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Refused(f"{package} is not installed", 'pip install "punchin[hub]"') from error


def _unreachable(name: str, repository: str, error: Exception) -> PunchinError:
    other = "modelscope" if name == "huggingface" else "huggingface"
    first = str(error).strip().split("\n")[0] or type(error).__name__
    return PunchinError(f"{name} does not give {repository}: {first}", f"try `--from {other}`, or a folder")


def _cut(name: str, remote: Remote, error: Exception) -> PunchinError:
    first = str(error).strip().split("\n")[0] or type(error).__name__
    return PunchinError(f"{remote.path} from {name} was cut off: {first}", "run it again; it goes on where it stopped")
