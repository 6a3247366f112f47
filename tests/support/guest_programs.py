"""Programs for a pool."""

from __future__ import annotations

import hashlib
from typing import Any

from hanzo_compute.ports.sandboxes import GuestProgram


def module(binary: bytes, *, entry: str = "command", tenant: str = "t", **fields: Any) -> GuestProgram:
    """What runs a module, for a tenant."""
    digest = hashlib.sha256(binary).hexdigest()
    given: dict[str, Any] = {"profile": "fast", "memory_mib": 64} | fields
    return GuestProgram(key=f"{tenant}/{digest}", entry=entry, module=lambda: binary, digest=digest, **given)
