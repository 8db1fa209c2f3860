"""Programs and folders of the system that some tests need: there, skipped with the cure, or (in CI) demanded."""

import os
import shutil
from pathlib import Path

import pytest


def need(program: str, install: str) -> str:
    """The program's path. Without it the test is skipped, or fails where PUNCHIN_REQUIRE_REAL is set."""
    return _found(shutil.which(program), f"{program} is not installed: {install}")


def need_file(path: str, install: str) -> Path:
    """The same for a file of the system."""
    return Path(_found(path if Path(path).is_file() else None, f"{path} is not there: {install}"))


def _found(found: str | None, text: str) -> str:
    if found:
        return found
    if os.environ.get("PUNCHIN_REQUIRE_REAL"):
        pytest.fail(text)
    pytest.skip(text)


def corpus(kind: str) -> Path:
    """The folder of real projects of one kind (`rpp`, `als`), or a skip."""
    root = os.environ.get("PUNCHIN_CORPUS")
    if not root or not (Path(root) / kind).is_dir():
        pytest.skip("PUNCHIN_CORPUS names no folder of real projects")
    return Path(root).resolve() / kind
