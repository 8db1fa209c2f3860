"""What this machine offers, told without importing torch."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from punchin.protocol.link import Ready


def survey() -> Ready:
    """The device that jobs will run on: the first GPU if torch can use one, else the CPU; memory in bytes."""
    gpu = _gpu() if _torch_has_cuda() else None
    if gpu is not None:
        name, total, free = gpu
        return Ready(pid=os.getpid(), device=f"cuda:0 {name}", total_bytes=total, free_bytes=free)
    total, free = ram()
    weight_bytes = 2 if _knows_bfloat16() else 4
    return Ready(pid=os.getpid(), device="cpu", total_bytes=total, free_bytes=free, weight_bytes=weight_bytes)


def ram() -> tuple[int, int]:
    """Total and available memory in bytes."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    try:
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        found = None
    return total, int(found.group(1)) * 1024 if found else os.sysconf("SC_AVPHYS_PAGES") * page


def _torch_has_cuda() -> bool:
    """Whether the installed torch was built for CUDA, by the file that says so."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and re.search(r"^cuda.*=\s*['\"]", version.read_text(), re.MULTILINE) is not None


def _gpu() -> tuple[str, int, int] | None:
    """Name, total and free bytes of the first GPU, from nvidia-smi; None without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    query = [tool, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        name, total, free = (field.strip() for field in lines[0].split(","))
        return name, int(total) * 2**20, int(free) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None  # a driver without a device: the CPU does it


def _knows_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; then large models stay in it (`placement`, which asks torch)."""
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
