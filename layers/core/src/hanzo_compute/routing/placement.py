"""The choice of a place for a job: the router's where something was learnt, the shortest queue where nothing was.

Pure: what is known comes in, the choice and its trace come out. Nothing here may stop a placement: whatever the engine
refuses ends in the shortest queue, and the trace says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from hanzo_compute.routing.snapshot import NOTHING, PoolStats, Snapshot

Body = dict[str, Any]

VERSION: Final = 1
TRACE_MAX: Final = 32 * 1024
"""Bytes of a trace as JSON, its decision as it is shown."""
CUTS: Final = {
    "decision.inputs": ("beliefs", "uncertainty", "candidates", "rejected", "chosen", "why"),
    "decision.candidates": ("beliefs", "chosen", "why"),
}
"""What a decision loses when the trace would be longer, and what it keeps."""
SHOWN_MAX: Final = 10
"""Places that a trace names when it would be longer."""
PRICE_SHARE: Final = 0.25
"""What the dearest place costs, in credits: a good outcome is worth 1."""
MISS_COST: Final = 0.5
"""What a late begin costs, in credits."""

HLLM: Final = "hllm"
LEAST_LOADED: Final = "least_loaded"
ONLY: Final = "only"


@dataclass(frozen=True, slots=True)
class Place:
    """A pool and a runtime that can hold the job, and how busy it is."""

    pool: str
    runtime: str
    tier: int = 0
    load: int = 0
    """Jobs that wait there."""
    head_ms: int = 0
    """How long the first of them has waited."""
    price: int = 0
    """The most that an attempt costs there, in base units."""

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.pool}/{self.runtime}"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times that the choice goes by, milliseconds."""

    begin_ms: int
    """A job should begin within this time."""
    attested_ms: int
    """Evidence older than this is stale."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a job goes, by what it was decided, and why."""

    place: Place
    by: str
    trace: Body
    warning: str | None = None


def choose(
    places: Sequence[Place], learnt: Snapshot | None, *, tier: int, seed: int, now_ms: int, bounds: Bounds
) -> Choice:
    """One of ``places``, of which there is at least one.

    ``learnt`` is None when nothing could be read, ``tier`` the privacy tier that the job asks for. The same arguments
    give the same choice.
    """
    if len(places) == 1:
        return _choice(places[0], ONLY, "the only place that can hold it", places, learnt, now_ms)
    if learnt is None or learnt.engine is None:
        return least_loaded(places, "no data: least loaded", learnt, now_ms=now_ms)
    try:
        place, decision = _decide(places, learnt, tier, seed, now_ms, bounds)
    except Exception as error:  # an engine with a defect must not hold up a job
        why = f"the engine failed ({type(error).__name__}: {error}): least loaded"
        found = least_loaded(places, why[:500], learnt, now_ms=now_ms)
        return Choice(found.place, found.by, found.trace, found.trace["why"])
    return _choice(place, HLLM, str(decision.get("why", "")), places, learnt, now_ms, decision)


def least_loaded(places: Sequence[Place], why: str, learnt: Snapshot | None = None, *, now_ms: int) -> Choice:
    """The place with the shortest queue; the cheapest, then the first, of several."""
    place = min(places, key=lambda place: (place.load, place.price))
    return _choice(place, LEAST_LOADED, why, places, learnt, now_ms)


def predicted_wait_ms(place: Place, stats: PoolStats) -> float:
    """How long a job that is placed there now will wait: its queue at the pool's pace, and no shorter than the first
    in that queue has waited already."""
    if not place.load:
        return 0.0
    return max(float(place.head_ms), (place.load + 1) * (stats.pace_ms or 0.0))


def _decide(
    places: Sequence[Place], learnt: Snapshot, tier: int, seed: int, now_ms: int, bounds: Bounds
) -> tuple[Place, Body]:
    from hllm.router import Candidate, Request, Router

    dearest = max(place.price for place in places) or 1
    stale = _stale(places, learnt, tier, now_ms, bounds)
    candidates = [
        Candidate(
            name=place.name,
            backend=place.pool,
            model=place.runtime,
            price=PRICE_SHARE * place.price / dearest + MISS_COST * _late(place, learnt.pool(place.pool), bounds),
            tier=place.tier,
            load=float(place.load),
            excluded=stale.get(place.pool, ""),
        )
        for place in places
    ]
    request = Request(tier=tier, miss_cost=MISS_COST)
    decision = Router().decide(learnt.router, request, candidates, seed=seed)
    chosen = next(place for place in places if place.name == decision.chosen.name)
    # What would have changed it is found by deciding again and again: when somebody asks.
    trace = decision.trace.to_dict(counterfactuals=False)
    return chosen, {name: value for name, value in trace.items() if name != "counterfactuals"}


