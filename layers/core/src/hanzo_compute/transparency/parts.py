"""What all kinds of receipts have in common, each part verified by itself."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from hanzo_compute.model import canonical, statement
from hanzo_compute.model.tariff import ANY, Rates
from hanzo_compute.transparency import checkpoint as notes
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, CheckpointError, VerifierKey
from hanzo_compute.transparency.form import ReceiptInvalid

Body = Mapping[str, Any]


def origin_of(public: bytes) -> str:
    """The name of a log, and the origin of its checkpoints: made from its key (Ed25519, 32 bytes)."""
    return f"hanzo-compute/log/{hashlib.sha256(public).hexdigest()[:16]}"


PlatformKeys = Callable[[VerifierKey], VerifierKey | None]
"""The key that is trusted for the platform that the given key names, or None when none is."""
AgentKeys = Callable[[str, str, str], bool]
"""Whether an agent's key may speak: origin of the log, name of the agent, id of the key."""


def checkpoint_of(receipt: Body, trusted: PlatformKeys) -> tuple[VerifierKey, Checkpoint]:
    """The platform's key and the checkpoint, once both are trusted."""
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


def leaf_of(receipt: Body, point: Checkpoint) -> Body:
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
        name = differing("leaf.body", digests, leaf["fields"])
        raise ReceiptInvalid(name or "leaf.salt", "is not what the log has")
    if name := differing("leaf.fields", digests, leaf["fields"]):
        raise ReceiptInvalid(name, "is not the digest of its field")
    if not covered(data):
        raise ReceiptInvalid("proof", "does not lead from the leaf to the checkpoint's root")
    return body


def differing(path: str, made: Mapping[str, str], given: Mapping[str, Any]) -> str | None:
    """The path of the first field whose digests differ, or None."""
    for name in [*made, *given]:
        if made.get(name) != given.get(name):
            return f"{path}.{name}"
    return None


def signed_by(receipt: Body, signed: Body, digest: Callable[[], bytes], price: str) -> None:
    """Key and signature must be those that the log has (``signed``), and hold over ``digest``.

    ``price`` names the price that goes into the digest.
    """
    key, signature = bytes.fromhex(receipt["agent_key"]), bytes.fromhex(receipt["signature"])
    if statement.key_id(key) != signed["key"]:
        raise ReceiptInvalid("agent_key", "is not the key that the log has for this statement")
    if receipt["signature"] != signed["signature"]:
        raise ReceiptInvalid("signature", "is not the one that the log has for this statement")
    try:
        made = digest()
    except OverflowError:
        raise ReceiptInvalid(price, "is over what 256 bits hold") from None
    if not statement.holds(key, signature, made):
        raise ReceiptInvalid("signature", "is not one of this key over this statement")


def priced(given: Body, body: Body) -> Rates:
    """The rates, once the price of a statement follows from them."""
    price = body["price"]
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
    if price["token"] != rates.token:
        raise ReceiptInvalid("statement.price", f"is in {price['token']}, and its rates are in {rates.token}")
    return rates
