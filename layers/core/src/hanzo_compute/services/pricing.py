"""What a job can cost, before it runs; and the rates by which it is billed, whatever the tariff is by then."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hanzo_compute.errors import ComputeError, Conflict, FieldProblem, InternalError, InvalidSpec, NotSupported
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.spec import JobSpec, Resources
from hanzo_compute.model.statement import Terms
from hanzo_compute.model.tariff import FREE, UNITS, Rates, Tariff
from hanzo_compute.ports import ABSENT, Put, WriteConflict
from hanzo_compute.services.context import Context

CORES = 1
"""CPU seconds in a second of wall time: a WASM program has one thread."""


@dataclass(frozen=True, slots=True)
class Quote:
    """The most that a job can cost, all its attempts together, and how that is made up."""

    rates: Rates
    attempts: int
    attempt_most: int
    quantities: dict[str, int]

    @property
    def most(self) -> int:
        """Base units."""
        return self.attempts * self.attempt_most

    def as_json(self) -> dict[str, Any]:
        """As the API shows it: each item costs ``quantity * rate / per``, their sum is rounded up once."""
        items = [
            {"unit": unit, "of": UNITS[unit][0], "quantity": self.quantities[UNITS[unit][0]], "rate": rate}
            | {"per": UNITS[unit][1]}
            for unit, rate in self.rates.rates.items()
        ]
        return {
            "token": self.rates.token,
            "symbol": self.rates.symbol,
            "decimals": self.rates.decimals,
            "units": str(self.most),
            "attempts": self.attempts,
            "attempt_units": str(self.attempt_most),
            "firm": self.rates.firm,
            "basis": "fuel" if self.rates.firm else "timeout",
            "items": items,
            "tariff": self.rates.as_json(),
            "rates": self.rates.digest,
        }


def quote(ctx: Context, spec: JobSpec, runtime: str) -> Quote:
    """The most that a job of this spec can cost.

    Raises:
        NotSupported: the tariff has no price for such jobs.
        InvalidSpec: it is priced by fuel, and has no limit of fuel; or it can cost more than its ``max_price``.
    """
    rates, quantities = _limits(ctx, runtime, spec.profile, spec.resources, spec.privacy_tier or 0)
    found = Quote(rates, spec.retry.max_attempts, rates.cost(quantities), quantities)
    _check(spec, found)
    return found


def quotes(ctx: Context, spec: JobSpec, runtimes: Sequence[str]) -> dict[str, Quote]:
    """:func:`quote` for each of the runtimes that the tariff and the job's ``max_price`` allow, the cheapest first.

    Raises:
        NotSupported, InvalidSpec: none is allowed; the error is that of the first.
    """
    found: dict[str, Quote] = {}
    refused: ComputeError | None = None
    for runtime in runtimes:
        try:
            found[runtime] = quote(ctx, spec, runtime)
        except (NotSupported, InvalidSpec) as error:
            refused = refused or error
    if refused is not None and not found:
        raise refused
    return dict(sorted(found.items(), key=lambda each: each[1].attempt_most))


def quote_most(ctx: Context, spec: JobSpec, runtimes: Sequence[str]) -> Quote:
    """The quote for wherever it may run: that of the dearest."""
    return list(quotes(ctx, spec, runtimes).values())[-1]


def terms_of_call(ctx: Context, runtime: str, profile: str, resources: Resources) -> Terms:
    """How an invocation within these limits is billed, by the tariff in force: the same for each one of a version.

    Raises:
        NotSupported: the tariff has no price for it.
        InvalidSpec: it is priced by fuel, and has no limit of fuel.
    """
    rates, quantities = _limits(ctx, runtime, profile, resources)
    return Terms(rates, rates.cost(quantities), ctx.settlement)


def _limits(
    ctx: Context, runtime: str, profile: str, resources: Resources, tier: int = 0
) -> tuple[Rates, dict[str, int]]:
    """The rates, and the most that an attempt can use."""
    rates = ctx.tariff.find(runtime, profile, tier)
    if rates is None:
        raise NotSupported(
            f"tariff {ctx.tariff.version} has no price for {runtime} jobs of profile {profile} and tier {tier}",
            hint="ask the operator for a rate",
        )
    wall_ms, fuel = resources.timeout_s * 1000, resources.fuel
    if "fuel_g" in rates.rates and fuel is None:
        problem = FieldProblem("resources.fuel", "must be given: these jobs are priced by fuel", "missing")
        hint = "the most that it may use; what it does not use is not billed. CPython starts with 250,000,000"
        raise InvalidSpec(f"{problem.field} {problem.message}", fields=[problem], hint=hint)
    return rates, {
        "attempts": 1,
        "wall_ms": wall_ms,
        "cpu_ms": CORES * wall_ms,
        "memory_mib_ms": resources.memory_mib * wall_ms,
        "fuel": fuel or 0,
        "gpu_ms": 0,
        "egress_bytes": 0,
    }


def _check(spec: JobSpec, found: Quote) -> None:
    limit = spec.max_price
    if limit is None:
        return
    if limit.token != found.rates.token:
        problem = FieldProblem("max_price.token", f"must be {found.rates.token}, in which jobs are billed here")
    elif found.most > int(limit.units):
        problem = FieldProblem(
            "max_price.units",
            f"is {limit.units}, and the job can cost up to {found.most}",
            "too_low",
            "hzc quote shows how that is made up; lower its timeout, memory, fuel or attempts, or raise the price",
        )
    else:
        return
    raise InvalidSpec(f"{problem.field} {problem.message}", fields=[problem], hint=problem.hint)


def publish(ctx: Context) -> None:
    """Store the current tariff, so that whoever bills by it later finds it. At the start, and at the latest here.

    Raises:
        Conflict: another tariff had this version first.
    """
    if ctx.tariff.version in ctx.tariffs:
        return
    at = keys.tariff(ctx.tariff.version)
    record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
    if record is None:
        with suppress(WriteConflict):
            ctx.store.transact([Put(at, ctx.tariff.as_json(), expect=ABSENT)])
        return  # remembered once it was read: what was only applied may be lost
    if Tariff.from_json(record.body) != ctx.tariff:
        raise Conflict(
            f"tariff version {ctx.tariff.version} had other prices before",
            hint="the operator must give the changed tariff a new version",
        )
    ctx.tariffs[ctx.tariff.version] = ctx.tariff


def rates_of(ctx: Context, job: Job) -> Rates:
    """The rates by which a job is billed."""
    if job.tariff is None:
        return FREE
    if job.tariff not in ctx.tariffs:
        at = keys.tariff(job.tariff)
        record = ctx.store.get(at) or ctx.store.get(at, fresh=True)
        if record is None:
            raise InternalError(f"tariff {job.tariff} of job {job.id} is not there", hint="hzc doctor")
        ctx.tariffs[job.tariff] = Tariff.from_json(record.body)
    rates = ctx.tariffs[job.tariff].find(job.runtime, job.profile, job.tier)
    if rates is None:
        raise InternalError(f"tariff {job.tariff} has no price for job {job.id}")
    return rates


def terms_of(ctx: Context, job: Job) -> Terms:
    """What an agent that runs the job agrees to."""
    return Terms(rates_of(ctx, job), int(job.most), ctx.settlement, job.tier)
