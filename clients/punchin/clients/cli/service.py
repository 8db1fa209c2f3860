"""`punchin stop`, `status`, `ps`, `version`: the daemon, and what it holds."""

from __future__ import annotations

import argparse
import json
import time
from typing import Final, TextIO

import msgspec

from punchin.clients.cli import arguments
from punchin.clients.cli.reach import reach
from punchin.clients.cli.table import age, size, table
from punchin.clients.cli.talk import Talk
from punchin.protocol import version as versions
from punchin.protocol.messages import Lease

STILL_S: Final = 60.0  # without a word from the engine: the user should know


def stop_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin stop`."""
    parser.add_argument("--when-idle", action="store_true", help="after the jobs that run or wait")


def stop(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """End the daemon. That none runs is no error: it is what was asked for."""
    from punchin.clients import connect

    if not connect.stop(args.when_idle):
        talk.say("no daemon runs")
    else:
        talk.say("the daemon ends when it is idle" if args.when_idle else "the daemon has ended")
    return 0


def status_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin status`."""
    arguments.json_argument(parser)


def status(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Say how the daemon is; exit 3 where there is none."""
    with reach(talk, start=False) as client:
        found = client.status()
    if args.json:
        print(json.dumps(msgspec.to_builtins(found)), file=out)
        return 0
    counts = ", ".join(f"{count} {state}" for state, count in found.jobs.items() if count) or "none"
    print(f"daemon {found.version}, protocol {found.protocol}, pid {found.pid}, up {age(found.started_ns)}", file=out)
    print(f"jobs: {counts}{f' (paused: {found.paused_why})' if found.paused else ''}", file=out)
    if found.lease is not None:
        print(f"device: {_lent(found.lease)}", file=out)
    if found.trouble:
        talk.warn(found.trouble + (f": {found.trouble_hint}" if found.trouble_hint else ""))
    return 0


def ps_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin ps`."""
    arguments.json_argument(parser)


def ps(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Say which model is loaded, where, and until when; or which process has the device instead."""
    with reach(talk, start=False) as client:
        found = client.status()
    worker, lease = found.worker, found.lease
    if args.json:
        print(json.dumps([msgspec.to_builtins(each) for each in (worker, lease) if each is not None]), file=out)
        return 0
    if lease is not None:
        talk.say(f"the device: {_lent(lease)}")
    if worker is None and lease is None:
        talk.say("no model is loaded")
    if worker is None:
        return 0
    until = "-" if worker.until_ns is None else f"{max(worker.until_ns / 1e9 - time.time(), 0) / 60:.0f} m"
    free = f"{size(worker.free_bytes)} of {size(worker.total_bytes)}" if worker.total_bytes else "-"
    row = worker.model or "-", worker.device or "-", worker.pid, free, worker.state, worker.job or "-", until
    print(table(("MODEL", "DEVICE", "PID", "FREE AT START", "STATE", "JOB", "FOR"), [row]), file=out)
    if worker.plan:
        talk.say(worker.plan)
    if worker.heard_ns is not None and time.time() - worker.heard_ns / 1e9 > STILL_S:
        talk.warn(f"job {worker.job} has stood still for {age(worker.heard_ns)}; punchin cancel {worker.job} ends it")
    return 0


def _lent(lease: Lease) -> str:
    """Who has the device, or gets it after what."""
    who = f"{lease.holder} (pid {lease.pid})"
    return f"{who} has it, for {age(lease.since_ns)}" if lease.granted else f"{who} gets it after {lease.waits_for}"


def version_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin version`."""
    arguments.json_argument(parser)


def version(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Print the versions of package and protocol."""
    if args.json:
        print(json.dumps({"version": versions.PACKAGE, "protocol": versions.PROTOCOL}), file=out)
    else:
        print(f"punchin {versions.PACKAGE}, protocol {versions.PROTOCOL}", file=out)
    return 0
