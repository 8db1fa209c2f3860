"""The client library against a real daemon: submit, follow, audio, cancel, and what is refused."""

import hashlib
import json
import os
import stat
import subprocess
import sys
import threading

import msgspec
import numpy as np
import psutil
import pytest
from faults.fake_worker import take_bytes
from faults.lives import check_events, is_running, order, run, wait_until

from punchin.clients.cli import main
from punchin.clients.connect import connect
from punchin.protocol import connection, limits
from punchin.protocol.errors import Cancelled, JobFailed, OverLimit, Refused, Unreachable
from punchin.protocol.order import Blob, Order


def noise(channels=2, frames=48_000, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, frames)).astype(np.float32)


def test_a_job_from_order_to_audio(client):
    source = client.put_audio(noise(), 48_000)
    asked = Order(
        task="repaint",
        source=source,
        frames=48_000,
        wanted=(100, 4_900),
        seeds=(7, 8),
        model="identity",
        prompt="steps=3",
    )
    job = client.submit(asked, plan=b"\x00where it lands\xff")
    events = list(client.follow(job.id))
    journaled = [event for event in events if event.seq]
    check_events(journaled)
    assert [event.state for event in journaled] == ["queued", "leased", "running", "storing", "done"]
    assert {event.phase for event in events if not event.seq} <= {"diffusing"}
    record = client.result(job.id)
    assert record.plan == b"\x00where it lands\xff"
    assert record.provenance.notes == ("fake",)
    for take in record.takes:
        audio = client.get_audio(take.audio)
        assert audio.shape == (2, 4_800)
        assert audio.T.tobytes() == take_bytes(asked, take.seed)


@pytest.mark.parametrize("frames", [1, 131_071, 131_072, 131_073, 1_310_720])  # 1 MiB is 131,072 stereo frames
def test_audio_comes_back_bit_equal(client, frames):
    audio = noise(frames=frames)
    audio[0, 0] = -0.0
    blob = client.put_audio(audio, 44_100)
    assert blob == Blob(sha256=hashlib.sha256(audio.T.tobytes()).hexdigest(), channels=2, frames=frames, rate_hz=44_100)
    assert client.get_audio(blob).tobytes() == audio.tobytes()
    assert client.put_audio(audio, 44_100) == blob


def test_bytes_of_any_kind_are_kept(client):
    for data in (b"", b"x", os.urandom(3 * 1024 * 1024 + 5)):
        assert client.get(client.put(data)) == data


def test_audio_over_a_limit_is_not_sent(client):
    with pytest.raises(OverLimit, match="channels is 3, allowed is 1 to 2"):
        client.put_audio(noise(channels=3), 48_000)
    with pytest.raises(OverLimit, match="audio length is 601 s"):
        client.put_audio(np.zeros((1, 601 * 8_000), np.float32), 8_000)


def test_the_second_client_meets_the_same_daemon(client):
    with connect(start=False) as other:
        assert other.welcome.instance == client.welcome.instance
        assert other.status().pid == client.status().pid


def test_many_clients_start_one_daemon():
    found = []

    def go():
        with connect() as client:
            found.append(client.welcome.instance)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_no_daemon_and_not_to_start_one():
    with pytest.raises(Unreachable, match="no daemon is running") as error:
        connect(start=False)
    assert error.value.exit_code == 3
    assert error.value.hint


def test_a_second_daemon_says_who_runs(client):
    ended = subprocess.run([sys.executable, "-m", "punchin.daemon"], capture_output=True, text=True, timeout=20)
    assert ended.returncode == 3
    assert f"pid {client.status().pid}" in ended.stderr
    assert ended.stderr.endswith("\n  punchin stop\n")


