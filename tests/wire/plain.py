"""A client of zmq, msgpack and json alone: no line of ours between it and the wire."""

import json
import os
from pathlib import Path

import msgpack
import zmq


class Plain:
    def __init__(self, greet=True, socket="control"):
        self.found = json.loads((Path(os.environ["PUNCHIN_HOME"]) / "runtime" / "daemon.json").read_text())
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.secure(self.socket)
        self.socket.connect(self.found[socket])
        if greet:
            reply = self.ask({"type": "hello", "ask": 1, "lowest": 2, "highest": 2})
            if reply is None or reply["type"] != "welcome":
                self.close()
                raise AssertionError(f"no welcome but {reply}")

    def secure(self, socket):
        if self.found["server_key"]:
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = self.found["server_key"].encode()

    def ask(self, message, *bodies, seconds=5):
        return self.ask_raw(msgpack.packb(message), *bodies, seconds=seconds)

    def ask_raw(self, body, *bodies, magic=b"punchin/1", seconds=5):
        self.socket.send_multipart([magic, body, *bodies])
        return self.hear(seconds)

    def hear(self, seconds=5):
        if not self.socket.poll(int(seconds * 1000)):
            return None
        frames = self.socket.recv_multipart()
        assert frames[0] == b"punchin/1"
        self.bodies = frames[2:]
        return msgpack.unpackb(frames[1])

    def close(self):
        self.context.destroy(linger=0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
