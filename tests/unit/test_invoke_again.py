"""A call whose entries were changed while it ran is run again: all of its runs are paid for, whatever comes of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hanzo_compute.errors import Conflict, Unavailable
from hanzo_compute.front.calls import Call
from hanzo_compute.model import invocation as forms
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.model.invocation import Invocation
from hanzo_compute.model.tariff import Rates
from hanzo_compute.ports.sandboxes import GuestResult
from hanzo_compute.services import batches, entries, functions, log
from hanzo_compute.services import invoke as invoking
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.services.invoke import RUNS_MAX, Pending
from hanzo_compute.transparency.receipt import verify
from tests.support.stepped import Platform

RUN = GuestResult("ok", b"out", wall_us=2_000_000, cpu_ms=700, fuel=1000, memory_bytes=5, exit_code=0)
TIMEOUT_S = 10


class Shop:
    """A function with entries that somebody else changes, whenever it is told to."""

    def __init__(self, **fields: object) -> None:
        self.platform = Platform()
        self.batcher = Batcher("test")
        self.ctx: Context = replace(self.platform.ctx, invocations=self.batcher)
        given = {
            "source": {"code": "1", "language": "python"},
            "capabilities": {"kv": True},
            "resources": {"timeout_s": TIMEOUT_S, "memory_mib": 64},
        }
        functions.deploy(self.ctx, "acme", "f", FunctionSpec.model_validate(given | fields))

    def begin(self) -> Pending:
        return invoking.begin(self.ctx, "acme", "f", None, b"in")

    def overtaken(self, pending: Pending) -> None:
        """The call uses an entry, and another changes it before the call has ended."""
        assert pending.call.service is not None
        assert pending.call.service.ask("kv_put", [b"k", b"mine", -1]) == (0, b"")
        entries.put(self.ctx, "acme", "f", b"k", b"another's", -1)

    @property
    def billed(self) -> list[Invocation]:
        return list(self.batcher._pending.values())


def used(each: Invocation) -> tuple[int, int, int | None, int, int]:
    usage = each.outcome.usage
    return usage.wall_ms, usage.cpu_ms, usage.fuel, usage.memory_mib_ms, usage.memory_peak_bytes


def test_all_runs_of_a_call_are_billed_once() -> None:
    shop = Shop()
    pending = shop.begin()
    for _ in range(2):
        shop.overtaken(pending)
        assert pending.finish(RUN) is None
        assert shop.billed == []
    answered = pending.finish(replace(RUN, memory_bytes=4))
    pending.close()
    assert answered is not None
    assert (answered.result.output, answered.result.wall_us, answered.result.fuel) == (b"out", 6_000_000, 3000)
    (one,) = shop.billed
    assert used(one) == (6000, 2100, 3000, 64 * 6000, 5)
    assert (one.id, one.outcome.outputs[0].size) == (pending.id, 3)


def test_one_run_is_billed_as_it_was() -> None:
    shop = Shop()
    pending = shop.begin()
    assert pending.finish(RUN) is not None
    pending.close()
    (one,) = shop.billed
    assert used(one) == (2000, 700, 1000, 64 * 2000, 5)
    assert one.terms is pending._terms


def test_what_never_has_an_effect_is_billed_too() -> None:
    shop = Shop()
    pending = shop.begin()
    for number in range(RUNS_MAX):
        shop.overtaken(pending)
        if number < RUNS_MAX - 1:
            assert pending.finish(RUN) is None
    with pytest.raises(Conflict):
        pending.finish(RUN)
    pending.close()
    pending.close()
    (one,) = shop.billed
    assert used(one) == (2000 * RUNS_MAX, 700 * RUNS_MAX, 1000 * RUNS_MAX, 64 * 2000 * RUNS_MAX, 5)
    assert one.outcome.outputs == [], "what was not answered is no output"


@pytest.mark.parametrize("how", ["platform", "gone"])
def test_runs_without_an_effect_are_billed_if_the_platform_fails_the_next(how: str) -> None:
    shop = Shop()
    pending = shop.begin()
    shop.overtaken(pending)
    assert pending.finish(RUN) is None
    if how == "platform":
        with pytest.raises(Unavailable):
            pending.finish(replace(RUN, category="platform"))
    pending.close()  # gone: no sandbox was to be had
    (one,) = shop.billed
    assert used(one) == (2000, 700, 1000, 64 * 2000, 5)


def test_runs_before_one_that_becomes_a_job_are_billed() -> None:
    shop = Shop(resources={"timeout_s": 600, "memory_mib": 64})
    pending = shop.begin()
    shop.overtaken(pending)
    assert pending.finish(RUN) is None
    answered = pending.finish(GuestResult("timeout", wall_us=25_000_000))
    pending.close()
    assert answered is not None
    assert answered.job is not None
    (one,) = shop.billed
    assert used(one)[0] == 2000


def test_a_run_that_fails_is_billed_with_those_before() -> None:
    shop = Shop()
    pending = shop.begin()
    shop.overtaken(pending)
    assert pending.finish(RUN) is None
    with pytest.raises(Exception, match="failed"):
        pending.finish(replace(RUN, category="exit", exit_code=3))
    pending.close()
    (one,) = shop.billed
    assert used(one)[0] == 4000
    assert one.outcome.category == "exit"


def test_the_bill_may_be_as_many_times_what_the_limits_cost() -> None:
    """Else runs that use all they may would cost no more than one of them. The receipt holds."""
    shop = Shop()
    rates = Rates("t", "test:coin", "$", 6, "wasm", "fast", 0, {"wall_s": 1000})
    pending = shop.begin()
    pending._terms = replace(pending._terms, rates=rates, most=rates.cost({"wall_ms": TIMEOUT_S * 1000}))
    whole = replace(RUN, wall_us=TIMEOUT_S * 1_000_000)
    for _ in range(2):
        shop.overtaken(pending)
        assert pending.finish(whole) is None
    pending.finish(whole)
    pending.close()
    (one,) = shop.billed
    assert (one.terms.most, forms.row(one)[4]) == (30_000, "30000")
    while shop.batcher.waits:
        shop.batcher.flush(shop.ctx)
        shop.platform.clock.advance(2)
    found = batches.receipt(shop.ctx, "acme", one.id).receipt
    assert found is not None
    assert verify(found, lambda _: log.verifier_key(shop.ctx), lambda *_: True, job=one.id).units == 30_000


def test_the_end_of_a_stream_tells_of_all_runs() -> None:
    shop = Shop()
    pending = invoking.begin(shop.ctx, "acme", "f", None, b"in", streamed=True)
    call = Call(pending, lambda answered: pytest.fail("it is a stream"), "r")
    shop.overtaken(pending)
    assert call.answer(RUN) is None
    found = call.answer(RUN)
    call.close()
    assert found is not None
    assert '"wall_us":4000000' in str(found.body)
