"""`python -m punchin.daemon`: the daemon. Clients start it themselves; `punchin serve` runs it in the foreground.

It writes the line `ready` to stdout when clients can connect; or why they cannot, and on the next line what to do.
Exit status 0 after a stop, 1 after a failure, whose reason is the last line of its log too; 2 if the command line is
wrong, 3 if another daemon holds the lock, 4 if a service cannot be installed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import zmq

from punchin.daemon import logs, unit
from punchin.daemon.server import Server, Settings
from punchin.protocol import connection, home, limits, lock, stops
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.usage import Parser

LOCK_WAIT_S = 1.0  # somebody may be looking at the lock, or the daemon before may be ending
UNITS = {"s": 1, "m": 60, "h": 3600}


def main() -> int:
    """Run one life."""
    try:
        arguments = _parser().read(sys.argv[1:], sys.stdout)
    except PunchinError as error:
        return _say(error)
    if arguments is None:
        return 0
    if arguments.install:
        return _service(lambda: unit.install(_kept(arguments)))
    if arguments.uninstall:
        return _service(unit.uninstall)
    os.umask(0o077)
    threading.excepthook = _end_with_thread
    try:
        held = lock.take(connection.daemon_lock(), LOCK_WAIT_S)
        if held is None:
            return _say_who_runs()
        logs.begin(home.state() / "logs" / "daemon.log")
        _take_state()
        server = Server(_settings(arguments))
    except (PunchinError, OSError, zmq.ZMQError) as error:
        _fail(str(error), error.hint if isinstance(error, PunchinError) else "")
        return 1
    try:
        server.run(_tell_ready)
    except Exception:
        logging.getLogger("punchin.daemon").exception("bug in punchin")  # the next start recovers the jobs
        raise
    finally:
        held.release()
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="punchin serve",
        description="Run the daemon here, in the foreground. Verbs that need one start one themselves.",
    )
    for name, what in (
        ("--idle-exit", "end after so long without jobs, clients, a loaded model and a pause (never)"),
        ("--keep-alive", "how long a model stays loaded after its last job: 0, 90, 5m, 1h, or -1 for ever (5m)"),
    ):
        parser.add_argument(name, metavar="TIME", type=_seconds, help=what)
    parser.add_argument("--install", action="store_true", help="make it a service of your systemd, and start it")
    parser.add_argument("--uninstall", action="store_true", help="stop the service and remove it")
    return parser


def _seconds(text: str) -> float:
    number, unit_s = (text[:-1], UNITS[text[-1]]) if text[-1:] in UNITS else (text, 1)
    try:
        found = float(number) * unit_s
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write 90, 5m, 1h, 0, or -1 for no end")
    if found > limits.KEEP_ALIVE_S:
        raise argparse.ArgumentTypeError(f"{text} is over {limits.KEEP_ALIVE_S} s, a year; write -1 for no end")
    return found


def _settings(arguments: argparse.Namespace) -> Settings:
    keep_alive_s, idle_exit_s = arguments.keep_alive, arguments.idle_exit
    if keep_alive_s is None:
        try:
            keep_alive_s = _seconds(os.environ.get("PUNCHIN_KEEP_ALIVE") or "5m")
        except argparse.ArgumentTypeError as error:
            raise Refused(f"PUNCHIN_KEEP_ALIVE: {error}", "unset PUNCHIN_KEEP_ALIVE") from error
    return Settings(home.state(), keep_alive_s, None if idle_exit_s is None or idle_exit_s < 0 else idle_exit_s)


def _kept(arguments: argparse.Namespace) -> list[str]:
    """What a service is started with, too."""
    given = (("--keep-alive", arguments.keep_alive), ("--idle-exit", arguments.idle_exit))
    return [f"{name}={value:g}" for name, value in given if value is not None]


def _take_state() -> None:
    """Hold it for as long as this process lives: two environments may name one state and two runtime folders."""
    folder = home.state()
    holder = folder / "daemon.pid"
    if lock.take(folder / "daemon.lock", LOCK_WAIT_S) is None:
        pid = holder.read_text("utf-8") if holder.exists() else "PID"  # it may not have written its own yet
        text = f"another daemon (pid {pid}) uses {folder}; its sockets are not in {connection.folder()}"
        raise Refused(text, f"kill {pid}   (it puts its jobs back, and the next start goes on with them)")
    with contextlib.suppress(OSError):  # of a full disk the journal tells better
        holder.write_text(f"{os.getpid()}", "utf-8")


def _service(change: Callable[[], Path | None]) -> int:
    try:
        print(change() or "no service is installed")
    except PunchinError as error:
        return _say(error)
    return 0


def _say(error: PunchinError) -> int:
    print(f"error: {error}\n  {error.hint}", file=sys.stderr)
    return error.exit_code


def _say_who_runs() -> int:
    found = connection.read()
    who = f" (pid {found.pid}, version {found.version})" if found is not None else ""
    print(f"error: another daemon holds {connection.folder()}{who}", "  punchin stop", sep="\n", file=sys.stderr)
    return 3


def _tell_ready() -> None:
    _tell("ready\n")
    with contextlib.suppress(OSError):
        os.dup2(2, 1)  # whoever listened has heard it, and may close its end


def _end_with_thread(failed: threading.ExceptHookArgs) -> None:
    """A daemon without one of its threads would be deaf on one ear: end at once, and let the next start recover."""
    what = (failed.exc_type, failed.exc_value or failed.exc_type(), failed.exc_traceback)
    logging.getLogger("punchin.daemon").error("bug in punchin", exc_info=what)
    os._exit(1)


def _fail(text: str, hint: str) -> None:
    text = " ".join(text.split())
    _tell(f"{text}\n{hint}\n")  # first: stderr and log may be files on a disk that is full
    logging.getLogger("punchin.daemon").error("cannot start", extra={"why": text})
    print(f"error: {text}", *([f"  {hint}"] if hint else []), sep="\n", file=sys.stderr)


def _tell(lines: str) -> None:
    with contextlib.suppress(OSError):  # nobody may listen
        os.write(1, lines.encode())


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the server has its own answer
    stops.heard()
    sys.exit(main())
