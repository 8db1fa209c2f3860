"""The desk in real time: REAPER's timer at 30 Hz, bridge, daemon and engine worker as the processes they are."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time

from fakereaper.desk import Desk
from fakereaper.host import TICK_S
from punchin.protocol import lock

LONGEST_S = 90.0


class LiveDesk(Desk):
    """`Desk` whose ExecProcess starts processes. `close` ends bridge and daemon."""

    def __init__(self, folder, **options):
        super().__init__(folder, real_time=True, **options)
        (self.spool / "bridge.beat").unlink()
        self.host.execute = self.execute

    def execute(self, line, timeout_ms):
        assert timeout_ms == -1, "a script may not wait for a process"
        subprocess.Popen(shlex.split(line)).wait()

    def until(self, condition, what):
        """Let REAPER's timer run until something is so."""
        until_s = time.monotonic() + LONGEST_S
        while not condition():
            assert time.monotonic() < until_s, f"{what} did not come: {self.host.help[-3:]} {self.host.console[-2:]}"
            began_s = time.monotonic()
            self.host.tick()
            time.sleep(max(0.0, TICK_S - (time.monotonic() - began_s)))

    def bridge_pid(self):
        return int((self.spool / "bridge.beat").read_text().split("\t")[0].removeprefix("pid="))

    def kill_bridge(self, number):
        os.kill(self.bridge_pid(), number)
        until_s = time.monotonic() + LONGEST_S
        while lock.is_held(self.spool / "bridge.lock"):
            assert time.monotonic() < until_s, "the bridge does not end"
            time.sleep(TICK_S)

    def close(self):
        if lock.is_held(self.spool / "bridge.lock"):
            self.kill_bridge(15)
        subprocess.run([sys.executable, "-m", "punchin.clients.cli", "stop"], capture_output=True, check=False)
        self.host.quit()
