"""Ctrl-C while a verb's process still loads: an answer in words or none at all, never a traceback of some import."""

import os
import signal
import subprocess
import sys

import pytest

EARLY = """
import os, signal, sys
if {part!r} in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGINT)  # as early as a program of Python's can get one
"""


def hears_ctrl_c():
    """What a shell starts in the background ignores ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("part", "words", "code", "said"),
    [
        ("punchin.daemon", ["serve"], -signal.SIGINT, ""),
        (
            "punchin.engine.hub",
            ["models", "pull", "turbo"],
            130,
            "stopped; the same command finishes it\n",
        ),
        ("punchin.engine.bench", ["bench", "--device", "cpu"], 130, "the bench was stopped, and prints nothing\n"),
    ],
)
def test_ctrl_c_before_a_part_is_ready_to_hear_it(home, tmp_path, part, words, code, said):
    (tmp_path / "sitecustomize.py").write_text(EARLY.format(part=part))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "punchin.clients.cli", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, preexec_fn=hears_ctrl_c)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
