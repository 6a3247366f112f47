"""Statements signed as an agent signs them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import StaleFence
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.statement import Signed
from hanzo_compute.ports import Lease, LogEntry, Want
from hanzo_compute.services import lease as leasing
from hanzo_compute.services import records
from hanzo_compute.services.complete import Ended
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.signing import Signer

VAULT = MemoryVault(Random("agent"))


def want(agent: str, limit: int = 1, pool: str = "local") -> Want:
    """What an agent of this name wants to lease."""
    return Want(pool, agent, Signer(VAULT, agent).key_id, limit)


def sign(lease: Lease, outcome: Outcome, agent: str) -> Signed:
    """The signature of an agent of this name."""
    return Signer(VAULT, agent).sign(lease, outcome)


def of_report(lease: dict[str, Any], outcome: dict[str, Any], agent: str) -> dict[str, str]:
    """The ``statement`` of a report in JSON, for a lease in JSON."""
    made = sign(Lease(**lease), Outcome.model_validate(outcome), agent)
    return {"key": made.key.hex(), "signature": made.signature.hex()}


def ended(ctx: Context, claim: Claim, outcome: Outcome, seq: int = 0, entries: Sequence[LogEntry] = ()) -> Ended:
    """An outcome as the agent hands it in; unsigned where the claim does not hold any more."""
    try:
        lease = leasing.again(ctx, claim)
    except StaleFence:
        return Ended(claim, outcome, seq, entries)
    return Ended(claim, outcome, seq, entries, sign(lease, outcome, records.find(ctx, claim.job).agent or ""))
