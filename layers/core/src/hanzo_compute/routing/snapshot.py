"""What was learnt of pools, runtimes and regimes: one small value, stored as one record.

The engine's part is opaque here; the rest is plain means that need no engine. Whoever finds a record that cannot be
read does without, or begins anew: it is never a reason not to place a job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.model.canonical import EXACT_MAX
from hanzo_compute.model.spec import TIME_MS_MAX

if TYPE_CHECKING:
    from hllm.router import RouterState

Body = dict[str, Any]

FORMAT: Final = 1
FEATURES: Final = 2
"""Numbers in an observation of telemetry."""
KEPT: Final = 0.95
"""Weight of the past in a mean, for each new observation: it remembers about 20 of them."""


class Unreadable(ValueError):
    """A record that is no snapshot."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """What is known of a pool: counts, and exponentially weighted means of what is measured there."""

    seen: int = 0
    lost: int = 0
    """Attempts that the platform lost: their lease lapsed, or their agent gave up."""
    wait_ms: float | None = None
    """From its placement until an agent began a job."""
    pace_ms: float | None = None
    """The same for each job that was to go before it, itself included: of jobs that found a queue."""
    run_ms: float | None = None
    attested_ms: int | None = None
    """When an agent last proved a tier of 1 or more for a job that has ended."""
    at_ms: int = 0

    def after(self, row: Mapping[str, Any], *, lost: bool) -> PoolStats:
        """With one more observation."""
        wait, at = row["wait_ms"], int(row["at_ms"])
        attested = max(self.attested_ms or 0, at) if row["tier"] else self.attested_ms
        return PoolStats(
            seen=self.seen + 1,
            lost=self.lost + lost,
            wait_ms=_mean(self.wait_ms, wait),
            pace_ms=_mean(self.pace_ms, wait / (row["ahead"] + 1) if wait is not None and row["ahead"] else None),
            run_ms=self.run_ms if lost else _mean(self.run_ms, row["run_ms"]),
            attested_ms=attested,
            at_ms=max(self.at_ms, at),
        )


NOTHING: Final = PoolStats()
"""What is known of a pool before anything is."""


@dataclass(frozen=True, slots=True)
class Window:
    """What has been seen of the current interval of telemetry."""

    slot: int = -1
    seen: int = 0
    log_wait: float = 0.0
    """Sum of log(1 + ms) of the waits."""
    waiting: int = 0
    """Most jobs that waited in all pools."""

    @property
    def telemetry(self) -> list[float] | None:
        """The observation of the whole interval: log(1 + jobs waiting), mean log(1 + ms waited)."""
        return [math.log1p(self.waiting), self.log_wait / self.seen] if self.seen else None


@dataclass(frozen=True, slots=True)
class Fit:
    """How the regimes came to be: when they were last looked for, and how good those in force are."""

    tried_ms: int = 0
    due_ms: int = 0
    """When they are looked for next."""
    fitted_ms: int = 0
    rows: int = 0
    held_out: float | None = None
    """Log-likelihood (nats for each observation) of telemetry that they were not fitted to."""
    mean: list[float] = field(default_factory=list)
    scale: list[float] = field(default_factory=list)
    """By which telemetry is standardised."""
    model: Body | None = None
    """The hidden Markov model."""

    def standardised(self, row: list[float]) -> list[float] | None:
        """A telemetry observation in the model's units; None without a model."""
        if self.model is None:
            return None
        return [(x - m) / s for x, m, s in zip(row, self.mean, self.scale, strict=True)]


