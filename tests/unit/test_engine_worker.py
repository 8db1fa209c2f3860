"""The worker as a real process on its pipe: jobs, progress, cancel, bad input, and its end."""

import contextlib
import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import msgspec
import numpy as np
import pytest

from punchin.engine import job, tasks
from punchin.engine.worker import DeviceLost, Line, Worker
from punchin.protocol import link
from punchin.protocol.errors import JobFailed, Refused
from punchin.protocol.order import Blob, Order, Passage

JOB = "job-0001"


class Process:
    def __init__(self, home, words=("-m", "punchin.engine.worker")):
        env = {**os.environ, "PUNCHIN_HOME": str(home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(home / "log").open("wb"), env=env
        )
        self.log = home / "log"
        self.parts = []
        self.ready = self.read()

    def send(self, command):
        link.write(self.process.stdin, command)

    def read(self):
        return link.read_reply(self.process.stdout)

    def until_end(self, on_progress=lambda reply: None):
        """All replies of a job up to its last word, without stretches (see `parts`) and the plan (see `ready`)."""
        replies, self.parts = [], []
        while not replies or isinstance(replies[-1], link.Progress):
            reply = self.read()
            if isinstance(reply, link.Part):
                self.parts.append(reply)
                continue
            if isinstance(reply, link.Ready):
                self.ready = reply
                continue
            if isinstance(reply, link.Progress):
                on_progress(reply)
            replies.append(reply)
        return replies

    def end(self):
        self.process.stdin.close()
        return self.process.wait(10)


@pytest.fixture
def worker(tmp_path):
    process = Process(tmp_path)
    yield process
    if process.process.poll() is None:
        process.process.kill()
    process.process.wait()
    process.process.stdout.close()
    process.process.stdin.close()


@pytest.fixture
def store(tmp_path):
    class Store:
        def __init__(self):
            self.files = {}

        def put(self, audio):
            raw = np.ascontiguousarray(audio.T, "<f4").tobytes()
            name = hashlib.sha256(raw).hexdigest()
            (tmp_path / name).write_bytes(raw)
            self.files[name] = str(tmp_path / name)
            return Blob(sha256=name, channels=audio.shape[0], frames=audio.shape[1])

    return Store()


def noise(seconds, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.2, 0.2, (channels, round(seconds * 48000))).astype(np.float32)


def run(order, store, tmp_path, job=JOB, rung=0):
    return link.Run(job=job, attempt=1, order=order, files=store.files, out_dir=str(tmp_path / "out"), rung=rung)


def samples(take):
    return np.fromfile(take.path, "<f4").reshape(take.frames, take.channels).T


@pytest.mark.parametrize("channels", [1, 2])
def test_identity_returns_the_wanted_frames_bit_by_bit_without_torch(worker, store, tmp_path, channels):
    audio = noise(6, channels)
    order = Order(
        task="repaint", model="identity", frames=audio.shape[1], source=store.put(audio), mask=((10, 50),),
        wanted=(10_001, 90_003), seeds=(4, 9),
    )  # fmt: skip
    assert worker.ready.pid == worker.process.pid
    assert worker.ready.total_bytes > 0
    worker.send(run(order, store, tmp_path))
    made = worker.until_end()[-1]
    assert isinstance(made, link.Made)
    assert [take.seed for take in made.takes] == [4, 9]
    for take in made.takes:
        np.testing.assert_array_equal(samples(take), audio[:, 10_001:90_003])
    assert "libtorch" not in Path(f"/proc/{worker.process.pid}/maps").read_text()
    assert worker.end() == 0


def several(store, *audios, **more):
    """An order with a passage each."""
    first, *also = (
        Passage(
            frames=audio.shape[1], source=store.put(audio), mask=((10, 50),), wanted=(10_001, 90_003 + n), seeds=(4, 9),
            name=f"Track {n}", bpm=90.0 + n,
        )
        for n, audio in enumerate(audios)
    )  # fmt: skip
    return Order(task="repaint", also=tuple(also), **msgspec.structs.asdict(first), **more)


def test_several_passages_are_one_job_with_one_progress(worker, store, tmp_path):
    audios = noise(6, 1), noise(4, 2, seed=1), np.zeros((2, 96_000), np.float32)
    worker.send(run(several(store, *audios, model="identity"), store, tmp_path))
    *progress, made = worker.until_end()
    assert [(take.passage, take.seed) for take in made.takes] == [(n, seed) for n in range(3) for seed in (4, 9)]
    for take in made.takes:
        np.testing.assert_array_equal(samples(take), audios[take.passage][:, 10_001 : 90_003 + take.passage])
    assert [(each.phase, each.done, each.total) for each in progress] == [("copying", n, 6) for n in range(1, 7)]


@pytest.mark.parametrize("model", ["identity", pytest.param("punchin-tiny", marks=pytest.mark.slow)])
def test_a_passage_that_cannot_be_made_refuses_all_before_any_is(worker, store, tmp_path, model):
    bad = noise(6)
    bad[0, 5] = np.nan
    worker.send(run(several(store, noise(6), bad, model=model), store, tmp_path))
    failed = worker.until_end()[-1]
    assert (failed.code, failed.text) == ("refused", "Track 1 (2 of 2): the source has 1 samples that are not finite")
    assert list(tmp_path.glob("out/*")) == []


@pytest.mark.slow
def test_passages_sound_as_they_do_alone(worker, store, tmp_path):
    audios = noise(8), noise(6, 1, seed=1)
    order = several(store, *audios, model="punchin-tiny", prompt="dusty rhodes", steps=2)
    worker.send(run(order, store, tmp_path))
    *progress, made = worker.until_end()
    assert isinstance(made, link.Made), made
    parts = worker.parts
    assert list(dict.fromkeys(each.phase for each in progress)) == ["loading model"] + [
        f"Track {n} ({n + 1} of 2): {phase}" for n in (0, 1) for phase in ("encoding", "diffusing", "decoding")
    ]  # fmt: skip
    assert [(take.passage, take.seed) for take in made.takes] == [(0, 4), (0, 9), (1, 4), (1, 9)]
    together = [samples(take) for take in made.takes]
    for take in made.takes:
        mine = [part for part in parts if (part.passage, part.seed) == (take.passage, take.seed)]
        assert b"".join(Path(part.path).read_bytes() for part in mine) == Path(take.path).read_bytes()
    for number, passage in enumerate(order.passages):
        worker.send(run(order.of([passage]), store, tmp_path, job=f"job-alone-{number}"))
        for take, other in zip(worker.until_end()[-1].takes, together[2 * number :], strict=False):
            np.testing.assert_array_equal(samples(take), other)


@pytest.mark.slow
def test_repaint_reports_each_phase_and_the_same_seed_gives_the_same_take(worker, store, tmp_path):
    audio = noise(8)
    order = Order(
        task="repaint", model="punchin-tiny", prompt="dusty rhodes", frames=audio.shape[1], source=store.put(audio),
        mask=((50, 100),), wanted=(94_000, 192_000), seeds=(1, 2), steps=3, bpm=97.35,
    )  # fmt: skip
    worker.send(run(order, store, tmp_path))
    *progress, made = worker.until_end()
    assert isinstance(made, link.Made), made
    phases = list(dict.fromkeys(each.phase for each in progress))
    assert phases == ["loading model", "encoding", "diffusing", "decoding"]
    assert [(p.done, p.total) for p in progress if p.phase == "diffusing"] == [(n, 6) for n in range(1, 7)]
    takes = [samples(take) for take in made.takes]
    assert all(take.shape == (2, 98_000) and np.isfinite(take).all() for take in takes)
    assert np.abs(takes[0] - takes[1]).max() > 1e-4
    assert made.provenance.model == "punchin-tiny"
    assert (made.provenance.steps, made.provenance.shift, made.provenance.guidance) == (3, 3.0, 5.0)
    assert len(made.provenance.model_sha256) == 64

    again = run(order, store, tmp_path, job="job-0002")
    worker.send(again)
    *progress, made = worker.until_end()
    assert "encoding" not in [each.phase for each in progress], "the source's latent is kept"
    for take, first in zip(made.takes, takes, strict=True):
        np.testing.assert_array_equal(samples(take), first)


@pytest.mark.slow
@pytest.mark.parametrize("raw", [{}, {"peak_normalise": True}])
def test_stretches_adjoin_and_are_the_take(worker, store, tmp_path, raw):
    audio = noise(16)
    order = Order(
        task="repaint", model="punchin-tiny", frames=audio.shape[1], source=store.put(audio), mask=((50, 350),),
        wanted=(94_000, 694_001), seeds=(5, 3), steps=1, raw=raw,
    )  # fmt: skip
    worker.send(run(order, store, tmp_path))
    made = worker.until_end()[-1]
    assert isinstance(made, link.Made), made
    if raw:
        assert worker.parts == [], "the level of the whole is not known before its end"
        return
    for take in made.takes:
        mine = [part for part in worker.parts if part.seed == take.seed]
        assert len(mine) >= 3
        assert [part.index for part in mine] == list(range(len(mine)))
        starts = np.cumsum([0, *(part.frames for part in mine)])
        assert [part.start_frame for part in mine] == list(starts[:-1])
        assert starts[-1] == take.frames == 600_001
        assert {part.channels for part in mine} == {2}
        assert {Path(part.path).parent for part in mine} == {tmp_path / "out"}
        assert b"".join(Path(part.path).read_bytes() for part in mine) == Path(take.path).read_bytes()
    assert [part.seed for part in worker.parts] == sorted((part.seed for part in worker.parts), reverse=True)


def test_a_model_that_is_removed_while_it_is_loaded_is_missing_and_no_disk_is_blamed(store, tmp_path, monkeypatch):
    folder = checkpoints.write(tmp_path / "model")
    monkeypatch.setattr(job, "find", lambda model: folder)

    def removing(phase, done, total):
        shutil.rmtree(folder, ignore_errors=True)

    order = Order(task="text2music", model="turbo", frames=48_000, steps=1)
    with pytest.raises(Refused, match=r"turbo cannot be read: .*No such file") as caught:
        job.Performer().perform(run(order, store, tmp_path), removing, lambda part: None)
    assert caught.value.code == "model_missing"


@pytest.mark.parametrize(("strength", "follows"), [(0.0, 10), (0.2, 8), (0.7, 3), (0.8, 2), (0.9, 1), (1.0, 0)])
def test_a_covers_strength_leaves_the_source_all_of_its_steps(store, tmp_path, strength, follows):
    """1 - 0.9 is a little under 0.1: of ten steps, none would have been left."""
    audio = noise(6)
    order = Order(task="cover", model="turbo", frames=audio.shape[1], source=store.put(audio), strength=strength)
    (request,) = job.requests_of(run(order, store, tmp_path))
    assert tasks.cover_steps(request, 10) == follows


@pytest.mark.slow
def test_a_change_of_model_tells_the_plan_and_keeps_the_sources_latent(worker, store, tmp_path):
    """Both have one autoencoder, so the second model is asked about audio that it need not encode."""
    models = tmp_path / "data" / "models"
    checkpoints.write(models / "Ace-Step1.5")
    checkpoints.write(models, name="acestep-v15-sft", turbo=False, seed=1)
    for part in ("vae", "Qwen3-Embedding-0.6B"):
        shutil.rmtree(models / part)
    audio = noise(6)
    first = worker.ready
    assert first.plan == ""

    def phases(model):
        order = Order(
            task="repaint", model=model, frames=audio.shape[1], source=store.put(audio), mask=((50, 100),), steps=2
        )
        worker.send(run(order, store, tmp_path, job=f"job-0001-{model}"))
        *progress, made = worker.until_end()
        assert isinstance(made, link.Made), made
        assert made.provenance.model == model
        return [each.phase for each in progress]

    assert "encoding" in phases("turbo")
    assert worker.ready == msgspec.structs.replace(first, plan="turbo on cpu: all stays (float32)")
    assert "encoding" not in phases("sft")
    assert worker.ready.plan.startswith("sft on cpu")
    (models / "Ace-Step1.5/vae").rename(tmp_path / "old")
    checkpoints.write(tmp_path / "other", seed=5)
    (tmp_path / "other/vae").rename(models / "Ace-Step1.5/vae")
    assert "encoding" in phases("turbo"), "another autoencoder makes other latents"


@pytest.mark.slow
def test_a_cancel_stops_at_the_next_step_and_hits_nobody_else(worker, store, tmp_path):
    audio = noise(8)
    long = Order(task="repaint", model="punchin-tiny", frames=audio.shape[1], source=store.put(audio),
                 mask=((50, 100),), steps=200)  # fmt: skip
    worker.send(run(long, store, tmp_path))

    def cancel(progress):
        if progress.phase == "diffusing" and progress.done == 2:
            worker.send(link.Cancel(job=JOB))

    *progress, last = worker.until_end(cancel)
    assert last == link.Stopped(job=JOB)
    assert max(p.done for p in progress if p.phase == "diffusing") < 150
    assert not list((tmp_path / "out").glob("*"))
    worker.send(link.Cancel(job=JOB))  # late: for nobody
    short = Order(task="repaint", model="identity", frames=audio.shape[1], source=long.source, mask=((0, 5),))
    worker.send(run(short, store, tmp_path, job="job-0002"))
    assert isinstance(worker.until_end()[-1], link.Made)


@pytest.mark.slow
def test_a_worker_whose_daemon_dies_ends_within_a_second_in_the_middle_of_a_step(worker, store, tmp_path):
    audio = noise(30)
    order = Order(task="cover", model="punchin-tiny", frames=audio.shape[1], source=store.put(audio), steps=200)
    worker.send(run(order, store, tmp_path))
    while not (isinstance(reply := worker.read(), link.Progress) and reply.phase == "diffusing"):
        assert isinstance(reply, link.Progress | link.Ready), reply
    worker.process.stdin.close()
    begin = time.monotonic()
    assert worker.process.wait(5) == 0
    assert time.monotonic() - begin < 1


def test_a_command_that_is_none_ends_the_worker_with_an_error(worker):
    worker.process.stdin.write(b"\xff\xff\xff\xff....")
    worker.process.stdin.flush()
    assert worker.process.wait(10) == 1
    assert "no command" in worker.log.read_text()


def test_unload_ends_the_worker(worker):
    worker.send(link.Unload())
    assert worker.process.wait(10) == 0


def test_bad_audio_is_refused_by_name_and_the_worker_goes_on(worker, store, tmp_path):
    audio = noise(6)
    blob = store.put(audio)

    def order(source):
        return Order(task="repaint", model="identity", frames=source.frames, source=source, mask=((0, 5),))

    def text(source):
        worker.send(run(order(source), store, tmp_path))
        failed = worker.until_end()[-1]
        assert isinstance(failed, link.Failed)
        assert failed.code == "refused"
        return failed.text

    short = Blob(sha256=blob.sha256, channels=2, frames=blob.frames + 1)
    assert "has 2304000 bytes, 288001 frames of 2 channels are 2304008" in text(short)
    other = Blob(sha256=blob.sha256, channels=2, frames=blob.frames, rate_hz=44_100)
    assert "at 44100 Hz, the engine takes 48000" in text(other)
    holed = audio.copy()
    holed[1, 77] = np.nan
    assert "has 1 samples that are not finite" in text(store.put(holed))
    assert "did not come with the job" in text(Blob(sha256="0" * 64, channels=2, frames=6 * 48_000))
    worker.send(run(order(blob), store, tmp_path))
    assert isinstance(worker.until_end()[-1], link.Made)


def test_models_that_are_not_there_and_full_disks_have_their_own_codes(worker, store, tmp_path):
    audio = noise(6)
    source = store.put(audio)
    base = {"task": "repaint", "frames": audio.shape[1], "source": source, "mask": ((0, 5),)}
    for name, code, hint in (
        ("turbo", "model_missing", "punchin models pull turbo"),
        ("base", "model_missing", "`punchin models pull base` (6.3 GB)"),  # VAE and text encoder among it
        ("no-such", "unknown_model", "punchin models list"),  # one's own, removed while the job waited
    ):
        worker.send(run(Order(model=name, **base), store, tmp_path))
        failed = worker.until_end()[-1]
        assert failed.code == code
        assert hint in failed.hint
    (tmp_path / "out").write_text("a file where the folder should be")
    worker.send(run(Order(model="identity", **base), store, tmp_path))
    assert worker.until_end()[-1].code == "disk"


def test_a_task_that_the_model_does_not_know_is_refused_before_it_is_loaded(worker, store, tmp_path):
    audio = noise(6)
    order = Order(task="extract", model="turbo", instrument="drums", frames=audio.shape[1], source=store.put(audio))
    worker.send(run(order, store, tmp_path))
    failed = worker.until_end()[-1]
    assert failed.code == "refused", "turbo is not installed here, and was not looked for"
    assert "turbo does not know extract" in failed.text


class Full:
    """A model that takes too much memory."""

    def __init__(self, error):
        self.error = error

    def perform(self, run, report, offer):
        report("diffusing", 1, 8)
        raise self.error


def at_work(error, store, tmp_path, replies):
    """A worker with one job, which ends with `error`, and its line."""
    line = Line(io.BytesIO(), replies)
    worker = Worker(line, link.Ready(pid=0, device="cpu"))
    worker._performer = Full(error)
    audio = noise(6)
    order = Order(task="repaint", model="turbo", frames=audio.shape[1], source=store.put(audio), mask=((0, 5),))
    line._take(run(order, store, tmp_path, rung=2))
    return worker, line


def answers(error, store, tmp_path):
    """What the worker says to the daemon for a job that ends with `error`, and whether it then ends."""
    replies = io.BytesIO()
    worker, line = at_work(error, store, tmp_path, replies)
    ends = (
        pytest.raises(EOFError) if getattr(error, "code", "") != "oom" and not isinstance(error, MemoryError) else None
    )
    line.run = iter_once(line.run)
    with ends or contextlib.nullcontext():
        worker.serve()
    replies.seek(0)
    said = []
    while (reply := link.read_reply(replies)) is not None:
        said.append(reply)
    return said[-1]


def iter_once(get):
    left = [1]

    def once():
        if not left:
            raise EOFError
        left.pop()
        return get()

    return once


def test_after_out_of_memory_the_next_rung_is_named_and_the_worker_ends(store, tmp_path):
    error = JobFailed("memory ran out: CUDA", "load the model with rung=3", code="oom")
    failed = answers(error, store, tmp_path)
    assert (failed.code, failed.next_rung) == ("oom", 3)
    loading = MemoryError("rung while loading")
    failed = answers(loading, store, tmp_path)
    assert (failed.code, failed.next_rung) == ("oom", 3)


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory\nCUDA kernel errors might be", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"]
)
def test_out_of_memory_in_the_devices_own_words_is_no_lost_device(store, tmp_path, text):
    replies = io.BytesIO()
    worker, _ = at_work(RuntimeError(text), store, tmp_path, replies)
    worker.serve()  # it ends by itself
    replies.seek(0)
    *_, failed = iter(lambda: link.read_reply(replies), None)
    assert (failed.code, failed.next_rung) == ("oom", 3)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    ],
)
def test_a_device_that_failed_ends_the_worker_without_a_word_on_the_job(store, tmp_path, text):
    replies = io.BytesIO()
    worker, _ = at_work(RuntimeError(text), store, tmp_path, replies)
    with pytest.raises(DeviceLost) as lost:
        worker.serve()
    assert str(lost.value) == text.split("\n")[0]
    replies.seek(0)
    assert {type(reply) for reply in iter(lambda: link.read_reply(replies), None)} == {link.Progress}


