"""Rounds and peaks of the bench: what each contestant takes of the clock, of the processors and of memory.

What is compared is checked to be equal first: a fast wrong answer has no speed. Rounds are interleaved, so that both
contestants share a busy machine's weather; the ratio is the median of each round's. Beside it stands the ratio of the
processor time they used: with one thread it does not care who else uses the machine. Peak memory is measured with each
contestant alone in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from punchin.engine import benchpeers
from punchin.engine.benchpeers import Case
from punchin.protocol import launch
from punchin.protocol.errors import PunchinError, Refused

SAME: Final = 0.05  # relative difference of one step or decode that bfloat16 rounding may make
CHECKED: Final = ("DiT step", "VAE decode")
ALONE: Final = "repaint 8 s in 60 s, cold"

Say = Callable[[str], None]


class Spent(NamedTuple):
    """What one call took: by the clock, and of the processors."""

    clock_s: float
    cpu_s: float


def interleaved(contestants: Mapping[str, Case], rounds: int, warm_up: int = 1) -> dict[str, list[Spent]]:
    """What each contestant took in each round after the warm-up; all run in each, the order turning by one."""
    spent: dict[str, list[Spent]] = {name: [] for name in contestants}
    names = list(contestants)
    for lap in range(-warm_up, rounds):
        for name in names:
            clock, cpu = time.perf_counter(), time.process_time()
            run(contestants[name])
            if lap >= 0:  # those before warm caches and compilers
                spent[name].append(Spent(time.perf_counter() - clock, time.process_time() - cpu))
        names = names[1:] + names[:1]
    return spent


def run(case: Case) -> Tensor:
    """A case's result on the host: the copy waits for the device."""
    with torch.inference_mode():
        return case().float().cpu()


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The size of what differs, relative to theirs."""
    return float((ours - theirs).norm() / theirs.norm())


def check_cases(asked: Sequence[str]) -> None:
    """Raise Refused where no case has such a name: before the device is taken, on a small model."""
    if asked:
        _chosen(asked, list(benchpeers.ours(benchpeers.weights("small", torch.device("cpu"), torch.float32))))


def compare(arguments: argparse.Namespace, device: torch.device, dtype: torch.dtype, say: Say) -> dict[str, Any]:
    """Every case's medians and ratio, told to `say` as they come. Raises Refused where both do not compute the same."""
    made = benchpeers.weights(arguments.size, device, dtype)
    contestants = {"ours": benchpeers.ours(made), "diffusers": benchpeers.diffusers(made)}
    results: dict[str, Any] = {}
    for names in _rivals(_chosen(arguments.case, list(contestants["ours"])), contestants["diffusers"]):
        group = {name: contestants["ours"][name] for name in names}
        theirs = contestants["diffusers"][names[0]]
        for name in names:
            if name.startswith(CHECKED):
                apart = difference(run(group[name]), run(theirs))
                if not apart <= SAME:
                    raise Refused(f"{name}: results differ by {apart:.3f} of their size, allowed is {SAME}")
            say(f"{name} ...")
        spent = interleaved({**group, "diffusers": theirs}, arguments.rounds, arguments.warm_up)
        for name in names:
            results[name] = summary({"ours": spent[name], "diffusers": spent["diffusers"]})
            say(f"{name}: {results[name]['ratio']:.1f}x, {results[name]['cpu_ratio']:.1f}x of processor time")
    return results


def _rivals(cases: Sequence[str], theirs: Mapping[str, Case]) -> list[list[str]]:
    """Cases that are one and the same to the peer, together: it runs once a round for all of them."""
    groups: dict[int, list[str]] = {}
    for case in cases:
        groups.setdefault(id(theirs[case]), []).append(case)
    return list(groups.values())


def summary(spent: Mapping[str, Sequence[Spent]]) -> dict[str, Any]:
    """Medians and ratios of one case."""
    pairs = list(zip(spent["ours"], spent["diffusers"], strict=True))
    ratios = [theirs.clock_s / mine.clock_s for mine, theirs in pairs]
    low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        **{f"{name}_s": median(each.clock_s for each in rounds) for name, rounds in spent.items()},
        **{f"{name}_cpu_s": median(each.cpu_s for each in rounds) for name, rounds in spent.items()},
        "ratio": median(ratios),
        "ratio_quartiles": [low, high],
        "cpu_ratio": median(theirs.cpu_s / mine.cpu_s for mine, theirs in pairs),
    }


def peaks(arguments: argparse.Namespace, say: Say) -> dict[str, int]:
    """The most memory each contestant held, alone in a process: resident on a CPU, allocated on a GPU; in bytes.

    Raises PunchinError where such a process fails; what it said is on stderr.
    """
    found: dict[str, int] = {}
    for name in ("ours", "diffusers"):
        say(f"{ALONE}, {name} alone ...")
        command = [sys.executable, "-m", "punchin.engine.bench", "--alone", name]
        command += ["--size", arguments.size, "--device", arguments.device, "--dtype", arguments.dtype]
        command += ["--threads", str(arguments.threads)]
        done = subprocess.run(launch.tied(command), stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise PunchinError(f"{name} alone ended with exit status {done.returncode}", "pass --no-peak")
        found[name] = json.loads(done.stdout)["peak_bytes"]
    return found


def alone(name: str, size: str, device: torch.device, dtype: torch.dtype) -> dict[str, int]:
    """One contestant's peak over its weights' making and one cold repaint."""
    made = benchpeers.weights(size, device, dtype)
    offered: Callable[[benchpeers.Weights], dict[str, Case]] = getattr(benchpeers, name)
    case = offered(made)[ALONE]
    if name == "ours":
        made.vae.to("meta")  # the folded kernels have taken its place
    run(case)
    if device.type == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(device)}
    return {"peak_bytes": _resident_peak()}


def _resident_peak() -> int:
    """The most bytes this process had resident. Not from getrusage, which starts from the parent's own peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError as error:
        raise Refused("peak memory is measured on Linux alone", "pass --no-peak") from error
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a table with a line about the machine."""
    about = ", ".join(f"{key} {report[key]}" for key in ("size", "device", "dtype", "threads", "torch", "diffusers"))
    lines = [
        f"{about}; {report['rounds']} interleaved rounds after {report['warm_up']} of warm-up",
        "",
        "| case | diffusers | punchin | ratio (quartiles) | of CPU time |",
    ]
    lines.append("|---|---|---|---|---|")
    for case, row in report["cases"].items():
        low, high = row["ratio_quartiles"]
        times = f"{row['diffusers_s']:.3f} s | {row['ours_s']:.3f} s"
        ratios = f"{row['ratio']:.1f}x ({low:.1f} to {high:.1f}) | {row['cpu_ratio']:.1f}x"
        lines.append(f"| {case} | {times} | {ratios} |")
    if report["peak_bytes"]:
        theirs, mine = (report["peak_bytes"][name] / 2**30 for name in ("diffusers", "ours"))
        lines.append(f"| peak memory, {ALONE} | {theirs:.2f} GiB | {mine:.2f} GiB | {theirs / mine:.1f}x | |")
    return "\n".join(lines)


def _chosen(asked: Sequence[str], offered: Sequence[str]) -> list[str]:
    chosen = [case for case in offered if not asked or any(word in case for word in asked)]
    if not chosen:
        raise Refused(f"no case is like {', '.join(asked)}", f"there are: {'; '.join(offered)}")
    return chosen
