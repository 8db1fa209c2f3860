"""The tables of the journal's file, and what brings an older file to them. A format is a number in the file itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from punchin.protocol.errors import Refused

SCHEMA: Final = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL, digest BLOB NOT NULL,
    request BLOB NOT NULL, plan BLOB NOT NULL, keep_alive_s REAL, created_ns INTEGER NOT NULL, ended_ns INTEGER,
    attempts INTEGER NOT NULL DEFAULT 0, crashes INTEGER NOT NULL DEFAULT 0, interruptions INTEGER NOT NULL DEFAULT 0,
    ooms INTEGER NOT NULL DEFAULT 0, rung INTEGER NOT NULL DEFAULT 0, seq INTEGER NOT NULL DEFAULT 0,
    cancel_asked INTEGER NOT NULL DEFAULT 0, pinned INTEGER NOT NULL DEFAULT 0,
    takes BLOB, provenance BLOB, error_code TEXT NOT NULL DEFAULT '', error_text TEXT NOT NULL DEFAULT '',
    error_hint TEXT NOT NULL DEFAULT '', landed TEXT NOT NULL DEFAULT '');
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE events (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, seq INTEGER NOT NULL, at_ns INTEGER NOT NULL,
    state TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job, seq)) WITHOUT ROWID;
CREATE TABLE uses (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, sha256 TEXT NOT NULL, PRIMARY KEY (job, sha256)
    ) WITHOUT ROWID;
CREATE INDEX uses_by_blob ON uses (sha256);
CREATE TABLE previews (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, seed INTEGER NOT NULL, part INTEGER NOT NULL,
    preview BLOB NOT NULL, PRIMARY KEY (job, seed, part)) WITHOUT ROWID;
CREATE TABLE lives (
    number INTEGER PRIMARY KEY AUTOINCREMENT, instance TEXT NOT NULL, pid INTEGER NOT NULL, started_ns INTEGER NOT NULL,
    ended_ns INTEGER, finished INTEGER NOT NULL DEFAULT 0, cut INTEGER NOT NULL DEFAULT 0);
PRAGMA user_version = 1;
"""
PASSAGES: Final = """
ALTER TABLE previews RENAME TO previews_1;
CREATE TABLE previews (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE, passage INTEGER NOT NULL, seed INTEGER NOT NULL,
    part INTEGER NOT NULL, preview BLOB NOT NULL, PRIMARY KEY (job, passage, seed, part)) WITHOUT ROWID;
INSERT INTO previews SELECT job, 0, seed, part, preview FROM previews_1;
DROP TABLE previews_1;
PRAGMA user_version = 2;
"""
PAUSED: Final = """
CREATE TABLE paused (why TEXT NOT NULL);
PRAGMA user_version = 3;
"""
FORMATS: Final = (SCHEMA, PASSAGES, PAUSED)  # what brings a file from each format to the next


def bring_up(db: sqlite3.Connection, path: Path) -> None:
    """Give a file, which may be new, today's tables, each change whole or not at all.

    Raises Refused where a newer punchin wrote it, and sqlite3.DatabaseError.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(FORMATS):
        text = f"{path} was written by a newer punchin (format {version}, this one reads {len(FORMATS)})"
        raise Refused(
            text,
            "update it: git pull in its checkout, then install it again; or set PUNCHIN_HOME to another folder",
            "journal",
        )
    for change in FORMATS[version:]:
        db.executescript(f"BEGIN IMMEDIATE;{change}COMMIT;")
