"""What every service works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanzo_compute.config import Policy
from hanzo_compute.ports import BlobStore, Clock, Ids, JobStore, LogStore, Queue


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
    policy: Policy = field(default_factory=Policy)
    waiting: Counts = field(default_factory=Counts)
    """What this process last counted of the jobs that wait: see ``admission``."""
