"""What client and daemon say to each other on three sockets. The daemon binds all of them.

control  DEALER -> ROUTER  requests and their one reply each; a request is below MAX_MESSAGE_BYTES
events   SUB <- XPUB       topic = job id (or `daemon`): events as they are committed; may lose, never reorders
data     DEALER -> ROUTER  blobs by sha256 in chunks; only chunks, so that no audio stands in front of a cancel

Frames: [b"punchin/1"] [msgpack of one Struct below] [raw bytes of a chunk, on data alone]; events have the topic first.
Every request carries `ask`, a number of the client's choosing that its reply repeats. All requests are safe to send
again. Unknown fields are skipped, an unknown `type` gets a Failure `unknown_kind`. The first request is Hello.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from punchin.protocol import limits
from punchin.protocol.order import Event, JobId, JobRecord, Order, Sha256

MAGIC: Final = b"punchin/1"
DAEMON_TOPIC: Final = "daemon"  # shorter than any job id
PLAN_BYTES: Final = 32 * 1024  # a landing plan
MAX_BLOB_BYTES: Final = 2**31
PAGE_JOBS: Final = 200  # records in one JobPage, fewer where they are big

Ask = Annotated[int, Meta(ge=0, lt=2**53)]
Size = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
Name = Annotated[str, Meta(max_length=100)]


# ---- requests on control --------------------------------------------------------------------------------------------


class Hello(Struct, tag="hello", frozen=True, kw_only=True):
    """Who asks, and which protocol versions it speaks. Answered by Welcome, or by Failure `version`."""

    ask: Ask
    lowest: int
    highest: int
    client: Name = ""
    version: Name = ""


class Submit(Struct, tag="submit", frozen=True, kw_only=True):
    """Ask for takes. Same id and content: the job as it stands. Same id, other content: Failure `conflict`.

    Answered by Job, after the commit. keep_alive_s: how long the model stays loaded after this job; 0 unloads at once,
    a negative number never, None is the daemon's default.
    """

    ask: Ask
    id: JobId
    order: Order
    plan: Annotated[bytes, Meta(max_length=PLAN_BYTES)] = b""
    keep_alive_s: Annotated[float, Meta(ge=-1, le=limits.KEEP_ALIVE_S)] | None = None


class GetStatus(Struct, tag="get_status", frozen=True, kw_only=True):
    """Answered by Status."""

    ask: Ask


class GetJob(Struct, tag="get_job", frozen=True, kw_only=True):
    """Answered by Job, or Failure `unknown_job`."""

    ask: Ask
    id: JobId


class ListJobs(Struct, tag="list_jobs", frozen=True, kw_only=True):
    """Answered by JobPage: newest first, those submitted before job `before`, without their plans."""

    ask: Ask
    before: JobId | None = None
    most: Annotated[int, Meta(ge=1, le=PAGE_JOBS)] = PAGE_JOBS


class Attach(Struct, tag="attach", frozen=True, kw_only=True):
    """Answered by History: the job's events with seq > since. Subscribe first, then attach, then drop what is older."""

    ask: Ask
    id: JobId
    since: Annotated[int, Meta(ge=0, lt=2**53)] = 0


class CancelJob(Struct, tag="cancel_job", frozen=True, kw_only=True):
    """Answered by Job at once; `cancelled` follows as an event unless the result came first."""

    ask: Ask
    id: JobId


class MarkLanded(Struct, tag="mark_landed", frozen=True, kw_only=True):
    """Remember where a done job's takes were landed. Answered by Job."""

    ask: Ask
    id: JobId
    where: Annotated[str, Meta(min_length=1, max_length=4_096)]


class Pin(Struct, tag="pin", frozen=True, kw_only=True):
    """Keep a job and its blobs whatever their age (or no longer). Answered by Job."""

    ask: Ask
    id: JobId
    pinned: bool = True


class Pause(Struct, tag="pause", frozen=True, kw_only=True):
    """Start no further job, and unload the model when the running one is done. Answered by Status."""

    ask: Ask


class Resume(Struct, tag="resume", frozen=True, kw_only=True):
    """Start jobs again. Answered by Status."""

    ask: Ask


class UnloadModel(Struct, tag="unload_model", frozen=True, kw_only=True):
    """End the idle worker process, and with it all its memory. Answered by Status; Failure `busy` while a job runs."""

    ask: Ask


