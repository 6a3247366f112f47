"""Puts tables into docs/benchmarks.md, each between the comments that have its name."""

from __future__ import annotations

from collections.abc import Mapping


def filled(text: str, tables: Mapping[str, str]) -> str:
    """The document with these tables in their places.

    Raises:
        LookupError: it has no place for one of them.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not opened or not closed:
            raise LookupError(f"there is no place for {name}")
        text = f"{before}{begin}{table.strip()}\n{end}{after}"
    return text
