"""The scheduler against a world of its own: random events, a clock that only the test moves, what must always hold."""

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from punchin.daemon import happenings as h
from punchin.daemon import scheduler, waiting
from punchin.daemon.journal import MAY_BECOME
from punchin.daemon.scheduler import CANCEL_GRACE_NS, DRAIN_NS, LEASE_NS, SECOND, Board, next_tick_ns, step
from punchin.protocol.order import TERMINAL, Provenance

PROVENANCE = Provenance(model="identity")
LEASE_LONGEST_NS = LEASE_NS


class World:
    """Does what the scheduler says, and refuses what cannot be: an illegal move, two workers, a run while one runs."""

    def __init__(self):
        self.board, self.now_ns = Board(), 0
        self.states, self.history, self.starts = {}, {}, {}
        self.worker = None  # None, "starting", "idle", or the id of the job it runs
        self.dying = False
        self.storing, self.cancelled_at, self.ended = set(), {}, False
        self.leased_at = {}  # when each holder last asked for the device

    def happen(self, event):
        """One event; where it ends the daemon, the next one starts with the jobs that are left."""
        self.board, actions = step(self.board, event, self.now_ns)
        for action in actions:
            self.do(action)
        if self.ended:
            self.restart()

    def restart(self):
        assert not any(state in ("leased", "running", "storing") for state in self.states.values())
        self.worker, self.dying, self.ended = None, False, False
        cards = {job: card for job, card in self.board.cards.items() if job not in self.cancelled_at}
        for job in self.board.cards.keys() - cards.keys():
            self.do(h.Move(job, "cancelled"))
        self.board = Board(cards)
        self.happen(h.Tick())

    def do(self, action):
        match action:
            case h.Move(job, to):
                assert to in MAY_BECOME[self.states[job]], f"{self.states[job]} -> {to}"
                self.states[job] = to
                self.history[job].append(to)
                self.starts[job] += to == "leased"
                if to in TERMINAL:
                    assert sum(state in TERMINAL for state in self.history[job]) == 1
            case h.StartWorker():
                assert self.worker is None
                assert self.board.lease is None
                self.worker, self.dying = "starting", False
            case h.SendRun(job):
                assert self.worker == "idle"
                assert self.states[job] == "running"
                self.worker = job
            case h.SendCancel(job):
                assert self.worker == job
            case h.SendUnload():
                assert self.worker == "idle"
                self.dying = True
            case h.KillWorker():
                assert self.worker is not None
                self.dying = True
            case h.Keep(job):
                assert self.states[job] == "storing"
                self.storing.add(job)
            case h.Quit():
                self.ended = True

    # what the outside may do

    def submit(self, number, interactive, keep_alive_ns):
        job = f"job-{number:04}"
        self.states[job], self.history[job], self.starts[job] = "queued", ["queued"], 0
        self.happen(h.Submitted(h.Card(job, number, interactive, keep_alive_ns=keep_alive_ns)))

    def cancel(self, job):
        self.cancelled_at.setdefault(job, self.now_ns)
        self.happen(h.CancelAsked(job))

    def ready(self):
        self.worker = "idle"
        self.happen(h.WorkerReady())

    def gone(self):
        self.worker = None
        self.happen(h.WorkerGone("signal SIGKILL"))

    def answer(self, event):
        self.worker = "idle"
        self.happen(event)

    def pass_time(self, ns):
        """Time goes on, and the daemon wakes at each deadline as it promised itself."""
        end_ns = self.now_ns + ns
        while (due_ns := next_tick_ns(self.board)) is not None and due_ns <= end_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.happen(h.Tick())
            assert next_tick_ns(self.board) != due_ns, "a deadline that does not go away is a busy loop"
        self.now_ns = end_ns


