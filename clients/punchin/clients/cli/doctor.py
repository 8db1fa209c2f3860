"""`punchin doctor`: a line for each check, with the command that mends it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.talk import Talk


def doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin doctor`."""
    parser.add_argument("--report", action="store_true", help="write findings and log into a file that can be sent")
    arguments.json_argument(parser)


def doctor(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Check everything; exit 1 when something must be mended."""
    from punchin.clients import doctor as checks

    found, lines = [], []
    for finding in checks.findings():
        found.append(finding)
        lines.append(f"{finding.verdict:<5} {finding.text}")
        if finding.cure:
            lines.append(f"      {finding.cure}")
        if not args.json:
            print("\n".join(lines[-2:] if finding.cure else lines[-1:]), file=out, flush=True)
    failed, warned = (sum(finding.verdict == verdict for finding in found) for verdict in ("fail", "warn"))
    if args.json:
        print(json.dumps([asdict(finding) for finding in found]), file=out)
    else:
        talk.say(f"{_count(failed, 'problem')}, {_count(warned, 'warning')}.")
    if args.report:
        talk.say(f"written to {checks.report(lines)}")
    return 1 if failed else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
