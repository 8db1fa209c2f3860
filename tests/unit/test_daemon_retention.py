"""What gc forgets, and what it never touches."""

import hashlib
import os
import time

import msgspec
import pytest

from punchin.daemon import retention
from punchin.daemon.journal import Journal, UnknownJob
from punchin.daemon.store import Store, StoreFull
from punchin.protocol.order import Blob, Order, Take

DAY_NS = 86_400 * 1_000_000_000


class Disk:
    """A journal and a store with jobs of any age and size."""

    def __init__(self, folder):
        self.journal, self.store = Journal(folder / "journal.sqlite"), Store(folder)

    def blob(self, data, age_s=0.0):
        sha256 = hashlib.sha256(data).hexdigest()
        upload = self.store.begin(sha256, len(data))
        upload.append(memoryview(data))
        self.store.finish(upload)
        if age_s:
            then = time.time() - age_s
            os.utime(self.store.path(sha256), (then, then))
        return sha256

    def job(self, name, days_old, take=None, source=None, state="done", pinned=False, landed=True):
        at_ns = time.time_ns() - int(days_old * DAY_NS)
        blob = None if source is None else Blob(sha256=source, channels=1, frames=480)
        task = "text2music" if source is None else "repaint"
        self.journal.submit(name, Order(task=task, frames=480, source=blob), b"", None, at_ns, 99)
        if state == "cancelled":
            self.journal.move(name, "cancelled", at_ns)
        elif state == "done":
            audio = Blob(sha256=take, channels=1, frames=max(1, (self.store.size(take) or 0) // 4))
            for step in ("leased", "running", "storing"):
                self.journal.move(name, step, at_ns)
            takes = b"\x91" + msgspec.msgpack.encode(Take(seed=0, audio=audio))
            self.journal.move(name, "done", at_ns, "", frozenset({take}), takes=takes)
        if landed and state == "done":
            self.journal.set_landed(name, "/song-punchin.rpp")
        if pinned:
            self.journal.set_pinned(name, True)

    def collect(self, dry_run=False):
        return retention.collect(self.journal, self.store, 0, dry_run)

    def has(self, name):
        return self.journal.has(name)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path)
    yield disk
    disk.journal.close()


def test_old_jobs_go_with_their_blobs_and_young_ones_stay(disk):
    old, young, shared = (disk.blob(word, 8 * 86_400) for word in (b"old.", b"young...", b"shared"))
    disk.job("old-job-0001", 7.1, old, shared)
    disk.job("young-job-01", 6.9, young, shared)
    done = disk.collect()
    assert (done.jobs, done.blobs, done.freed_bytes) == (1, 1, 4)
    assert not disk.has("old-job-0001")
    assert disk.has("young-job-01")
    assert disk.store.size(old) is None
    assert disk.store.size(young) == 8
    assert disk.store.size(shared) == 6  # the young one still uses it
    assert retention.missing(disk.journal, disk.store) == 0
    with pytest.raises(UnknownJob):
        disk.journal.events("old-job-0001", 0, 9)


def test_takes_that_have_not_landed_stay_longer_and_go_last(disk, monkeypatch):
    for name, days_old in (("wait-job-029", 29), ("wait-job-031", 31), ("land-job-001", 1)):
        disk.job(name, days_old, disk.blob(name.encode(), 40 * 86_400), landed="land" in name)
    assert disk.collect().jobs == 1
    assert [disk.has(f"wait-job-{days}") for days in ("029", "031")] == [True, False]
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 13)
    disk.collect()
    assert not disk.has("land-job-001"), "it goes for room, though it is younger"
    assert disk.has("wait-job-029")
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    disk.collect()
    assert not disk.has("wait-job-029")


@pytest.mark.parametrize("years", [14, 26])
def test_an_age_of_years_is_a_clock_that_is_wrong_and_goes_for_room_alone(disk, monkeypatch, years):
    """A machine that started with the clock of 2040, or made a job while its clock said 2000."""
    disk.job("wait-job-001", years * 365, disk.blob(b"take", years * 365 * 86_400), landed=False)
    disk.job("land-job-001", years * 365, disk.blob(b"another", years * 365 * 86_400))
    disk.job("land-job-002", 364, disk.blob(b"third", 364 * 86_400))
    assert disk.collect().jobs == 1
    assert [disk.has(name) for name in ("wait-job-001", "land-job-001", "land-job-002")] == [True, True, False]
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    assert disk.collect().jobs == 2


