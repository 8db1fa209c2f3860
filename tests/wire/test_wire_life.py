"""How daemons begin and end: idle exit, restart, another version, a service."""

import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from faults.lives import daemon_pid, order, run, wait_until

from punchin.clients.cli import main
from punchin.clients.connect import connect, restart
from punchin.daemon import unit
from punchin.protocol import connection, lock, version
from punchin.protocol.errors import Refused
from punchin.protocol.order import Order


def serve(*words):
    """A daemon in the foreground, ready."""
    process = subprocess.Popen([sys.executable, "-m", "punchin.daemon", *words], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_daemon_with_nothing_to_do_ends():
    process = serve("--idle-exit", "0.5")
    assert process.wait(10) == 0
    assert connection.read() is None
    process.stdout.close()


def test_one_with_something_to_do_does_not():
    process = serve("--idle-exit", "0.5")
    with connect(start=False) as client:
        job = client.submit(order("steps=30 pause=0.1"))
    assert process.wait(15) == 0  # the job took 3 s
    process.stdout.close()
    with connect() as client:
        assert client.job(job.id).state == "done"


def test_a_service_stays_and_is_found_by_clients():
    process = serve()
    with connect(start=False) as client:
        assert client.status().pid == process.pid
        assert client.status().idle_exit_s is None
        assert run(client)[0].state == "done"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


def test_restart_when_idle_lets_the_job_end(client):
    before = client.welcome.instance
    job = client.submit(order("steps=10 pause=0.05"))
    with restart(when_idle=True) as after:
        assert after.welcome.instance != before
        assert after.job(job.id).state == "done"
        assert after.job(job.id).attempts == 1


def test_restart_at_once_puts_the_job_back(client):
    job = client.submit(order("steps=400 pause=0.02"))
    wait_until(lambda: client.job(job.id).state == "running", 10, "the job")
    with restart(when_idle=False) as after:
        assert after.job(job.id).attempts >= 1
        after.cancel(job.id)


def test_another_model_needs_no_restart(client):
    for model in ("identity", "punchin-tiny", ""):
        job = client.submit(Order(task="text2music", frames=4_800, model=model))
        leased, running = [event for event in client.follow(job.id) if event.state in ("leased", "running")][:2]
        chosen = model or "punchin-tiny"  # none is installed here, and none was asked for
        assert (leased.text, running.text) == ("", f"{chosen} on fake:0")
        assert client.job(job.id).order.model == chosen
        assert client.status().worker.model == chosen
    assert client.status().counters["worker_starts"] == 1


def test_a_daemon_of_another_version_is_told(client, monkeypatch, capsys):
    assert client.skew == ""
    monkeypatch.setattr(version, "PACKAGE", "9.0.0")
    assert client.skew == "the daemon is punchin 0.1.0, this client 9.0.0: punchin stop --when-idle"
    capsys.readouterr()
    for words in (["jobs"], ["pause"], ["show", client.submit(order()).id]):
        main(words)
        assert capsys.readouterr().err.count(f"note: {client.skew}\n") == 1
    monkeypatch.setattr(version, "PROTOCOL", 2)
    with pytest.raises(Refused, match="speaks protocol 1, the client 2 to 2") as error:
        connect(start=False)
    assert error.value.code == "version"


def test_a_stuck_daemon_is_no_reason_to_wait_for_ever(client):
    pid = daemon_pid()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(Exception, match=f"pid {pid}.*did not answer within 3 s"):
            connect(wait_s=3)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert time.monotonic() - began < 8
    assert lock.is_held(connection.daemon_lock())


def test_the_unit_is_for_this_python_and_this_home(home, monkeypatch, tmp_path):
    found = unit.text()
    assert f'ExecStart="{sys.executable}" -m punchin.daemon\n' in found
    assert f'Environment="PUNCHIN_HOME={home}"' in found
    assert "idle" not in found
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert unit.path() == tmp_path / "config" / "systemd" / "user" / "punchin.service"


def test_install_and_uninstall_call_systemd(monkeypatch, tmp_path):
    said = tmp_path / "said"
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    target = unit.install()
    assert target.read_text() == unit.text()
    unit.uninstall()
    assert not target.exists()
    assert unit.uninstall() == target
    words = ["daemon-reload", "enable --now punchin.service", "disable --now punchin.service", "daemon-reload"]
    assert said.read_text().splitlines() == [f"--user {word}" for word in words]


def test_serve_installs_the_service(tmp_path):
    """Without systemctl on the path: the refusal is told, in one line, with the exit status of a refusal."""
    command = [sys.executable, "-m", "punchin.daemon", "--install"]
    environment = os.environ | {"PATH": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20)
    assert ended.returncode == 4
    assert ended.stderr.startswith("error: there is no systemctl here")
    assert "Traceback" not in ended.stderr


def test_a_job_that_waits_in_a_paused_queue_says_so(client):
    client.pause()
    job = client.submit(order("steps=1"))
    phases = []
    for event in client.follow(job.id):
        phases += [event.phase] if event.phase else []
        if event.state == "queued" and event.phase:
            client.resume()
        last = event
    assert phases[0] == "paused (by the user); punchin resume"
    assert last.state == "done"


def test_without_systemd_the_user_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="there is no systemctl here"):
        unit.install()
