"""Proxies that do to a connection what networks do: at the level of bytes, and of ZeroMQ messages."""

import contextlib
import socket
import threading
import time

import msgspec
import zmq

from punchin.protocol import connection


class ByteProxy(threading.Thread):
    """Forwards a tcp port. `cut_after` more bytes it hangs up, once; `delay_s` holds each piece back;
    `half_open` accepts and forwards nothing; `silent` swallows what comes on connections that there are.
    Settings may change while it runs; `passed` counts bytes."""

    def __init__(self, endpoint):
        super().__init__(daemon=True)
        self.target = int(endpoint.rsplit(":", 1)[1])
        self.server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self.server.getsockname()[1]}"
        self.cut_after, self.delay_s, self.half_open, self.silent = None, 0.0, False, False
        self.passed = self.connections = self.cuts = 0
        self.counting = threading.Lock()
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.server.accept()
                self.connections += 1
                if self.half_open:
                    self.kept = [*getattr(self, "kept", []), near]
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                time.sleep(self.delay_s)
                if self.cuts_at(len(data)):
                    break
                if not self.silent:
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cuts_at(self, size):
        """Count so many bytes; True where they are one too many."""
        with self.counting:
            self.passed += size
            if self.cut_after is None:
                return False
            self.cut_after -= size
            over = self.cut_after < 0
            if over:
                self.cuts, self.cut_after = self.cuts + 1, None
            return over

    def close(self):
        self.server.close()


class DoublingProxy(threading.Thread):
    """Stands between DEALERs and a ROUTER and sends every message twice, both ways."""

    def __init__(self, endpoint):
        super().__init__(daemon=True)
        self.context, self.target = zmq.Context(), endpoint
        self.front = self.context.socket(zmq.ROUTER)
        self.front.linger = 0
        port = self.front.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.over, self.doubled = threading.Event(), 0
        self.start()

    def run(self):
        backs, poller = {}, zmq.Poller()
        poller.register(self.front, zmq.POLLIN)
        while not self.over.is_set():
            for ready, _ in poller.poll(20):
                if ready is self.front:
                    peer, *frames = self.front.recv_multipart()
                    if peer not in backs:
                        back = backs[peer] = self.context.socket(zmq.DEALER)
                        back.linger = 0
                        back.connect(self.target)
                        poller.register(back, zmq.POLLIN)
                    for _ in range(2):
                        backs[peer].send_multipart(frames)
                else:
                    frames = ready.recv_multipart()
                    peer = next(peer for peer, back in backs.items() if back is ready)
                    for _ in range(2):
                        self.front.send_multipart([peer, *frames])
                self.doubled += 1
        self.context.destroy(linger=0)

    def close(self):
        self.over.set()
        self.join(5)


def redirect(**endpoints):
    """Make clients go through the proxies from now on."""
    connection.write(msgspec.structs.replace(connection.read(), **endpoints))
