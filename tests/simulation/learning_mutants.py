"""Defects of learning that the simulation has to find."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from hanzo_compute.ports import Delete, Operation, Put
from tests.simulation.mutants import Mutant, _transact
from tests.simulation.ports import SimStore

Patch = pytest.MonkeyPatch


def folded_before_taken(patch: Patch) -> None:
    """The rows go in another transaction, after what was learnt from them is there."""

    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        rows = [o for o in operations if isinstance(o, Delete) and o.key.pk.startswith("OBSERVED#")]
        if not rows or len(rows) == len(operations):
            return operations
        store.transact([o for o in operations if o not in rows])
        return rows

    _transact(patch, change)


def observed_in_another_transaction(patch: Patch) -> None:
    def change(store: SimStore, operations: list[Operation]) -> list[Operation]:
        rows = [o for o in operations if isinstance(o, Put) and o.key.pk.startswith("OBSERVED#")]
        if not rows or len(rows) == len(operations):
            return operations
        store.transact([o for o in operations if o not in rows])
        return rows

    _transact(patch, change)


def rows_taken_whoever_has_them(patch: Patch) -> None:
    """A row that another learner has folded is folded again."""

    def change(_: SimStore, operations: list[Operation]) -> list[Operation]:
        return [
            replace(o, expect=None) if isinstance(o, Delete) and o.key.pk.startswith("OBSERVED#") else o
            for o in operations
        ]

    _transact(patch, change)


MUTANTS: Final = (
    Mutant("folded before taken", folded_before_taken, ("learning",), "learnt from"),
    Mutant("observed in another transaction", observed_in_another_transaction, ("learning",), "observations|without"),
    Mutant("rows taken whoever has them", rows_taken_whoever_has_them, ("learning",), "taken twice|learnt from"),
)
