"""MIDI clock from a port: the clock's state after each message, and when messages stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from punchin.clients.midi.clock import TIMEOUT_S, ClockState, MidiClock
from punchin.protocol.errors import PunchinError, Refused

_INSTALL = "pip install 'punchin[midi]'"
_Stamped = tuple[float, Any]  # when a mido message came, and the message; None ends


def list_ports() -> list[str]:
    """The names of the MIDI inputs of this machine. Refused where no MIDI system answers or the extra is missing."""
    return list(_backend().get_input_names())


def watch(port_name: str) -> Iterator[ClockState]:
    """The clock on a MIDI input: a state after each clock or transport message, and one a second while none comes.

    The name may be a part of one port's name. Runs until the caller stops iterating. Refused where there is no such
    port, or more than one, with the names that there are.
    """
    names = list_ports()
    found = [name for name in names if name == port_name] or [name for name in names if port_name in name]
    if len(set(found)) != 1:
        listed = ", ".join(f'"{name}"' for name in names) or "none"
        several = "more than one MIDI input" if found else "no MIDI input"
        raise Refused(f'{several} is called "{port_name}"; there are {listed}', "punchin clock --list")
    stamped: SimpleQueue[_Stamped | None] = SimpleQueue()
    port = _backend().open_input(found[0], callback=lambda message: stamped.put((monotonic(), message)))
    try:
        yield from follow(stamped)
    finally:
        port.close()


@contextmanager
def reading(port: Any) -> Iterator[SimpleQueue[_Stamped | None]]:
    """The messages of an open mido port without callbacks (a socket, say), stamped as they come; None at its end."""
    stamped: SimpleQueue[_Stamped | None] = SimpleQueue()

    def read() -> None:
        for message in port:
            stamped.put((monotonic(), message))
        stamped.put(None)

    thread = threading.Thread(target=read, name="midi clock", daemon=True)
    thread.start()
    try:
        yield stamped
    finally:
        port.close()
        thread.join(TIMEOUT_S)


def follow(stamped: SimpleQueue[_Stamped | None]) -> Iterator[ClockState]:
    """The clock's state after each message of a queue, and each second without one; ends with None."""
    clock = MidiClock()
    handlers: dict[str, Callable[[float, Any], None]] = {
        "clock": lambda at_s, _: clock.tick(at_s),
        "start": lambda _, __: clock.start(),
        "continue": lambda _, __: clock.resume(),
        "stop": lambda _, __: clock.stop(),
        "songpos": lambda _, message: clock.song_position(message.pos),
    }
    while True:
        try:
            came = stamped.get(timeout=TIMEOUT_S)
        except Empty:
            yield clock.state(monotonic())
            continue
        if came is None:
            return
        at_s, message = came
        if message.type in handlers:
            handlers[message.type](at_s, message)
            yield clock.state(at_s)


def _backend() -> Any:
    """The first of mido's rtmidi backends that answers: the system's own (or MIDO_BACKEND's), then JACK."""
    import mido

    failures: list[str] = []
    for name in (os.environ.get("MIDO_BACKEND", "mido.backends.rtmidi"), "mido.backends.rtmidi/UNIX_JACK"):
        try:
            backend = mido.Backend(name, load=True)
            backend.get_input_names()
        except ImportError as error:
            raise Refused("MIDI ports need python-rtmidi, which is not installed", _INSTALL) from error
        except (OSError, RuntimeError, SystemError, ValueError) as error:  # rtmidi's own kinds are among these
            failures.append(str(error).rstrip("."))
        else:
            return backend
    raise PunchinError(f"no MIDI system answers: {'; '.join(failures)}", "start JACK, or load ALSA's snd-seq module")
