"""`python -m punchin.plugin_host`: the plugin host of a client, or with a word after it, something for people."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from punchin.plugin_host.effects import EFFECTS, parameters
from punchin.protocol.errors import PunchinError


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m punchin.plugin_host", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", metavar="list | play")
    listing = verbs.add_parser("list", help="the effects a chain may name, their parameters, ranges and [defaults]")
    listing.add_argument("effect", nargs="?", metavar="EFFECT", help="only this one")
    playing = verbs.add_parser("play", help="play an audio file")
    playing.add_argument("file", type=Path)
    playing.add_argument("--device", help="name of the output device [the system's own]")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.verb == "list":
            print(_list(chosen.effect))
            return 0
        if chosen.verb == "play":
            from punchin.plugin_host.play import play

            play(chosen.file, chosen.device)
            return 0
        if sys.stdin.isatty():
            parser.print_help(sys.stderr)
            return 2
        from punchin.plugin_host.serve import serve

        return serve()
    except PunchinError as error:
        print(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _list(effect: str | None) -> str:
    lines: list[str] = []
    for name in [effect] if effect else EFFECTS:
        lines.append(name)
        lines += [f"  {key} = {parameter}" for key, parameter in parameters(name).items()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