@dataclass(frozen=True)
class Snapshot:
    """Everything that was learnt, after ``folded`` observations."""

    folded: int = 0
    at_ms: int = 0
    pools: Mapping[str, PoolStats] = field(default_factory=dict)
    window: Window = field(default_factory=Window)
    fit: Fit = field(default_factory=Fit)
    engine: Body | None = None
    """The router's state; None before the first observation."""

    def body(self) -> Body:
        """As it is stored."""
        pools = {name: asdict(stats) for name, stats in self.pools.items()}
        parts = {"window": asdict(self.window), "fit": asdict(self.fit), "engine": self.engine}
        return {"format": FORMAT, "folded": self.folded, "at_ms": self.at_ms, "pools": pools, **parts}

    def as_of(self, now_ms: int) -> Snapshot:
        """The same with no time after ``now_ms``: one of a clock that was set back since would count as new until then,
        and nothing that was seen before it would be forgotten.
        """
        pools = {
            name: replace(
                stats,
                at_ms=min(stats.at_ms, now_ms),
                attested_ms=None if stats.attested_ms is None else min(stats.attested_ms, now_ms),
            )
            for name, stats in self.pools.items()
        }
        engine, at = self.engine, (self.engine or {}).get("at")
        if engine is not None and isinstance(at, int | float) and at > now_ms / 1000:
            engine = {**engine, "at": now_ms / 1000}
        return replace(self, at_ms=min(self.at_ms, now_ms), pools=pools, engine=engine)

    def pool(self, name: str) -> PoolStats:
        """What is known of a pool."""
        return self.pools.get(name, NOTHING)

    @cached_property
    def router(self) -> RouterState:
        """The router's state: read once, as a snapshot is used for many placements.

        Raises:
            HllmError: it is none.
        """
        from hllm.router import RouterState

        return RouterState.from_dict(self.engine or {})


def parse(body: Mapping[str, Any]) -> Snapshot:
    """The snapshot of a stored record.

    Raises:
        Unreadable: it is none.
    """
    try:
        if body["format"] != FORMAT:
            raise Unreadable(f"it is of format {body['format']!r}")
        found = Snapshot(
            folded=int(body["folded"]),
            at_ms=int(body["at_ms"]),
            pools={str(name): PoolStats(**stats) for name, stats in body["pools"].items()},
            window=Window(**body["window"]),
            fit=Fit(**body["fit"]),
            engine=None if body["engine"] is None else dict(body["engine"]),
        )
        _check(found)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Unreadable(f"the record of what was learnt cannot be read: {error!r}") from None
    return found


def _check(found: Snapshot) -> None:
    window, fit, pools = found.window, found.fit, found.pools.values()
    means: list[Any] = [value for stats in pools for value in (stats.wait_ms, stats.pace_ms, stats.run_ms)]
    if not all(0 <= value <= EXACT_MAX for value in [window.log_wait, *(mean for mean in means if mean is not None)]):
        raise ValueError("a mean is no number of at least 0")
    counts: list[Any] = [value for stats in pools for value in (stats.seen, stats.lost)]
    if not all(_is_count(value, EXACT_MAX) for value in [*counts, window.seen, window.waiting, fit.rows]):
        raise ValueError("a count is no whole number of at least 0")
    if type(window.slot) is not int or not (fit.held_out is None or math.isfinite(fit.held_out)):
        raise ValueError("the interval or the fit is none")
    times: list[Any] = [stats.at_ms for stats in pools]
    times += [stats.attested_ms for stats in pools if stats.attested_ms is not None]
    if not all(_is_count(time, TIME_MS_MAX) for time in [*times, fit.tried_ms, fit.due_ms, fit.fitted_ms, found.at_ms]):
        raise ValueError("a time is none")
    if len(fit.mean) != len(fit.scale) or not all(0 < scale <= EXACT_MAX for scale in fit.scale):
        raise ValueError("telemetry has no scale")
    if not all(-EXACT_MAX <= mean <= EXACT_MAX for mean in fit.mean):
        raise ValueError("telemetry has no mean")
    model = fit.model
    if model is not None:
        count = len(model["regimes"])
        sizes = [len(model[name]) for name in ("startprob", "transmat", "means", "covars", "belief")]
        if not count or set(sizes) != {count} or len(fit.mean) != FEATURES:
            raise ValueError("the model of the regimes has another shape")


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _mean(before: float | None, value: float | None) -> float | None:
    if value is None:
        return before
    return float(value) if before is None else KEPT * before + (1 - KEPT) * value
