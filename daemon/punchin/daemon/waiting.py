"""What a queued job waits for, and what a lease of the device waits for, in words."""

from __future__ import annotations

from punchin.daemon.scheduler import Board
from punchin.protocol.messages import Lease


def why(board: Board) -> str:
    """Why queued jobs do not begin; "" where they only wait for each other."""
    return on_lease(board) or (f"paused ({board.paused}); punchin resume" if board.paused else "")


def on_lease(board: Board) -> str:
    """Who has the device, or gets it next; "" if it is the engine's."""
    lease = lease_of(board)
    if lease is None:
        return ""
    who = f"{lease.holder} (pid {lease.pid})"
    return f"waiting: {who} holds the device" if lease.granted else f"waiting: {who} gets the device next"


def lease_of(board: Board) -> Lease | None:
    """The lease of the device as clients see it: granted once there is no worker."""
    lease, bench = board.lease, board.bench
    if lease is None:
        return None
    job = next((card.id for card in board.cards.values() if card.state in ("leased", "running")), None)
    waits_for = "" if bench.state == "absent" else f"job {job}" if job is not None else "the engine to end"
    return Lease(
        id=lease.id,
        holder=lease.holder,
        pid=lease.pid,
        since_ns=lease.since_ns,
        granted=not waits_for,
        waits_for=waits_for,
    )