def _late(place: Place, stats: PoolStats, bounds: Bounds) -> float:
    """How far a job that is placed there will begin beyond its time: 0 to 1."""
    return min(1.0, predicted_wait_ms(place, stats) / bounds.begin_ms)


def _stale(places: Sequence[Place], learnt: Snapshot, tier: int, now_ms: int, bounds: Bounds) -> dict[str, str]:
    """Why pools are left out whose agents proved nothing lately, while others have; none when none has."""
    if not tier:
        return {}
    ages = {place.pool: _age_ms(learnt.pool(place.pool), now_ms) for place in places}
    fresh = {pool for pool, age in ages.items() if age is not None and age <= bounds.attested_ms}
    if not fresh:
        return {}
    return {
        pool: "its agents have not proved a tier yet" if age is None else f"they proved a tier {age // 1000} s ago"
        for pool, age in ages.items()
        if pool not in fresh
    }


def _age_ms(stats: PoolStats, now_ms: int) -> int | None:
    return None if stats.attested_ms is None else max(0, now_ms - stats.attested_ms)


def _choice(
    place: Place,
    by: str,
    why: str,
    places: Sequence[Place],
    learnt: Snapshot | None,
    now_ms: int,
    decision: Body | None = None,
) -> Choice:
    trace: Body = {
        "version": VERSION,
        "at_ms": now_ms,
        "by": by,
        "why": why,
        "chosen": {"pool": place.pool, "runtime": place.runtime},
        "places": [_observed(each, learnt) for each in places],
        "learnt": None if learnt is None else {"folded": learnt.folded, "age_ms": max(0, now_ms - learnt.at_ms)},
    }
    return Choice(place, by, bounded(trace, decision))


def _observed(place: Place, learnt: Snapshot | None) -> Body:
    stats = NOTHING if learnt is None else learnt.pool(place.pool)
    seen: Body = {
        "pool": place.pool,
        "runtime": place.runtime,
        "load": place.load,
        "price": str(place.price),
        "seen": stats.seen,
        "lost": stats.lost,
        "predicted_wait_ms": round(predicted_wait_ms(place, stats), 1),
    }
    if place.head_ms:
        seen["head_ms"] = place.head_ms
    if stats.wait_ms is not None:
        seen["wait_ms"] = round(stats.wait_ms, 1)
    if stats.run_ms is not None:
        seen["run_ms"] = round(stats.run_ms, 1)
    if stats.attested_ms is not None:
        seen["attested_ms"] = stats.attested_ms
    return seen


def bounded(trace: Body, decision: Body | None = None) -> Body:
    """The trace with its decision, within TRACE_MAX bytes: first it loses what it could be recomputed from, then what
    is far from the choice; ``cut`` says what it has lost.

    The decision is JSON as text: most are never read, and a store has one string to check instead of all its numbers.
    """
    room = TRACE_MAX - len(to_json(trace))
    text = b"" if decision is None else to_json(decision)
    cut: list[str] = []
    for lost, kept in CUTS.items():
        if decision is not None and len(text) > room:
            text = to_json({name: decision[name] for name in kept})
            cut.append(lost)
    if len(text) > room:
        chosen = trace["chosen"]["pool"]
        first = sorted(trace["places"], key=lambda each: (each["pool"] != chosen, each["load"]))
        return {**trace, "places": first[:SHOWN_MAX], "cut": [*cut, "places"]}
    if text:
        trace["decision"] = text.decode()
    return {**trace, "cut": cut} if cut else trace


def explained(decision: Body) -> Body:
    """A decision, with what would have changed it, if its inputs are there; ``recomputed`` says whether the engine here
    comes to the same terms from them, or why it does not.
    """
    from hllm.errors import HllmError
    from hllm.trace import recompute

    if "inputs" not in decision:
        return decision
    try:
        again = recompute({name: value for name, value in decision.items() if name != "counterfactuals"})
    except HllmError as error:
        return {**decision, "recomputed": f"no: {error}"}
    same = all(again.get(name) == decision.get(name) for name in ("beliefs", "candidates", "rejected", "chosen"))
    found = again["counterfactuals"] if again.get("chosen") == decision.get("chosen") else []
    return {**decision, "counterfactuals": found, "recomputed": "yes" if same else "no: the terms differ"}
