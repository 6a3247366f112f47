"""The records of a memory twin as the rules of a repair see them."""

from __future__ import annotations

import json

from hanzo_compute.adapters.memory import MemoryDatabase
from hanzo_compute.model.keys import Key
from hanzo_compute.model.stored import Row


def rows_in(database: MemoryDatabase) -> list[Row]:
    """All records, in the order of their keys."""
    found = []
    for pk, records in sorted(database.partitions.items()):
        for sk, stored in sorted(records.items()):
            entries = json.dumps({name: list(entry) for name, entry in stored.index.items()})
            found.append(Row(Key(pk, sk), stored.rev, bytes(stored.body).decode(), entries))
    return found
