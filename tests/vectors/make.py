"""Writes one file a message type beside this one, with plain msgpack: what any client in any language must understand.

    python tests/vectors/make.py

A vector gains fields as its message does; anything else changes only together with the protocol's version. The values
are plain; none is a default, so that a field that is misread shows.
"""

from pathlib import Path

import msgpack

SHA = "5f" * 32
JOB = "01K9ZZZZZZZZZZZZZZZZZZZZZZ"
BLOB = {"sha256": SHA, "channels": 2, "frames": 240_000, "rate_hz": 48_000}
ORDER = {
    "task": "repaint",
    "frames": 240_000,
    "model": "identity",
    "prompt": "dusty upright bass · 月",
    "lyrics": "[verse] la",
    "language": "en",
    "instrument": "bass",
    "bpm": 97.35,
    "key": "D minor",
    "signature": 4,
    "source": BLOB,
    "references": [BLOB],
    "mask": [[10, 20], [30, 125]],
    "wanted": [4_800, 100_000],
    "seeds": [7, 4_294_967_295],
    "strength": 0.5,
    "steps": 8,
    "shift": 3.0,
    "guidance": 1.5,
    "loras": [{"sha256": SHA, "size_bytes": 1_000_000, "name": "upright", "strength": -0.5}],
    "name": "Bass 5-6",
    "also": [
        {
            "frames": 240_000,
            "source": BLOB,
            "mask": [[5, 9]],
            "wanted": [9_600, 19_200],
            "seeds": [9],
            "bpm": 120.0,
            "signature": 3,
            "name": "Keys 5-6",
        },
    ],
    "raw": {"use_adg": True, "omega": 1.5, "seed_mode": "same", "n": 3},
    "interactive": False,
}
EVENT = {
    "job": JOB, "seq": 3, "at_ns": 1_795_398_235_885_841_880, "state": "running", "phase": "diffusing",
    "done": 3, "total": 8, "text": "identity on cpu",
}  # fmt: skip
PROVENANCE = {
    "model": "identity", "model_sha256": SHA, "trained": False, "device": "cuda:0", "dtype": "bfloat16", "steps": 8,
    "shift": 3.0, "guidance": 1.5, "notes": ["a lower rung"],
}  # fmt: skip
RECORD = {
    "id": JOB, "state": "failed", "order": ORDER, "created_ns": 1_795_398_235_885_841_880, "attempts": 2, "seq": 5,
    "takes": [{"seed": 7, "audio": BLOB, "passage": 1}], "provenance": PROVENANCE, "error_code": "oom",
    "error_text": "out of memory", "error_hint": "punchin doctor", "landed": "/music/a.rpp", "plan": b"\x00\xff",
}  # fmt: skip
PREVIEW = {"seed": 7, "index": 2, "start_frame": 96_000, "sha256": SHA, "channels": 2, "frames": 48_000, "passage": 1}
WORKER = {
    "pid": 42, "state": "idle", "device": "cuda:0 RTX 4070", "total_bytes": 12_884_901_888, "free_bytes": 1 << 33,
    "plan": "whole", "model": "turbo", "job": JOB, "until_ns": 1_795_398_235_885_841_880,
    "heard_ns": 1_795_398_235_885_841_000,
}  # fmt: skip
LEASE = {
    "id": JOB, "holder": "a training", "pid": 43, "since_ns": 1_795_398_235_885_841_880, "granted": True,
    "waits_for": "a job",
}  # fmt: skip
LIMITS = {
    "max_message_bytes": 65_535, "chunk_bytes": 1_000, "credit_chunks": 4, "plan_bytes": 100, "max_queue": 9,
    "max_seeds": 2, "max_regions": 3, "max_region_s": 60.0, "lease_s": 5.0,
}  # fmt: skip

VECTORS = {
    "hello": {"ask": 1, "lowest": 2, "highest": 3, "client": "plain", "version": "0.0.1"},
    "submit": {"ask": 2, "id": JOB, "order": ORDER, "plan": b"\x00\xff", "keep_alive_s": 60.0},
    "get_status": {"ask": 3},
    "get_job": {"ask": 4, "id": JOB},
    "list_jobs": {"ask": 5, "before": JOB, "most": 20},
    "attach": {"ask": 6, "id": JOB, "since": 2},
    "cancel_job": {"ask": 7, "id": JOB},
    "mark_landed": {"ask": 8, "id": JOB, "where": "/music/a.rpp"},
    "pin": {"ask": 9, "id": JOB, "pinned": False},
    "pause": {"ask": 10},
    "resume": {"ask": 11},
    "unload_model": {"ask": 12},
    "lease_device": {"ask": 17, "id": JOB, "holder": "a training", "pid": 43},
    "release_device": {"ask": 18, "id": JOB},
    "collect": {"ask": 13, "dry_run": True},
    "examine": {"ask": 14},
    "shutdown": {"ask": 15, "when_idle": True},
    "welcome": {"ask": 1, "protocol": 2, "version": "0.1.0", "instance": "cafe", "pid": 41, "limits": LIMITS},
    "status": {
        "ask": 3, "pid": 41, "version": "0.1.0", "protocol": 2, "instance": "cafe", "started_ns": 17,
        "transport": "ipc", "paused": True, "paused_why": "by hand", "trouble": "disk full",
        "trouble_hint": "free some", "jobs": {"done": 3},
        "worker": WORKER, "lease": LEASE, "keep_alive_s": 60.0, "idle_exit_s": 1_800.0, "counters": {"submitted": 4},
    },
    "job": {"ask": 4, "record": RECORD, "cancelling": True, "pinned": True},
    "job_page": {"ask": 5, "records": [RECORD], "more": True, "damaged": [JOB]},
    "history": {"ask": 6, "events": [EVENT], "progress": EVENT, "previews": [PREVIEW], "more": True},
    "collected": {"ask": 13, "jobs": 1, "blobs": 2, "freed_bytes": 3, "kept_bytes": 4},
    "examined": {
        "ask": 14, "journal": "ok", "journal_jobs": 1, "store_bytes": 2, "store_limit_bytes": 3, "disk_free_bytes": 4,
        "missing_blobs": 5, "damaged_jobs": [JOB], "log": "/var/log/x",
    },
    "device_lease": {"ask": 17, "lease": LEASE},
    "closing": {"ask": 15, "when_idle": True},
    "failure": {"ask": 16, "code": "busy", "text": "512 jobs are waiting", "hint": "punchin jobs"},
    "event": {"event": EVENT},
    "preview": {"job": JOB, "preview": PREVIEW},
    "subscribed": {"topic": JOB},
    "beat": {"instance": "cafe", "at_ns": 17},
    "put": {"ask": 20, "sha256": SHA, "size_bytes": 1_920_000},
    "chunk": {"ask": 21, "sha256": SHA, "offset": 1_048_576},
    "get": {"ask": 22, "sha256": SHA, "offset": 1_048_576, "length": 65_536, "received": 3},
    "taken": {"ask": 20, "sha256": SHA, "offset": 1_048_576, "stored": True},
    "piece": {"ask": 22, "sha256": SHA, "offset": 1_048_576, "size_bytes": 1_920_000},
}  # fmt: skip


def main():
    """Write them all."""
    for name, fields in VECTORS.items():
        Path(__file__).with_name(f"{name}.msgpack").write_bytes(msgpack.packb({"type": name, **fields}))


if __name__ == "__main__":
    main()
