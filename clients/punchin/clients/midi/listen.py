"""A MIDI input that is listened to for clock: a port of this machine by name, or `socket:HOST:PORT` over the network.

mido and its backend are imported when a port is opened. Messages are stamped on arrival, on a thread of the port's.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from punchin.protocol import limits
from punchin.protocol.errors import Refused

if TYPE_CHECKING:
    from punchin.clients.midi.clock import ClockState

SURE_WAIT_S = 30.0  # eight beats at 20 bpm are 24 s
CONNECT_S = 5.0
SOCKET = "socket:"
JACK = "mido.backends.rtmidi/UNIX_JACK"


class Ear:
    """What is heard on a port. `state` at any time; `wait` until something new was heard."""

    def __init__(self) -> None:
        from punchin.clients.midi.clock import MidiClock

        self._clock = MidiClock()
        self._news = threading.Condition()
        self._ended = False

    def end(self) -> None:
        """Nothing more will come: the other side is gone."""
        with self._news:
            self._ended = True
            self._news.notify_all()

    def hear(self, message: Any) -> None:
        """Take a mido message; called by the port's thread. What is no clock or transport is ignored."""
        at_s = time.monotonic()
        with self._news:
            match message.type:
                case "clock":
                    self._clock.tick(at_s)
                case "start":
                    self._clock.start()
                case "continue":
                    self._clock.resume()
                case "stop":
                    self._clock.stop()
                case "songpos":
                    self._clock.song_position(message.pos)
                case _:
                    return
            self._news.notify_all()

    def state(self) -> ClockState:
        """Tempo and position now."""
        with self._news:
            return self._clock.state(time.monotonic())

    def wait(self, timeout_s: float) -> None:
        """Until the next message, `timeout_s` at most."""
        with self._news:
            self._news.wait(timeout_s)

    @property
    def ended(self) -> bool:
        """Whether the other side is gone, so that nothing more will come; a port of this machine stays."""
        with self._news:
            return self._ended

    def wait_sure(self, timeout_s: float = SURE_WAIT_S) -> ClockState:
        """The state once the tempo is sure (eight beats of clock). Raises Refused after `timeout_s`, or at the end."""
        with self._news:
            now = time.monotonic
            self._news.wait_for(lambda: self._ended or self._clock.state(now()).sure, timeout_s)
            heard = self._clock.state(now())
        if heard.sure:
            return heard
        if self._ended:
            raise Refused("the MIDI connection ended before a tempo was sure", "start what sends it again", "no_clock")
        what = "no MIDI clock came" if heard.bpm is None else f"only some clock came (about {heard.bpm:g} bpm)"
        raise Refused(
            f"{what} within {timeout_s:g} s", "switch on clock out in the DAW; punchin clock --list", "no_clock"
        )


@contextlib.contextmanager
def listen(port: str | None, option: str = "--port") -> Iterator[Ear]:
    """Open a port and hear what comes. `port`: a part of an input's name; None is the only one there is.

    option: what names it on the command line, for errors. Raises Refused: no such port, more than one, or no MIDI on
    this machine.
    """
    ear = Ear()
    if port is not None and port.startswith(SOCKET):
        with _socket(port, ear, option):
            yield ear
        return
    backend, names = _backend(option)
    name = _choose(port, names, option)
    try:
        with _quiet():
            opened = backend.open_input(name, callback=ear.hear)
    except Exception as error:  # each backend has errors of its own
        raise Refused(f'the MIDI input "{name}" cannot be opened: {error}', "punchin clock --list") from error
    with contextlib.closing(opened):
        yield ear


def inputs() -> list[str]:
    """The MIDI inputs of this machine. Raises Refused where it has no MIDI at all."""
    return _backend()[1]


def tempo(port: str | None) -> tuple[float, float]:
    """The tempo of the clock on a port once it is sure, and its error, bpm. Raises Refused, OverLimit out of range."""
    with listen(port, "--clock-port") as ear:
        state = ear.wait_sure()
    assert state.bpm is not None
    limits.SESSION_TEMPO.check(state.bpm)
    return state.bpm, state.bpm_error


def _backend(option: str = "--port") -> tuple[Any, list[str]]:
    """Mido's backend that works here, the system's own first and then JACK, and the names of its inputs."""
    import importlib.util

    import mido

    if importlib.util.find_spec("rtmidi") is None:
        raise Refused("MIDI ports need python-rtmidi", 'pip install "punchin[midi]"')
    why = ""
    for name in (None, JACK):
        backend = mido.Backend(name)  # None: MIDO_BACKEND, or rtmidi's choice
        try:
            with _quiet():
                return backend, sorted(set(backend.get_input_names()))
        except Exception as error:  # each backend has errors of its own
            why = why or str(error)
    raise Refused(f"this machine has no MIDI: {why}", f"start JACK, or use {option} socket:HOST:PORT")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ALSA and JACK write lines of their own to stderr; what matters of it is in the error that comes of them too."""
    try:
        kept = os.dup(2)
    except OSError:  # closed by who began us
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _choose(port: str | None, names: list[str], option: str) -> str:
    if port in names:
        return port
    fitting = [name for name in names if port is None or port.lower() in name.lower()]
    if len(fitting) == 1:
        return fitting[0]
    listing = ", ".join(f'"{name}"' for name in names) or "none"
    which = "a MIDI input" if port is None else f'one MIDI input with "{port}" in its name'
    raise Refused(f"{which} must be chosen; there are: {listing}", f"{option} NAME")


@contextlib.contextmanager
def _socket(port: str, ear: Ear, option: str) -> Iterator[None]:
    """A plain stream of MIDI bytes (what `mido.sockets` serves), read on a thread that ends with the connection."""
    import mido

    # Before there is a connection: what comes during an import would be stamped late, all at once.
    parser = mido.Parser()
    host, _, number = port.removeprefix(SOCKET).rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65_535:
        raise Refused(f'{port}: the port is "{number}", allowed is 1 to 65535', f"{option} socket:HOST:PORT")
    try:
        connection = socket.create_connection((host or "localhost", int(number)), timeout=CONNECT_S)
    except (OSError, UnicodeError) as error:  # the latter: a host that can be no name
        raise Refused(f"nothing listens at {port}: {error}", f"{option} socket:HOST:PORT") from None
    connection.settimeout(None)
    reader = threading.Thread(target=_read, args=(connection, parser, ear), name="midi-socket", daemon=True)
    reader.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the other side may be gone first
            connection.shutdown(socket.SHUT_RDWR)
        reader.join()
        connection.close()


def _read(connection: socket.socket, parser: Any, ear: Ear) -> None:
    with contextlib.suppress(OSError):  # a connection that breaks is a clock that is lost, which the state tells
        while data := connection.recv(4096):
            parser.feed(data)
            for message in parser:
                ear.hear(message)
    ear.end()
