"""What is wrong with the records of a function, and what would put it right: for a repair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hanzo_compute.model import keys
from hanzo_compute.model.keys import Key
from hanzo_compute.model.registry import Function
from hanzo_compute.model.stored import Row
from hanzo_compute.ports import Body, Delete, Operation, Put
from hanzo_compute.services import functions

Fault = tuple[str, str, tuple[Operation, ...]]
"""What is wrong, what is done about it or what the reader can do, and the operations that do it."""


def function_of(body: Body | None) -> Function | None:
    """The function of a record's body, or None when it is none."""
    try:
        function = Function.from_record(body or {})
        function.view()  # formats its times, and would fail on what is none
        texts = all(type(text) is str for text in (function.tenant, function.name, function.digest))
        numbers = [*function.versions, function.newest]
        for alias in function.aliases.values():
            for weights in (alias.weights, *alias.previous):
                numbers += [*map(int, weights), *weights.values()]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError):
        return None
    return function if texts and all(type(each) is int for each in numbers) else None


def faults(meta: Row | None, body: Body | None, versions: Sequence[Key]) -> Iterator[Fault]:
    """The faults of one function: its record (``body``: what that holds), and the keys of its versions."""
    if meta is None:
        yield from (("it belongs to no function", "removed", (Delete(key),)) for key in versions)
        return
    function = function_of(body)
    if function is None or keys.function(function.tenant, function.name) != meta.key:
        yield "its record cannot be read", "restore a backup: hzc restore", ()
        return
    of = {keys.version(function.tenant, function.name, number): number for number in function.versions}
    for key in versions:
        if key not in of:
            yield f"its function does not list {key.sk}", "removed", (Delete(key),)
    there = [number for key, number in of.items() if key in versions]
    fixed = function.only(there)
    if fixed.newest not in there:
        fixed = replace(fixed, digest="")  # so that what is deployed next is a new version, whatever it is
    if fixed != function:
        said = f"it has the versions {there} and lists {function.versions}, its aliases {sorted(function.aliases)}"
        put = Put(meta.key, fixed.record(), expect=meta.rev, index=functions.index(fixed))
        yield said, "corrected: what points to a version that is not there points nowhere", (put,)
