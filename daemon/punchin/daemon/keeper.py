"""Makes blobs of what a worker wrote, in a thread of its own: hashing and fsync must not hold the loop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from punchin.daemon.happenings import Keep, NotStored, Stored
from punchin.daemon.store import Store
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.link import MadeTake, Part
from punchin.protocol.messages import Preview
from punchin.protocol.order import Blob, Take

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PartKept:
    """A stretch of a take is in the store. folder: of its attempt."""

    job: str
    folder: Path
    preview: Preview


class Keeper:
    """Takes files in the order they come; `post` gets PartKept, and Stored or NotStored, from its thread."""

    def __init__(self, store: Store, post: Callable[[object], None]) -> None:
        self._store, self._post = store, post
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")

    def keep(self, keep: Keep, folder: Path) -> None:
        """Make the takes of a job blobs, then remove the attempt's folder."""
        self._thread.submit(self._keep, keep, folder)

    def keep_part(self, part: Part, folder: Path) -> None:
        """Make a stretch of a take a blob."""
        self._thread.submit(self._keep_part, part, folder)

    def drop(self, folder: Path) -> None:
        """Remove what an attempt left that came to nothing."""
        self._thread.submit(self._drop, folder)

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown(wait=True)

    def _keep(self, keep: Keep, folder: Path) -> None:
        try:
            takes = tuple(
                Take(seed=made.seed, audio=self._adopt(made, folder), passage=made.passage) for made in keep.takes
            )
            self._drop(folder)
        except (PunchinError, OSError) as error:
            code = error.code if isinstance(error, Refused) else "store"
            hint = error.hint if isinstance(error, PunchinError) else ""
            self._post(NotStored(keep.job, code, f"the takes could not be stored: {error}", hint))
        except Exception as error:  # whatever it is, the job must end and the reason must be told
            log.exception("bug in punchin")
            self._post(NotStored(keep.job, "bug", f"{type(error).__name__}: {error}", "punchin doctor --report"))
        else:
            self._post(Stored(keep.job, takes, keep.provenance))

    def _keep_part(self, part: Part, folder: Path) -> None:
        made = MadeTake(seed=part.seed, path=part.path, channels=part.channels, frames=part.frames)
        try:
            blob = self._adopt(made, folder)
        except (PunchinError, OSError) as error:  # the job goes on without: its takes come whole
            log.warning("preview lost", extra={"job": part.job, "why": str(error)})
            return
        preview = Preview(
            seed=part.seed,
            index=part.index,
            start_frame=part.start_frame,
            sha256=blob.sha256,
            channels=part.channels,
            frames=part.frames,
            passage=part.passage,
        )
        self._post(PartKept(part.job, folder, preview))

    def _drop(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # a worker that is being killed may write on; the next start sweeps
            self._store.drop_out_dir(folder)

    def _adopt(self, made: MadeTake, folder: Path) -> Blob:
        path = Path(made.path)
        if path.parent != folder:
            raise PunchinError(f"the engine names a take outside its folder: {path}")
        sha256 = self._store.adopt(path, made.channels * made.frames * 4)
        return Blob(sha256=sha256, channels=made.channels, frames=made.frames)
