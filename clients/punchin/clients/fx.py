"""Effects for clients: a chain file and audio go to a plugin host of its own, and audio of the same length comes back.

A plug-in that crashes, hangs or prints nonsense costs that process, never this one. The host is started for one call.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, cast

from punchin.protocol import hostlink, limits, stops
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.hostlink import EFFECT_TIMEOUT_S, MAX_CHAIN_BYTES, Apply, Check, Done, Failed, Ready, Working

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Audio = NDArray[np.float32]

_CHAIN_HINT = "name a TOML file with one [[effect]] after the other: docs/effects.md"
SLOWEST = 3.0  # seconds for a second of audio: a pitch shifter on a busy machine takes a third of that
Told = Callable[[str], None]  # words on what is being done: `Reverb (1 of 2): process`


class EffectFailed(PunchinError):
    """An effect crashed, hung, or made no usable sound. `effect` names it, as `Reverb (1 of 2)`.

    `dry` is the very array that was given to `apply` (None from `check`): go on with it, or stop.
    """

    def __init__(self, effect: str, text: str, hint: str = "") -> None:
        super().__init__(f"effect {effect}: {text}" if effect else text, hint)
        self.effect = effect
        self.dry: Audio | None = None


class EffectHung(EffectFailed):
    """An effect did not answer in time. Trying again takes as long again."""


def check(chain: Path, rate_hz: int | None = None, timeout_s: float = EFFECT_TIMEOUT_S) -> tuple[str, ...]:
    """The effects of a chain file in order, once all of them could be loaded. Call it before long work.

    rate_hz: of the audio that is to come, so that its corner frequencies are looked at too.
    Raises Refused for a chain that is wrong, EffectFailed for an effect that cannot be loaded within `timeout_s`.
    """
    text, folder = _read_chain(chain)
    with _Host(chain, timeout_s) as host:
        return host.ask(Check(chain=text, folder=folder, rate_hz=rate_hz), told=None)


def digest(chain: Path) -> str:
    """The sha256 of a chain file's text and of what it names: files, and names and sizes in a plug-in's bundle.

    Raises Refused where one cannot be read.
    """
    text, folder = _read_chain(chain)
    found = hashlib.sha256(text.encode())
    with contextlib.suppress(ValueError, TypeError, RecursionError):  # `check` says what is wrong with it
        for path in _named(tomllib.loads(text), Path(folder)):
            found.update(_held(path))
    return found.hexdigest()


def _named(table: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Files and bundles that the effects of a chain name."""
    for effect in table.get("effect", []):
        for key in ("vst3", "impulse_response_filename"):
            if isinstance(effect, dict) and isinstance(effect.get(key), str):
                yield folder / os.path.expanduser(effect[key])


def _held(path: Path) -> bytes:
    try:
        if path.is_dir():
            files = (each for each in sorted(path.rglob("*")) if each.is_file())
            return repr([(str(each.relative_to(path)), each.stat().st_size) for each in files]).encode()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", _CHAIN_HINT) from error


def apply(
    chain: Path, audio: Audio, rate_hz: int, timeout_s: float = EFFECT_TIMEOUT_S, told: Told | None = None
) -> Audio:
    """`audio` through the chain: a new array of the same shape, in place to the sample; the tail past the end is cut.

    audio: [channels, frames] float32, mono or stereo. An empty chain gives it back bit for bit. timeout_s: how long one
    effect may take to load; to work it may take `SLOWEST` times the audio's length more. `told` hears what is done, on
    this thread.
    Raises Refused for a chain or audio that is wrong, EffectFailed (with the dry audio in it) for what goes wrong then.
    """
    import numpy as np

    text, folder = _read_chain(chain)
    if audio.ndim != 2 or not audio.size or audio.dtype != np.float32:
        raise Refused(f"effects take [channels, frames] of float32, got {list(audio.shape)} of {audio.dtype}")
    limits.CHANNELS.check(len(audio), "mix it down to stereo")  # of more, some effects pass the rest by
    if not np.isfinite(audio).all():
        raise Refused("the audio for the effects has samples that are not numbers")
    try:
        with _folder() as place, _Host(chain, timeout_s) as host:
            source, target = place / "dry.f32", place / "wet.f32"
            source.write_bytes(np.ascontiguousarray(audio, dtype="<f4").data)
            channels, frames = audio.shape
            host.ask(
                Apply(
                    chain=text,
                    folder=folder,
                    source=str(source),
                    target=str(target),
                    channels=channels,
                    frames=frames,
                    rate_hz=rate_hz,
                ),
                told,
                work_s=timeout_s + SLOWEST * frames / rate_hz,
            )
            return _made(target, channels, frames)
    except EffectFailed as error:
        error.dry = audio
        raise
    except OSError as error:  # no room for the two files, most likely
        failed = EffectFailed("", f"the audio could not be handed over: {error.strerror or error}", hostlink.NO_ROOM)
        failed.dry = audio
        raise failed from error


