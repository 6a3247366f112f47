"""What may go wrong in a schedule, how often, and what its clients do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from hanzo_compute.config import Policy, Pool

POOLS: Final = (Pool("local", frozenset({"wasm"})), Pool("spare", frozenset({"wasm"})))
QUICK: Final = Policy(lease_ms=15_000, resend_ms=8_000, outbox_ms=1_500, follow_ms=10_000)
OUTBOX_ONLY: Final = replace(QUICK, resend_ms=4 * 3600 * 1000)
"""The reconciler resends so late that only the outbox can have saved a message."""
FEW_WAIT: Final = replace(OUTBOX_ONLY, waiting_max=3, tenant_waiting_max=2)
TIER_1: Final = replace(OUTBOX_ONLY, pools=(Pool("local", frozenset({"wasm"}), tier=1),))
TWO_POOLS: Final = replace(OUTBOX_ONLY, pools=POOLS)
LEARNS: Final = replace(TWO_POOLS, snapshot_ms=2_000, telemetry_ms=4_000)


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Probabilities per port call; weights are relative to each other."""

    name: str
    policy: Policy = QUICK
    switch: float = 0.2
    """Let another task run before the call."""
    fault: float = 0.0
    """Something of ``weights`` happens at the call."""
    weights: dict[str, float] = field(default_factory=dict)
    """crash, before, lost, slow: at any port call that can have it."""
    abandon: float = 0.0
    """A caller does not wait for the answer, which is still being worked on."""
    message: float = 0.0
    """A message is duplicated, delayed or (with ``drop``) lost."""
    drop: bool = False
    stale: float = 0.0
    """A read shows what was durable up to a second ago."""
    commit_ms: int = 3
    """Longest time between a write and its durability."""
    commit_fail: float = 0.0
    """A batch is lost, half of the times with the writer down for a while."""
    budget: int = 0
    """Most faults in one schedule."""
    until_s: int = 40
    """No faults after this time: then everything has to settle."""
    receives: int = 5
    """Receives before a message is a dead letter."""
    deadlines: float = 0.0
    cancels: float = 0.25
    twins: float = 0.3
    """The same request is sent by two tasks at once."""
    follows: float = 0.3
    """Somebody follows the log while the job runs."""
    victims: tuple[str, ...] = ("",)
    """Names of the processes that crash or stand still begin with one of these."""
    restart_s: int = 8
    """Longest time until a crashed agent is back."""
    frozen: float = 0.25
    """Share of the slow calls that stand still for longer than a lease lasts."""
    stops: float = 0.0
    """An agent is told to stop while it runs."""
    jobs: tuple[int, int] = (1, 3)
    deployers: int = 0
    """Tasks that deploy, point, roll back and remove functions, some of them of the same tenant."""
    made_of_functions: float = 0.0
    """A job's source is a function."""
    counting: float = 0.0
    """A job is a run of a function with entries, which counts its runs."""
    schedules: int = 0
    """Schedules that tenants put, let be for some minutes, and delete."""
    invokers: int = 0
    """Processes that answer invocations."""
    sealed: float = 0.0
    """A job's input and all that it leaves are sealed."""
    uncollected: float = 0.0
    """The certificates of a TPM's maker cannot be had when its evidence is judged."""
    seconds: float = 0.0
    """Beside an agent there is a second process of it, which asks for the key of what the first one runs."""
    learners: int = 0
    """Processes that learn from what became of placements."""
    spoils: int = 0
    """How often the record of what was learnt is damaged."""
    jumps: int = 0
    """The wall clock is set forward or back so often at most, by an hour or a day."""


_FAULTS: Final = {"crash": 1.0, "before": 1.0, "lost": 1.0, "slow": 1.0}

