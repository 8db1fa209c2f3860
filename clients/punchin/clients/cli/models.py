"""`punchin models`: which there are, which are here; get one, remove one."""

from __future__ import annotations

import argparse
import json
from typing import Any, TextIO

from punchin.clients.cli import arguments, parts
from punchin.clients.cli.table import table
from punchin.clients.cli.talk import Talk
from punchin.protocol import home, installed, machine
from punchin.protocol.link import Ready
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
    listed, here = installed.every().values(), machine.survey()
    if args.json:
        print(json.dumps([facts(model, here) for model in listed]), file=out)
        return 0
    heads = "NAME", "SIZE", "MEMORY", "HERE", "STEPS", "SHIFT", "GUIDANCE", "STEMS", "LICENCE", "LIKE"
    print(table(heads, [_row(model, here) for model in listed]), file=out)
    talk.say(f"models lie in {home.models()}; memory on {_meant(here)}")
    return 0


def needed(model: Model, here: Ready) -> tuple[int, int]:
    """The least bytes of memory that a model needs on a machine, and those it takes where there is plenty.

    On a GPU parts can take turns. A CPU has nowhere else to put one; where it does not multiply bfloat16 itself,
    models are in float32, and in bfloat16 where memory is short.
    """
    if not here.device.startswith("cpu"):
        return model.least_memory_bytes, model.memory_bytes
    return model.memory_bytes, model.memory_bytes // 2 * here.weight_bytes


def facts(model: Model, here: Ready) -> dict[str, Any]:
    """A model as plain data, with the memory it needs on this machine."""
    folder = installed.folder(model)
    least, most = needed(model, here)
    return {
        "name": model.name,
        "size_bytes": model.size_bytes,
        "installed": installed.is_here(model),
        "folder": str(folder) if folder else None,
        "repository": model.repository or None,
        "memory_bytes": most or None,
        "least_memory_bytes": least or None,
        "licence": model.licence or None,
        "like": model.like or None,
        "steps": model.steps,
        "shift": model.shift,
        "guidance": model.guidance,
        "turbo": model.turbo,
        "stems": model.stems,
    }


def _meant(here: Ready) -> str:
    """What the two numbers of a model's memory are."""
    if not here.device.startswith("cpu"):
        return f"{here.device}: with parts taking turns, and with all on it"
    return "this CPU: in bfloat16" + ("" if here.weight_bytes == 2 else ", and in float32")


def _row(model: Model, here: Ready) -> tuple[object, ...]:
    size = f"{model.size_bytes / 1e9:.1f} GB" if model.size_bytes >= 1e8 else f"{model.size_bytes / 1e6:.0f} MB"
    least, most = (f"{size / 1e9:.1f}" for size in needed(model, here))
    memory = (f"{most} GB" if least == most else f"{least}-{most} GB") if model.memory_bytes else "-"
    is_here, stems = ("yes" if so else "" for so in (installed.is_here(model), model.stems))
    guidance = "-" if model.turbo else f"{model.guidance:g}"
    licence, like = model.licence or "-", model.like
    return (
        model.name,
        size if model.size_bytes else "-",
        memory,
        is_here,
        model.steps,
        f"{model.shift:g}",
        guidance,
        stems,
        licence,
        like,
    )
