"""Admission: whether one more job may wait. What is refused here has left nothing behind.

A queue without a bound lets every job wait longer than its sender does. Counts are taken from the indexes at most once
a second in each process, and what the process accepts meanwhile is added: that costs little, and lets each further
front exceed a bound by what it accepts in a second.
"""

from __future__ import annotations

from typing import Final

from hanzo_compute.errors import NoCapacity, RateLimited
from hanzo_compute.model import keys
from hanzo_compute.model.states import State
from hanzo_compute.services.context import Context, Count

COUNT_S: Final = 1.0
"""A count is good for this long."""
RECOUNT_S: Final = 0.1
"""… or for this long, if the bound is reached only by what was accepted since: some of that may have run already."""
RETRY_AFTER_S: Final = 2
"""By then there is a new count."""
TENANTS_MAX: Final = 4096
"""Tenants whose counts a process remembers."""
PLATFORM: Final = ""
WAITING: Final = (State.QUEUED, State.PLACED, State.RETRYING)


def admit(ctx: Context, tenant: str, beside: int = 0) -> None:
    """Refuse a job that would wait behind too many, ``beside`` others that are stored together with it among them.

    Call :func:`accepted` once it is stored.

    Raises:
        RateLimited: this tenant has as many jobs waiting as it may have.
        NoCapacity: the platform has.
    """
    most = ctx.policy.tenant_waiting_max
    if _waiting(ctx, tenant, most) + beside >= most:
        raise RateLimited(
            f"you have {most} jobs waiting to run, which is the most that is accepted",
            hint="repeat it later, or cancel some that wait; the operator can raise HZC_TENANT_WAITING_MAX",
            retry_after_s=RETRY_AFTER_S,
        )
    most = ctx.policy.waiting_max
    if _waiting(ctx, PLATFORM, most) + beside >= most:
        raise NoCapacity(
            f"{most} jobs wait to run here, which is the most that is accepted",
            hint="repeat it later; the operator can add agents, or raise HZC_WAITING_MAX",
            retry_after_s=RETRY_AFTER_S,
        )


def accepted(ctx: Context, tenant: str) -> None:
    """One more job waits."""
    for name in (tenant, PLATFORM):
        count = ctx.waiting.get(name)
        if count is not None:
            count.accepted += 1


def _waiting(ctx: Context, name: str, most: int) -> int:
    now = ctx.clock.monotonic()
    count = ctx.waiting.get(name)
    if count is None or now - count.at_s >= (RECOUNT_S if _doubtful(count, most) else COUNT_S):
        if len(ctx.waiting) >= TENANTS_MAX:
            ctx.waiting.clear()
        count = ctx.waiting[name] = Count(now, _count(ctx, name, most))
    return count.counted + count.accepted


def _doubtful(count: Count, most: int) -> bool:
    return count.counted < most <= count.counted + count.accepted


def _count(ctx: Context, name: str, most: int) -> int:
    if name == PLATFORM:
        index = keys.BY_POOL
        partitions = [keys.UNPLACED, *(keys.pool_partition(pool.name) for pool in ctx.policy.pools)]
    else:
        index = keys.BY_STATE
        partitions = [keys.state_entry(name, state.value, "")[0] for state in WAITING]
    found = 0
    for partition in partitions:
        if found < most:
            found += ctx.store.count_index(index, partition, most - found)
    return found
