"""`punchin clock`: the tempo and position that a DAW sends as MIDI clock."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, TextIO

from punchin.clients.cli import arguments
from punchin.clients.cli.talk import Talk
from punchin.protocol.errors import Refused

if TYPE_CHECKING:
    from punchin.clients.midi import listen
    from punchin.clients.midi.clock import ClockState

REFRESH_S = 0.1


def clock_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin clock`."""
    port_argument(parser, "--port")
    parser.add_argument("--list", action="store_true", help="the MIDI inputs of this machine")
    parser.add_argument("--signature", metavar="N/D", type=arguments.signature, default=(4, 4), help="default: 4/4")
    parser.add_argument("--once", action="store_true", help="end when the tempo is sure")
    parser.add_argument("--json", action="store_true", help="one JSON object when the tempo is sure, alone on stdout")


def port_argument(parser: argparse._ActionsContainer, name: str) -> None:
    """Which port is listened to."""
    parser.add_argument(name, metavar="NAME", help="a part of a MIDI input's name, or socket:HOST:PORT")


def clock(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """Show the clock live, until ctrl-C. Raises Refused where what sends it is gone."""
    from punchin.clients.midi import listen

    if args.list:
        names = listen.inputs()
        print(json.dumps(names) if args.json else "\n".join(names), file=out)
        return 0
    with listen.listen(args.port) as ear:
        if args.json or args.once:
            state = ear.wait_sure()
            print(json.dumps(asdict(state)) if args.json else words(state, args.signature), file=out)
            return 0
        try:
            _show(ear, args.signature, out, talk)
        except KeyboardInterrupt:
            talk.say("")
    return 0


def heard(port: str | None, talk: Talk) -> float:
    """The tempo that a DAW sends, once it is sure; for `--bpm clock`."""
    from punchin.clients.midi import listen

    talk.say("listening to MIDI clock ...")
    bpm, error = listen.tempo(port)
    talk.say(f"  {bpm:g} bpm, give or take {2 * error:.2f}")
    return bpm


def _show(ear: listen.Ear, signature: tuple[int, int], out: TextIO, talk: Talk) -> None:
    """The state as one line that changes; where there is no terminal, a line for each new one. Ends with what sends."""
    said = ""
    while not ear.ended:
        ear.wait(REFRESH_S)
        text = words(ear.state(), signature)
        if text == said:
            continue
        said = text
        if out.isatty():
            out.write(f"\r\x1b[K{text}")
        else:
            print(text, file=out)
        out.flush()
    if out.isatty():
        print(file=out)
    raise Refused("the MIDI connection ended", "start what sends it again", "no_clock")


def words(state: ClockState, signature: tuple[int, int]) -> str:
    """A clock's state in a few words: `97.35 bpm, bar 5 beat 3, playing`."""
    if state.bpm is None:
        return "no clock"
    parts = [f"{state.bpm:.2f} bpm" + ("" if state.sure else " or so")]
    if state.beats is not None:
        beat = int(state.beats * signature[1] / 4)
        parts.append(f"bar {beat // signature[0] + 1} beat {beat % signature[0] + 1}")
    return ", ".join([*parts, "clock lost" if not state.ticking else "playing" if state.running else "stopped"])
