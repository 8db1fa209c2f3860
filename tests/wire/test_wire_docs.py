"""docs/protocol.md: its client runs, and it names every message, code and number."""

import os
import re
import subprocess
import sys
from pathlib import Path

from punchin.protocol import codec, limits

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
SOURCES = [Path(__file__).parents[2] / part for part in ("daemon", "protocol")]


def test_the_client_in_twenty_lines_gets_its_take(client):
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert "punchin.protocol" not in script
    environment = os.environ | {"PYTHONPATH": ""}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == f"{1024 * 1024} of {48_000 * 8 * 8} bytes"


def test_every_message_is_named():
    page = PAGE.read_text()
    assert [name for name in codec.all_messages() if f"`{name}`" not in page] == []


def test_every_code_is_named():
    page, used = PAGE.read_text(), set()
    for folder in SOURCES:
        for path in folder.rglob("*.py"):
            used |= set(re.findall(r'code="([a-z_]+)"', path.read_text()))
    assert used - {"refused"} <= set(re.findall(r"`([a-z_]+)`", page))


def test_every_number_is_the_limit():
    page = PAGE.read_text()
    for value in (limits.MAX_MESSAGE_BYTES, limits.CHUNK_BYTES, limits.CREDIT_CHUNKS, limits.LEASE_S):
        assert re.search(rf"\b{value}\b", page), value
