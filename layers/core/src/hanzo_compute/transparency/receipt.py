"""A receipt verified, offline: what it proves in words, or the first thing in it that does not hold."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hanzo_compute.model import canonical, statement
from hanzo_compute.model.outcome import FINAL_STATE, RETRIED, Category
from hanzo_compute.model.states import State
from hanzo_compute.model.tariff import ANY, Rates
from hanzo_compute.transparency import checkpoint as notes
from hanzo_compute.transparency import form, merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, CheckpointError, VerifierKey
from hanzo_compute.transparency.form import ReceiptInvalid

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a receipt proves."""

    job: str
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
    proven: list[str] = field(default_factory=list)
    """Sentences, in the order in which they were established."""


def origin_of(public: bytes) -> str:
    """The name of a log, and the origin of its checkpoints: made from its key (Ed25519, 32 bytes)."""
    return f"hanzo-compute/log/{hashlib.sha256(public).hexdigest()[:16]}"


PlatformKeys = Callable[[VerifierKey], VerifierKey | None]
"""The key that is trusted for the platform that the given key names, or None when none is."""
AgentKeys = Callable[[str, str, str], bool]
"""Whether an agent's key may speak: origin of the log, name of the agent, id of the key."""


def verify(receipt: Any, trusted: PlatformKeys, agents: AgentKeys, *, job: str | None = None) -> Verified:
    """Verify everything in a receipt.

    Raises:
        ReceiptInvalid: the first thing that does not hold.
    """
    form.check(receipt)
    key, point = _checkpoint(receipt, trusted)
    body = _leaf(receipt, point)
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


def _checkpoint(receipt: Body, trusted: PlatformKeys) -> tuple[VerifierKey, Checkpoint]:
    try:
        given = VerifierKey.parse(receipt["platform_key"])
    except ValueError as error:
        raise ReceiptInvalid("platform_key", str(error)) from None
    key = trusted(given)
    if key is None:
        raise ReceiptInvalid("platform_key", f"is of {given.name}, a platform that is not known here")
    if key.name != origin_of(key.public):
        raise ReceiptInvalid("platform_key", "is not named by its own digest")
    if key != given:
        raise ReceiptInvalid("platform_key", f"is not the key that is known for {key.name}")
    try:
        point = notes.open_checkpoint(receipt["checkpoint"], key)
    except CheckpointError as error:
        raise ReceiptInvalid("checkpoint", str(error)) from None
    if point.origin != key.name:
        raise ReceiptInvalid("checkpoint", f"is of the log {point.origin}, not of {key.name}")
    return key, point


def _leaf(receipt: Body, point: Checkpoint) -> Body:
    """The leaf's body, once the checkpoint is known to cover it."""
    leaf, proof = receipt["leaf"], receipt["proof"]
    body: Body = leaf["body"]
    salt, data = bytes.fromhex(leaf["salt"]), bytes.fromhex(leaf["data"])
    hashes = [bytes.fromhex(each) for each in proof["hashes"]]
    digests = statement.field_digests(body)
    made = hashlib.sha256(salt + canonical.canonical(body)).digest()

    def covered(each: bytes) -> bool:
        try:
            root = merkle.root_from_inclusion(proof["index"], point.size, merkle.leaf_hash(each), hashes)
        except merkle.ProofError as error:
            raise ReceiptInvalid("proof", str(error)) from None
        return hmac.compare_digest(root, point.root)

    if made != data:
        if not covered(data) and covered(made):
            raise ReceiptInvalid("leaf.data", "is not the leaf of this salt and body")
        name = _differing("leaf.body", digests, leaf["fields"])
        raise ReceiptInvalid(name or "leaf.salt", "is not what the log has")
    if name := _differing("leaf.fields", digests, leaf["fields"]):
        raise ReceiptInvalid(name, "is not the digest of its field")
    if not covered(data):
        raise ReceiptInvalid("proof", "does not lead from the leaf to the checkpoint's root")
    return body


def _differing(path: str, made: Mapping[str, str], given: Mapping[str, Any]) -> str | None:
    """The path of the first field whose digests differ, or None."""
    for name in [*made, *given]:
        if made.get(name) != given.get(name):
            return f"{path}.{name}"
    return None


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
        name = _differing("statement", digests, given)
        raise ReceiptInvalid(name or "statement", "is not what the agent signed and the log has")
    if name := _differing("fields", digests, given):
        raise ReceiptInvalid(name, "is not the digest of its field")
    key = bytes.fromhex(receipt["agent_key"])
    if statement.key_id(key) != signed["key"]:
        raise ReceiptInvalid("agent_key", "is not the key that the log has for this statement")
    signature = bytes.fromhex(receipt["signature"])
    if receipt["signature"] != signed["signature"]:
        raise ReceiptInvalid("signature", "is not the one that the log has for this statement")
    try:
        digest = statement.signing_digest(body, made)
    except OverflowError:
        raise ReceiptInvalid("statement.price", "is over what 256 bits hold") from None
    if not statement.holds(key, signature, digest):
        raise ReceiptInvalid("signature", "is not one of this key over this statement")
    if body["exit"]["category"] != leaf["category"]:
        raise ReceiptInvalid(
            "leaf.body.category", f"is {leaf['category']}, and the agent says {body['exit']['category']}"
        )
    for name in ("job", "attempt"):
        if body[name] != leaf[name]:
            raise ReceiptInvalid(f"statement.{name}", f"is {body[name]}, and the log has {leaf[name]}")
    if not agents(origin, body["agent"], signed["key"]):
        raise ReceiptInvalid("agent_key", f"is not the key that is known for agent {body['agent']}")
    return _price(receipt["rates"], body, leaf)


def _price(given: Body, body: Body, leaf: Body) -> Rates:
    price, bill = body["price"], leaf["bill"]
    try:
        rates = Rates.from_json(given)
        named = rates.digest == price["rates"]
    except ValueError as error:
        raise ReceiptInvalid("rates", str(error)) from None
    if not named:
        raise ReceiptInvalid("rates", "are not those that the statement names")
    if rates.version != price["tariff"] or rates.runtime not in (body["runtime"]["name"], ANY):
        raise ReceiptInvalid("rates", "are of another tariff or runtime than the statement")
    units = rates.bill(body["usage"], int(price["most"]))
    if str(units) != price["units"]:
        raise ReceiptInvalid("statement.price", f"is {price['units']}, and usage at these rates costs {units}")
    if bill != {"token": price["token"], "units": price["units"]} or price["token"] != rates.token:
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
    runtime, tier = found.statement["runtime"], found.statement["tier"]
    place = f"{runtime['name']} {runtime['version']}".rstrip()
    return [
        *said,
        f"agent {found.agent} signed what ran (code, input, outputs), how it ended"
        f" ({found.statement['exit']['category']}) and what it used",
        f"it ran on {place}, privacy tier {tier['delivered']} by word of the {tier['basis']}",
        f"usage at tariff {rates.version} makes the bill: {found.units} base units of {found.token}"
        + (f"; with the attempts before it {found.billed}" if found.billed != found.units else ""),
    ]
