"""MIDI clock over a socket: `punchin clock` reads it, and a bare loop is repainted at its tempo."""

import contextlib
import json
import math
import re
import socket
import subprocess
import threading
import time

import mido
import numpy as np
import pytest
import soundfile
from mido import sockets
from punchinhere import Home
from realparts import need

from punchin.clients.cli import main

BPM = 128.0  # the fastest that is sure after eight beats, 3.75 s


@contextlib.contextmanager
def daw(free_port, song_position=None, bpm=BPM, beats=math.inf):
    """A server that sends start and clock to whoever connects, that many beats of it, until it is closed."""
    server = sockets.PortServer("localhost", free_port)
    ended = threading.Event()

    def play():
        port = server.accept()
        if song_position is not None:
            port.send(mido.Message("songpos", pos=song_position))
        port.send(mido.Message("continue" if song_position is not None else "start"))
        began, tick = time.monotonic(), 0
        with contextlib.suppress(OSError):
            while tick < 24 * beats and not ended.wait(max(began + tick * 60 / bpm / 24 - time.monotonic(), 0)):
                port.send(mido.Message("clock"))
                tick += 1
            ended.wait()

    player = threading.Thread(target=play, daemon=True)
    player.start()
    try:
        yield f"socket:localhost:{free_port}"
    finally:
        ended.set()
        server.close()


def test_the_clock_is_read(free_port, capsys):
    with daw(free_port, song_position=64) as port:
        assert main(["clock", "--port", port, "--json"]) == 0
    state = json.loads(capsys.readouterr().out)
    assert state["bpm"] == pytest.approx(BPM, abs=1.0)
    assert (state["sure"], state["running"], state["ticking"]) == (True, True, True)
    assert state["beats"] == pytest.approx(16 + 8, abs=1.5)


def test_words_for_people(free_port, capsys):
    with daw(free_port) as port:
        assert main(["clock", "--port", port, "--once", "--signature", "3/4"]) == 0
    said = capsys.readouterr().out
    assert said.endswith((", bar 3 beat 2, playing\n", ", bar 3 beat 3, playing\n"))


def test_it_is_shown_live_until_ctrl_c(free_port, tmp_path):
    """Tempo, bar and beat as they pass, a line for each where there is no terminal; a clock that ends is said so."""
    with daw(free_port, beats=12) as port:
        watching = Home(tmp_path / "home").start("clock", "--port", port)
        guard = threading.Timer(60, watching.process.kill)
        guard.start()
        lines, seen = iter(watching.process.stdout.readline, ""), []
        while not (seen and " bpm, bar " in seen[-1]):  # sure, and playing
            seen.append(next(lines))
        assert next(line for line in lines if "clock lost" in line)
        watching.interrupt()
        assert watching.end().returncode == 0
    assert float(seen[-1].split()[0]) == pytest.approx(BPM, abs=5)
    unsure = [line for line in seen if " bpm or so, bar " in line]
    places = [tuple(int(word) for word in re.findall(r"(?:bar|beat) (\d+)", line)) for line in (*unsure, seen[-1])]
    assert places == sorted(places)
    assert len(set(places)) >= 4
    assert {beat for _, beat in places} <= {1, 2, 3, 4}
    guard.cancel()


def test_it_ends_with_what_sends_it(free_port, tmp_path):
    with socket.create_server(("localhost", free_port)) as server:
        watching = Home(tmp_path / "home").start("clock", "--port", f"socket:localhost:{free_port}")
        server.accept()[0].close()
        ended = watching.end()
    assert ended.returncode == 4
    assert "the MIDI connection ended" in ended.stderr
    assert "start what sends it again" in ended.stderr


def test_a_loop_is_repainted_at_the_clocks_tempo(free_port, tmp_path):
    loop = tmp_path / "loop.wav"
    soundfile.write(loop, np.random.default_rng(1).uniform(-0.1, 0.1, 48_000 * 16), 48_000, subtype="FLOAT")
    punchin = Home(tmp_path / "home")
    try:
        with daw(free_port) as port:
            done = punchin.run(
                "repaint", loop, "--bpm", "clock", "--clock-port", port, "--bars", "5-8", "--prompt", "x",
                "--seed", "1", "--model", "identity", "--json",
            )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "listening to MIDI clock" in done.stderr
        order = punchin.json("show", json.loads(done.stdout)["job"])["order"]
        assert order["bpm"] == pytest.approx(BPM, abs=1.0)
    finally:
        punchin.stop()


def test_nobody_there(capsys, free_port):
    assert main(["clock", "--port", f"socket:localhost:{free_port}", "--json"]) == 4
    assert "nothing listens" in capsys.readouterr().err


def test_a_connection_that_ends_is_not_waited_for(capsys, free_port):
    with socket.create_server(("localhost", free_port)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        began = time.monotonic()
        assert main(["clock", "--port", f"socket:localhost:{free_port}", "--once"]) == 4
    assert time.monotonic() - began < 10
    assert "the MIDI connection ended before a tempo was sure" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["", "x", "0", "-3", "99999"])  # the system would take 99999 for 34463
def test_a_port_that_is_no_number_is_said(number, capsys):
    assert main(["clock", "--port", f"socket:localhost:{number}", "--once"]) == 4
    assert f'the port is "{number}", allowed is 1 to 65535' in capsys.readouterr().err


def test_a_session_has_its_own_tempo(capsys, tmp_path):
    line = ["repaint", str(tmp_path / "a.rpp"), "--track", "K", "--bars", "1-2", "--prompt", "x", "--bpm", "clock"]
    assert main(line) == 2
    assert "has its own tempo map" in capsys.readouterr().err


@pytest.mark.real
def test_a_jack_port_is_heard(tmp_path, monkeypatch, capsys):
    """The real thing: a JACK server, a virtual port that sends clock as a DAW does, and `punchin clock` on it."""
    need("jackd", "apt-get install jackd2")
    import rtmidi

    monkeypatch.setenv("JACK_DEFAULT_SERVER", "punchin-test")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    line = ["jackd", "--no-realtime", "-n", "punchin-test", "-d", "dummy", "-r", "48000", "-p", "256"]
    with (tmp_path / "jackd.log").open("wb") as log:
        server = subprocess.Popen(line, stdout=log, stderr=log)
    try:
        subprocess.run(["jack_wait", "-w", "-t", "10"], check=True, capture_output=True)
        out = rtmidi.MidiOut(rtapi=rtmidi.API_UNIX_JACK, name="daw")
        out.open_virtual_port("clock")
        ended = threading.Event()
        player = threading.Thread(target=send_clock, args=(out, ended), daemon=True)
        player.start()
        assert main(["clock", "--port", "daw", "--json"]) == 0
        state = json.loads(capsys.readouterr().out)
        ended.set()
        player.join()
        out.delete()
    finally:
        server.terminate()
        server.wait()
    assert state["bpm"] == pytest.approx(BPM, abs=2.0)
    assert (state["ticking"], state["sure"]) == (True, True)


def send_clock(out, ended):
    began, tick = time.monotonic(), 0
    while not ended.wait(max(began + tick * 60 / BPM / 24 - time.monotonic(), 0)):
        out.send_message([0xF8])
        tick += 1


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
