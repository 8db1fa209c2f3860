"""The page about the report names each key, and quotes each limit as the code has it."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from punchin.protocol import limits
from punchin.session.report import Report

PAGE = (Path(__file__).parents[2] / "docs" / "report.md").read_text()


def test_each_key_is_explained():
    named = set(re.findall(r"`([a-z0-9_]+)`", PAGE.split("## Keys")[1]))
    assert {field.name for field in fields(Report)} <= named


@pytest.mark.parametrize("name", [name for name in vars(limits) if name.startswith("TAKE_")])
def test_each_limit_is_quoted(name):
    limit = getattr(limits, name)
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {limit.name} |"))
    assert f"{limit.high:g}" in re.findall(r"[0-9.]+", row.rsplit("|", 2)[1])
    assert limit.low in (-limit.high, float("-inf"))
