"""Receipts: real ones hold; with anything in them changed they do not, and what was changed is named."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from hanzo_compute.adapters.memory import MemoryVault
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.model.outcome import Category, Outcome, Usage
from hanzo_compute.model.spec import format_time
from hanzo_compute.ports import KeyKind, Put
from hanzo_compute.services import cancel, complete, receipts, reconcile, records
from hanzo_compute.transparency.checkpoint import VerifierKey
from hanzo_compute.transparency.form import ReceiptInvalid
from hanzo_compute.transparency.receipt import verify
from tests.support import statements
from tests.support.receipts import Receipt, check, finished, key_of, outcome, receipt_of, refused, settled
from tests.support.stepped import Platform


@pytest.fixture(scope="module")
def filled() -> Platform:
    """A platform whose log has 11 leaves."""
    platform = Platform()
    for _ in range(10):
        finished(platform)
    finished(platform, input={"inline": "x"})
    settled(platform)
    return platform


@pytest.fixture(scope="module")
def real(filled: Platform) -> Receipt:
    jobs = [record.body["id"] for _, record in filled.store.query_index("tenant", "TENANT#acme", limit=20)]
    return receipt_of(filled, jobs[6])


def test_a_real_receipt_holds(real: Receipt, filled: Platform) -> None:
    found = check(real, filled)
    assert (found.state, found.category, found.attempt, found.tenant) == ("succeeded", "ok", 1, "acme")
    # 200 + 1.5 s * 10000 + 384000 MiB ms / 1024000 * 16667 = 21450.125: rounded up once.
    assert (found.token, found.units) == ("credit", 21451)
    assert found.checkpoint.size == 11
    assert found.proven[-1] == "usage at tariff 1 makes the bill: 21451 base units of credit"


# Every value of a receipt, by its path.


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from paths(item, (*path, name))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from paths(item, (*path, number))
    else:
        yield path


def template() -> Receipt:
    """A receipt to take the paths from: those of all receipts of a succeeded job with one output."""
    platform = Platform()
    jobs = [finished(platform) for _ in range(11)]
    settled(platform)
    return receipt_of(platform, jobs[4])


PATHS = sorted(paths(template()), key=str)


def changes(value: Any) -> list[Any]:
    """Other values of the same kind, and some of another."""
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int):
        return [value + 1, value - 1, str(value), float(value) + 0.5, 2**53, None]
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64,}", value):
        flipped = [f"{int(value[at], 16) ^ 1:x}".join((value[:at], value[at + 1 :])) for at in range(len(value))]
        return [*flipped, value.upper() if value.upper() != value else "", value[:-2], value + "00", ""]
    if isinstance(value, str):
        return [value + "x", value[:-1], "", 7, *(["9" + value] if value.isdigit() else [])]
    if value is None:
        return ["x", 0, {}]
    return [{"x": 1}, [1], None]  # an empty list or object


def at(receipt: Receipt, path: tuple[Any, ...]) -> Any:
    value: Any = receipt
    for step in path:
        value = value[step]
    return value


def put(receipt: Receipt, path: tuple[Any, ...], value: Any) -> Receipt:
    changed = copy.deepcopy(receipt)
    holder = at(changed, path[:-1])
    holder[path[-1]] = value
    return changed


def expected(path: tuple[Any, ...]) -> set[str]:
    """The names by which a change there may be told."""
    dotted = ".".join(map(str, path))
    if path[0] in ("rates", "proof"):
        return {path[0], dotted}
    # The field of the leaf or statement, or what within it has not its form.
    least = {"leaf": 3, "statement": 2}.get(path[0], 1)
    return {".".join(map(str, path[:n])) for n in range(min(least, len(path)), len(path) + 1)}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_whatever_is_changed_is_named(path: tuple[Any, ...], real: Receipt, filled: Platform) -> None:
    value = at(real, path)
    tried = [each for each in changes(value) if each != value or type(each) is not type(value)]
    assert tried
    for each in tried:
        error = refused(put(real, path, each), filled)
        assert {error.name, error.name.rpartition(".")[0]} & expected(path), (
            f"{path}: {value!r} → {each!r} is told as {error}"
        )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_whatever_is_left_out_is_named(path: tuple[Any, ...], real: Receipt, filled: Platform) -> None:
    changed = copy.deepcopy(real)
    del at(changed, path[:-1])[path[-1]]
    error = refused(changed, filled)
    assert error.name.split(".")[0] == path[0], f"without {path} it is told as {error}"


@pytest.mark.parametrize("holder", [(), ("leaf",), ("leaf", "body"), ("leaf", "fields"), ("statement",), ("fields",)])
def test_whatever_is_added_is_named(holder: tuple[str, ...], real: Receipt, filled: Platform) -> None:
    error = refused(put(real, (*holder, "more"), "x"), filled)
    assert error.name in {".".join((*holder, "more")), ".".join(holder)}


def test_every_byte_of_the_checkpoint_counts(real: Receipt, filled: Platform) -> None:
    text = real["checkpoint"]
    for place in range(len(text)):
        changed = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        assert refused(real | {"checkpoint": changed}, filled).name == "checkpoint"


@pytest.mark.parametrize("rubbish", [None, [], 7, "x", {}, {"format": "hanzo-compute/receipt/v1"}, {"format": "v2"}])
def test_what_is_no_receipt(rubbish: Any, filled: Platform) -> None:
    refused(rubbish, filled)


def test_a_receipt_that_is_nested_too_deeply(real: Receipt, filled: Platform) -> None:
    deep: Any = 0
    for _ in range(20_000):
        deep = [deep]
    assert refused(put(real, ("statement", "usage"), deep), filled).name == "statement.usage"


def test_a_receipt_of_another_job(real: Receipt, filled: Platform) -> None:
    assert check(real, filled, job=real["leaf"]["body"]["job"]).job
    assert refused(real, filled, job="j-" + "0" * 26).name == "leaf.body.job"


def test_parts_of_two_receipts_do_not_make_one(filled: Platform) -> None:
    jobs = [record.body["id"] for _, record in filled.store.query_index("tenant", "TENANT#acme", limit=20)]
    one, two = receipt_of(filled, jobs[1]), receipt_of(filled, jobs[-1])
    for names, told in [
        (("statement", "fields", "signature"), "statement"),
        (("leaf",), "proof"),
        (("proof",), "proof"),
        (("leaf", "proof"), "statement"),
        (("signature",), "signature"),
    ]:
        error = refused(one | {name: two[name] for name in names}, filled)
        assert error.name.startswith(told), (names, error)


def test_a_losing_attempt_has_no_receipt() -> None:
    platform = Platform()
    loser = platform.running()
    lost = statements.ended(platform.ctx, loser, outcome(exit_code=0))
    platform.clock.advance(platform.ctx.policy.lease_ms + 1)
    reconcile.reconcile(platform.ctx)  # its lease has lapsed
    winner = platform.again(loser.job)
    complete.complete(platform.ctx, statements.ended(platform.ctx, winner, outcome()))
    settled(platform)
    receipt = receipt_of(platform, loser.job)
    assert check(receipt, platform).attempt == 2
    with pytest.raises(Exception, match="no outcome of attempt 1"):
        receipts.receipt(platform.ctx, "acme", loser.job, 1)
    assert lost.signed is not None
    # Nor can one be made of the winner's: its statement and signature are another attempt's.
    forged = copy.deepcopy(receipt)
    forged["statement"]["attempt"] = 1
    assert refused(forged, platform).name == "statement.attempt"
    forged["signature"] = lost.signed.signature.hex()
    assert refused(forged, platform).name == "statement.attempt"


def test_a_forked_log(filled: Platform) -> None:
    """The same platform key over another log: its receipts hold by themselves, and not against what was seen."""
    fork = Platform()
    job = finished(fork, env={"A": "1"})
    settled(fork)
    found = receipt_of(fork, job)
    assert check(found, fork).job == job
    mixed = found | {"checkpoint": receipt_of(filled, _some_job(filled))["checkpoint"]}
    assert refused(mixed, filled).name == "proof"


def _some_job(platform: Platform) -> str:
    (row,) = platform.store.query_index("tenant", "TENANT#acme", limit=1)
    return str(row[1].body["id"])


def test_an_unknown_platform(real: Receipt) -> None:
    other = Platform()
    other.ctx.vault.__init__(Random(99))  # type: ignore[misc]
    assert refused(real, other).name == "platform_key"


def test_another_key_of_the_platforms_name(real: Receipt, filled: Platform) -> None:
    key = key_of(filled)
    forged = VerifierKey(key.name, bytes(32))
    assert refused(real | {"platform_key": str(forged)}, filled).name == "platform_key"


def test_an_unknown_agent(real: Receipt, filled: Platform) -> None:
    assert check(real, filled, agents={real["leaf"]["body"]["statement"]["key"]})
    assert refused(real, filled, agents={"ab" * 32}).name == "agent_key"


def test_a_statement_signed_by_somebody_else_is_not_taken() -> None:
    platform = Platform()
    claim = platform.running()
    ended = statements.ended(platform.ctx, claim, outcome())
    assert ended.signed is not None
    vault = MemoryVault(Random(5))

    other = replace(ended.signed, key=vault.public_key("agent", KeyKind.P256))
    for signed in (other, replace(ended.signed, signature=bytes(64)), None):
        with pytest.raises(InvalidRequest) as told:
            complete.complete(platform.ctx, replace(ended, signed=signed))
        assert told.value.fields[0].field.startswith("statement")
    cheaper = outcome(usage=Usage(wall_ms=1))
    with pytest.raises(InvalidRequest, match="statement of this outcome"):
        complete.complete(platform.ctx, replace(ended, outcome=cheaper))
    assert complete.complete(platform.ctx, ended).billed == "21451"


Ending = Callable[[Platform], str]


def cancelled_before(platform: Platform) -> str:
    job = platform.submitted()
    cancel.cancel(platform.ctx, "acme", job)
    return job


def expired(platform: Platform) -> str:

    job = platform.submitted(deadline=format_time(platform.clock.now_ms() + 5000))
    platform.clock.advance(6000)
    reconcile.reconcile(platform.ctx)
    return job


@pytest.mark.parametrize(("ending", "state"), [(cancelled_before, "cancelled"), (expired, "expired")])
def test_an_end_without_an_agent(ending: Ending, state: str) -> None:
    platform = Platform()
    job = ending(platform)
    settled(platform)
    receipt = receipt_of(platform, job)
    assert "statement" not in receipt
    found = check(receipt, platform)
    assert (found.state, found.units, found.attempt, found.agent) == (state, 0, 0, None)
    assert "no agent signed for this end, and it costs nothing" in found.proven
    for path in paths(receipt):
        for each in changes(at(receipt, path)):
            refused(put(receipt, path, each), platform)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (outcome(category=Category.EXIT, exit_code=3), "failed"),
        (outcome(category=Category.TRAP, trap="unreachable", exit_code=None), "failed"),
        (outcome(category=Category.TIMEOUT, timed_out=True, exit_code=None), "timed_out"),
    ],
)
def test_ends_that_are_no_success(given: Outcome, state: str) -> None:
    platform = Platform()
    job = finished(platform, given)
    settled(platform)
    receipt = receipt_of(platform, job)
    found = check(receipt, platform)
    assert (found.state, found.units) == (state, 21451)
    assert found.statement is not None
    assert found.statement["exit"]["category"] == given.category.value


def test_a_bill_stops_at_what_was_quoted() -> None:
    platform = Platform()
    job = finished(platform, outcome(usage=Usage(wall_ms=10**9)), resources={"timeout_s": 1, "memory_mib": 1})
    settled(platform)
    receipt = receipt_of(platform, job)
    # 200 + 10000 + 1 MiB for a second at 16667 a GiB: what one second costs at most.
    assert receipt["statement"]["price"]["most"] == "10217"
    assert check(receipt, platform).units == 10217


def test_a_retried_job_has_a_receipt_for_each_billed_attempt() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 2, "backoff_s": 1})
    platform.end(claim, Category.EXIT, exit_code=1)
    settled(platform)
    first = check(receipt_of(platform, claim.job, 1), platform)
    assert (first.state, first.attempt) == ("retrying", 1)
    with pytest.raises(Exception, match="has not ended"):
        receipts.receipt(platform.ctx, "acme", claim.job)


def test_a_platform_that_is_not_named_by_its_key(real: Receipt) -> None:
    key = VerifierKey("hanzo-compute/log", bytes(range(32)))
    with pytest.raises(ReceiptInvalid, match="digest"):
        verify(real | {"platform_key": str(key)}, lambda given: given, lambda *_: True)


def test_a_job_that_was_cancelled_after_attempts_that_were_billed() -> None:
    platform = Platform()
    claim = platform.running(retry={"max_attempts": 3, "backoff_s": 60})
    platform.end(claim, Category.EXIT, exit_code=1, usage=Usage(wall_ms=1000))
    cancel.cancel(platform.ctx, "acme", claim.job)
    settled(platform)
    found = check(receipt_of(platform, claim.job), platform)
    assert (found.state, found.units, found.billed) == ("cancelled", 0, 10200)
    assert "attempts before it cost 10200" in found.proven[-1]
    assert check(receipt_of(platform, claim.job, 1), platform).billed == 10200


def test_a_job_of_a_release_without_prices_ends_with_a_receipt() -> None:
    """In flight at the upgrade: its record has none of what is new."""
    platform = Platform()
    claim = platform.running(input={"inline": "x"})
    record = platform.store.get(keys.job(claim.job))
    assert record is not None
    new = ("code", "input", "profile", "tariff", "token", "most", "billed", "agent_key")
    body = {name: value for name, value in record.body.items() if name not in new}
    index = records.index(Job.from_record(body))
    platform.store.transact([Put(record.key, body, expect=record.rev, index=index)])
    assert platform.end(claim, usage=Usage(wall_ms=10**6)).state == "succeeded"
    settled(platform)
    found = check(receipt_of(platform, claim.job), platform)
    assert (found.units, found.billed, found.state) == (0, 0, "succeeded")
    assert found.statement is not None
    assert found.statement["input"] == hashlib.sha256(b"x").hexdigest()
