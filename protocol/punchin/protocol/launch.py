"""Run a command that cannot outlive its parent. `python launch.py PARENT_PID COMMAND...`, on Linux.

The kernel is asked to kill this process when its parent ends (prctl PR_SET_PDEATHSIG), which survives the exec into
COMMAND. So a killed daemon leaves no worker with gigabytes of GPU memory behind, even one that is stuck in a kernel.
A process of its own rather than preexec_fn: that one runs Python between fork and exec of a threaded process.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tied(command: list[str]) -> list[str]:
    """The command line of a process that ends when this one does; on other systems the command as it is."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main(arguments: list[str]) -> None:
    """Become the command, tied to the parent."""
    parent, command = int(arguments[0]), arguments[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the call
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
