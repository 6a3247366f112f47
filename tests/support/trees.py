"""RFC 6962's tree by its definition, and the log's leaves as they are stored."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from hanzo_compute.adapters.checks import decode_body
from hanzo_compute.adapters.memory import MemoryDatabase


def root_of(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1, word by word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(leaves[:half]) + root_of(leaves[half:])).digest()


def entries_of(database: MemoryDatabase) -> list[bytes]:
    """All leaves that the log's bundles hold, in their order."""
    bundles = database.partitions.get("TILE#0", {})
    data = b"".join(base64.b64decode(decode_body(stored.body)["data"]) for _, stored in sorted(bundles.items()))
    return [data[at : at + 32] for at in range(0, len(data), 32)]
