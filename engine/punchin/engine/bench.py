"""`python -m punchin.engine.bench`: this engine against diffusers 0.42.1, over the same random weights, in one run.

The command line, and being stopped; torch is loaded after both. How it is measured: `benchrounds`. stdout gets JSON or
Markdown, stderr the talk. `punchin bench` runs it with the daemon's device to itself.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from punchin.protocol import stops
from punchin.protocol.errors import BadUsage, Cancelled, PunchinError, Refused
from punchin.protocol.holder import Holder
from punchin.protocol.usage import Parser

if TYPE_CHECKING:
    import torch


def say(text: str) -> None:
    """A line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit code."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.filterwarnings("ignore", module="torch.nn.utils|diffusers")  # the peer's, about its own weight norm
    try:
        arguments = _parser().read(sys.argv[1:] if given is None else given, sys.stdout)
        if arguments is None:
            return 0
        answer = _measured(arguments)
    except Cancelled as error:
        say(str(error))
        return error.exit_code
    except PunchinError as error:
        say(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""))
        return error.exit_code
    print(answer)
    return 0


def _measured(arguments: argparse.Namespace) -> str:
    """What is printed. Raises Refused, BadUsage, Cancelled."""
    peer = _version()
    import torch

    from punchin.engine import benchrounds

    arguments.device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    arguments.threads = arguments.threads or torch.get_num_threads()
    device, dtype = _device(arguments.device), getattr(torch, arguments.dtype)
    torch.set_num_threads(arguments.threads)
    if arguments.alone:
        return json.dumps(benchrounds.alone(arguments.alone, arguments.size, device, dtype))
    benchrounds.check_cases(arguments.case)
    Holder(told=lambda: False).device()
    report = {
        "size": arguments.size,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else arguments.device,
        "dtype": arguments.dtype,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "diffusers": peer,
        "rounds": arguments.rounds,
        "warm_up": arguments.warm_up,
        "cases": benchrounds.compare(arguments, device, dtype, say),
        "peak_bytes": {} if arguments.no_peak else benchrounds.peaks(arguments, say),
    }
    return json.dumps(report, indent=2) if arguments.json else benchrounds.markdown(report)


def _parser() -> Parser:
    parser = Parser(prog="punchin bench", description="Measure this machine against diffusers.")
    parser.add_argument("--size", choices=("small", "full"), default="small", help="full: the 2B model, 7 GB and more")
    parser.add_argument("--device", help="cuda, cuda:1 or cpu (default: cuda where there is one)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--threads", type=_whole(1), help="of torch (default: as many as it takes)")
    parser.add_argument("--rounds", type=_whole(1), default=3)
    parser.add_argument("--warm-up", type=_whole(0), default=1, help="rounds before those that count")
    parser.add_argument("--case", action="append", default=[], help="a part of a case's name; may be repeated")
    parser.add_argument("--no-peak", action="store_true", help="skip the measurement of memory")
    parser.add_argument("--json", action="store_true", help="JSON instead of a table")
    parser.add_argument("--alone", choices=("ours", "diffusers"), help=argparse.SUPPRESS)
    return parser


def _whole(low: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} on")
        return int(text)

    return read


def _device(name: str) -> torch.device:
    import torch

    if name.partition(":")[0] not in ("cpu", "cuda"):
        raise BadUsage(f"there is no device {name}", "pass cuda, cuda:1 or cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such one; torch was built without it
        why = str(error).splitlines()[0]
        raise BadUsage(f"device {name} cannot be used: {why}", "pass --device cpu") from error


def _version() -> str:
    try:
        from importlib.metadata import version

        return version("diffusers")
    except ImportError as error:
        raise Refused("diffusers is not installed", "pip install diffusers==0.42.1") from error


def _stop(*_: object) -> NoReturn:
    """At once, for there is nothing to write: an exception may be lost in an import of torch's or the peer's."""
    os.write(2, b"the bench was stopped, and prints nothing\n")
    os._exit(Cancelled.exit_code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN if "--alone" in sys.argv else _stop)  # a terminal tells both
    signal.signal(signal.SIGTERM, _stop)
    stops.heard()
    sys.exit(main())
