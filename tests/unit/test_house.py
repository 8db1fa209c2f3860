"""The walls of the house: what a stray file or a careless import would break for everyone."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["protocol", "session", "engine", "training", "daemon", "clients", "plugin_host"]
HEAVY = {"torch", "transformers", "pedalboard", "numpy", "soundfile", "matplotlib"}


def imported_by(module: str) -> tuple[set[str], float]:
    """Top-level names that importing `module` loads, and the seconds it took."""
    code = (
        "import sys, time; began = time.perf_counter()\n"
        f"import {module}\n"
        "print(time.perf_counter() - began); print(*{name.partition('.')[0] for name in sys.modules})"
    )
    seconds, names = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return set(names.split()), float(seconds)


@pytest.mark.parametrize("part", PARTS)
def test_no_part_hides_the_others(part):
    assert not (ROOT / part / "punchin" / "__init__.py").exists(), "punchin is a namespace: this file hides other parts"
    assert (ROOT / part / "punchin" / part / "py.typed").exists()


@pytest.mark.parametrize("module", ["punchin.clients", "punchin.clients.client", "punchin.clients.cli"])
def test_clients_start_light(module, record_property):
    names, seconds = imported_by(module)
    assert not names & HEAVY
    record_property("seconds", seconds)


def test_the_daemon_starts_light():
    names, _ = imported_by("punchin.daemon.__main__")
    assert not names & HEAVY


def test_versions_agree():
    from punchin.protocol.version import PACKAGE

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == PACKAGE


def test_every_dependency_says_why():
    text = (ROOT / "pyproject.toml").read_text()
    listed = text[text.index("\ndependencies = [") : text.index("[project.scripts]")]
    bare = [
        line.strip()
        for line in listed.splitlines()
        if re.match(r'\s+"[A-Za-z]', line) and "#" not in line and '"punchin[' not in line
    ]
    assert not bare


def test_no_machine_paths_in_the_tree():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in tracked.stdout.splitlines():
        path = ROOT / name
        if path.suffix in {".py", ".lua", ".md", ".toml", ".sh"} and path.is_file():
            found += [name for line in path.read_text().splitlines() if re.search(r"/(work|root)/[a-z.]", line)]
    assert not found
