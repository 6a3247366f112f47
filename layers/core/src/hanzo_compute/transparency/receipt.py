"""A receipt verified, offline: what it proves in words, or the first thing in it that does not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hanzo_compute.model import statement
from hanzo_compute.model.outcome import FINAL_STATE, RETRIED, Category
from hanzo_compute.model.states import State
from hanzo_compute.model.tariff import Rates
from hanzo_compute.transparency import batch, form
from hanzo_compute.transparency.checkpoint import Checkpoint, VerifierKey
from hanzo_compute.transparency.form import ReceiptInvalid
from hanzo_compute.transparency.parts import (
    AgentKeys,
    Body,
    PlatformKeys,
    checkpoint_of,
    differing,
    leaf_of,
    priced,
    signed_by,
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a receipt proves."""

    job: str
    """Its id; of an invocation, that one's."""
    attempt: int
    tenant: str
    state: str
    category: str
    reason: str | None
    at_ms: int
    token: str
    units: int
    billed: int
    """Base units that all attempts of the job had cost by then."""
    symbol: str
    decimals: int
    index: int
    leaf: str
    """What the log has there: 32 bytes, hex."""
    checkpoint: Checkpoint
    platform_key: VerifierKey
    agent: str | None = None
    agent_key: str | None = None
    statement: Body | None = None
    batch: Body | None = None
    """Of an invocation: what was signed of its batch."""
    proven: list[str] = field(default_factory=list)
    """Sentences, in the order in which they were established."""


def verify(receipt: Any, trusted: PlatformKeys, agents: AgentKeys, *, job: str | None = None) -> Verified:
    """Verify everything in a receipt.

    Raises:
        ReceiptInvalid: the first thing that does not hold.
    """
    form.check(receipt)
    key, point = checkpoint_of(receipt, trusted)
    body = leaf_of(receipt, point)
    if body["kind"] == form.BATCH:
        return _invocation(receipt, body, key, point, agents, job)
    if job is not None and body["job"] != job:
        raise ReceiptInvalid("leaf.body.job", f"is {body['job']}, not {job}")
    rates = _statement(receipt, body, key.name, agents) if body["statement"] is not None else None
    if rates is None and body["bill"]["units"] != "0":
        raise ReceiptInvalid("leaf.body.bill", "charges for an end that no agent has signed")
    if int(body["billed"]) < int(body["bill"]["units"]):
        raise ReceiptInvalid("leaf.body.billed", "is less than this outcome costs")
    _end(body)
    stated = receipt.get("statement")
    found = Verified(
        job=body["job"],
        attempt=body["attempt"],
        tenant=body["tenant"],
        state=body["state"],
        category=body["category"],
        reason=body["reason"],
        at_ms=body["at_ms"],
        token=body["bill"]["token"],
        units=int(body["bill"]["units"]),
        billed=int(body["billed"]),
        symbol=rates.symbol if rates else body["bill"]["token"],
        decimals=rates.decimals if rates else 0,
        index=receipt["proof"]["index"],
        leaf=receipt["leaf"]["data"],
        checkpoint=point,
        platform_key=key,
        agent=stated["agent"] if stated else None,
        agent_key=body["statement"]["key"] if stated else None,
        statement=stated,
    )
    found.proven.extend(_sentences(found, rates))
    return found


