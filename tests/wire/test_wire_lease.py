"""The device, lent to a training or a bench: real daemons, real processes, each of them killed once."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from faults.lives import daemon_pid, is_running, kill_daemon, order, run, wait_until
from trainingdata import arguments, command_line, write_model, write_songs

from punchin.clients.cli import main
from punchin.clients.client import new_job_id
from punchin.clients.connect import connect
from punchin.clients.hold import Hold
from punchin.protocol import limits
from punchin.protocol.errors import Refused

LONG_S = 90  # for a training to begin, on a machine that does much else


def phases_of(client, job, until):
    """What a follower hears of a job, up to the phase that contains `until`."""
    heard = []
    for event in client.follow(job):
        heard.append(event.phase)
        if until in event.phase:
            return heard
    raise AssertionError(f"{until} was not said: {heard}")


def test_a_lease_waits_for_the_job_that_runs_and_others_wait_for_it(client):
    first, second = (client.submit(order("steps=40 pause=0.05")).id for _ in range(2))
    wait_until(lambda: client.job(first).state == "running", 10, "the job")
    mine = new_job_id()
    lease = client.lease(mine, "a training", 4242)
    assert (lease.granted, lease.waits_for) == (False, f"job {first}")
    phases_of(client, second, "a training (pid 4242) gets the device next")
    wait_until(lambda: client.lease(mine, "a training", 4242).granted, 10, "the device")
    assert client.job(first).state in ("storing", "done")  # it is kept while the device is another's already
    assert client.job(second).state == "queued"
    assert client.status().worker is None
    phases_of(client, second, "a training (pid 4242) holds the device")
    with pytest.raises(Refused, match=r"a training \(pid 4242\) has the device since \d\d:\d\d") as error:
        client.lease(new_job_id(), "a training", 77)
    assert error.value.code == "busy"
    client.release(new_job_id())  # another's: nothing
    assert client.status().lease.granted
    assert client.release(mine).lease is None
    assert [[event.state for event in client.follow(job)][-1] for job in (first, second)] == ["done", "done"]


def test_a_holder_that_says_nothing_loses_the_device(client):
    client.lease(new_job_id(), "a training", 4242)
    began = time.monotonic()
    job = client.submit(order("steps=1"))
    first, *_ = [event.phase for event in client.follow(job.id) if event.phase]
    assert first == "waiting: a training (pid 4242) holds the device"
    assert limits.LEASE_S - 1 < time.monotonic() - began < limits.LEASE_S + 8
    assert client.job(job.id).state == "done"


def test_a_daemon_that_was_killed_knows_no_lease_and_the_holder_is_told(client, capsys):
    said = []
    hold = Hold("a training", os.getpid(), said.append)
    assert hold.take(client)
    assert hold.keep()
    kill_daemon()
    assert not hold.keep()
    assert not hold.keep()
    assert daemon_pid() is None, "keeping starts no daemon"
    with connect() as later:
        assert later.status().lease is None
        job = later.submit(order("steps=500 pause=0.05")).id
        wait_until(lambda: later.job(job).state == "running", 10, "the job")
        assert not hold.keep()
        later.cancel(job)
        wait_until(hold.keep, 10, "the device")
        assert later.status().lease.pid == os.getpid()
        hold.release()
        assert later.status().lease is None
    said = [line for line in said if "until the engine has ended" not in line]  # heard by chance
    assert said == [
        "the training has the device; jobs wait in the daemon's queue",
        "no daemon is running; the training goes on, and nothing keeps jobs off the device",
        f"the daemon works beside the training until job {job} has ended",
        "the training has the device; jobs wait in the daemon's queue",
    ]


def test_status_and_ps_say_who_has_the_device(client, capsys):
    job = client.submit(order("steps=100 pause=0.05")).id
    wait_until(lambda: client.job(job).state == "running", 10, "the job")
    mine = new_job_id()
    client.lease(mine, "a training", 4242)
    main(["status"])
    assert f"device: a training (pid 4242) gets it after job {job}\n" in capsys.readouterr().out
    client.cancel(job)
    wait_until(lambda: client.lease(mine, "a training", 4242).granted, 10, "the device")
    main(["ps"])
    assert "the device: a training (pid 4242) has it, for " in capsys.readouterr().err
    main(["ps", "--json"])
    assert '"holder": "a training"' in capsys.readouterr().out
    client.stop()


# ---- real trainings ----


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A training that would go on for days."""
    root = tmp_path_factory.mktemp("training")
    model, songs = write_model(root / "model"), write_songs(root / "songs", 1, (1.0,))
    small = {"lora_rank": 1, "lora_target_modules": "q_proj", "save_steps": 1_000_000, "num_epochs": 1_000_000}
    return arguments(model, songs, root / "out", **small)