class Life(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.world, self.number = World(), 0

    def jobs(self, *states):
        return sorted(job for job, state in self.world.states.items() if state in states)

    @rule(interactive=st.booleans(), keep=st.sampled_from([None, 0, -1, 10 * SECOND]))
    def submit(self, interactive, keep):
        self.number += 1
        self.world.submit(self.number, interactive, keep)

    @precondition(lambda self: self.world.states)
    @rule(data=st.data())
    def cancel(self, data):
        self.world.cancel(data.draw(st.sampled_from(sorted(self.world.states))))

    @precondition(lambda self: self.world.worker == "starting" and not self.world.dying)
    @rule()
    def worker_ready(self):
        self.world.ready()

    @precondition(lambda self: self.world.worker in self.world.states)
    @rule(how=st.sampled_from(["made", "stopped", "refused", "oom", "oom-next"]))
    def worker_answers(self, how):
        job, world = self.world.worker, self.world
        if how == "made":
            world.answer(h.WorkerMade(job, (), PROVENANCE))
        elif how == "stopped":
            if job in world.cancelled_at:
                world.answer(h.WorkerStopped(job))
        elif how == "refused":
            world.answer(h.WorkerFailed(job, "refused", "no"))
        else:
            world.answer(h.WorkerFailed(job, "oom", "full", next_rung=1 if how == "oom-next" else None))

    @precondition(lambda self: self.world.worker is not None)
    @rule()
    def worker_dies(self):
        self.world.gone()

    @precondition(lambda self: self.world.storing)
    @rule(well=st.booleans(), data=st.data())
    def stored(self, well, data):
        job = data.draw(st.sampled_from(sorted(self.world.storing)))
        self.world.storing.discard(job)
        self.world.happen(h.Stored(job, (), PROVENANCE) if well else h.NotStored(job, "disk_full", "full"))

    @rule(what=st.sampled_from([h.PauseAsked("user"), h.ResumeAsked(), h.UnloadAsked(), h.Tick()]))
    def steer(self, what):
        self.world.happen(what)

    @rule(who=st.sampled_from(["one", "other"]))
    def ask_for_the_device(self, who):
        world, before = self.world, self.world.board.lease
        if before is None or before.id == who:
            world.leased_at[who] = world.now_ns
        world.happen(h.LeaseAsked(who, "a training", 7, 0))
        lease = world.board.lease  # None: the daemon has ended, and nothing of it is left
        assert lease is None or lease.id == (before.id if before is not None else who)

    @rule(who=st.sampled_from(["one", "other"]))
    def release_the_device(self, who):
        world, before = self.world, self.world.board.lease
        world.happen(h.LeaseReleased(who))
        assert world.board.lease is None or (before is not None and before.id != who)

    @rule(when_idle=st.booleans())
    def stop(self, when_idle):
        self.world.happen(h.StopAsked(when_idle))

    @rule(seconds=st.sampled_from([0.1, 1, 3, 6, 400]))
    def time_passes(self, seconds):
        self.world.pass_time(int(seconds * SECOND))

    @rule(data=st.data())
    def old_news(self, data):
        """Messages about jobs that the worker does not run: late ones, or of jobs that never were."""
        job = data.draw(st.sampled_from([*sorted(self.world.states), "job-9999"]))
        if job == self.world.worker:
            return
        before = self.world.board
        for event in (h.WorkerMade(job, (), PROVENANCE), h.WorkerStopped(job), h.WorkerFailed(job, "bug", "")):
            self.world.happen(event)
        assert self.world.board == before

    @invariant()
    def board_is_the_journal(self):
        alive = {job: state for job, state in self.world.states.items() if state not in TERMINAL}
        assert {job: card.state for job, card in self.world.board.cards.items()} == alive

    @invariant()
    def one_at_a_time(self):
        assert len(self.jobs("leased", "running")) <= 1

    @invariant()
    def no_job_runs_for_ever(self):
        for job, card in self.world.board.cards.items():
            assert card.crashes < 2
            assert self.world.starts[job] <= 40  # cancels and drains put back; crashes and OOMs are bounded

    @invariant()
    def a_cancel_is_over_in_time(self):
        """3 s, then the worker is killed; its end is the world's business."""
        for job, at_ns in self.world.cancelled_at.items():
            if self.world.states[job] == "running" and self.world.now_ns > at_ns + CANCEL_GRACE_NS:
                assert self.world.dying

    @invariant()
    def the_device_is_lent_no_longer_than_its_holder_says(self):
        lease = self.world.board.lease
        if lease is not None:
            assert self.world.now_ns - self.world.leased_at[lease.id] < LEASE_LONGEST_NS
            assert self.world.worker != "idle" or self.world.dying, "a worker without work makes room"

    @invariant()
    def waiting_jobs_get_their_turn(self):
        world = self.world
        blocked = world.board.paused or world.board.stopping or world.dying or world.board.lease is not None
        if self.jobs("queued") and not blocked:
            assert world.worker is not None
            assert self.jobs("leased", "running")

    def teardown(self):
        """Whatever happened: with a worker that works, every job ends."""
        world = self.world
        for _ in range(20 * len(world.states) + 20):
            if not self.jobs("queued", "leased", "running", "storing"):
                return
            if world.storing:
                world.happen(h.Stored(world.storing.pop(), (), PROVENANCE))
            elif world.board.paused:
                world.happen(h.ResumeAsked())
            elif world.board.lease is not None:
                world.happen(h.LeaseReleased(world.board.lease.id))
            elif world.dying and world.worker is not None:
                world.gone()
            elif world.worker == "starting":
                world.ready()
            elif world.worker in world.states:
                world.answer(h.WorkerMade(world.worker, (), PROVENANCE))
            else:
                world.pass_time(DRAIN_NS)
        raise AssertionError(f"these never end: {self.jobs('queued', 'leased', 'running', 'storing')}")


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=250, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


FAULTS = {
    "crashes are not counted": ("MAX_CRASHES", 99),
    "deadlines pass unseen": ("_overdue", lambda board, now_ns, actions: board),
    "an answer of anybody counts": ("_runs", lambda board, job: job in board.cards),
    "a stop leaves the job": ("_stop", lambda board, now_ns, actions: replace(board, stopping=False)),
    "a lease is for ever": ("LEASE_NS", 10_000 * SECOND),
    "a worker that is busy gets more": ("_rest", lambda board, *_, **__: board),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_can_fail(fault, monkeypatch):
    monkeypatch.setattr(scheduler, *FAULTS[fault])
    short = settings(
        max_examples=300, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
    )
    with pytest.raises((AssertionError, KeyError)):
        run_state_machine_as_test(Life, settings=short)


@pytest.mark.nightly
def test_a_long_life():
    long = settings(max_examples=1_000, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Life, settings=long)


def test_who_waits_goes_first_then_who_came_first():
    world = World()
    world.happen(h.PauseAsked("user"))
    order = [(number, number % 3 == 0) for number in range(1, 10)]
    random.Random(1).shuffle(order)
    for number, interactive in order:
        world.submit(number, interactive, None)
    world.happen(h.ResumeAsked())
    world.ready()
    ran = []
    while world.worker in world.states:
        ran.append(int(world.worker[-4:]))
        world.answer(h.WorkerMade(world.worker, (), PROVENANCE))
    assert ran == [3, 6, 9, 1, 2, 4, 5, 7, 8]


def test_the_keep_alive_of_the_last_job_counts():
    world = World()
    world.submit(1, True, 10 * SECOND)
    world.ready()
    world.answer(h.WorkerMade("job-0001", (), PROVENANCE))
    world.pass_time(9 * SECOND)
    assert not world.dying
    world.pass_time(2 * SECOND)
    assert world.dying
    assert world.worker == "idle"


def test_a_worker_that_does_not_end_is_killed():
    world = World()
    world.submit(1, True, 0)
    world.ready()
    world.answer(h.WorkerMade("job-0001", (), PROVENANCE))
    assert world.board.bench.state == "ending"
    board, actions = step(world.board, h.Tick(), world.now_ns + 6 * SECOND)
    assert h.KillWorker() in actions
    assert next_tick_ns(board) is None


def test_a_worker_that_is_not_ready_in_time_is_killed_and_the_user_told_why():
    world = World()
    world.submit(1, True, 0)
    _, actions = step(world.board, h.Tick(), world.now_ns + 121 * SECOND)
    assert actions == (h.KillWorker("it was not ready within 120 s"),)


def ask(world, who="one"):
    world.leased_at[who] = world.now_ns
    world.happen(h.LeaseAsked(who, "a training", 7, 0))
    return waiting.lease_of(world.board)


def test_a_lease_lets_the_running_job_end_then_the_worker_and_the_others_wait():
    world = World()
    for number in (1, 2):
        world.submit(number, True, None)
    world.ready()
    lease = ask(world)
    assert (lease.granted, lease.waits_for) == (False, "job job-0001")
    assert waiting.why(world.board) == "waiting: a training (pid 7) gets the device next"
    world.answer(h.WorkerMade("job-0001", (), PROVENANCE))
    assert (world.dying, ask(world).waits_for) == (True, "the engine to end")
    world.gone()
    assert ask(world).granted
    assert waiting.why(world.board) == "waiting: a training (pid 7) holds the device"
    assert world.states["job-0002"] == "queued"
    world.pass_time(LEASE_NS - 1)
    assert ask(world).granted  # a word in time
    world.pass_time(LEASE_NS - 1)
    assert world.worker is None
    world.pass_time(1)  # silence
    assert (world.worker, world.states["job-0002"], waiting.why(world.board)) == ("starting", "leased", "")


def test_one_lease_at_a_time_and_anothers_release_is_nothing():
    world = World()
    assert ask(world).granted
    world.happen(h.LeaseAsked("other", "a training", 8, 0))
    world.happen(h.LeaseReleased("other"))
    assert waiting.lease_of(world.board).pid == 7
    world.happen(h.LeaseReleased("one"))
    assert waiting.lease_of(world.board) is None
    assert next_tick_ns(world.board) is None


def test_a_stop_when_idle_waits_for_a_lease_and_a_stop_does_not():
    world = World()
    ask(world)
    board, actions = step(world.board, h.StopAsked(when_idle=True), 0)
    assert actions == ()
    assert step(board, h.LeaseReleased("one"), 0)[1] == (h.Quit(),)
    assert step(world.board, h.StopAsked(), 0)[1] == (h.Quit(),)


def test_a_stop_when_idle_does_not_wait_for_a_paused_queue():
    """Its jobs wait for the next start as well as for this one's resume."""
    world = World()
    world.submit(1, True, None)
    world.submit(2, True, None)
    world.ready()
    board, _ = step(world.board, h.StopAsked(when_idle=True), 0)
    board, actions = step(board, h.PauseAsked("by the user"), 0)
    assert h.Quit() not in actions
    board, _ = step(board, h.WorkerMade("job-0001", (), PROVENANCE), 0)
    assert step(board, h.Stored("job-0001", (), PROVENANCE), 0)[1][-1] == h.Quit()


def test_a_worker_that_ends_with_its_daemon_is_no_crash_of_the_job():
    """A logout sends SIGTERM to both; here to a job that crashed once already."""
    world = World()
    world.submit(1, True, None)
    world.ready()
    world.gone()
    world.ready()
    board, _ = step(world.board, h.StopAsked(), 0)
    board, actions = step(board, h.WorkerGone("signal SIGTERM"), 0)
    text = "the daemon stops; this job waits for its next start"
    assert actions == (h.Move("job-0001", "queued", text), h.Quit())
    assert board.cards["job-0001"].crashes == 1


def test_on_a_full_disk_the_job_waits_and_a_cancel_of_it_holds():
    world = World()
    for number in (1, 2):
        world.submit(number, True, None)
    world.ready()
    world.answer(h.WorkerFailed("job-0001", "disk_full", "no space"))
    assert world.board.paused == "the disk is full: no space"
    assert set(world.states.values()) == {"queued"}
    world.gone()
    world.happen(h.ResumeAsked())
    world.ready()
    world.answer(h.WorkerMade("job-0001", (), PROVENANCE))
    world.cancel("job-0001")
    world.happen(h.PauseAsked("by the user"))
    world.happen(h.NotStored("job-0001", "disk_full", "no space"))
    assert (world.states["job-0001"], world.board.paused) == ("cancelled", "by the user")