@pytest.mark.parametrize("days", [1, 8, 40, 14 * 365])
def test_a_date_that_is_yet_to_come_is_no_age_and_goes_for_room_in_the_end(disk, monkeypatch, days):
    """Jobs made while the clock was ahead, from the start; it is right now."""
    disk.job("wait-job-001", -days, disk.blob(b"take", -days * 86_400), landed=False)
    disk.job("land-job-001", -days, disk.blob(b"another", -days * 86_400))
    nobodys = disk.blob(b"nobody's", -days * 86_400)
    disk.store.begin("ab" * 32, 9).append(memoryview(b"half"))
    at_s = time.time() + days * 86_400
    os.utime(disk.store.parts / ("ab" * 32), (at_s, at_s))
    done = disk.collect()
    assert (done.jobs, done.blobs, done.freed_bytes) == (0, 1, 8)
    assert disk.store.size(nobodys) is None
    assert list(disk.store.parts.iterdir()) == []
    assert [disk.has(name) for name in ("wait-job-001", "land-job-001")] == [True, True]
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 4)
    assert (disk.collect().jobs, disk.has("wait-job-001"), disk.has("land-job-001")) == (1, True, False)
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    disk.collect()
    assert list(disk.store.everything()) == []


def test_what_was_made_within_the_hour_by_a_clock_that_was_set_back_stays(disk, monkeypatch):
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    disk.job("just-made-01", -0.5 / 24, disk.blob(b"young", -1_800))
    disk.blob(b"just put", -1_800)
    assert (disk.collect().jobs, len(list(disk.store.everything()))) == (0, 2)


def test_what_is_pinned_or_under_way_is_never_too_old(disk):
    take, source = disk.blob(b"pinned", 99 * 86_400), disk.blob(b"x" * 1_920, 99 * 86_400)
    disk.job("pinned-job-1", 99, take, pinned=True)
    disk.job("waiting-job1", 99, source=source, state="queued")
    disk.job("cancelled-01", 99, state="cancelled")
    done = disk.collect()
    assert (done.jobs, done.blobs) == (1, 0)
    assert disk.has("pinned-job-1")
    assert disk.has("waiting-job1")
    disk.journal.set_pinned("pinned-job-1", False)
    assert disk.collect().jobs == 1
    assert disk.store.size(take) is None


def test_over_size_the_oldest_go_first_and_no_more_than_needed(disk, monkeypatch):
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 2_500)
    for number in range(5):
        disk.job(f"job-number-{number}", 5 - number, disk.blob(bytes([number]) * 1_000, 4_000))
    done = disk.collect()
    assert [disk.has(f"job-number-{number}") for number in range(5)] == [False, False, False, True, True]
    assert (done.jobs, done.freed_bytes, done.kept_bytes) == (3, 3_000, 2_000)


def test_a_dry_run_says_the_same_and_does_nothing(disk):
    disk.job("old-job-0001", 8, disk.blob(b"old", 4_000))
    disk.blob(b"nobody's", 4_000)
    said = disk.collect(dry_run=True)
    assert disk.has("old-job-0001")
    assert len(list(disk.store.everything())) == 2
    assert disk.collect() == said
    assert list(disk.store.everything()) == []


def test_a_blob_that_nobody_uses_is_spared_for_an_hour(disk):
    young, old = disk.blob(b"just put", 3_500), disk.blob(b"left behind", 3_700)
    disk.collect()
    assert disk.store.size(young) == 8
    assert disk.store.size(old) is None


def test_what_was_made_within_the_hour_stays_even_if_the_store_is_over_size(disk, monkeypatch):
    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    take, source = disk.blob(b"take", 4_000), disk.blob(b"x" * 1_920, 8 * 86_400)
    disk.job("an-hour-old1", 1.1 / 24, take)
    disk.job("just-made-01", 0.5 / 24, disk.blob(b"young"))
    disk.job("a-week-old-1", 8, disk.blob(b"old", 8 * 86_400), source)
    os.utime(disk.store.path(source))  # put again for a job that is not submitted yet
    assert (disk.collect().jobs, disk.store.size(take)) == (2, None)
    assert disk.has("just-made-01")
    assert disk.store.size(source) == 1_920


