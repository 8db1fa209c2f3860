"""What can happen to the scheduler, and what it can order. Values alone; the rules stand in `scheduler`."""

from __future__ import annotations

from dataclasses import dataclass

from punchin.protocol.link import MadeTake
from punchin.protocol.order import JobId, Provenance, State, Take


@dataclass(frozen=True, slots=True)
class Card:
    """What the scheduler knows of a job that has not ended."""

    id: JobId
    number: int  # order of submission
    interactive: bool = True
    state: State = "queued"
    crashes: int = 0
    ooms: int = 0
    rung: int = 0
    keep_alive_ns: int | None = None  # None: the default; negative: for ever
    cancel_by_ns: int | None = None  # asked to stop; then the worker is killed

    @property
    def rank(self) -> tuple[bool, int]:
        """Who waits goes first, then who came first."""
        return (not self.interactive, self.number)


@dataclass(frozen=True, slots=True)
class DeviceLease:
    """A process beside the engine has the device, or gets it when the worker has ended."""

    id: str
    holder: str
    pid: int
    since_ns: int  # Unix time
    by_ns: int  # without a word from its holder it is over then


# ---- events: what happened ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job is in the journal."""

    card: Card


@dataclass(frozen=True, slots=True)
class CancelAsked:
    """Somebody wants a job to stop; the journal knows it."""

    job: JobId


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The worker reads commands."""


@dataclass(frozen=True, slots=True)
class WorkerMade:
    """The worker's takes are in files."""

    job: JobId
    takes: tuple[MadeTake, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class WorkerStopped:
    """The worker gave a job up, as asked."""

    job: JobId


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """The worker says that a job cannot be made."""

    job: JobId
    code: str
    text: str
    hint: str = ""
    next_rung: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """The worker's process has ended; `how` in words."""

    how: str


@dataclass(frozen=True, slots=True)
class Stored:
    """The takes of a job are blobs."""

    job: JobId
    takes: tuple[Take, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class NotStored:
    """The takes of a job could not become blobs."""

    job: JobId
    code: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Start no further job."""

    why: str


@dataclass(frozen=True, slots=True)
class ResumeAsked:
    """Start jobs again."""


@dataclass(frozen=True, slots=True)
class UnloadAsked:
    """End the worker if it is idle."""


@dataclass(frozen=True, slots=True)
class LeaseAsked:
    """Somebody wants the device, or still does."""

    id: str
    holder: str
    pid: int
    at_ns: int  # Unix time


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """The device is needed no more."""

    id: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """End the daemon: now, or when nothing is left to do."""

    when_idle: bool = False


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Happening = (
    Submitted | CancelAsked | WorkerReady | WorkerMade | WorkerStopped | WorkerFailed | WorkerGone
    | Stored | NotStored | PauseAsked | ResumeAsked | UnloadAsked | LeaseAsked | LeaseReleased | StopAsked | Tick
)  # fmt: skip


# ---- actions: what to do --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Move:
    """Commit and publish a job's next state."""

    job: JobId
    to: State
    text: str = ""
    code: str = ""  # failed: error_code; text and hint go with it
    hint: str = ""
    crashed: bool = False
    rung: int | None = None  # after an OOM
    takes: tuple[Take, ...] = ()
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start the worker's process."""


@dataclass(frozen=True, slots=True)
class SendRun:
    """Tell the worker to run a job."""

    job: JobId


@dataclass(frozen=True, slots=True)
class SendCancel:
    """Tell the worker to stop a job."""

    job: JobId


@dataclass(frozen=True, slots=True)
class SendUnload:
    """Tell the worker to end."""


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End the worker's process now; why in words, where its end is told to people."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Keep:
    """Make a job's take files blobs."""

    job: JobId
    takes: tuple[MadeTake, ...]
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Quit:
    """Nothing is left to do: end the daemon."""


Action = Move | StartWorker | SendRun | SendCancel | SendUnload | KillWorker | Keep | Quit
