"""Agents by name: the first key that signs under a name is the name's key from then on."""

from __future__ import annotations

from typing import Final

from hanzo_compute.errors import PermissionDenied
from hanzo_compute.model import keys
from hanzo_compute.ports import ABSENT, Put, WriteConflict
from hanzo_compute.services.context import Context

KNOWN_MAX: Final = 4096
"""Agents that a process remembers."""


def introduce(ctx: Context, lessee: str, name: str, key_id: str) -> None:
    """An agent wants to work under a name, and signs with a key.

    Raises:
        PermissionDenied: the name has another key.
    """
    if ctx.agents.get((lessee, name)) == key_id:
        return
    at = keys.agent(lessee, name)
    record = ctx.store.get(at)
    if record is None:
        try:
            ctx.store.transact([Put(at, {"key": key_id, "since_ms": ctx.clock.now_ms()}, expect=ABSENT)])
        except WriteConflict as conflict:
            record = conflict.current[at]
        else:
            return  # remembered once it was read: what was only applied may be lost
    if record is None or record.body["key"] != key_id:
        raise PermissionDenied(
            f"agent {name} signs with another key than it did before",
            hint="restore its key (keys/ in its HZC_HOME), or give the agent another name: HZC_AGENT_NAME",
        )
    if len(ctx.agents) >= KNOWN_MAX:
        ctx.agents.clear()
    ctx.agents[lessee, name] = key_id
