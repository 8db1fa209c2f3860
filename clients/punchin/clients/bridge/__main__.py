"""`python -m punchin.clients.bridge SPOOL`: starts the bridge of a spool unless it runs, and returns at once.

`--stay` keeps it in this process instead; that is what the start runs in the background.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import subprocess
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from punchin.clients.bridge import spool
from punchin.protocol import lock
from punchin.protocol.errors import PunchinError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 started, or there already; 1 when the spool cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m punchin.clients.bridge", description="The DAW machine's agent.")
    parser.add_argument("spool", type=Path)
    parser.add_argument("--stay", action="store_true", help="serve in this process until idle")
    given = parser.parse_args(arguments)
    try:
        folder = spool.make(given.spool.absolute())
        if given.stay:
            return _stay(folder)
    except PunchinError as error:
        print(f"error: {error}\n  {error.hint}", file=sys.stderr)
        return 1
    if not lock.is_held(folder.path("bridge.lock")):
        _start(folder)
    return 0


def _start(folder: spool.Spool) -> None:
    """A process of its own session, so that it outlives the DAW that asked for it."""
    command = [sys.executable, "-m", "punchin.clients.bridge", "--stay", str(folder.root)]
    apart = 0
    if sys.platform == "win32":
        apart = subprocess.DETACHED_PROCESS | subprocess.CREATE_NO_WINDOW
    with folder.path("bridge.stderr").open("wb") as stderr:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder.root,
            creationflags=apart,
            start_new_session=True,
        )


def _stay(folder: spool.Spool) -> int:
    """Serve until idle or told to end; then the process is gone."""
    held = lock.take(folder.path("bridge.lock"))
    if held is None:
        return 0  # another one serves this spool
    handler = RotatingFileHandler(folder.path("bridge.log"), maxBytes=1_000_000, backupCount=1, encoding="utf-8")
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(message)s")
    from punchin.clients.bridge.agent import Agent

    agent = Agent(folder)
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # not the main thread: a test's
            signal.signal(number, lambda *_: agent.stop())
    code = 1
    try:
        agent.serve()
        code = 0
    except Exception as error:
        logging.exception("the bridge ends")
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)  # the DAW's watcher shows this line
    finally:
        logging.shutdown()
        # At once, and with it the lock: a thread that still follows its job would land it, as the next bridge does.
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
