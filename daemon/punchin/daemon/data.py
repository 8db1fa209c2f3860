"""The data socket: blobs in chunks, in a thread of its own, so that no audio stands before a cancel.

Each request carries what is needed to answer it, so a client goes on after a cut or a restart where it was.
A peer may have CREDIT_CHUNKS pieces under way: what it has received, it says in its next Get.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

import zmq

from punchin.daemon.sockets import Frame, Place, Router, bind
from punchin.daemon.store import Store, StoreFull, Upload
from punchin.protocol import codec, limits, messages
from punchin.protocol.codec import Unreadable
from punchin.protocol.errors import Refused
from punchin.protocol.messages import MAGIC, DataReply, Failure, Piece, Taken

MAX_UPLOADS: Final = 32  # open at once; the one untouched longest is closed, and can be gone on with
MAX_PEERS: Final = 1_024

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Account:
    """What one peer was sent, and has received."""

    sent: int = 0
    received: int = 0


class Data(threading.Thread):
    """The thread. `endpoint` is where clients connect; `stop` ends it."""

    def __init__(self, context: zmq.Context[Any], place: Place, store: Store) -> None:
        super().__init__(name="data", daemon=True)
        self._store = store
        self._router = Router(context, limits.CHUNK_BYTES + limits.MAX_MESSAGE_BYTES)
        self._router.socket.sndhwm = self._router.socket.rcvhwm = 4 * limits.CREDIT_CHUNKS  # a fuse; credit rules
        self.endpoint = bind(self._router.socket, place, "data")
        address = f"inproc://stop-data-{id(self)}"
        self._told = context.socket(zmq.PAIR)
        self._told.bind(address)
        self._tell = context.socket(zmq.PAIR)
        self._tell.connect(address)
        self._reader = codec.data_requests()
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._accounts: OrderedDict[bytes, Account] = OrderedDict()

    def stop(self) -> None:
        """End the thread, from another one, and wait for it."""
        self._tell.send(b"")
        self.join(5.0)
        self._tell.close(0)

    def run(self) -> None:
        """Answer until told to stop."""
        poller = zmq.Poller()
        poller.register(self._router.socket, zmq.POLLIN)
        poller.register(self._told, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(5 if self._router.waiting else None))
            if self._told in ready:
                break
            self._router.flush()
            for _ in range(limits.CREDIT_CHUNKS):  # then look whether to stop
                received = self._router.receive()
                if received is None:
                    break
                self._answer(*received)
        for sha256 in list(self._uploads):
            self._close(sha256)
        self._router.socket.close(0)
        self._told.close(0)

    def _answer(self, peer: bytes, frames: list[zmq.Frame]) -> None:
        body = b""
        try:
            if len(frames) < 2:
                raise Unreadable(f"a data message has 2 frames or 3, this one {len(frames)}")
            request = self._reader.read(frames[0].bytes, frames[1].bytes)
            if len(frames) != 2 + isinstance(request, messages.Chunk):
                raise Unreadable(f"{len(frames)} frames do not fit a {type(request).__name__}", ask=request.ask)
        except Unreadable as error:
            self._router.send(peer, [MAGIC, codec.encode(error.failure())])
            return
        try:
            reply, body = self._obey(peer, request, frames)
        except Refused as error:
            reply = Failure(ask=request.ask, code=error.code, text=str(error), hint=error.hint)
        except OSError as error:
            log.error("disk", extra={"why": str(error)})
            reply = Failure(ask=request.ask, code="disk", text=f"the blob store: {error}", hint="punchin doctor")
        rest: list[Frame] = [body] if isinstance(reply, Piece) else []
        self._router.send(peer, [MAGIC, codec.encode(reply), *rest])

    def _obey(self, peer: bytes, request: messages.DataRequest, frames: list[zmq.Frame]) -> tuple[DataReply, bytes]:
        match request:
            case messages.Put():
                return self._put(request), b""
            case messages.Chunk():
                return self._chunk(request, frames[2].buffer), b""
            case messages.Get():
                return self._get(peer, request)

    # ---- in ----

    def _put(self, put: messages.Put) -> Taken:
        if self._store.size(put.sha256) == put.size_bytes and self._store.touch(put.sha256):
            return Taken(ask=put.ask, sha256=put.sha256, offset=put.size_bytes, stored=True)
        upload = self._uploads.get(put.sha256)
        if upload is None or upload.size_bytes != put.size_bytes or not upload.part.exists():  # swept meanwhile
            if upload is not None:
                self._close(put.sha256)
            upload = self._uploads[put.sha256] = self._store.begin(put.sha256, put.size_bytes)
            if len(self._uploads) > MAX_UPLOADS:
                self._close(next(iter(self._uploads)))
        if upload.offset == put.size_bytes:  # empty, or all there before the daemon was killed
            return self._finish(put.ask, upload)
        return Taken(ask=put.ask, sha256=put.sha256, offset=upload.offset, stored=False)

    def _chunk(self, chunk: messages.Chunk, piece: memoryview) -> Taken:
        upload = self._uploads.get(chunk.sha256)
        if upload is None:
            if self._store.size(chunk.sha256) is not None:  # sent twice, or by two clients at once
                return Taken(ask=chunk.ask, sha256=chunk.sha256, offset=chunk.offset + len(piece), stored=True)
            raise Refused(f"blob {chunk.sha256[:12]} was not announced", "put it first", "put_first")
        if len(piece) > limits.CHUNK_BYTES or chunk.offset + len(piece) > upload.size_bytes:
            text = f"bytes {chunk.offset} to {chunk.offset + len(piece)} do not fit a blob of {upload.size_bytes}"
            raise Refused(f"{text} in pieces of {limits.CHUNK_BYTES}", code="bad_chunk")
        if chunk.offset > upload.offset:
            raise Refused(f"offset is {chunk.offset}, next is {upload.offset}", "put it again", "bad_offset")
        fresh = piece[upload.offset - chunk.offset :]
        if fresh:
            self._append(upload, fresh)
        if upload.offset == upload.size_bytes:
            return self._finish(chunk.ask, upload)
        return Taken(ask=chunk.ask, sha256=chunk.sha256, offset=upload.offset, stored=False)

    def _append(self, upload: Upload, fresh: memoryview) -> None:
        self._uploads.move_to_end(upload.sha256)
        try:
            upload.append(fresh)
        except OSError as error:
            self._close(upload.sha256)
            raise StoreFull(error, self._store.root) from error

    def _finish(self, ask: int, upload: Upload) -> Taken:
        del self._uploads[upload.sha256]
        self._store.finish(upload)
        return Taken(ask=ask, sha256=upload.sha256, offset=upload.size_bytes, stored=True)

    def _close(self, sha256: str) -> None:
        with contextlib.suppress(OSError):  # it will be told when it goes on
            self._uploads.pop(sha256).close()

    # ---- out ----

    def _get(self, peer: bytes, get: messages.Get) -> tuple[DataReply, bytes]:
        account = self._accounts.setdefault(peer, Account())
        self._accounts.move_to_end(peer)
        if len(self._accounts) > MAX_PEERS:
            self._accounts.popitem(last=False)
        account.received = max(account.received, min(get.received, account.sent))
        if account.sent - account.received >= limits.CREDIT_CHUNKS:
            text = f"{account.sent - account.received} pieces are under way, allowed is {limits.CREDIT_CHUNKS}"
            raise Refused(text, code="over_credit")
        piece, size = self._store.read(get.sha256, get.offset, get.length)
        account.sent += 1
        return Piece(ask=get.ask, sha256=get.sha256, offset=get.offset, size_bytes=size), piece
