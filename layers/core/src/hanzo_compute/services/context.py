"""What every service works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hanzo_compute.config import Policy
from hanzo_compute.model.statement import Settlement, Terms
from hanzo_compute.model.tariff import DEFAULT, Tariff
from hanzo_compute.ports import BlobStore, Clock, CollateralSource, Egress, Ids, JobStore, KeyVault, LogStore, Queue

if TYPE_CHECKING:
    from hanzo_compute.routing.snapshot import Snapshot
    from hanzo_compute.services.invocations import Batcher


@dataclass(slots=True)
class Count:
    """Jobs that wait, as they were counted at ``at_s``, and how many this process has accepted since."""

    at_s: float
    counted: int
    accepted: int = 0


Counts = dict[str, Count]
"""By tenant; of the whole platform under the empty name."""


@dataclass(slots=True)
class Learnt:
    """What this process last read of what was learnt of pools, and how it has placed jobs since it was asked."""

    at_s: float | None = None
    snapshot: Snapshot | None = None
    placed: dict[str, int] = field(default_factory=dict)
    """Placements by what decided them."""


@dataclass(slots=True)
class Gathered:
    """Log lines of functions that wait to be written, by tenant and function."""

    lines: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    size: int = 0
    dropped: int = 0


@dataclass(frozen=True, kw_only=True)
class Context:
    """The ports, and the policy by which jobs move."""

    store: JobStore
    queue: Queue
    blobs: BlobStore
    logs: LogStore
    clock: Clock
    ids: Ids
    vault: KeyVault
    policy: Policy = field(default_factory=Policy)
    tariff: Tariff = DEFAULT
    """What new jobs cost."""
    settlement: Settlement = field(default_factory=Settlement)
    """Where statements are settled."""
    tariffs: dict[str, Tariff] = field(default_factory=dict)
    """Stored tariffs that this process has read, by version."""
    agents: dict[tuple[str, str], str] = field(default_factory=dict)
    """Keys of agents that this process has seen: see ``agents``."""
    egress: Egress | None = None
    """How functions reach other hosts; None: not at all."""
    collateral: CollateralSource | None = None
    """Where endorsements and reference values come from that evidence did not bring; None: nowhere."""
    invocations: Batcher | None = None
    """Where answered calls wait for their receipts; None: this process answers none."""
    terms: dict[str, Terms] = field(default_factory=dict)
    """How calls of functions are billed, by the digest of the version: see ``invoke``."""
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    """Calls that run in this process, by tenant and function: see ``invoke``."""
    function_logs: Gathered = field(default_factory=Gathered)
    """What functions have written and is not stored yet: see ``function_logs``."""
    waiting: Counts = field(default_factory=Counts)
    """What this process last counted of the jobs that wait: see ``admission``."""
    learnt: Learnt = field(default_factory=Learnt)
    """By what jobs are placed: see ``place``."""
