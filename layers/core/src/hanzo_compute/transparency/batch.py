"""The part of a receipt that an invocation has: its statement, its place in a batch, and who signed the batch."""

from __future__ import annotations

import hmac

from hanzo_compute.model import invocation, statement
from hanzo_compute.model.tariff import Rates
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.form import ReceiptInvalid
from hanzo_compute.transparency.parts import AgentKeys, Body, differing, priced, signed_by


def stated(receipt: Body, leaf: Body, origin: str, agents: AgentKeys) -> Rates:
    """The rates by which an invocation was billed, once all of its batch and statement holds."""
    batch, body = receipt["batch"], receipt["statement"]
    header = batch["header"]
    _signed(receipt, leaf)
    _within(receipt)
    if body["agent"] != header["agent"]:
        raise ReceiptInvalid("statement.agent", f"is {body['agent']}, and {header['agent']} signed the batch")
    if body["settlement"] != header["settlement"]:
        raise ReceiptInvalid("statement.settlement", "is not that of the batch")
    if not agents(origin, header["agent"], leaf["statement"]["key"]):
        raise ReceiptInvalid("agent_key", f"is not the key that is known for agent {header['agent']}")
    rates = priced(receipt["rates"], body)
    price, bill = body["price"], header["price"]
    if price["token"] != bill["token"]:
        raise ReceiptInvalid("statement.price", f"is in {price['token']}, and the batch in {bill['token']}")
    over = int(price["units"]) > int(bill["units"])
    if over or (header["invocations"] == 1 and price["units"] != bill["units"]):
        raise ReceiptInvalid(
            "batch.header.price", f"is {bill['units']}, and this one of {header['invocations']} costs {price['units']}"
        )
    return rates


def _signed(receipt: Body, leaf: Body) -> None:
    """The header must be what the agent signed and the log has."""
    batch, signed = receipt["batch"], leaf["statement"]
    header = batch["header"]
    digests = statement.field_digests(header)
    made = statement.root(digests)
    if made.hex() != signed["root"]:
        name = differing("batch.header", digests, batch["fields"])
        raise ReceiptInvalid(name or "batch.header", "is not what the agent signed and the log has")
    if name := differing("batch.fields", digests, batch["fields"]):
        raise ReceiptInvalid(name, "is not the digest of its field")
    signed_by(receipt, signed, lambda: invocation.signing_digest(header, made), "batch.header.price")
    for name, other in (("batch", "batch"), ("invocations", "invocations"), ("root", "root"), ("bill", "price")):
        if leaf[name] != header[other]:
            raise ReceiptInvalid(f"leaf.body.{name}", "is not what the agent signed")


def _within(receipt: Body) -> None:
    """The statement must be one of the batch."""
    header, proof, body = receipt["batch"]["header"], receipt["batch"]["proof"], receipt["statement"]
    digests = statement.field_digests(body)
    hashes = [bytes.fromhex(each) for each in proof["hashes"]]
    try:
        made = merkle.root_from_inclusion(
            proof["index"], header["invocations"], merkle.leaf_hash(statement.root(digests)), hashes
        )
    except merkle.ProofError as error:
        raise ReceiptInvalid("batch.proof", str(error)) from None
    name = differing("statement", digests, receipt["fields"])
    if not hmac.compare_digest(made.hex(), header["root"]):
        raise ReceiptInvalid(name or "batch.proof", "does not lead to the root of the batch")
    if name is not None:
        raise ReceiptInvalid(name.replace("statement", "fields", 1), "is not the digest of its field")
