"""The page about the models has the numbers of the table in the code."""

from pathlib import Path

import pytest

from punchin.protocol.models import MODELS

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_sizes_and_memory_are_those_of_the_code(model):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{model.name}` |"))
    told = [cell.strip() for cell in row.split("|")[5:8]]
    sizes = model.size_bytes, model.memory_bytes, model.least_memory_bytes
    assert told == [f"{size / 1e9:.1f} GB" if size else "-" for size in sizes]