def _invocation(
    receipt: Body, body: Body, key: VerifierKey, point: Checkpoint, agents: AgentKeys, wanted: str | None
) -> Verified:
    """What the receipt of an invocation proves, once the leaf of its batch holds."""
    stated, header = receipt["statement"], receipt["batch"]["header"]
    if wanted is not None and stated["invocation"] != wanted:
        raise ReceiptInvalid("statement.invocation", f"is {stated['invocation']}, not {wanted}")
    rates = batch.stated(receipt, body, key.name, agents)
    units = int(stated["price"]["units"])
    found = Verified(
        job=stated["invocation"],
        attempt=1,
        tenant=body["tenant"],
        state=FINAL_STATE[Category(stated["exit"]["category"])].value,
        category=stated["exit"]["category"],
        reason=None,
        at_ms=body["at_ms"],
        token=stated["price"]["token"],
        units=units,
        billed=units,
        symbol=rates.symbol,
        decimals=rates.decimals,
        index=receipt["proof"]["index"],
        leaf=receipt["leaf"]["data"],
        checkpoint=point,
        platform_key=key,
        agent=stated["agent"],
        agent_key=body["statement"]["key"],
        statement=stated,
        batch=header,
    )
    place = receipt["batch"]["proof"]["index"] + 1
    said = [
        f"platform {key.name} has committed to batch {header['batch']}: leaf {found.index} of {point.size}",
        f"invocation {found.job} of {stated['function']}, tenant {found.tenant}, is {place} of {header['invocations']}"
        f" in the batch, which costs {header['price']['units']} base units together",
        *_signed(found, rates),
    ]
    found.proven.extend(said)
    return found


def _end(body: Body) -> None:
    """The state must be one that the category leads to."""
    category, state = Category(body["category"]), State(body["state"])
    lost = body["statement"] is None
    if state is FINAL_STATE[category] or (state is State.RETRYING and (lost or category in RETRIED)):
        return
    if lost and state in (State.CANCELLED, State.EXPIRED, State.DEAD):
        return
    raise ReceiptInvalid("leaf.body.state", f"is {state}, which {category} does not lead to")


def _statement(receipt: Body, leaf: Body, origin: str, agents: AgentKeys) -> Rates:
    """The rates by which it was billed, once all of the statement holds."""
    body, given, signed = receipt["statement"], receipt["fields"], leaf["statement"]
    digests = statement.field_digests(body)
    made = statement.root(digests)
    if made.hex() != signed["root"]:
        name = differing("statement", digests, given)
        raise ReceiptInvalid(name or "statement", "is not what the agent signed and the log has")
    if name := differing("fields", digests, given):
        raise ReceiptInvalid(name, "is not the digest of its field")
    signed_by(receipt, signed, lambda: statement.signing_digest(body, made), "statement.price")
    if body["exit"]["category"] != leaf["category"]:
        raise ReceiptInvalid(
            "leaf.body.category", f"is {leaf['category']}, and the agent says {body['exit']['category']}"
        )
    for name in ("job", "attempt"):
        if body[name] != leaf[name]:
            raise ReceiptInvalid(f"statement.{name}", f"is {body[name]}, and the log has {leaf[name]}")
    if not agents(origin, body["agent"], signed["key"]):
        raise ReceiptInvalid("agent_key", f"is not the key that is known for agent {body['agent']}")
    rates = priced(receipt["rates"], body)
    price = body["price"]
    if leaf["bill"] != {"token": price["token"], "units": price["units"]}:
        raise ReceiptInvalid("leaf.body.bill", "is not the price that the agent signed")
    return rates


def _sentences(found: Verified, rates: Rates | None) -> list[str]:
    said = [
        f"platform {found.platform_key.name} has committed to this: leaf {found.index} of {found.checkpoint.size}",
        f"job {found.job} of tenant {found.tenant} is {found.state}"
        + (f" after attempt {found.attempt}" if found.attempt else ", and never ran"),
    ]
    if found.statement is None or rates is None:
        before = f"; attempts before it cost {found.billed} base units" if found.billed else ""
        return [*said, f"no agent signed for this end, and it costs nothing{before}"]
    return [*said, *_signed(found, rates)]


def _signed(found: Verified, rates: Rates) -> list[str]:
    """What follows from a statement."""
    assert found.statement is not None
    runtime, tier = found.statement["runtime"], found.statement["tier"]
    place = f"{runtime['name']} {runtime['version']}".rstrip()
    return [
        f"agent {found.agent} signed what ran (code, input, outputs), how it ended"
        f" ({found.statement['exit']['category']}) and what it used",
        f"it ran on {place}, privacy tier {tier['delivered']} by word of the {tier['basis']}",
        f"usage at tariff {rates.version} makes the bill: {found.units} base units of {found.token}"
        + (f"; with the attempts before it {found.billed}" if found.billed != found.units else ""),
    ]
