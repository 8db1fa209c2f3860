"""The daemon's loop: sockets and threads on one side, foreman and control on the other."""

from __future__ import annotations

import logging
import math
import os
import secrets
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from punchin.daemon import happenings, retention, sockets
from punchin.daemon.control import About, Control
from punchin.daemon.crash import crash_point
from punchin.daemon.data import Data
from punchin.daemon.foreman import Foreman
from punchin.daemon.inbox import Inbox
from punchin.daemon.journal import Journal, JournalFull
from punchin.daemon.recovery import recover
from punchin.daemon.scheduler import SECOND, Board
from punchin.daemon.store import Store
from punchin.protocol import codec, connection, home, messages, version
from punchin.protocol.messages import DAEMON_TOPIC, MAGIC, Notice

BEAT_S: Final = 1.0
FUSE_BYTES: Final = 1024 * 1024  # ZeroMQ hangs up on more; up to here an answer says what is wrong
BURST: Final = 100  # requests answered in a row before the rest is looked at
TIDY_EVERY_S: Final = 3_600.0
TIDY_FIRST_S: Final = 5.0
TIDY_BLOBS: Final = 10  # at once

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How this daemon lives. keep_alive_s: of the model after a job, negative for ever. idle_exit_s: None is never."""

    state: Path
    keep_alive_s: float = 300.0
    idle_exit_s: float | None = None


class Server:
    """One life of the daemon; the caller holds the lock. `run` returns when it is over."""

    def __init__(self, settings: Settings) -> None:
        """Open the journal, recover, bind, be found. Raises Refused, JournalFull, OSError, zmq.ZMQError."""
        self._settings = settings
        self._instance = secrets.token_hex(8)
        self._inbox = Inbox()
        self._tidy_s = time.monotonic() + TIDY_FIRST_S
        self._began = retention.Moment.now()
        self._context: zmq.Context[Any] = zmq.Context()
        store = Store(settings.state)
        store.drop_attempts()
        self._journal = Journal(settings.state / "journal.sqlite")
        cards, paused = recover(self._journal, self._instance)
        board = Board(
            {card.id: card for card in cards}, paused=paused, keep_alive_ns=int(settings.keep_alive_s * SECOND)
        )
        logs = settings.state / "logs"
        self._foreman = Foreman(self._journal, store, board, logs, self._inbox.post, self._publish)
        self._place = place = sockets.choose_place()
        self._router = sockets.Router(self._context, FUSE_BYTES)
        self._events: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        self._events.linger = 0
        self._events.xpub_verbose = 1  # each subscription is told, so that each can be answered
        self._events.maxmsgsize = 1_024
        control = sockets.bind(self._router.socket, place, "control")
        events = sockets.bind(self._events, place, "events")
        self._data = Data(self._context, place, store)
        crash_point("daemon.bound")
        started_ns = time.time_ns()
        about = About(self._instance, started_ns, place.transport, settings.idle_exit_s, logs / "daemon.log")
        self._control = Control(self._foreman, about)
        self.connection = connection.Connection(
            control=control,
            events=events,
            data=self._data.endpoint,
            instance=self._instance,
            pid=os.getpid(),
            version=version.PACKAGE,
            protocol=version.PROTOCOL,
            started_ns=started_ns,
            server_key=place.keys.public.decode() if place.keys else "",
        )
        connection.write(self.connection)  # who comes before `run` waits for its answer

    def run(self, tell_ready: Callable[[], None]) -> None:
        """Answer, until told to stop. `tell_ready` is called when it does."""
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # the last where there are terminals that can be closed
            number = getattr(signal, name, None)
            if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):  # nohup
                signal.signal(number, self._stop)
        sys.setswitchinterval(0.0005)  # a cancel does not wait for the data thread's Python
        self._data.start()
        tell_ready()
        crash_point("daemon.ready")
        log.info("ready", extra={"instance": self._instance, "pid": os.getpid(), "version": version.PACKAGE})
        self._foreman.happen(happenings.Tick())  # jobs of the life before
        self._loop()
        self._close()

    def _stop(self, *_: object) -> None:
        self._inbox.post(happenings.StopAsked())

    def _loop(self) -> None:
        poller = zmq.Poller()
        for source in (self._router.socket, self._events, self._inbox.fileno()):
            poller.register(source, zmq.POLLIN)
        next_beat_s = time.monotonic()
        while not self._foreman.quit:
            now_s = time.monotonic()
            wait_s = min(next_beat_s - now_s, self._foreman.wait_s(), 0.005 if self._router.waiting else 60.0)
            ready = dict(poller.poll(max(0, math.ceil(wait_s * 1000))))
            if self._router.socket in ready:
                self._answer()
            if self._events in ready:
                self._welcome_subscribers()
            if self._inbox.fileno() in ready:
                for item in self._inbox.read():
                    self._foreman.hear(item)
            self._router.flush()
            self._foreman.tick()
            if time.monotonic() >= next_beat_s:
                next_beat_s = time.monotonic() + BEAT_S
                self._beat()
                self._tidy()

    def _answer(self) -> None:
        for _ in range(BURST):
            received = self._router.receive()
            if received is None:
                return
            peer, frames = received
            reply = self._control.answer(peer, [frame.bytes for frame in frames])
            if reply is not None:
                self._router.send(peer, [MAGIC, codec.encode(reply)])

    def _welcome_subscribers(self) -> None:
        for _ in range(BURST):
            try:
                told = self._events.recv(zmq.DONTWAIT)
            except zmq.Again:
                return
            if told[:1] == b"\1":
                topic = told[1:].decode("utf-8", "replace")
                self._publish(topic, messages.Subscribed(topic=topic))

    def _publish(self, topic: str, notice: Notice) -> None:
        self._events.send_multipart([topic.encode(), MAGIC, codec.encode(notice)])

    def _beat(self) -> None:
        self._publish(DAEMON_TOPIC, messages.Beat(instance=self._instance, at_ns=time.time_ns()))
        idle_exit_s, board = self._settings.idle_exit_s, self._foreman.board
        ends = board.stopping or board.stop_when_idle
        if not ends and not connection.leads_to(self._instance):
            log.error("lost", extra={"why": f"{home.runtime()} leads no client here any more"})  # a logout removes it
            self._foreman.happen(happenings.StopAsked(when_idle=True))
        if idle_exit_s is None or board.cards or board.paused or self._foreman.hand is not None:
            return  # a model that is to stay loaded keeps the daemon, and so does a pause
        if time.monotonic() - self._control.asked_s >= idle_exit_s:
            log.info("idle", extra={"idle_exit_s": idle_exit_s})
            self._foreman.happen(happenings.StopAsked(when_idle=True))

    def _tidy(self) -> None:
        """Forget what is too old, while nothing is asked for; a bit at a time, so that who comes does not wait."""
        if self._foreman.board.cards or time.monotonic() < self._tidy_s:
            return
        self._tidy_s = time.monotonic() + TIDY_EVERY_S
        set_s = retention.Moment.now().set_since(self._began)
        if abs(set_s) > retention.MAX_DRIFT_S:
            why = f"the clock was set by {set_s:.0f} s since the start, allowed is {retention.MAX_DRIFT_S}: punchin gc"
            log.warning("not tidied", extra={"why": why})
            return
        try:
            done = retention.collect(self._foreman.journal, self._foreman.store, 0, False, TIDY_BLOBS)
        except (JournalFull, OSError, sqlite3.Error) as error:
            log.warning("not tidied", extra={"why": str(error)})
        else:
            if done.jobs or done.blobs:
                log.info("tidied", extra={"jobs": done.jobs, "blobs": done.blobs, "freed_bytes": done.freed_bytes})
                self._tidy_s = time.monotonic() + BEAT_S

    def _close(self) -> None:
        self._foreman.close()
        self._data.stop()
        try:
            self._journal.end_life(time.time_ns())
        except JournalFull as error:  # the next start takes this life for one that was killed
            log.warning("the end is not in the journal", extra={"why": str(error)})
        self._journal.close()
        if connection.leads_to(self._instance):  # else what is there, if anything, is another daemon's
            connection.file().unlink(missing_ok=True)
            self._place.sweep()
        self._context.destroy(linger=200)  # the reply to shutdown is on its way
        self._inbox.close()
        log.info("ended", extra={"threads": threading.active_count()})
