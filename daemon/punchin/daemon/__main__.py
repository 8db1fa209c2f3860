"""`python -m punchin.daemon`: the daemon. Clients start it themselves; `punchin serve` runs it in the foreground.

It writes the line `ready` to stdout when clients can connect, or why they cannot. Exit status 0 after a stop, 1 after
a failure, whose reason is the last line of its log too; 3 if another daemon holds the lock, 4 if a service cannot be
installed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from punchin.daemon import logs, unit
from punchin.daemon.server import Server, Settings
from punchin.protocol import connection, home, lock
from punchin.protocol.errors import PunchinError

LOCK_WAIT_S = 1.0  # somebody may be looking at the lock, or the daemon before may be ending


def main() -> int:
    """Run one life."""
    parser = argparse.ArgumentParser(prog="python -m punchin.daemon", description=__doc__)
    parser.add_argument("--idle-exit", metavar="SECONDS", type=float, help="end after so long without jobs and clients")
    parser.add_argument("--keep-alive", metavar="SECONDS", type=float, default=_keep_alive_s())
    parser.add_argument("--install", action="store_true", help="make it a service of your systemd, and start it")
    parser.add_argument("--uninstall", action="store_true", help="stop the service and remove it")
    arguments = parser.parse_args()
    if arguments.install or arguments.uninstall:
        return _service(unit.install if arguments.install else unit.uninstall)
    os.umask(0o077)
    log_file = home.state() / "logs" / "daemon.log"
    try:
        held = lock.take(connection.daemon_lock(), LOCK_WAIT_S)
        if held is None:
            return _say_who_runs()
        logs.begin(log_file)
        server = Server(Settings(home.state(), arguments.keep_alive, arguments.idle_exit))
    except (PunchinError, OSError) as error:
        _tell(str(error))  # first: stderr and log may be files on a disk that is full
        logging.getLogger("punchin.daemon").error("cannot start", extra={"why": str(error)})
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        server.run(_tell_ready)
    except Exception:
        logging.getLogger("punchin.daemon").exception("bug in punchin")  # the next start recovers the jobs
        raise
    finally:
        held.release()
    return 0


def _service(change: Callable[[], Path]) -> int:
    try:
        print(change())
    except PunchinError as error:
        print(f"error: {error}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


def _keep_alive_s() -> float:
    return float(os.environ.get("PUNCHIN_KEEP_ALIVE", "300"))


def _say_who_runs() -> int:
    found = connection.read()
    who = f" (pid {found.pid}, version {found.version})" if found is not None else ""
    print(f"error: another daemon holds {connection.folder()}{who}", file=sys.stderr)
    return 3


def _tell_ready() -> None:
    _tell("ready")
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # whoever listened has heard it, and may close its end


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody may listen
        os.write(1, " ".join(text.split()).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
