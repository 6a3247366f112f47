"""The nightly fit of the regimes, from the telemetry that the learner has kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from hanzo_compute.config import HLLM
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import keys
from hanzo_compute.ports import Put, Record, WriteConflict
from hanzo_compute.routing import regimes, snapshot
from hanzo_compute.routing.snapshot import FEATURES, Fit, Snapshot
from hanzo_compute.services import learn
from hanzo_compute.services.context import Context

log = logging.getLogger(__name__)

PAGE: Final = 500
TRIES: Final = 8
SOON_MS: Final = 3600 * 1000
"""Until the next look, where there was too little telemetry."""


def refit(ctx: Context) -> dict[str, int]:
    """Fit the regimes if that is due; says whether it was done, and whether the new ones are in force.

    What the learner writes meanwhile is kept: the regimes are put into what is stored then.
    """
    record = ctx.store.get(keys.routing())
    if ctx.policy.routing != HLLM or record is None or not _due(ctx, record):
        return {}
    rev, before = learn.stored(ctx)
    if _waits(ctx, before):
        return {}
    telemetry = _telemetry(ctx)
    try:
        found = regimes.refit(telemetry, before.fit, now_ms=_now(ctx))
    except ImportError:  # the learner has said so
        return {}
    enough = len(telemetry) >= regimes.ROWS_MIN
    due_ms = _now(ctx) + (ctx.policy.refit_ms if enough else min(SOON_MS, ctx.policy.refit_ms))
    fit = replace(found.fit, due_ms=due_ms)
    for _ in range(TRIES):
        try:
            ctx.store.transact([Put(keys.routing(), _with(before, fit, promoted=found.promoted).body(), expect=rev)])
        except WriteConflict:
            rev, before = learn.stored(ctx)
            continue
        if enough:
            log.info("regimes %s: %s", "fitted" if found.promoted else "left as they are", found.why)
        return {"refits": 1, "promoted": int(found.promoted)} if enough else {}
    raise Unavailable("what was learnt is changing too fast", hint="it is tried again", retry_after_s=1)


def _due(ctx: Context, record: Record) -> bool:
    try:
        return not _waits(ctx, snapshot.parse(record.body))
    except snapshot.Unreadable:
        return False  # the learner makes a new one


def _waits(ctx: Context, found: Snapshot) -> bool:
    """Whether the next fit is not due yet; a time further ahead than one is set to is of a clock that was set back."""
    return 0 < found.fit.due_ms - _now(ctx) <= ctx.policy.refit_ms


def _with(before: Snapshot, fit: Fit, *, promoted: bool) -> Snapshot:
    if not promoted:
        return replace(before, fit=fit)
    return replace(before, fit=fit, engine=regimes.promoted(before.engine, fit))


def _telemetry(ctx: Context) -> list[tuple[int, list[float]]]:
    rows: list[tuple[int, list[float]]] = []
    last = _now(ctx) // ctx.policy.telemetry_ms
    after = ""
    while True:
        page = ctx.store.query(keys.telemetry(0).pk, after=after, limit=PAGE)
        for record in page:
            slot, seen = record.body.get("slot"), record.body.get("seen")
            # Of a later interval than this one there is only what a clock wrote that was set back since.
            if isinstance(slot, int) and slot <= last and isinstance(seen, list) and len(seen) == FEATURES:
                rows.append((slot, [float(x) for x in seen]))
        if len(page) < PAGE:
            return rows
        after = page[-1].key.sk


def _now(ctx: Context) -> int:
    return ctx.clock.now_ms()
