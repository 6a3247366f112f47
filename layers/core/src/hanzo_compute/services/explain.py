"""Why a job is where it is, and what was learnt of the infrastructure: what people read of the router."""

from __future__ import annotations

import logging
import math
from typing import Any

from pydantic_core import from_json

from hanzo_compute.errors import NotFound
from hanzo_compute.model import keys
from hanzo_compute.model.spec import format_time
from hanzo_compute.routing import placement, snapshot
from hanzo_compute.routing.snapshot import Fit, PoolStats, Snapshot
from hanzo_compute.services import records
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)


def trace(ctx: Context, tenant: str, job_id: str, attempt: int | None = None) -> dict[str, Any]:
    """The trace of a job's last placement, or of the one for ``attempt``.

    Raises:
        NotFound: the tenant has no such job, or it was not placed (for that attempt).
    """
    job = records.find(ctx, job_id, tenant=tenant)
    if attempt is None:
        found = ctx.store.query(keys.job_partition(job_id), prefix=keys.TRACE, limit=1, reverse=True)
        record = found[0] if found else None
    else:
        record = ctx.store.get(keys.trace(job_id, attempt))
    if record is None:
        what = "has not been placed" if attempt is None else f"has no placement for attempt {attempt}"
        raise NotFound(f"job {job_id} {what}: it is {job.state}", hint=f"hzc show {job_id}", job=job_id)
    body = dict(record.body)
    at = format_time(body.pop("at_ms"))
    if "decision" in body:
        body["decision"] = from_json(body["decision"], cache_strings="keys")
        try:
            body["decision"] = placement.explained(body["decision"])
        except ImportError:
            log.warning("the engine is not installed: nothing is recomputed")
    return {"job": job_id, "attempt": int(record.key.sk.removeprefix(keys.TRACE)), "at": at, **body}


def regimes(ctx: Context) -> dict[str, Any]:
    """What was learnt: the regimes with their probabilities now, how they were fitted, and what is known of pools."""
    record = ctx.store.get(keys.routing())
    found, shown, readable = Snapshot(), [], True
    if record is not None:
        try:
            found = snapshot.parse(record.body)
            shown = _regimes(found)
        except ImportError:
            log.warning("the engine is not installed: regimes are not shown")
        except ValueError:  # no snapshot, or no state of the engine
            readable = False
    return {
        "routing": ctx.policy.routing,
        "readable": readable,
        "folded": found.folded,
        "at": format_time(found.at_ms) if found.at_ms else None,
        "regimes": shown,
        "fit": _fit(found.fit),
        "pools": [{"pool": pool.name, **_pool(found.pool(pool.name))} for pool in ctx.policy.pools],
    }


def _regimes(found: Snapshot) -> list[dict[str, Any]]:
    if found.engine is None:
        return []
    state = found.router
    shown = []
    for number, (name, probability) in enumerate(zip(state.regimes, state.regime_belief.tolist(), strict=True)):
        each: dict[str, Any] = {"name": name, "probability": probability}
        if state.emission is not None:
            centre = state.emission.mean[number].tolist()
            means = [m + s * x for x, m, s in zip(centre, found.fit.mean, found.fit.scale, strict=True)]
            waiting, wait_ms = (math.expm1(min(mean, 50.0)) for mean in means)
            stays = float(state.regime_transition[number, number])
            each |= {"stays": stays, "waiting": round(waiting, 2), "wait_ms": round(wait_ms, 1)}
        shown.append(each)
    return shown


def _fit(fit: Fit) -> dict[str, Any] | None:
    if not fit.tried_ms:
        return None
    times = {"tried_at": format_time(fit.tried_ms), "fitted_at": format_time(fit.fitted_ms) if fit.fitted_ms else None}
    return {**times, "rows": fit.rows, "held_out": fit.held_out}


def _pool(stats: PoolStats) -> dict[str, Any]:
    shown: dict[str, Any] = {"seen": stats.seen, "lost": stats.lost}
    for name in ("wait_ms", "pace_ms", "run_ms"):
        value = getattr(stats, name)
        shown[name] = None if value is None else round(value, 1)
    shown["attested_at"] = None if stats.attested_ms is None else format_time(stats.attested_ms)
    return shown
