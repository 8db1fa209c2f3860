"""`punchin` as people run it: real processes in a home of their own, one daemon for a module's tests."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

WORKER = Path(__file__).with_name("scriptedworker.py")
DEADLINE_S = 120


class Home:
    """A PUNCHIN_HOME. `worker` scripts the engine worker of the daemon that starts here (see scriptedworker.py)."""

    def __init__(self, folder: Path, worker: str = "") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.env = os.environ | {"PUNCHIN_HOME": str(folder), "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
        self.env.pop("PUNCHIN_WORKER", None)
        if worker:
            self.env["PUNCHIN_WORKER"] = shlex.join([sys.executable, str(WORKER), worker, str(folder)])

    def run(self, *words, **settings) -> subprocess.CompletedProcess:
        """One command to its end."""
        return subprocess.run(
            self._line(words), capture_output=True, text=True, env=self.env, timeout=DEADLINE_S, **settings
        )

    def json(self, *words):
        """What a command prints with --json, when it ends well and prints nothing else."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *words) -> "Running":
        """A command under way, in a process group of its own, as in a terminal."""
        return Running(self._line(words), self.env)

    def stop(self) -> None:
        """End the daemon, if there is one."""
        self.run("stop")

    def _line(self, words):
        return [sys.executable, "-m", "punchin.clients.cli", *map(str, words)]


def _as_in_a_terminal() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # a shell's background job ignores the one, nohup's the other
        signal.signal(number, signal.SIG_DFL)


class Running:
    """A command under way, whose talk can be waited for."""

    def __init__(self, line, env) -> None:
        self.process = subprocess.Popen(
            line,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
            start_new_session=True,
            preexec_fn=_as_in_a_terminal,
        )
        self.said = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, text) -> str:
        """The first line of talk that holds `text`."""
        with self._changed:
            found = self._changed.wait_for(lambda: self._line_with(text) or not self._reader.is_alive(), DEADLINE_S)
        assert found, f"{text!r} was not said in {DEADLINE_S} s: {self.said}"
        line = self._line_with(text)
        assert line, f"{text!r} was never said: {self.said}"
        return line

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> subprocess.CompletedProcess:
        """Wait for it, and say how it ended."""
        out = self.process.stdout.read()
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return subprocess.CompletedProcess(self.process.args, code, out, "".join(self.said))

    def _line_with(self, text):
        return next((line for line in self.said if text in line), "")

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.said.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
