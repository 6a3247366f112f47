"""Lists that come page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hanzo_compute.model.bounds import PAGE_MAX

Body = dict[str, Any]


class Page(Protocol):
    """A part of a list; ``next_cursor`` is None at its end."""

    @property
    def items(self) -> list[Body]:
        """This part."""
        ...

    @property
    def next_cursor(self) -> str | None:
        """Where the next begins."""
        ...


Fetch = Callable[[str | None, int], Page]
"""The page after a cursor, with at most so many items."""


def collect(fetch: Fetch, limit: int | None = None) -> tuple[list[Body], str | None]:
    """Items of as many pages as it takes, and the cursor of what is left; a page may be short and not be the last."""
    items: list[Body] = []
    cursor: str | None = None
    while limit is None or len(items) < limit:
        page = fetch(cursor, PAGE_MAX if limit is None else min(PAGE_MAX, limit - len(items)))
        items, cursor = items + page.items, page.next_cursor
        if cursor is None:
            break
    return items, cursor