def test_so_many_at_once(disk):
    for number in range(5):
        disk.job(f"job-number-{number}", 8, disk.blob(bytes([number]), 8 * 86_400))
    goes = [retention.collect(disk.journal, disk.store, 0, False, most_blobs=2) for _ in range(4)]
    assert [(done.jobs, done.blobs, done.kept_bytes) for done in goes] == [(5, 2, 3), (0, 2, 1), (0, 1, 0), (0, 0, 0)]


def test_ten_thousand_jobs_are_marked_in_one_go_each(disk, monkeypatch):
    """Over size, the worst case: counted in looks at a blob's size, not in time."""
    looks = 0

    class Sizes(dict):
        def __getitem__(self, key):
            nonlocal looks
            looks += 1
            return super().__getitem__(key)

    monkeypatch.setattr(retention, "MAX_STORE_BYTES", 0)
    monkeypatch.setattr(disk.journal, "ended", lambda: [(number, 1, False) for number in range(10_000)])
    monkeypatch.setattr(disk.journal, "users", lambda: {f"blob {number}": {number} for number in range(10_000)})
    doomed, freed = retention._mark(disk.journal, Sizes({f"blob {number}": (9, 1e9) for number in range(10_000)}))
    assert (len(doomed), len(freed)) == (10_000, 10_000)
    assert looks < 20_000


def test_a_crash_between_journal_and_sweep_leaves_only_what_the_next_takes(disk, monkeypatch):
    disk.job("old-job-0001", 8, disk.blob(b"old", 8 * 86_400))
    monkeypatch.setattr(disk.store, "remove_old", lambda *given: (_ for _ in ()).throw(SystemError("killed here")))
    with pytest.raises(SystemError):
        disk.collect()
    monkeypatch.undo()
    assert retention.missing(disk.journal, disk.store) == 0
    assert disk.collect().blobs == 1


def test_an_upload_that_ends_while_old_ones_are_looked_for_is_no_error(disk, monkeypatch):
    """The data thread renames a part between the listing and the look at its age."""
    (disk.store.parts / "old").write_bytes(b"left behind")
    os.utime(disk.store.parts / "old", (1, 1))
    listed = [disk.store.parts / "gone", disk.store.parts / "old"]
    monkeypatch.setattr(type(disk.store.parts), "iterdir", lambda folder: iter(listed))
    disk.store.drop_old_parts(3_600)
    assert not (disk.store.parts / "old").exists()


def test_a_blob_that_is_removed_while_all_are_looked_at_is_no_error(disk):
    """The thread that tells a worker of its job removes what it finds damaged."""
    (disk.store.blobs / "ab").mkdir()
    for name in ("1", "2", "3"):
        (disk.store.blobs / "ab" / name).write_bytes(b"x")
    found = disk.store.everything()
    assert next(found)[0] == "ab1"
    os.utime(disk.store.blobs / "ab" / "2", (1, 1))
    assert disk.store.remove_old("ab2", 3_600)
    assert [sha256 for sha256, _, _ in found] == ["ab3"]


def test_a_blob_that_is_put_again_while_a_sweep_looks_stays(disk, monkeypatch):
    """The thread of uploads answers that it is there, and a job will name it."""
    old, again = disk.blob(b"old", age_s=7_200), disk.blob(b"again", age_s=7_200)
    users = disk.journal.users

    def meanwhile():
        assert disk.store.touch(again)
        return users()

    monkeypatch.setattr(disk.journal, "users", meanwhile)
    collected = disk.collect()
    assert (collected.blobs, collected.freed_bytes) == (1, 3)
    assert [disk.store.size(each) for each in (old, again)] == [None, 5]


def test_a_stray_file_among_the_attempts_keeps_no_daemon_from_starting(disk):
    disk.store.make_out_dir("job-00001", 1)
    (disk.store.takes / ".DS_Store").touch()
    disk.store.drop_attempts()
    assert [left.name for left in disk.store.takes.iterdir()] == [".DS_Store"]


def test_leftovers_of_an_attempt_that_cannot_be_removed_are_the_stores_error(disk):
    disk.store.out_dir("job-00001", 1).write_bytes(b"a file where the folder should be")
    with pytest.raises(StoreFull, match="Not a directory") as error:
        disk.store.make_out_dir("job-00001", 1)
    assert error.value.code == "disk"  # no room would help it, and so its job fails
