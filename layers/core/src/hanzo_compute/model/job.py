"""A job's record: everything about it that changes, small enough to rewrite at each step."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from hanzo_compute.model.spec import format_time
from hanzo_compute.model.states import State


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Times are milliseconds since the epoch; ``attempt`` is the fence of the attempt that holds it."""

    id: str
    tenant: str
    state: State
    runtime: str
    created_ms: int
    updated_ms: int
    due_ms: int | None
    """When the reconciler looks at it unless something else has happened."""
    timeout_s: int
    spec_digest: str
    labels: dict[str, str] = field(default_factory=dict)
    attempt: int = 0
    failures: int = 0
    """Attempts that ended by the program's fault: what ``retry`` counts."""
    lapses: int = 0
    """Attempts that ended by the platform's fault, since the last that did not."""
    events: int = 0
    runtimes: dict[str, str] = field(default_factory=dict)
    """With ``auto``, where several fit: what an attempt costs at most in each, base units. The placement decides."""
    pool: str | None = None
    agent: str | None = None
    agent_key: str | None = None
    """What the agent's key is known by: it signs for the attempt that it leased."""
    lessee: str | None = None
    """Tenant of the credential that the agent leased with."""
    deadline_ms: int | None = None
    placed_ms: int | None = None
    ahead: int = 0
    """Jobs that waited in the pool before it when it was placed."""
    started_ms: int | None = None
    finished_ms: int | None = None
    lease_until_ms: int | None = None
    not_before_ms: int | None = None
    followed_until_ms: int | None = None
    cancel: str | None = None
    """Why a running job is asked to stop: ``cancelled`` or ``deadline``."""
    reason: str | None = None
    category: str | None = None
    exit_code: int | None = None
    origin: dict[str, str] | None = None
    """``{"kind": "rerun" | "redrive", "job": id}`` of the job that this one repeats; the schedule and the time that it
    belongs to; or the ``invocation`` that became it."""
    code: str = ""
    """SHA-256, hex, of what runs."""
    input: str | None = None
    """SHA-256, hex, of what it reads."""
    profile: str = "fast"
    tier: int = 0
    """The privacy tier that the requester asked for."""
    data_key: str | None = None
    """SHA-256, hex, of the key that input and outputs are sealed with; None: they are not."""
    delivered: int = 0
    """The tier that the runner of this attempt proved when it got the key."""
    evidence: str | None = None
    """SHA-256, hex, of the evidence by which it did."""
    entries_of: str | None = None
    """The function whose key-value entries it was granted; they are kept with its outcome."""
    conflicts: int = 0
    """Attempts that lost against another call on these entries, since the last that did not."""
    tariff: str | None = None
    """Version of the tariff by which it is billed; None for a job of a release without prices."""
    token: str = ""
    most: str = "0"
    """Base units that one attempt costs at most."""
    billed: str = "0"
    """Base units that its attempts have cost up to now."""
    closed: bool = False
    """What follows the outcome (``completion``) has been done."""

    @classmethod
    def from_record(cls, body: dict[str, Any]) -> Job:
        """The job that a stored record holds."""
        return cls(**{**body, "state": State(body["state"])})

    def record(self) -> dict[str, Any]:
        """The record to store; fields at their default are left out."""
        found: dict[str, Any] = {}
        for name, default in _DEFAULTS:
            value = getattr(self, name)
            if value is not None and value != default:
                found[name] = value
        found["state"] = self.state.value
        found["due_ms"] = self.due_ms
        return found

    def summary(self) -> dict[str, Any]:
        """The columns of a list."""
        shown: dict[str, Any] = {
            "id": self.id,
            "state": self.state.value,
            "runtime": self.runtime,
            "attempt": self.attempt,
            "created_at": format_time(self.created_ms),
            "updated_at": format_time(self.updated_ms),
            "labels": self.labels,
        }
        optional: dict[str, Any] = {
            "category": self.category,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "origin": self.origin,
            "started_at": _time(self.started_ms),
            "finished_at": _time(self.finished_ms),
        }
        return shown | {name: value for name, value in optional.items() if value is not None}

    def view(self) -> dict[str, Any]:
        """All that its tenant may see."""
        optional = {
            "pool": self.pool,
            "agent": self.agent,
            "deadline": _time(self.deadline_ms),
            "placed_at": _time(self.placed_ms),
            "next_attempt_at": _time(self.not_before_ms) if self.state is State.RETRYING else None,
            "cancel_requested": self.cancel if not self.state.terminal else None,
            "privacy_tier": {"requested": self.tier, "delivered": self.delivered} if self.data_key else None,
        }
        counts: dict[str, Any] = {
            "failures": self.failures,
            "lapses": self.lapses,
            "spec_digest": self.spec_digest,
        }
        if self.tariff is not None:
            counts["cost"] = {"token": self.token, "billed": self.billed, "attempt_most": self.most}
        return self.summary() | counts | {name: value for name, value in optional.items() if value is not None}


def _time(ms: int | None) -> str | None:
    return None if ms is None else format_time(ms)


_DEFAULTS = [(f.name, f.default_factory() if callable(f.default_factory) else f.default) for f in fields(Job)]
