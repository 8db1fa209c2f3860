"""`punchin models`: which there are, which are here; get one, remove one."""

from __future__ import annotations

import argparse
import json
from typing import Any, TextIO

from punchin.clients.cli import arguments, parts
from punchin.clients.cli.table import table
from punchin.clients.cli.talk import Talk
from punchin.protocol import home, installed
from punchin.protocol.models import Model


def models_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `punchin models`."""
    does = parser.add_subparsers(dest="does", metavar="list | pull | rm", parser_class=type(parser))
    arguments.json_argument(does.add_parser("list", help="all models by name (the default)"), argparse.SUPPRESS)
    pull = does.add_parser("pull", help="NAME: download a model, or take in one of your own")
    pull.add_argument("model", metavar="NAME")
    pull.add_argument("--from", dest="source", metavar="huggingface|modelscope|PATH", default="huggingface",
                      help="a hub, a folder with models, or one safetensors file (default: %(default)s); "
                      "under a NAME of your own the folder of your model")  # fmt: skip
    remove = does.add_parser("rm", help="NAME: remove a downloaded model, or one of your own")
    remove.add_argument("model", metavar="NAME")
    arguments.json_argument(parser)


def models(args: argparse.Namespace, out: TextIO, talk: Talk) -> int:
    """List models, or hand over to the hub's own process, which loads what downloads need."""
    if args.does in ("pull", "rm"):
        source = ["--from", args.source] if args.does == "pull" else []
        parts.become("punchin.engine.hub", [args.does, args.model, *source], "hub")
    listed = installed.every().values()
    if args.json:
        print(json.dumps([facts(model) for model in listed]), file=out)
        return 0
    heads = "NAME", "SIZE", "MEMORY", "HERE", "STEPS", "SHIFT", "GUIDANCE", "STEMS", "LICENCE", "LIKE"
    print(table(heads, [_row(model) for model in listed]), file=out)
    talk.say(f"models lie in {home.models()}; memory: the least with parts taking turns, and with all on the device")
    return 0


def facts(model: Model) -> dict[str, Any]:
    """A model as plain data."""
    folder = installed.folder(model)
    return {
        "name": model.name,
        "size_bytes": model.size_bytes,
        "installed": installed.is_here(model),
        "folder": str(folder) if folder else None,
        "repository": model.repository or None,
        "memory_bytes": model.memory_bytes or None,
        "least_memory_bytes": model.least_memory_bytes or None,
        "licence": model.licence or None,
        "like": model.like or None,
        "steps": model.steps,
        "shift": model.shift,
        "guidance": model.guidance,
        "turbo": model.turbo,
        "stems": model.stems,
    }


def _row(model: Model) -> tuple[object, ...]:
    size = f"{model.size_bytes / 1e9:.1f} GB" if model.size_bytes >= 1e8 else f"{model.size_bytes / 1e6:.0f} MB"
    memory = "-"
    if model.memory_bytes:
        memory = f"{model.least_memory_bytes / 1e9:.1f}-{model.memory_bytes / 1e9:.1f} GB"
    here, stems = ("yes" if so else "" for so in (installed.is_here(model), model.stems))
    guidance = "-" if model.turbo else f"{model.guidance:g}"
    licence, like = model.licence or "-", model.like
    return (
        model.name,
        size if model.size_bytes else "-",
        memory,
        here,
        model.steps,
        f"{model.shift:g}",
        guidance,
        stems,
        licence,
        like,
    )
