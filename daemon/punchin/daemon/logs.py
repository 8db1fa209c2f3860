"""The daemon's log: one JSON object a line, in a file that is turned over at 4 MiB."""

from __future__ import annotations

import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

import msgspec

_ALWAYS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """`{"at": "2026-01-01T00:00:00.123Z", "level": "info", "what": "job", "from": ..., ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; what was given as `extra` are further keys."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, object] = {"at": at, "level": record.levelname.lower(), "what": record.getMessage()}
        line["from"] = record.name.removeprefix("punchin.daemon.")
        line |= {key: value for key, value in vars(record).items() if key not in _ALWAYS}
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def begin(path: Path) -> None:
    """Log to `path` from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=4 * 1024 * 1024, backupCount=2, encoding="utf-8")
    handler.setFormatter(JsonLines())
    root = logging.getLogger("punchin")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False  # a line that a full disk does not take is lost, rather than a traceback on stderr