class LeaseDevice(Struct, tag="lease_device", frozen=True, kw_only=True):
    """Take the device from the engine, for a process beside it. Ask again well within LEASE_S: silence ends the lease.

    The worker ends after the job that runs, if any; other jobs wait in the queue. Nothing of a lease survives the
    daemon. id: the holder's own choice, so that asking again is safe. holder, pid: what people are told.
    Answered by DeviceLease; Failure `busy` where another has it, or waits for it.
    """

    ask: Ask
    id: JobId
    holder: Annotated[str, Meta(min_length=1, max_length=100)]
    pid: Annotated[int, Meta(ge=1)]


class ReleaseDevice(Struct, tag="release_device", frozen=True, kw_only=True):
    """Give the device back to the engine. Answered by Status, also where there is no such lease."""

    ask: Ask
    id: JobId


class Collect(Struct, tag="collect", frozen=True, kw_only=True):
    """Forget old jobs and remove blobs that nothing refers to. Answered by Collected."""

    ask: Ask
    dry_run: bool = False


class Examine(Struct, tag="examine", frozen=True, kw_only=True):
    """Look at journal, store and disk. Answered by Examined."""

    ask: Ask


class Shutdown(Struct, tag="shutdown", frozen=True, kw_only=True):
    """End the daemon: now (a running job has 5 s, then it is queued again for the next start), or when idle."""

    ask: Ask
    when_idle: bool = False


Request = (
    Hello | Submit | GetStatus | GetJob | ListJobs | Attach | CancelJob | MarkLanded | Pin
    | Pause | Resume | UnloadModel | LeaseDevice | ReleaseDevice | Collect | Examine | Shutdown
)  # fmt: skip


# ---- replies on control ---------------------------------------------------------------------------------------------


class LimitValues(Struct, frozen=True, kw_only=True):
    """The daemon's limits, so that a client can say no before it sends."""

    max_message_bytes: int = limits.MAX_MESSAGE_BYTES
    chunk_bytes: int = limits.CHUNK_BYTES
    credit_chunks: int = limits.CREDIT_CHUNKS
    plan_bytes: int = PLAN_BYTES
    max_queue: int = limits.MAX_QUEUE
    max_seeds: int = limits.MAX_SEEDS
    max_regions: int = limits.MAX_REGIONS
    max_region_s: float = limits.REGION.high
    lease_s: float = limits.LEASE_S


class Welcome(Struct, tag="welcome", frozen=True, kw_only=True):
    """The daemon's answer to Hello. `instance` is one life of the daemon: another one means that it was restarted."""

    ask: Ask
    protocol: int
    version: str
    instance: str
    pid: int
    limits: LimitValues = LimitValues()


class WorkerStatus(Struct, frozen=True, kw_only=True):
    """The engine worker: a process that is there only while it is needed. Memory in bytes, as it said when it began."""

    pid: int
    state: str  # starting, idle, busy, ending
    device: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    plan: str = ""
    model: str = ""  # the model it ran last, "" before the first
    job: str = ""
    until_ns: int | None = None  # when it will be unloaded; None: not while it works, or never
    heard_ns: int | None = None  # when it last said something of its job; None: it has none


class Lease(Struct, frozen=True, kw_only=True):
    """Who has the device instead of the engine, or waits for it. waits_for: what comes first, "" once it is granted."""

    id: JobId
    holder: str
    pid: int
    since_ns: int
    granted: bool
    waits_for: str = ""


class DeviceLease(Struct, tag="device_lease", frozen=True, kw_only=True):
    """How a lease stands."""

    ask: Ask
    lease: Lease


class Status(Struct, tag="status", frozen=True, kw_only=True):
    """How the daemon is. Counters count from its start; times are Unix nanoseconds."""

    ask: Ask
    pid: int
    version: str
    protocol: int
    instance: str
    started_ns: int
    transport: str  # ipc or tcp+curve
    paused: bool
    paused_why: str = ""
    trouble: str = ""  # what keeps the journal from being written, "" is well
    trouble_hint: str = ""  # and what to do about it
    jobs: dict[str, int]  # how many in each state
    worker: WorkerStatus | None = None
    lease: Lease | None = None  # of the device
    keep_alive_s: float = 300.0
    idle_exit_s: float | None = None
    counters: dict[str, int] = {}


class Job(Struct, tag="job", frozen=True, kw_only=True):
    """One job as the journal has it."""

    ask: Ask
    record: JobRecord
    cancelling: bool = False  # asked to stop, still at it
    pinned: bool = False


class JobPage(Struct, tag="job_page", frozen=True, kw_only=True):
    """Some jobs, newest first; `more` says that there are older ones.

    damaged: ids of jobs between these that can no longer be read; the next page may tell the last of them again.
    """

    ask: Ask
    records: tuple[JobRecord, ...]
    more: bool
    damaged: tuple[str, ...] = ()  # as they stand in the journal, where they may be damaged, too


