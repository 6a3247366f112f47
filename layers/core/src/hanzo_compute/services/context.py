"""What every service works with."""

from __future__ import annotations

from dataclasses import dataclass, field

from hanzo_compute.config import Policy
from hanzo_compute.ports import BlobStore, Clock, Ids, JobStore, LogStore, Queue


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
