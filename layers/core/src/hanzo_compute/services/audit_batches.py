"""What is wrong with the records of batches of invocations: for a repair, which can do nothing about it."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping

from hanzo_compute.ports import Body
from hanzo_compute.transparency.merkle import BulkRoot


def fault(body: Body | None) -> str | None:
    """What is wrong with the statements of a batch, if anything is."""
    try:
        header, rows = (body or {})["header"], (body or {})["rows"]
        tree = BulkRoot()
        tree.update(base64.b64decode((body or {})["digests"], validate=True))
        if not len(rows) == header["invocations"] == tree.size or tree.root().hex() != header["root"]:
            return "its statements are not those that were signed"
        if sum(int(row[5]) for row in rows) != int(header["price"]["units"]):
            return "it costs another sum than its invocations"
    except (KeyError, TypeError, ValueError, IndexError):
        return "its statements cannot be read"
    return None


def faults(leaves: Collection[str], statements: Mapping[str, str | None]) -> Iterator[tuple[str, str]]:
    """Batches and what is wrong with them, by the leaves of a partition and what :func:`fault` said of its bodies.

    A leaf that is lost is not made again: the log may have it, and would have it twice.
    """
    for last in sorted({*leaves, *statements}):
        if last not in statements:
            yield f"b-{last}", "its statements are lost"
        elif last not in leaves:
            yield f"b-{last}", "its leaf is lost"
        elif (wrong := statements[last]) is not None:
            yield f"b-{last}", wrong