@pytest.fixture
def training(given, tmp_path):
    """Starts `punchin train` and gives its process and the file of what it says; ends it."""
    begun = []

    def begin(**more):
        said = tmp_path / f"said-{len(begun)}"
        words = command_line("lora", {**given, "output_path": str(tmp_path / "out"), **more})
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with said.open("wb") as file:
            command = [sys.executable, "-m", "punchin.clients.cli", "train", *words]
            begun.append(subprocess.Popen(command, stderr=file, env=environment))
        return begun[-1], said

    yield begin
    for process in begun:
        process.kill()
        process.wait()


def test_a_training_has_the_device_through_the_lives_of_daemons(client, training, capsys):
    run(client)  # a worker is there
    process, said = training()
    wait_until(lambda: client.status().lease is not None and client.status().lease.granted, LONG_S, "the lease")
    lease = client.status().lease
    assert psutil.Process(lease.pid).ppid() == process.pid
    assert client.status().worker is None
    job = client.submit(order("steps=1")).id
    phases_of(client, job, f"a training (pid {lease.pid}) holds the device")
    second, told = training(output_path="elsewhere")
    assert second.wait(LONG_S) == 4
    assert f"a training (pid {lease.pid}) has the device since" in told.read_text()
    wait_until(lambda: "weights trained" in said.read_text(), LONG_S, "the training")
    kill_daemon()
    wait_until(lambda: "nothing keeps jobs off the device" in said.read_text(), 20, "the word of it")
    with connect() as later:
        wait_until(lambda: later.status().lease is not None, 20, "the lease of the next daemon")
        assert later.status().lease.pid == lease.pid
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert "the same command goes on" in said.read_text()
        assert later.status().lease is None
        assert [event.state for event in later.follow(job)][-1] == "done"


def test_a_killed_client_takes_its_training_with_it_before_the_device_is_lent_again(client, training):
    process, said = training()
    wait_until(lambda: "weights trained" in said.read_text(), LONG_S, "the training")
    child = psutil.Process(client.status().lease.pid)
    job = client.submit(order("steps=20 pause=0.1")).id
    process.kill()
    wait_until(lambda: client.job(job).state == "running", limits.LEASE_S + 5, "the job's turn")
    assert not is_running(child)
    assert client.status().lease is None


def test_a_bench_goes_on_without_a_daemon_and_has_the_device_of_one_that_comes(home, tmp_path):
    said, printed = tmp_path / "said", tmp_path / "printed"
    words = ["--size", "small", "--case", "DiT step 10 s", "--rounds", "1000000", "--threads", "1", "--device", "cpu"]
    command = [sys.executable, "-m", "punchin.clients.cli", "bench", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with said.open("wb") as talk, printed.open("wb") as out:
        bench = subprocess.Popen(command, stdout=out, stderr=talk, env=environment)
    try:
        wait_until(lambda: "DiT step 10 s ..." in said.read_text(), LONG_S, "the bench")
        assert daemon_pid() is None
        wait_until(lambda: "no daemon is running; the bench goes on" in said.read_text(), 20, "the word of it")
        with connect() as client:
            wait_until(lambda: client.status().lease is not None, 20, "the lease")
            job = client.submit(order("steps=1")).id
            phases_of(client, job, f"a bench (pid {client.status().lease.pid}) holds the device")
            bench.send_signal(signal.SIGINT)
            assert bench.wait(30) == 130
            assert [event.state for event in client.follow(job)][-1] == "done"
    finally:
        bench.kill()
        bench.wait()
    assert "the bench was stopped" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert printed.read_text() == ""


def test_a_bench_has_no_device_before_the_job_that_runs_has_ended(client, tmp_path):
    job = client.submit(order("steps=10000 pause=0.02")).id
    wait_until(lambda: client.job(job).state == "running", 10, "the job")
    said = tmp_path / "said"
    with said.open("wb") as talk:
        command = [sys.executable, "-m", "punchin.clients.cli", "bench", "--size", "small", "--device", "cpu"]
        bench = subprocess.Popen(command, stderr=talk, stdout=subprocess.DEVNULL)
    wait_until(lambda: f"waiting for the device until job {job} has ended" in said.read_text(), LONG_S, "the wait")
    bench.send_signal(signal.SIGTERM)
    assert bench.wait(30) == 130
    assert client.status().lease is None
    assert client.job(job).state == "running"
    assert "..." not in said.read_text()
    client.cancel(job)


def test_a_training_that_cannot_be_ends_no_worker(client, training):
    run(client)
    worker = client.status().worker.pid
    for more, code in (({"lora_rank": 0}, 2), ({"dataset_base_path": "/nowhere"}, 4), ({"model": "xl-sft"}, 4)):
        process, said = training(**more)
        assert process.wait(LONG_S) == code, said.read_text()
        assert "error: " in said.read_text()
    assert client.status().worker.pid == worker
    assert client.status().counters["worker_starts"] == 1
