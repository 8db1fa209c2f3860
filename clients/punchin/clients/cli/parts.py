"""Other parts of Punchin as processes: they load what a client never loads."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from punchin.protocol.errors import Refused


def check(module: str, extra: str) -> None:
    """Raise Refused where a part is missing. extra: the name under which pip installs what it needs."""
    if not _is_there(module):
        raise Refused(f"{module} is not installed", f'pip install "punchin[{extra}]"')


def become(module: str, words: Sequence[str], extra: str) -> NoReturn:
    """Replace this process by `python -m MODULE WORDS`: its signals, its output and its exit code are the part's.

    Raises as `check`.
    """
    check(module, extra)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])


def _is_there(module: str) -> bool:
    try:
        spec = importlib.util.find_spec(module)
        package = spec is not None and spec.submodule_search_locations is not None
        return spec is not None and (not package or importlib.util.find_spec(f"{module}.__main__") is not None)
    except ModuleNotFoundError:
        return False
