"""How daemons begin and end: idle exit, restart, another version, a service."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time

import pytest
from faults.lives import daemon_pid, order, run, wait_until
from realparts import need

from punchin.clients.cli import main
from punchin.clients.connect import connect, restart
from punchin.daemon import unit
from punchin.protocol import connection, lock, version
from punchin.protocol import home as home_place
from punchin.protocol.errors import Refused, Unreachable
from punchin.protocol.order import Order

SERVE = [sys.executable, "-m", "punchin.daemon"]


def serve(*words):
    """A daemon in the foreground, ready."""
    process = subprocess.Popen([*SERVE, *words], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_a_daemon_with_nothing_to_do_ends():
    process = serve("--idle-exit", "0.5")
    assert process.wait(10) == 0
    assert connection.read() is None
    process.stdout.close()


def test_one_with_something_to_do_does_not():
    process = serve("--idle-exit", "0.5", "--keep-alive", "0")
    with connect(start=False) as client:
        job = client.submit(order("steps=30 pause=0.1"))
    assert process.wait(15) == 0  # the job took 3 s
    process.stdout.close()
    with connect() as client:
        assert client.job(job.id).state == "done"


def test_one_whose_model_is_to_stay_does_not_either():
    process = serve("--idle-exit", "0.5", "--keep-alive", "-1")
    with connect(start=False) as client:
        assert run(client)[0].state == "done"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5)
    with connect(start=False) as client:
        client.unload()
    assert process.wait(10) == 0
    process.stdout.close()


def test_one_that_is_paused_does_not_either():
    process = serve("--idle-exit", "0.5")
    with connect(start=False) as client:
        client.pause()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5)
    with connect(start=False) as client:
        client.resume()
    assert process.wait(10) == 0
    process.stdout.close()


def test_a_service_stays_and_is_found_by_clients():
    process = serve()
    with connect(start=False) as client:
        assert client.status().pid == process.pid
        assert client.status().idle_exit_s is None
        assert run(client)[0].state == "done"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    process.stdout.close()


@pytest.mark.parametrize(("said", "keep_alive_s"), [("0", 0), ("5m", 300), ("1.5h", 5_400), ("-1", -1), ("90", 90)])
def test_how_long_a_model_stays_is_said_as_people_say_it(monkeypatch, said, keep_alive_s):
    monkeypatch.setenv("PUNCHIN_KEEP_ALIVE", said)
    with connect() as client:
        assert client.status().keep_alive_s == keep_alive_s


@pytest.mark.parametrize("said", ["5x", "m", "nan", "inf"])
def test_no_length_of_time(monkeypatch, said):
    monkeypatch.setenv("PUNCHIN_KEEP_ALIVE", said)
    with pytest.raises(Unreachable, match=f"PUNCHIN_KEEP_ALIVE: '{said}' is no length of time; write 90, 5m") as error:
        connect()
    assert error.value.hint == "unset PUNCHIN_KEEP_ALIVE"
    ended = subprocess.run([*SERVE, f"--keep-alive={said}"], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert "error: --keep-alive: " in ended.stderr


@pytest.mark.parametrize("said", ["8761h", "999999999999", "1e300"])
def test_a_model_that_is_to_stay_longer_than_a_year_is_to_stay_for_ever(said):
    """Nanoseconds that no message can hold would end the daemon at its next status."""
    ended = subprocess.run([*SERVE, f"--keep-alive={said}"], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 2
    assert f"error: --keep-alive: {said} is over 31536000 s, a year; write -1 for no end" in ended.stderr


def test_a_terminal_that_is_closed_ends_no_daemon_under_nohup():
    process = subprocess.Popen(["nohup", *SERVE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGHUP)
    with connect(start=False) as client:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        client.stop()
    assert process.wait(10) == 0
    process.stdout.close()


def test_one_state_has_one_daemon_whatever_the_runtime_folder(monkeypatch, tmp_path):
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("PUNCHIN_HOME")
    desktop, ssh = tmp_path / "desktop", tmp_path / "ssh"
    desktop.mkdir(mode=0o700)
    ssh.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(desktop))
    first = serve()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(ssh))
    who = rf"another daemon \(pid {first.pid}\) uses .*; its sockets are not in .*ssh"
    with pytest.raises(Unreachable, match=who) as error:
        connect()
    assert error.value.hint.startswith(f"kill {first.pid} ")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(desktop))
    with connect(start=False) as client:
        assert client.status().pid == first.pid
        client.stop()
    assert first.wait(10) == 0
    first.stdout.close()


@pytest.mark.parametrize("paused", [False, True])
def test_one_that_nobody_can_find_any_more_ends_after_its_jobs(home, paused):
    """A logout removes the runtime folder; whoever logs in again would be told for ever that another one runs."""
    process = serve("--keep-alive", "-1")
    with connect(start=False) as client:
        job = client.submit(order("steps=20 pause=0.1")).id
        wait_until(lambda: client.job(job).state == "running", 10, "the run")
        if paused:
            client.pause()
        shutil.rmtree(home / "runtime")
    assert process.wait(15) == 0
    process.stdout.close()
    assert not (home / "runtime").exists()
    with connect() as client:
        assert client.job(job).state == "done"


def test_the_end_of_one_whose_home_was_removed_leaves_the_next_ones_files(home):
    before = serve()
    shutil.rmtree(home / "runtime")
    shutil.rmtree(home / "state")
    with connect() as client:
        before.terminate()
        assert before.wait(10) == 0
        assert connection.read().pid == client.welcome.pid
    with connect(start=False) as client:
        assert client.status().pid == client.welcome.pid
    before.stdout.close()


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
    for words in (["jobs"], ["status"], ["ps"], ["pause"], ["show", client.submit(order()).id]):
        main(words)
        assert capsys.readouterr().err.count(f"note: {client.skew}\n") == 1


def test_a_daemon_of_another_protocol_can_be_stopped(client, monkeypatch, capsys):
    job = client.submit(order("steps=1000 pause=0.02")).id
    wait_until(lambda: client.job(job).state == "running", 10, "the run")
    with monkeypatch.context() as other:
        other.setattr(version, "PROTOCOL", 3)
        with pytest.raises(Refused, match="speaks protocol 2, the client 3") as error:
            connect(start=False)
        assert error.value.code == "version"
        assert error.value.hint.startswith("punchin stop (")
        assert main(["stop", "--when-idle"]) == 4  # it cannot be asked for that
        assert main(["stop"]) == 0
    assert "the daemon has ended" in capsys.readouterr().err
    assert not lock.is_held(connection.daemon_lock())
    client.cancel(job)  # it waits for the next start


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
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("PUNCHIN_HOME", home.name)
    assert unit.text() == found  # a service is started in another folder
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert unit.path() == tmp_path / "config" / "systemd" / "user" / "punchin.service"


def test_a_service_has_the_folders_of_who_installed_it(monkeypatch, tmp_path):
    """Else it would have another journal and other models than the daemon that clients start."""
    for name in ("STATE", "DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
        assert f'Environment="XDG_{name}_HOME={tmp_path / name}"\n' in unit.text()


def test_a_stop_of_the_service_is_told_to_the_daemon_alone():
    assert "KillMode=mixed\n" in unit.text()


@pytest.mark.real
def test_systemd_finds_no_fault_with_the_unit(monkeypatch, tmp_path):
    need("systemd-analyze", "apt-get install systemd")
    monkeypatch.setenv("PUNCHIN_HOME", str(tmp_path / 'a "b" %c\\d'))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    command = ["systemd-analyze", "--user", "verify", str(tmp_path / "punchin.service")]
    for words, status in ((["--keep-alive=600"], 0), (["\nExecStart=/no/such/program"], 1)):
        (tmp_path / "punchin.service").write_text(unit.text(words))
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == status, ended.stderr


def test_options_of_the_daemon_go_into_the_service(systemd):
    assert subprocess.run([*SERVE, "--install", "--keep-alive", "1h", "--idle-exit=-1"]).returncode == 0
    assert " -m punchin.daemon --keep-alive=3600 --idle-exit=-1\n" in unit.path().read_text()
    assert systemd.read_text().splitlines()[0] == "--user daemon-reload"


def test_a_service_beside_a_daemon_that_runs_is_refused(systemd, client):
    ended = subprocess.run([*SERVE, "--install"], capture_output=True, text=True)
    assert ended.returncode == 4
    assert ended.stderr.startswith("error: a daemon runs already")
    assert not systemd.exists()
    assert not unit.path().exists()


@pytest.fixture
def systemd(monkeypatch, tmp_path):
    """A systemctl that writes what it is told into this file."""
    said = tmp_path / "said"
    script = tmp_path / "bin" / "systemctl"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(script.parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return said


def test_install_and_uninstall_call_systemd(systemd):
    target = unit.install()
    assert target.read_text() == unit.text()
    assert unit.uninstall() == target
    assert not target.exists()
    assert unit.uninstall() is None
    words = ["daemon-reload", "enable --now punchin.service", "disable --now punchin.service", "daemon-reload"]
    assert systemd.read_text().splitlines() == [f"--user {word}" for word in words]


def test_a_service_that_is_not_there_is_not_said_to_be_removed(systemd):
    ended = subprocess.run([*SERVE, "--uninstall"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "no service is installed\n")


def test_sockets_lie_in_no_temporary_folder(monkeypatch, tmp_path):
    """platformdirs would warn of the mode, and take one that anybody may have made."""
    monkeypatch.delenv("PUNCHIN_HOME")
    tmp_path.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert home_place.runtime() == tmp_path / "punchin"
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert home_place.runtime() == home_place.state() / "run"


def test_serve_installs_the_service(tmp_path):
    """Without systemctl on the path: the refusal is told, in one line, with the exit status of a refusal."""
    command = [*SERVE, "--install"]
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
