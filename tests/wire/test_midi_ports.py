"""MIDI clock end to end: over mido's sockets, and through JACK's virtual ports where there is a JACK."""

import os
import socket
import subprocess
import threading
import time
from itertools import pairwise

import mido
import mido.sockets
import pytest
from realparts import need

from punchin.clients.midi import ports
from punchin.protocol.errors import PunchinError, Refused

BPM = 127.3


def send_clock(send, beats, bpm=BPM):
    """Song position bar 5, continue, then ticks at their times; and stop."""
    idle = threading.Event()
    send(mido.Message("songpos", pos=64))
    send(mido.Message("continue"))
    began = time.monotonic()
    for i in range(beats * 24 + 1):
        idle.wait(max(began + i * 60 / bpm / 24 - time.monotonic(), 0))
        send(mido.Message("clock"))
    send(mido.Message("stop"))


def judge(states, beats, within_bpm):
    """Tempo, transport and place as they were sent."""
    playing = [state for state in states if state.running and state.ticking]
    assert playing[-1].sure
    assert playing[-1].bpm == pytest.approx(BPM, abs=within_bpm)
    assert playing[-1].beats == pytest.approx(16 + beats, abs=0.1)
    assert not states[-1].running
    assert states[-1].beats == pytest.approx(16 + beats + 1 / 24, abs=0.1)
    placed = [state.beats for state in playing if state.beats is not None]
    assert all(b >= a - 0.05 for a, b in pairwise(placed))


@pytest.mark.slow
def test_clock_over_a_socket():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    server = mido.sockets.PortServer("127.0.0.1", number)
    out = mido.sockets.connect("127.0.0.1", number)
    incoming = server.accept()
    sender = threading.Thread(target=lambda: (send_clock(out.send, 9), out.close()))
    states = []
    with ports.reading(incoming) as stamped:
        sender.start()
        for state in ports.follow(stamped):
            states.append(state)
            if len(states) > 24 and not state.running:
                break
    sender.join(10)
    server.close()
    judge(states, 9, within_bpm=0.5)


@pytest.fixture
def jack(monkeypatch):
    program = need("jackd", "apt-get install jackd2")
    name = f"punchin-{os.getpid()}"
    command = [program, "--no-realtime", "-n", name, "-d", "dummy", "-r", "48000", "-p", "64"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    monkeypatch.setenv("JACK_DEFAULT_SERVER", name)
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi/UNIX_JACK")
    deadline, idle = time.monotonic() + 20, threading.Event()
    while True:
        try:
            ports.list_ports()
            break
        except PunchinError:
            assert server.poll() is None, server.stdout.read()
            assert time.monotonic() < deadline, "jackd does not answer"
            idle.wait(0.1)
    yield name
    server.terminate()
    server.communicate(timeout=10)


@pytest.mark.real
@pytest.mark.slow
def test_clock_through_jack(jack):
    rtmidi = pytest.importorskip("rtmidi", reason="pip install 'punchin[midi]'")
    out = rtmidi.MidiOut(rtapi=rtmidi.API_UNIX_JACK, name="daw")
    out.open_virtual_port("clock out")
    assert [name for name in ports.list_ports() if "clock out" in name]
    with pytest.raises(Refused, match="clock out"):
        next(ports.watch("no such port"))
    watching = ports.watch("clock out")
    states = [next(watching)]  # it listens now: the first state came of silence
    assert not states[0].ticking
    sender = threading.Thread(target=send_clock, args=(lambda message: out.send_message(message.bytes()), 9))
    sender.start()
    for state in watching:
        states.append(state)
        if len(states) > 24 and not state.running:
            break
    sender.join(10)
    watching.close()
    out.close_port()
    out.delete()
    judge(states, 9, within_bpm=1.0)


def test_without_midi_it_says_so(monkeypatch):
    monkeypatch.setenv("MIDO_BACKEND", "mido.backends.rtmidi/NO_SUCH_API")
    monkeypatch.setenv("JACK_DEFAULT_SERVER", "no-such-server")
    monkeypatch.setenv("JACK_NO_START_SERVER", "1")
    with pytest.raises(PunchinError) as refused:
        ports.list_ports()
    assert refused.value.hint