def test_a_daemon_that_cannot_start_tells_why(home):
    (home / "state").mkdir()
    (home / "state" / "journal.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(Unreachable, match="is no journal"):
        connect(wait_s=10)


def test_a_damaged_journal_is_told_with_its_cure(client, home):
    run(client)
    client.stop()
    path = home / "state" / "journal.sqlite"
    path.write_bytes(path.read_bytes()[:4_096] + b"Z" * 36_864)
    with pytest.raises(Unreachable, match=r"is no journal: .*malformed") as error:
        connect(wait_s=10)
    assert error.value.hint.startswith(f"move {path} elsewhere: ")
    path.rename(home / "elsewhere")
    with connect() as later:
        assert later.jobs() == []
        assert run(later)[0].state == "done"


def test_a_connection_file_that_cannot_be_written_is_told(home):
    """As on a runtime folder's disk, which is small, and full."""
    (home / "runtime" / "daemon.json").mkdir(parents=True)
    with pytest.raises(Unreachable, match=r"did not start: .*daemon\.json, .* written: Is a directory") as error:
        connect()
    assert error.value.hint.startswith("free space on its disk")
    ended = subprocess.run([sys.executable, "-m", "punchin.daemon"], capture_output=True, text=True, timeout=20)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)


def test_sockets_that_cannot_be_bound_are_told(home, monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAULTS", "daemon.bound=full")
    with pytest.raises(Unreachable, match=r"did not start: .*No space left on device") as error:
        connect(wait_s=10)
    assert error.value.hint == "punchin doctor"


def test_a_daemon_that_dies_without_a_word_leaves_its_log(home, tmp_path, monkeypatch):
    (tmp_path / "msgspec.py").write_text("raise RuntimeError('this installation is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Unreachable, match=r"exit status 1\); last line of its log: .*this installation is broken"):
        connect(wait_s=10)


def test_the_connection_is_private(client):
    assert stat.S_IMODE(connection.file().stat().st_mode) == 0o600
    assert stat.S_IMODE(connection.folder().stat().st_mode) == 0o700
    assert stat.S_IMODE((connection.folder().parent / "state" / "journal.sqlite").stat().st_mode) == 0o600


def test_submitting_twice_is_one_job(client):
    first = client.submit(order("steps=1"), job_id="same-id-0001")
    again = client.submit(order("steps=1"), job_id="same-id-0001")
    assert again.created_ns == first.created_ns
    with pytest.raises(Refused, match="with another order") as error:
        client.submit(order("steps=2"), job_id="same-id-0001")
    assert (error.value.code, error.value.exit_code) == ("conflict", 4)
    with pytest.raises(Refused, match="with another order"):
        client.submit(order("steps=1"), plan=b"another plan", job_id="same-id-0001")
    assert len(client.jobs()) == 1
    assert len([event for event in client.follow("same-id-0001") if event.state == "done"]) == 1


def test_what_is_refused_before_it_is_a_job(client):
    source = Blob(sha256="0" * 64, channels=2, frames=48_000)
    cases = [
        (Order(task="cover", source=source, frames=48_000, model="identity"), "unknown_blob"),
        (Order(task="text2music", frames=48_000, model="nonsense"), "unknown_model"),
        (Order(task="text2music", frames=48_000, model="turbo"), "model_missing"),
    ]
    for asked, code in cases:
        with pytest.raises(Refused) as error:
            client.submit(asked)
        assert error.value.code == code
        assert error.value.hint
    with pytest.raises(Refused, match=r"the landing plan has 32,769 bytes, allowed is 32,768") as error:
        client.submit(order(), plan=b"x" * 32_769)
    assert "fewer regions" in error.value.hint
    with pytest.raises(Refused, match="allowed is 65,536"):
        client.submit(order("x" * 4_000, lyrics="月" * limits.LYRICS_CHARS), plan=b"x" * 32_768)
    assert client.jobs() == []


def test_a_source_of_another_size_is_refused(client):
    sha256 = client.put(b"12345678")
    source = Blob(sha256=sha256, channels=2, frames=2)
    with pytest.raises(Refused, match="has 8 bytes, the order says 16"):
        client.submit(Order(task="repaint", source=source, frames=2, model="identity"))
    mono = Blob(sha256=sha256, channels=1, frames=2)  # the same bytes, said rightly beside it
    with pytest.raises(Refused, match="has 8 bytes, the order says 16"):
        client.submit(Order(task="cover", source=source, references=(mono,), frames=2, model="identity"))


def test_jobs_newest_first_page_by_page(client):
    client.pause()
    ids = [client.submit(order(lyrics="la " * 6_000)).id for _ in range(40)]  # 40 x 18 kB: more than one page
    assert [job.id for job in client.jobs()] == ids[::-1]
    assert [job.id for job in client.jobs(most=7)] == ids[::-1][:7]


def test_each_job_is_one_line_whatever_its_prompt_and_its_error(client, capsys):
    client.pause()
    client.submit(order("slow\nand\r\nsoft"))
    client.resume()
    run(client, f"fail={'x' * 1_000}\nsteps=1")
    assert main(["jobs"]) == 0
    _, failed, prompt = capsys.readouterr().out.splitlines()
    assert prompt.endswith("generate, 0 s: slow and soft")
    assert failed.endswith("xxx…")
    assert len(failed) < 220


@pytest.mark.parametrize(
    ("task", "prompt", "what"),
    [("extract", "", "extract, 0 s: vocals"), ("lego", "a warm choir", "layer, 0 s: vocals, a warm choir")],
)
def test_a_job_for_an_instrument_says_which(client, capsys, task, prompt, what):
    client.pause()
    source = client.put_audio(np.full((2, 19_200), 0.5, np.float32), 48_000)
    asked = {"task": task, "prompt": prompt, "instrument": "vocals", "source": source, "frames": 19_200}
    client.submit(msgspec.structs.replace(order(), **asked))
    assert main(["jobs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].rstrip().endswith(what)


def test_punchin_cancel_ends_whatever_the_job_is_doing(client, capsys):
    done, _ = run(client)
    client.pause()
    waiting = client.submit(order()).id
    assert main(["cancel", done.id]) == main(["cancel", waiting]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{done.id} done", f"{waiting} cancelled"]
    client.resume()
    running = client.submit(order("steps=1000 pause=0.02")).id
    wait_until(lambda: client.job(running).state == "running", 10, "the run")
    assert main(["cancel", running[-8:]]) == 0
    assert capsys.readouterr().out == f"{running} cancelled\n"


def test_no_id_is_no_job(client, capsys):
    """A script's empty variable, where there is one job alone."""
    job = client.submit(order("steps=1000 pause=0.02")).id
    for verb in ("cancel", "pin", "show"):
        assert main([verb, ""]) == 4
        assert 'error: there is no job ""' in capsys.readouterr().err
    assert not client.look(job).cancelling
    client.cancel(job)


def test_unknown_job(client):
    for call in (client.job, client.cancel, client.result, lambda job: list(client.follow(job))):
        with pytest.raises(Refused, match="unknown here") as error:
            call("never-submitted")
        assert error.value.code == "unknown_job"


def test_a_failed_job_tells_the_worker_s_reason(client):
    record, events = run(client, "fail=no-such-key")
    check_events(events)
    assert record.state == "failed"
    with pytest.raises(JobFailed, match="no-such-key") as error:
        client.result(record.id)
    assert (error.value.job, error.value.code, error.value.hint) == (record.id, "refused", "try another")


def test_landed_is_remembered(client):
    record, _ = run(client)
    assert client.landed(record.id, "/music/song-punchin.rpp").landed == "/music/song-punchin.rpp"
    client.pause()
    waiting = client.submit(order())
    with pytest.raises(Refused, match="only a done job can land"):
        client.landed(waiting.id, "/nowhere")
    with pytest.raises(Refused, match="is queued"):
        client.result(waiting.id)


def test_late_and_second_followers_miss_nothing(client):
    job = client.submit(order("steps=4 pause=0.05"))
    seen = {}

    def follow(name):
        with connect(name=name) as other:
            seen[name] = [event.seq for event in other.follow(job.id) if event.seq]

    threads = [threading.Thread(target=follow, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(seen.values()) == [[1, 2, 3, 4, 5]] * 3
    assert [event.seq for event in client.follow(job.id)] == [1, 2, 3, 4, 5]  # long after its end
    assert [event.seq for event in client.follow(job.id, since=3)] == [4, 5]
    assert list(client.follow(job.id, since=5)) == list(client.follow(job.id, since=99)) == []


def test_punchin_pin_keeps_a_job_and_show_says_so(client, capsys):
    job = run(client)[0].id
    for words, pinned in (([], True), (["--off"], False)):
        assert main(["pin", job[-6:], *words]) == 0
        assert client.look(job).pinned is pinned
        capsys.readouterr()
        assert main(["show", job, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["pinned"] is pinned
        assert main(["show", job]) == 0
        assert ("pinned       True" in capsys.readouterr().out) is pinned


def test_gc_goes_on_until_nothing_is_left_to_remove(client, home):
    """The daemon removes 100 files at once; it may have begun by itself."""
    blobs = home / "state" / "blobs"
    for number in range(105):
        sha256 = client.put(b"%d" % number)
        os.utime(blobs / sha256[:2] / sha256[2:], (1, 1))
    assert client.gc(dry_run=True).blobs > 90
    done = client.gc()
    assert 90 < done.blobs <= 105
    assert done.kept_bytes == 0
    assert not list(blobs.glob("*/*"))


def test_cancel_a_waiting_and_a_running_job(client):
    running = client.submit(order("steps=1000 pause=0.02"))
    waiting = client.submit(order())
    for event in client.follow(running.id):
        if event.phase == "diffusing":
            break
    assert client.cancel(waiting.id).state == "cancelled"
    client.cancel(running.id)
    assert client.look(running.id).cancelling or client.job(running.id).state == "cancelled"
    events = [event for event in client.follow(running.id) if event.seq]
    check_events(events)
    assert events[-1].state == "cancelled"
    with pytest.raises(Cancelled):
        client.result(running.id)
    record, _ = run(client)  # the same worker goes on
    assert record.state == "done"
    assert client.status().counters["worker_starts"] == 1


def test_cancelling_what_has_ended_changes_nothing(client):
    record, _ = run(client)
    assert client.cancel(record.id).state == "done"
    assert client.look(record.id).cancelling is False


def test_who_waits_goes_before_a_batch(client):
    client.pause()
    batch = [client.submit(order(interactive=False)).id for _ in range(2)]
    mine = client.submit(order()).id
    client.resume()
    for job in (*batch, mine):
        list(client.follow(job))
    ended = {job: list(client.follow(job))[-1].at_ns for job in (*batch, mine)}
    assert sorted(ended, key=ended.get) == [mine, *batch]


def test_paused_until_resumed(client):
    assert client.pause().paused
    job = client.submit(order())
    assert client.status().jobs == {"queued": 1}
    assert client.resume().paused is False
    assert [event.state for event in client.follow(job.id)][-1] == "done"


def test_unload_ends_the_worker(client):
    run(client)
    pid = client.status().worker.pid
    client.unload()
    wait_until(lambda: client.status().worker is None, 5, "the worker's end")
    assert not os.path.exists(f"/proc/{pid}")
    assert client.status().counters["worker_deaths"] == 0


def test_keep_alive_of_nothing_unloads_at_once(client):
    job = client.submit(order(), keep_alive_s=0)
    list(client.follow(job.id))
    wait_until(lambda: client.status().worker is None, 5, "the worker's end")
    job = client.submit(order(), keep_alive_s=-1)
    list(client.follow(job.id))
    assert client.status().worker.until_ns is None


def test_stop_ends_daemon_and_worker(client):
    run(client)
    status = client.status()
    client.stop()
    for pid in (status.pid, status.worker.pid):
        wait_until(lambda pid=pid: not psutil.pid_exists(pid) or not is_running(psutil.Process(pid)), 5, str(pid))
    assert list(connection.folder().glob("*.sock")) == []
