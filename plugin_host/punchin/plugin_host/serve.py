"""The process that a client starts: requests on stdin, replies on stdout, noise of plug-ins on stderr."""

from __future__ import annotations

import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from punchin.plugin_host.chain import read_chain
from punchin.plugin_host.perform import EffectFailed, check_corners, load_chain, perform
from punchin.protocol import hostlink
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.hostlink import NO_ROOM, Apply, Done, Failed, Ready, Request, Working


def serve() -> int:
    """Answer requests until the client is gone. Returns the exit code: 1 when it sent bytes that are no request."""
    replies = _own_stdout()
    requests: queue.SimpleQueue[Request | ValueError] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    hostlink.write(replies, Ready(pid=os.getpid()))
    while True:
        request = requests.get()
        if isinstance(request, ValueError):
            print(f"error: what came is no request: {request}", file=sys.stderr)
            return 1
        try:
            hostlink.write(replies, _answer(request, replies))
        except BrokenPipeError:
            return 0


def _own_stdout() -> BinaryIO:
    """The pipe for replies. What libraries print to stdout goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _listen(pipe: BinaryIO, requests: queue.SimpleQueue[Request | ValueError]) -> None:
    """Read requests beside the work, so that the process ends with its client even when a plug-in hangs."""
    while True:
        try:
            request = hostlink.read_request(pipe)
        except ValueError as error:
            requests.put(error)
            return
        if request is None:
            os._exit(0)  # the main thread may be inside a plug-in that never returns
        requests.put(request)


def _answer(request: Request, replies: BinaryIO) -> Done | hostlink.Refused | Failed:
    def tell(effect: str, doing: Literal["load", "process"]) -> None:
        hostlink.write(replies, Working(effect=effect, doing=doing))

    try:
        steps = read_chain(request.chain, Path(request.folder))
        if request.rate_hz is not None:
            check_corners(steps, request.rate_hz)
        plugins = load_chain(steps, tell)
        if isinstance(request, Apply):
            made = perform(steps, plugins, _read(request), request.rate_hz, tell)
            Path(request.target).write_bytes(np.ascontiguousarray(made, dtype="<f4").data)  # says why it cannot
    except EffectFailed as error:
        return Failed(effect=error.effect, text=str(error))
    except Refused as error:
        return hostlink.Refused(text=str(error), hint=error.hint)
    except BrokenPipeError:
        raise
    except OSError as error:
        text = f"the audio could not be handed over: {error.strerror or error}"
        return Failed(effect="", text=text, hint=NO_ROOM)
    except PunchinError as error:
        return Failed(effect="", text=str(error))
    except Exception as error:  # else the process would end, and nobody hear of what
        traceback.print_exc()
        return Failed(effect="", text=f"bug in punchin ({type(error).__name__}: {error})", hint="punchin doctor")
    return Done(effects=tuple(step.label for step in steps))


def _read(request: Apply) -> np.ndarray:
    audio = np.fromfile(request.source, dtype="<f4")
    if audio.size != request.channels * request.frames:
        text = f"{request.source} has {audio.size} samples, the request says {request.channels} x {request.frames}"
        raise PunchinError(text)
    return audio.reshape(request.channels, request.frames)