def test_torchs_name_for_a_device_that_failed_is_enough(store, tmp_path):
    error = type("AcceleratorError", (RuntimeError,), {})("unspecified launch failure")
    worker, _ = at_work(error, store, tmp_path, io.BytesIO())
    with pytest.raises(DeviceLost):
        worker.serve()


LOSES = """
import sys
from punchin.engine import identity, worker
def perform(run, report):
    raise RuntimeError("CUDA error: an illegal memory access was encountered\\nCompile with `TORCH_USE_CUDA_DSA`")
identity.perform = perform
sys.exit(worker.main())
"""


def test_the_last_line_of_a_worker_that_lost_its_device_says_so(store, tmp_path):
    process = Process(tmp_path, ["-c", LOSES])
    audio = noise(6)
    order = Order(task="repaint", model="identity", frames=audio.shape[1], source=store.put(audio), mask=((0, 5),))
    process.send(run(order, store, tmp_path))
    assert process.read() is None, "no word on the job: the daemon tries it again"
    assert process.process.wait(10) == 1
    last = process.log.read_text().splitlines()[-1]
    assert last.endswith("the device is lost: CUDA error: an illegal memory access was encountered")
    process.process.stdin.close()
    process.process.stdout.close()


def test_a_sigterm_is_the_daemons_affair(worker, store, tmp_path):
    worker.process.send_signal(signal.SIGTERM)
    audio = noise(6)
    order = Order(task="repaint", model="identity", frames=audio.shape[1], source=store.put(audio), mask=((0, 5),))
    worker.send(run(order, store, tmp_path))
    assert isinstance(worker.until_end()[-1], link.Made)
    assert worker.end() == 0


