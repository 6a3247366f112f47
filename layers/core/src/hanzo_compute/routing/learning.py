"""Folds observations into what was learnt: a pure function of the snapshot before and the rows.

The same rows in the same order give the same snapshot, so a fold that was cut short is simply made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.model.outcome import Category
from hanzo_compute.model.spec import TIME_MS_MAX
from hanzo_compute.routing import regimes
from hanzo_compute.routing.snapshot import PoolStats, Snapshot, Window

if TYPE_CHECKING:
    from hllm.router import RouterState

Row = Mapping[str, Any]

LOST: Final = frozenset({"lapsed", Category.PLATFORM.value})
"""The platform lost such an attempt: that tells of its pool."""
FAULTS: Final = frozenset({Category.INVALID_PROGRAM.value, Category.TRAP.value, Category.OOM.value})
"""Such a program did not fit its runtime: that tells of the runtime."""
POOLS_KEPT: Final = 256
"""Pools that are remembered: beyond it the one that was not heard of for longest is forgotten."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A snapshot after a fold; the telemetry of an interval if one has ended, and what went wrong meanwhile."""

    snapshot: Snapshot
    telemetry: tuple[int, list[float]] | None = None
    """Slot and observation."""
    warnings: tuple[str, ...] = ()


def fold(
    before: Snapshot, rows: Sequence[Row], *, now_ms: int, waiting: int, interval_ms: int, begin_ms: int
) -> Folded:
    """What is known after ``rows``: each counts once, in order of time; one that cannot be read counts for nothing.

    ``waiting`` jobs wait in all pools now. Intervals of telemetry are of ``interval_ms``; a job that began within
    ``begin_ms`` was served as it should.
    """
    before = before.as_of(now_ms)
    read = [{**row, "at_ms": min(int(row["at_ms"]), now_ms)} for row in rows if _readable(row)]
    read.sort(key=lambda row: int(row["at_ms"]))
    warnings = [f"{len(rows) - len(read)} observations cannot be read"] if len(read) < len(rows) else []
    slot = now_ms // interval_ms
    ended = before.window if before.window.slot not in (-1, slot) else None
    telemetry = None if ended is None else ended.telemetry
    window = Window(slot) if before.window.slot != slot else before.window
    pools = dict(before.pools)
    for row in read:
        pools[row["pool"]] = pools.get(row["pool"], PoolStats()).after(row, lost=row["category"] in LOST)
        if row["wait_ms"] is not None:
            window = replace(window, seen=window.seen + 1, log_wait=window.log_wait + math.log1p(row["wait_ms"]))
    for name in sorted(pools, key=lambda name: pools[name].at_ms)[: max(0, len(pools) - POOLS_KEPT)]:
        del pools[name]
    after = replace(
        before,
        folded=before.folded + len(rows),
        at_ms=max(before.at_ms, now_ms),
        pools=pools,
        window=replace(window, waiting=max(window.waiting, waiting)),
    )
    seen = None if telemetry is None else before.fit.standardised(telemetry)
    engine, wrong = _learn(before, read, seen, begin_ms)
    at = None if telemetry is None or ended is None else (ended.slot, telemetry)
    return Folded(replace(after, engine=engine), at, (*warnings, *wrong))


def _learn(
    before: Snapshot, rows: Sequence[Row], telemetry: list[float] | None, begin_ms: int
) -> tuple[dict[str, Any] | None, list[str]]:
    """The router's state after the rows. One that the engine cannot go on with is given up for a new one: whatever it
    fails by, it would fail by it again, and nothing would be learnt any more.
    """
    try:
        from hllm.router import Feedback, Router, RouterState
    except ImportError as error:
        return before.engine, [f"the engine is not installed: {error}"]

    def learnt(state: RouterState, telemetry: list[float] | None) -> dict[str, Any]:
        if telemetry is not None and state.emission is not None:
            state = Router().advance(state, telemetry=telemetry)
        seen = [
            Feedback(
                candidate_model=row["runtime"],
                backend=row["pool"],
                ok=row["category"] not in FAULTS,
                met=_met(row, begin_ms),
                at=row["at_ms"] / 1000,
                load=float(row["ahead"]),
            )
            for row in rows
        ]
        return (Router().learn(state, seen) if seen else state).to_dict()

    warnings: list[str] = []
    if before.engine is not None:
        try:
            return learnt(RouterState.from_dict(before.engine), telemetry), warnings
        except Exception as error:
            warnings.append(f"what the engine had learnt is of no use, it begins anew: {error!r}"[:500])
    try:
        return learnt(regimes.new(before.fit), None), warnings
    except Exception as error:
        return None, [*warnings, f"the engine refuses these observations: {error!r}"[:500]]


def _met(row: Row, begin_ms: int) -> bool | None:
    if row["category"] in LOST:
        return False
    return None if row["wait_ms"] is None else row["wait_ms"] <= begin_ms


def _readable(row: Row) -> bool:
    try:
        texts = all(isinstance(row[name], str) for name in ("pool", "runtime", "category"))
        counts = all(_is_count(row[name]) for name in ("at_ms", "ahead", "tier"))
        times = all(row[name] is None or _is_count(row[name]) for name in ("wait_ms", "run_ms"))
    except (KeyError, TypeError):
        return False
    return texts and counts and times


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= TIME_MS_MAX
