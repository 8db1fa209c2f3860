"""Find the daemon, or start it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final, cast

from punchin.clients.client import STOP_S, Client
from punchin.clients.line import Line, Lost
from punchin.protocol import connection, home, lock
from punchin.protocol.errors import Refused, Unreachable

IDLE_EXIT_S: Final = 1_800  # of a daemon that nobody asked for by name
HELLO_S: Final = 2.0
POLL_S: Final = 0.02


class NoDaemon(Unreachable):
    """None runs, and none was to be started."""


def connect(start: bool = True, name: str = "client", wait_s: float = 15.0) -> Client:
    """A client of this user's daemon, which is started first if there is none and `start` says so.

    name: who asks, for the daemon's log. Raises NoDaemon: none runs and not `start`. Raises Unreachable: it was
    not ready within `wait_s` seconds, then the text holds what it said last. Raises Refused (`version`) if the two
    speak no common protocol version.
    """
    return Client(lambda: _reach(start, name, wait_s))


def restart(when_idle: bool = True, wait_s: float = 15.0) -> Client:
    """Stop the daemon (once it has nothing to do, unless told otherwise) and start one of this client's version.

    wait_s is for the new one; the old one's jobs take what they take.
    """
    stop(when_idle)
    while lock.is_held(connection.daemon_lock()):
        time.sleep(POLL_S)
    return connect(start=True, wait_s=wait_s)


def stop(when_idle: bool = False) -> bool:
    """End the daemon, and wait until it is gone unless `when_idle`. False if none runs. Raises as `Client.stop`.

    One that speaks no common protocol version cannot be asked, but it can be told by a signal, which is a stop at once.
    """
    try:
        with connect(start=False, name="stop") as client:
            client.stop(when_idle)
    except NoDaemon:
        return False
    except Refused as error:
        if error.code != "version" or when_idle:
            raise
        _terminate()
    return True


def _terminate() -> None:
    found, until_s = connection.read(), time.monotonic() + STOP_S
    if found is not None and lock.is_held(connection.daemon_lock()):
        os.kill(found.pid, signal.SIGTERM)
    while lock.is_held(connection.daemon_lock()):
        if time.monotonic() > until_s:
            raise Unreachable(f"the daemon did not end within {STOP_S:g} s", "punchin doctor")
        time.sleep(POLL_S)


def _reach(start: bool, name: str, wait_s: float) -> Line:
    """A line to a daemon that said welcome."""
    until_s = time.monotonic() + wait_s
    while True:
        if not lock.is_held(connection.daemon_lock()):
            if not start:
                raise NoDaemon("no daemon is running", "punchin serve")
            _start(until_s, wait_s)
        line = _greet(name, until_s)
        if line is not None:
            return line
        if time.monotonic() >= until_s:
            found = connection.read()
            who = f" (pid {found.pid}, version {found.version})" if found is not None else ""
            raise Unreachable(
                f"a daemon is there{who}, but did not answer within {wait_s:g} s{_tail()}", "punchin doctor"
            )
        time.sleep(POLL_S)  # it holds the lock, but is not findable yet


def _greet(name: str, until_s: float) -> Line | None:
    found = connection.read()
    if found is None:
        return None
    line = Line(found, name)
    try:
        line.hello(min(HELLO_S, max(0.1, until_s - time.monotonic())))
    except Lost:
        line.close()
        return None
    except BaseException:
        line.close()
        raise
    return line


def _start(until_s: float, wait_s: float) -> None:
    """Start a daemon and wait until it is ready; another client may do so at the same time."""
    held = lock.take(connection.spawn_lock(), max(0.0, until_s - time.monotonic()))
    if held is None:
        raise Unreachable(f"another client did not get the daemon started within {wait_s:g} s{_tail()}")
    try:
        if not lock.is_held(connection.daemon_lock()):
            _spawn(until_s, wait_s)
    finally:
        held.release()


def _spawn(until_s: float, wait_s: float) -> None:
    try:
        process = _process()
    except OSError as error:
        raise Unreachable(f"the daemon cannot be started: {error}", "punchin doctor") from error
    heard: list[str] = []
    stdout = cast("BinaryIO", process.stdout)
    listener = threading.Thread(target=lambda: heard.append(_line(stdout)), daemon=True)
    listener.start()
    listener.join(max(0.0, until_s - time.monotonic()))
    if heard == ["ready"]:
        stdout.close()
        threading.Thread(target=process.wait, name="daemon-reaper", daemon=True).start()  # should it end before us
        return
    if not heard:
        process.kill()
        raise Unreachable(f"the daemon did not start within {wait_s:g} s{_tail()}", "punchin doctor")
    code, cure = process.wait(), _line(stdout)
    stdout.close()
    if code != 3:  # 3: another one was faster
        told = f": {heard[0]}" if heard[0] else f" (exit status {code}){_tail()}"
        raise Unreachable(f"the daemon did not start{told}", cure or "punchin doctor")


def _line(stdout: BinaryIO) -> str:
    """What the daemon says itself, which needs no disk."""
    return stdout.readline().decode("utf-8", "replace").strip()


def _process() -> subprocess.Popen[bytes]:
    state = home.state()
    for folder in (state, state / "logs"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "punchin.daemon", "--idle-exit", str(IDLE_EXIT_S)]
    absolute = {name: str(Path(os.environ[name]).expanduser().resolve()) for name in _FOLDERS if os.environ.get(name)}
    flags = 0x00000008 | 0x01000000 if sys.platform == "win32" else 0  # DETACHED_PROCESS, out of the DAW's job
    with open(_stderr(), "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stderr:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=state,  # so that it keeps no disk of the user's busy
            env=os.environ | absolute,
            start_new_session=True,
            creationflags=flags,
        )


_FOLDERS: Final = ("PUNCHIN_HOME", "PUNCHIN_MODELS")


def _stderr() -> Path:
    return home.state() / "logs" / "daemon.stderr"


def _tail() -> str:
    with contextlib.suppress(OSError):
        lines = _stderr().read_text("utf-8", "replace").strip().splitlines()
        if lines:
            return f"; last line of its log: {lines[-1].strip()[:300]}"
    return ""