_ALL: Final = (
    Profile(name="calm", switch=0.3, jobs=(1, 4)),
    Profile(
        name="crashy",
        fault=0.012,
        weights={**_FAULTS, "crash": 4.0},
        commit_fail=0.03,
        budget=6,
        policy=OUTBOX_ONLY,
        stops=0.3,
        abandon=0.02,
    ),
    Profile(
        name="lossy",
        fault=0.03,
        weights=_FAULTS,
        message=0.3,
        drop=True,
        receives=2,
        commit_fail=0.02,
        budget=10,
        stops=0.1,
        abandon=0.05,
    ),
    Profile(
        name="stale", switch=0.3, stale=0.5, commit_ms=400, commit_fail=0.02, message=0.2, budget=6, policy=OUTBOX_ONLY
    ),
    Profile(name="writer", switch=0.4, fault=0.004, weights=_FAULTS, commit_fail=0.3, budget=14, policy=OUTBOX_ONLY),
    Profile(
        name="frozen",
        fault=0.03,
        weights={"slow": 1.0, "crash": 2.0},
        victims=("front", "agent"),
        restart_s=40,
        frozen=0.7,
        budget=8,
        policy=OUTBOX_ONLY,
        follows=1.0,
    ),
    Profile(
        name="agents",
        fault=0.03,
        weights={"crash": 1.0},
        victims=("agent",),
        budget=6,
        policy=OUTBOX_ONLY,
        follows=1.0,
        stops=1.0,
    ),
    Profile(name="cancel", switch=0.3, fault=0.008, weights=_FAULTS, budget=4, cancels=1.0, stale=0.2),
    Profile(
        name="deadline",
        fault=0.008,
        weights=_FAULTS,
        budget=4,
        deadlines=0.9,
        commit_fail=0.01,
        policy=TWO_POOLS,
    ),
    # No more faults than a job survives: what is shown is that a clock alone never makes one dead.
    Profile(name="clock", switch=0.3, fault=0.004, weights=_FAULTS, budget=1, jumps=3, jobs=(1, 4)),
    Profile(
        name="learning",
        switch=0.4,
        fault=0.012,
        weights={**_FAULTS, "crash": 3.0, "lost": 2.0},
        stale=0.3,
        commit_ms=100,
        commit_fail=0.05,
        budget=10,
        policy=LEARNS,
        jobs=(3, 6),
        follows=0.0,
        stops=0.2,
        learners=2,
        spoils=2,
    ),
    Profile(
        name="functions",
        switch=0.4,
        fault=0.01,
        weights=_FAULTS,
        stale=0.3,
        commit_ms=100,
        commit_fail=0.03,
        budget=6,
        jobs=(2, 4),
        cancels=0.1,
        follows=0.0,
        deployers=6,
        made_of_functions=0.8,
    ),
    Profile(
        name="full",
        fault=0.006,
        weights=_FAULTS,
        budget=4,
        policy=FEW_WAIT,
        jobs=(5, 8),
        cancels=0.1,
        follows=0.1,
        stale=0.1,
    ),
    Profile(
        name="schedules",
        fault=0.008,
        weights={**_FAULTS, "crash": 3.0},
        stale=0.2,
        commit_fail=0.03,
        budget=10,
        until_s=150,
        policy=OUTBOX_ONLY,
        jobs=(0, 1),
        schedules=2,
    ),
    Profile(
        name="invocations",
        switch=0.3,
        fault=0.02,
        weights={**_FAULTS, "crash": 2.0, "lost": 3.0},
        stale=0.2,
        commit_ms=100,
        commit_fail=0.05,
        budget=12,
        jobs=(0, 1),
        invokers=2,
    ),
    Profile(
        name="entries",
        switch=0.4,
        fault=0.01,
        weights={**_FAULTS, "crash": 2.0, "lost": 2.0},
        stale=0.3,
        commit_ms=100,
        commit_fail=0.03,
        budget=6,
        jobs=(4, 7),
        cancels=0.1,
        follows=0.1,
        stops=0.2,
        abandon=0.02,
        counting=0.8,
    ),
    Profile(
        name="sealed",
        switch=0.3,
        fault=0.008,
        weights={**_FAULTS, "crash": 2.0, "slow": 2.0},
        frozen=0.4,
        stale=0.3,
        commit_ms=100,
        commit_fail=0.02,
        budget=8,
        policy=TIER_1,
        deadlines=0.1,
        cancels=0.2,
        follows=0.2,
        stops=0.3,
        abandon=0.02,
        jobs=(2, 4),
        sealed=0.9,
        uncollected=0.1,
        seconds=0.5,
    ),
)

PROFILES: Final = {profile.name: profile for profile in _ALL}
