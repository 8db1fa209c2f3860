"""Other parts of Punchin as processes: they load what a client never loads."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from punchin.protocol import stops
from punchin.protocol.errors import Refused

NEEDS = {"engine": "torch", "train": "torch"}  # of an extra: what its parts load first


def check(module: str, extra: str) -> None:
    """Raise Refused where a part is missing. extra: the name under which pip installs what it needs."""
    needs = NEEDS.get(extra, module)
    missing = next((name for name in (module, needs) if not _is_there(name)), None)
    if missing:
        raise Refused(f"{missing} is not installed", f'pip install "punchin[{extra}]"')


def become(module: str, words: Sequence[str], extra: str) -> NoReturn:
    """Replace this process by `python -m MODULE WORDS`: its signals, its output and its exit code are the part's.

    Raises as `check`.
    """
    check(module, extra)
    sys.stdout.flush()
    sys.stderr.flush()
    with stops.held_back():
        os.execv(sys.executable, [sys.executable, "-m", module, *words])


def _is_there(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
        part = module.startswith("punchin.") and spec is not None and spec.submodule_search_locations is not None
        return spec is not None and (not part or importlib.util.find_spec(f"{module}.__main__") is not None)
    except ModuleNotFoundError:
        return False