def run_host(words: Sequence[str], out: TextIO) -> int:
    """Let a plugin host do something for people: `list`, `play FILE`. Returns its exit code; errors it tells itself."""
    with subprocess.Popen([*_command(), *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            out.writelines(cast(TextIO, process.stdout))
        except BaseException:  # nobody listens any more: neither reads the list nor wants the rest of the song
            process.kill()
            raise
    return process.returncode


def _command() -> list[str]:
    override = os.environ.get("PUNCHIN_PLUGIN_HOST")  # fault tests put a host of their own here
    return shlex.split(override) if override else [sys.executable, "-m", "punchin.plugin_host"]


def _made(target: Path, channels: int, frames: int) -> Audio:
    import numpy as np

    size = target.stat().st_size if target.is_file() else 0
    if size != 4 * channels * frames:
        raise EffectFailed("", f"the plugin host left {size} bytes, expected are {4 * channels * frames}")
    made = np.fromfile(target, dtype="<f4").reshape(channels, frames)
    if not np.isfinite(made).all():
        raise EffectFailed("", "the plugin host left samples that are not numbers")
    return made


def _read_chain(chain: Path) -> tuple[str, str]:
    try:
        if chain.stat().st_size > MAX_CHAIN_BYTES:
            raise Refused(f"{chain} has {chain.stat().st_size} bytes, a chain may have {MAX_CHAIN_BYTES}", _CHAIN_HINT)
        return chain.read_text(encoding="utf-8"), str(chain.resolve().parent)
    except OSError as error:
        raise Refused(f"the chain {chain} cannot be read: {error.strerror}", _CHAIN_HINT) from error
    except UnicodeDecodeError as error:
        raise Refused(f"the chain {chain} is not UTF-8 text: {error.reason} at byte {error.start}") from error


@contextmanager
def _folder() -> Iterator[Path]:
    with stops.unwound(), tempfile.TemporaryDirectory(prefix="punchin-fx-") as folder:
        yield Path(folder)


class _Host:
    """One plugin host process, from start to end. Leaving the block ends it, whatever it is doing."""

    def __init__(self, chain: Path, timeout_s: float) -> None:
        self.chain, self.timeout_s = chain, timeout_s
        self.effect = ""  # what it last said it works on
        self.noise = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        command = _command()
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.noise)
        except OSError as error:
            self.noise.close()
            raise EffectFailed("", f"the plugin host {command[0]} cannot be started: {error.strerror}") from error
        self.replies: queue.SimpleQueue[hostlink.Reply | ValueError | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> _Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what it never read cannot be handed over
            cast(BinaryIO, self.process.stdin).close()
        self.noise.close()

    def ask(self, request: hostlink.Request, told: Told | None, work_s: float = 0.0) -> tuple[str, ...]:
        """Send a request and wait for its end. Returns the chain's effects; raises Refused or EffectFailed.

        work_s: how long one effect may work.
        """
        if not isinstance(reply := self._next(self.timeout_s), Ready):
            raise self._failed(f"the plugin host began with {reply}")
        try:
            hostlink.write(cast(BinaryIO, self.process.stdin), request)
        except OSError as error:
            raise self._gone() from error
        wait_s = self.timeout_s
        while True:
            reply = self._next(wait_s)
            match reply:
                case Working(effect=effect, doing=doing):
                    self.effect, wait_s = effect, self.timeout_s if doing == "load" else work_s
                    if told:
                        told(f"{effect}: {doing}")
                case Done(effects=effects):
                    return effects
                case hostlink.Refused(text=text, hint=hint):
                    raise Refused(f"{self.chain}: {text}", hint)
                case Failed(effect=effect, text=text, hint=hint):
                    raise EffectFailed(effect, text, hint or self._hint())
                case _:
                    raise self._failed(f"the plugin host said {reply} where an answer was due")

    def _listen(self) -> None:
        pipe = cast(BinaryIO, self.process.stdout)
        reply: hostlink.Reply | ValueError | None
        with pipe:
            while True:
                try:
                    reply = hostlink.read_reply(pipe)
                except ValueError as error:
                    reply = error
                self.replies.put(reply)
                if reply is None or isinstance(reply, ValueError):
                    return

    def _next(self, wait_s: float) -> hostlink.Reply:
        try:
            reply = self.replies.get(timeout=wait_s)
        except queue.Empty:
            text = f"no answer within {wait_s:.0f} s; the plugin host was ended"
            raise EffectHung(self.effect, text, f"the dry audio is safe; take the effect out of {self.chain}") from None
        if reply is None:
            raise self._gone()
        if isinstance(reply, ValueError):
            raise self._failed(f"the plugin host sent what is no reply: {reply}")
        return reply

    def _gone(self) -> EffectFailed:
        try:
            code = self.process.wait(timeout=self.timeout_s)
        except subprocess.TimeoutExpired:
            return self._failed("the plugin host closed its pipe but went on; it was ended")
        try:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        except ValueError:
            how = f"signal {-code}"
        return self._failed(f"the plugin host ended unasked ({how})")

    def _failed(self, text: str) -> EffectFailed:
        size = os.fstat(self.noise.fileno()).st_size
        words = os.pread(self.noise.fileno(), 2_000, max(0, size - 2_000)).decode(errors="replace").strip().splitlines()
        last = f"; it last wrote: {words[-1][:200]}" if words else ""
        return EffectFailed(self.effect, text + last, self._hint())

    def _hint(self) -> str:
        return f"the dry audio is safe; take the effect out of {self.chain}, or try again"
