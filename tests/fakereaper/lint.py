"""luacheck's settings, with the API's table as the only fields of `reaper`."""

from __future__ import annotations

from fakereaper.host import TABLE


def luacheckrc() -> str:
    fields = ",\n".join(f"    {name} = {{}}" for name in sorted(TABLE))
    return (
        'std = "lua53"\nmax_line_length = 120\nmax_cyclomatic_complexity = 14\n'
        f"read_globals = {{\n  reaper = {{ other_fields = false, fields = {{\n{fields}\n  }} }},\n}}\n"
    )
