"""What every service works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanzo_compute.config import Policy
from hanzo_compute.model.statement import Settlement
from hanzo_compute.model.tariff import DEFAULT, Tariff
from hanzo_compute.ports import BlobStore, Clock, Ids, JobStore, KeyVault, LogStore, Queue


@dataclass(slots=True)
class Count:
    """Jobs that wait, as they were counted at ``at_s``, and how many this process has accepted since."""

    at_s: float
    counted: int
    accepted: int = 0


Counts = dict[str, Count]
"""By tenant; of the whole platform under the empty name."""


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
    waiting: Counts = field(default_factory=Counts)
    """What this process last counted of the jobs that wait: see ``admission``."""
