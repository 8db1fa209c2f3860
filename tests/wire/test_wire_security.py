"""Who may connect, and what a listener on the line can read."""

import contextlib
import errno
import os
import socket
import stat
import threading

import pytest
import zmq
from faults.lives import kill_daemon, run
from wire.plain import Plain

from punchin.clients.cli import main
from punchin.clients.connect import connect
from punchin.protocol import connection
from punchin.protocol.errors import Refused
from punchin.protocol.order import Order


@pytest.fixture
def tcp_client(monkeypatch):
    monkeypatch.setenv("PUNCHIN_TRANSPORT", "tcp")
    with connect(name="test") as client:
        yield client


def test_tcp_on_loopback_alone_with_curve(tcp_client):
    found = connection.read()
    for endpoint in (found.control, found.events, found.data):
        assert endpoint.startswith("tcp://127.0.0.1:")
    assert len(found.server_key) == 40
    assert tcp_client.status().transport == "tcp+curve"
    data = os.urandom(3_000_000)
    assert tcp_client.get(tcp_client.put(data)) == data
    assert run(tcp_client)[0].state == "done"
    kill_daemon()
    assert tcp_client.status().transport == "tcp+curve"


def test_a_folder_too_deep_for_a_socket_name_gets_tcp(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 90)
    monkeypatch.setenv("PUNCHIN_HOME", str(deep))
    with connect(name="test") as client:
        assert client.status().transport == "tcp+curve"
        assert run(client)[0].state == "done"
        kill_daemon()


def test_the_sockets_stand_in_a_private_folder(client):
    folder = connection.folder()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in folder.glob("*.sock"):
        assert stat.S_IMODE(name.stat().st_mode) == 0o700
    folder.chmod(0o755)  # by somebody's mistake
    assert stat.S_IMODE(connection.folder().stat().st_mode) == 0o700


def refusing(code):
    """A call of the system that fails with `code`."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    return refuse


def test_folders_and_locks_that_cannot_be_used_are_told(home, tmp_path, monkeypatch, capsys):
    lock = connection.daemon_lock()
    lock.mkdir()
    assert main(["status"]) == 4
    assert f"error: {lock} cannot be opened: Is a directory\n  ls -ld {lock}" in capsys.readouterr().err
    lock.rmdir()
    lock.touch()
    disks = ("os.open", errno.EROFS, "opened: Read-only"), ("fcntl.flock", errno.ENOLCK, "locked: No locks")
    for call, code, said in disks:  # one that is read-only since an error, and a network's
        with monkeypatch.context() as patch:
            patch.setattr(call, refusing(code))
            assert main(["status"]) == 4
        assert f"error: {lock} cannot be {said}" in capsys.readouterr().err
    (tmp_path / "file").touch()
    with monkeypatch.context() as patch:
        patch.setenv("PUNCHIN_HOME", str(tmp_path / "file"))
        assert main(["status"]) == 4
    assert "file/runtime, the folder of the daemon's sockets, cannot be used" in capsys.readouterr().err


def test_the_state_is_the_user_s_alone(client, home):
    run(client)
    for path in home.rglob("*"):
        if not path.is_symlink() and path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("key", ["another", "none"])
@pytest.mark.parametrize("name", ["control", "data"])
def test_without_the_right_key_nothing_is_answered(tcp_client, key, name):
    class Stranger(Plain):
        def secure(self, socket):
            if key == "another":
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
                socket.curve_serverkey = zmq.curve_keypair()[0]

    with Stranger(greet=False, socket=name) as stranger:
        hello = {"type": "hello", "ask": 1, "lowest": 2, "highest": 2}
        assert stranger.ask(hello, seconds=0.5) is None
    with Plain() as plain:
        assert plain.ask({"type": "get_status", "ask": 2})["type"] == "status"


def test_a_stranger_hears_no_events(tcp_client):
    context = zmq.Context()
    ear = context.socket(zmq.SUB)
    ear.linger = 0
    ear.subscribe(b"")
    ear.connect(connection.read().events)
    run(tcp_client)
    assert not ear.poll(500)
    context.destroy(linger=0)


class Wiretap(threading.Thread):
    """Forwards a tcp port to another and keeps what passes."""

    def __init__(self, target):
        super().__init__(daemon=True)
        self.target, self.heard = target, bytearray()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]

    def run(self):
        near, _ = self.server.accept()
        far = socket.create_connection(("127.0.0.1", self.target))
        back = threading.Thread(target=self.pump, args=(far, near), daemon=True)
        back.start()
        self.pump(near, far)

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.heard += data
                sink.sendall(data)

    @staticmethod
    def port_of(endpoint):
        return int(endpoint.rsplit(":", 1)[1])


def test_an_eavesdropper_reads_nothing(tcp_client):
    """The same conversation over a tapped line: neither prompt, key nor audio can be found in it."""
    found = connection.read()
    tap = Wiretap(Wiretap.port_of(found.control))
    tap.start()
    secret = b"a melody that nobody knows yet"
    with Plain(greet=False) as plain:
        plain.socket.disconnect(found.control)
        plain.socket.connect(f"tcp://127.0.0.1:{tap.port}")
        assert plain.ask({"type": "hello", "ask": 1, "lowest": 2, "highest": 2, "client": secret.decode()})
        order = {"task": "text2music", "frames": 4_800, "model": "identity", "prompt": secret.decode()}
        reply = plain.ask({"type": "submit", "ask": 2, "id": "secret-job-01", "order": order})
        assert reply["record"]["order"]["prompt"] == secret.decode()
    assert len(tap.heard) > 500
    for word in (secret, b"text2music", b"secret-job-01", found.server_key.encode()):
        assert word not in tap.heard


def test_the_eavesdropper_can_hear_a_line_that_is_not_secured():
    """The check above can fail: the same tap on plain sockets hears everything."""
    context = zmq.Context()
    server = context.socket(zmq.ROUTER)
    port = server.bind_to_random_port("tcp://127.0.0.1")
    tap = Wiretap(port)
    tap.start()
    client = context.socket(zmq.DEALER)
    client.connect(f"tcp://127.0.0.1:{tap.port}")
    client.send(b"a melody that nobody knows yet")
    assert server.poll(2_000)
    assert b"a melody that nobody knows yet" in tap.heard
    context.destroy(linger=0)


def test_no_path_of_a_client_is_ever_opened(client, home):
    """Ids and hashes are the only names that reach the disk, and their form leaves no room for a path."""
    outside = home / "outside.txt"
    outside.write_text("mine")
    with Plain() as control, Plain(greet=False, socket="data") as data:
        for path in (str(outside), "../../outside.txt", "/etc/passwd", "a" * 63 + "/"):
            get = {"type": "get", "ask": 1, "sha256": path, "offset": 0}
            assert data.ask(get)["code"] == "bad_message"
            put = {"type": "put", "ask": 1, "sha256": path, "size_bytes": 3}
            assert data.ask(put)["code"] == "bad_message"
            submit = {"type": "submit", "ask": 1, "id": path, "order": {"task": "text2music", "frames": 480}}
            assert control.ask(submit)["code"] == "bad_message"
    with pytest.raises(Refused, match="there is no model"):
        client.submit(Order(task="text2music", frames=480, model="../../outside"))
    assert outside.read_text() == "mine"
