"""Memory that runs out while something is trained or rendered: told with what takes less of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from punchin.engine.device import is_out_of_memory
from punchin.protocol.errors import JobFailed

LESS: Final = (
    "less at once: `--use_gradient_checkpointing`, `--batch_size 1`, a shorter `--max_audio_duration` or "
    "`--fp8_models dit`; the last state stays"
)


@contextmanager
def enough() -> Iterator[None]:
    """Raise JobFailed in place of an error that says that memory ran out, on whichever device."""
    try:
        yield
    except JobFailed as error:
        if error.code != "oom":
            raise
        raise JobFailed(str(error), LESS, code="oom") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).split("\n", 1)[0]
        raise JobFailed(f"memory ran out: {first}", LESS, code="oom") from error