class Preview(Struct, frozen=True, kw_only=True):
    """A stretch of a take that is decoded already, in the store: `frames` from `start_frame` of the wanted frames."""

    seed: int
    index: int  # from 0, without gaps, within the passage's seed
    start_frame: int
    sha256: Sha256
    channels: int
    frames: int
    passage: int = 0


class History(Struct, tag="history", frozen=True, kw_only=True):
    """Events of a job after `since`, in order; `progress` is the newest unjournaled one while the job runs."""

    ask: Ask
    events: tuple[Event, ...]
    progress: Event | None = None
    previews: tuple[Preview, ...] = ()
    more: bool = False  # attach again from the last seq


class Collected(Struct, tag="collected", frozen=True, kw_only=True):
    """What gc removed, or would remove. It removes so many blobs at once; where it removed any, collect again."""

    ask: Ask
    jobs: int
    blobs: int
    freed_bytes: int
    kept_bytes: int


class Examined(Struct, tag="examined", frozen=True, kw_only=True):
    """What `doctor` shows of the daemon's disk. `journal` is `ok` or what SQLite's check found."""

    ask: Ask
    journal: str
    journal_jobs: int
    store_bytes: int
    store_limit_bytes: int
    disk_free_bytes: int
    missing_blobs: int  # of done jobs, not or not whole in the store; 0 is well
    damaged_jobs: tuple[str, ...] = ()  # ids of those that can no longer be read
    log: str  # its path


class Closing(Struct, tag="closing", frozen=True, kw_only=True):
    """The daemon will end; `when_idle` as asked."""

    ask: Ask
    when_idle: bool


class Failure(Struct, tag="failure", frozen=True, kw_only=True):
    """No, and why. `code` is for programs, the text for people. `ask` is 0 where the request could not be read."""

    ask: Ask
    code: str
    text: str
    hint: str = ""


Reply = Welcome | Status | Job | JobPage | History | DeviceLease | Collected | Examined | Closing | Failure


# ---- events ---------------------------------------------------------------------------------------------------------


class Happened(Struct, tag="event", frozen=True, kw_only=True):
    """An event, published after its commit; progress (seq 0) is published only."""

    event: Event


class Previewed(Struct, tag="preview", frozen=True, kw_only=True):
    """A further stretch of a running job's take can be fetched."""

    job: JobId
    preview: Preview


class Subscribed(Struct, tag="subscribed", frozen=True, kw_only=True):
    """Somebody's subscription to this topic is live: nothing from here on is missed by being late."""

    topic: str


class Beat(Struct, tag="beat", frozen=True, kw_only=True):
    """The daemon lives; on topic `daemon`, each second."""

    instance: str
    at_ns: int


Notice = Happened | Previewed | Subscribed | Beat


# ---- data -----------------------------------------------------------------------------------------------------------


class Put(Struct, tag="put", frozen=True, kw_only=True):
    """Announce a blob. Answered by Taken: from where to send, or that it is there already."""

    ask: Ask
    sha256: Sha256
    size_bytes: Size


class Chunk(Struct, tag="chunk", frozen=True, kw_only=True):
    """Bytes of an announced blob, in the frame after this one; at most CHUNK_BYTES. Answered by Taken.

    At most CREDIT_CHUNKS may be unanswered.
    """

    ask: Ask
    sha256: Sha256
    offset: Size


class Get(Struct, tag="get", frozen=True, kw_only=True):
    """Ask for one piece of a blob. Answered by Piece, or Failure `unknown_blob`.

    received: how many pieces this socket has received so far; it may be at most CREDIT_CHUNKS behind those sent.
    """

    ask: Ask
    sha256: Sha256
    offset: Size
    length: Annotated[int, Meta(ge=1, le=limits.CHUNK_BYTES)] = limits.CHUNK_BYTES
    received: Ask = 0


DataRequest = Put | Chunk | Get


class Taken(Struct, tag="taken", frozen=True, kw_only=True):
    """All bytes before `offset` are held. `stored`: the blob is whole, its hash is right, and it is on disk."""

    ask: Ask
    sha256: Sha256
    offset: int
    stored: bool


class Piece(Struct, tag="piece", frozen=True, kw_only=True):
    """A piece of a blob, in the frame after this one."""

    ask: Ask
    sha256: Sha256
    offset: int
    size_bytes: int  # of the whole blob


DataReply = Taken | Piece | Failure