def test_the_last_rung_has_no_next(store, tmp_path):
    failed = answers(Refused("memory ran out with the last plan too: rung", code="oom"), store, tmp_path)
    assert (failed.code, failed.next_rung) == ("oom", None)


def test_a_full_disk_has_its_own_code(store, tmp_path):
    failed = answers(OSError(errno.ENOSPC, "No space left on device"), store, tmp_path)
    assert (failed.code, failed.hint) == ("disk_full", f"free some space below {tmp_path / 'out'}")
    failed = answers(OSError(errno.EROFS, "Read-only file system"), store, tmp_path)
    assert (failed.code, failed.hint) == ("disk", "")


def test_an_error_that_nobody_foresaw_ends_the_job_and_not_the_worker(store, tmp_path):
    failed = answers(KeyError("surprise"), store, tmp_path)
    assert failed.code == "bug"
    assert "KeyError: 'surprise'" in failed.text
    assert failed.hint == "punchin doctor --report"
    failed = answers(ModuleNotFoundError("No module named 'torch'", name="torch"), store, tmp_path)
    assert (failed.text, failed.hint) == ("the engine lacks torch", 'pip install "punchin[engine]"')
    failed = answers(JobFailed("not finite in step 3", code="not_finite"), store, tmp_path)
    assert failed.code == "not_finite"
