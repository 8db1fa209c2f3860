"""Programs and folders of the system that some tests need: there, skipped with the cure, or (in CI) demanded."""

import os
import shutil
from pathlib import Path

import pytest


def need(program: str, install: str) -> str:
    """The program's path. Without it the test is skipped, or fails where PUNCHIN_REQUIRE_REAL is set."""
    found = shutil.which(program)
    if found:
        return found
    text = f"{program} is not installed: {install}"
    if os.environ.get("PUNCHIN_REQUIRE_REAL"):
        pytest.fail(text)
    pytest.skip(text)


def corpus(kind: str) -> Path:
    """The folder of real projects of one kind (`rpp`, `als`), or a skip."""
    root = os.environ.get("PUNCHIN_CORPUS")
    if not root or not (Path(root) / kind).is_dir():
        pytest.skip("PUNCHIN_CORPUS names no folder of real projects")
    return Path(root).resolve() / kind
