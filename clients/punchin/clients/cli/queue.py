"""`punchin pause`, `resume`, `unload`: the queue, and the memory that the model holds."""

from __future__ import annotations

import argparse
from typing import TextIO

from punchin.clients.cli.reach import reach
from punchin.clients.cli.talk import Talk


def pause_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin pause`."""


def pause(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Start no further job, and give the model's memory back when the running one is done."""
    with reach(talk) as client:
        waiting = client.pause().jobs.get("queued", 0)
    talk.say(f"the queue is paused; {waiting} jobs wait for punchin resume")
    return 0


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin resume`."""


def resume(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Start jobs again."""
    with reach(talk) as client:
        client.resume()
    talk.say("the queue goes on")
    return 0


def unload_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin unload`."""


def unload(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """End the idle worker process, and with it all its memory; refused while a job runs."""
    with reach(talk, start=False) as client:
        client.unload()
    talk.say("the model is unloaded")
    return 0
