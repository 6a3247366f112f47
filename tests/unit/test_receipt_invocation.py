"""Receipts of invocations: real ones hold; what is changed in them is named, and so is what right keys have forged."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from hanzo_compute.model import canonical, statement
from hanzo_compute.model import invocation as forms
from hanzo_compute.ports import KeyKind
from hanzo_compute.services import leaves, log
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, note
from tests.support.invocations import flushed, receipt_of
from tests.support.receipts import Receipt, check, finished, key_of, refused, settled
from tests.support.receipts import receipt_of as receipt_of_job
from tests.support.stepped import Platform
from tests.unit.test_receipt import at, changes, paths, put

AGENT = "invoke-local"


@pytest.fixture(scope="module")
def filled() -> Platform:
    """A platform whose log has 6 leaves, three of them of batches."""
    platform = Platform()
    for count in (1, 7, 2):
        flushed(platform, count)
        finished(platform)
    settled(platform)
    return platform


def ids_of(platform: Platform) -> list[str]:
    partitions = platform.commits.database.partitions
    (pk,) = [pk for pk in partitions if pk.startswith("BATCH#acme#")]
    return [row[1] for record in platform.store.query(pk, prefix="BODY#") for row in record.body["rows"]]


@pytest.fixture(scope="module")
def real(filled: Platform) -> Receipt:
    """That of the fifth of a batch of seven."""
    return receipt_of(filled, ids_of(filled)[5])


def test_a_real_receipt_holds(real: Receipt, filled: Platform) -> None:
    found = check(real, filled)
    assert (found.state, found.category, found.attempt, found.tenant) == ("succeeded", "ok", 1, "acme")
    # 200 + 0.012 s * 10000 + 768 MiB ms / 1024000 * 16667 = 332.5: rounded up once.
    assert (found.token, found.units, found.billed, found.agent) == ("credit", 333, 333, AGENT)
    assert found.batch is not None
    assert found.batch["price"]["units"] == str(7 * 333)
    assert "is 5 of 7 in the batch, which costs 2331 base units together" in found.proven[1]
    assert found.proven[-1] == "usage at tariff 1 makes the bill: 333 base units of credit"


def template() -> Receipt:
    platform = Platform()
    ids = flushed(platform, 7)
    for _ in range(5):
        finished(platform)
    settled(platform)
    return receipt_of(platform, ids[4])


PATHS = sorted(paths(template()), key=str)


def expected(path: tuple[Any, ...]) -> set[str]:
    """The names by which a change there may be told."""
    dotted = [".".join(map(str, path[:n])) for n in range(1, len(path) + 1)]
    if path[:2] == ("batch", "proof"):
        return set(dotted[1:])
    if path[0] in ("rates", "proof"):
        return {path[0], dotted[-1]}
    least = {"leaf": 3, "batch": 3, "statement": 2}.get(path[0], 1)
    return set(dotted[min(least, len(path)) - 1 :])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_whatever_is_changed_is_named(path: tuple[Any, ...], real: Receipt, filled: Platform) -> None:
    value = at(real, path)
    tried = [each for each in changes(value) if each != value or type(each) is not type(value)]
    assert tried
    for each in tried:
        error = refused(put(real, path, each), filled)
        assert {error.name, error.name.rpartition(".")[0]} & expected(path), f"{path}: {each!r} is told as {error}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: ".".join(map(str, path)))
def test_whatever_is_left_out_is_named(path: tuple[Any, ...], real: Receipt, filled: Platform) -> None:
    changed = copy.deepcopy(real)
    del at(changed, path[:-1])[path[-1]]
    error = refused(changed, filled)
    assert error.name.split(".")[0] == path[0], f"without {path} it is told as {error}"


@pytest.mark.parametrize(
    "holder", [(), ("leaf",), ("leaf", "body"), ("batch",), ("batch", "header"), ("batch", "fields"), ("statement",)]
)
def test_whatever_is_added_is_named(holder: tuple[str, ...], real: Receipt, filled: Platform) -> None:
    error = refused(put(real, (*holder, "more"), "x"), filled)
    assert error.name in {".".join((*holder, "more")), ".".join(holder)}


def test_parts_of_two_receipts_do_not_make_one(real: Receipt, filled: Platform) -> None:
    ids = ids_of(filled)
    same, other = receipt_of(filled, ids[6]), receipt_of(filled, ids[9])
    for given, names, told in [
        (same, ("statement",), "statement"),
        (same, ("statement", "fields"), "batch.proof"),
        (same, ("batch",), "batch.proof"),
        (other, ("batch",), "batch.header"),
        (other, ("leaf",), "proof"),
        (other, ("leaf", "proof"), "batch.header"),
        (other, ("leaf", "proof", "batch"), "signature"),
        (other, ("leaf", "proof", "batch", "signature"), "batch.proof"),
    ]:
        error = refused(real | {name: given[name] for name in names}, filled)
        assert error.name.startswith(told), (names, error)


def test_kinds_do_not_mix(real: Receipt, filled: Platform) -> None:
    (row, *_) = filled.store.query_index("tenant", "TENANT#acme", limit=1)
    job = receipt_of_job(filled, row[1].body["id"])
    assert refused(real | {"leaf": job["leaf"]}, filled).name == "statement.job"
    assert refused(job | {"leaf": real["leaf"]}, filled).name == "batch"
    assert refused({name: value for name, value in real.items() if name != "batch"}, filled).name == "batch"


def test_a_receipt_of_another_invocation(real: Receipt, filled: Platform) -> None:
    assert check(real, filled, job=real["statement"]["invocation"])
    assert refused(real, filled, job="i-" + "0" * 26).name == "statement.invocation"


def test_pins_of_agents(real: Receipt, filled: Platform) -> None:
    assert check(real, filled, agents={real["leaf"]["body"]["statement"]["key"]})
    assert refused(real, filled, agents={"ab" * 32}).name == "agent_key"


class Forge:
    """A platform and an agent that sign whatever they are told."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.ids = flushed(self.platform, 3)
        self.receipt = receipt_of(self.platform, self.ids[1])

    def made(self, change: Callable[[Receipt, Receipt, Receipt], None], *, alone: bool = False) -> Receipt:
        """The receipt with leaf, header and statement changed, everything signed anew.

        The changes come first, then roots and signatures, where they are still what they were. ``alone``: the
        statement is all of its batch.
        """
        receipt = copy.deepcopy(self.receipt)
        body, header, stated = receipt["leaf"]["body"], receipt["batch"]["header"], receipt["statement"]
        before = {"leaf": body["root"], "header": header["root"]}
        if alone:
            header["invocations"] = body["invocations"] = 1
            header["price"]["units"] = body["bill"]["units"] = stated["price"]["units"]
        change(body, header, stated)
        receipt["fields"] = statement.field_digests(stated)
        hashed = merkle.leaf_hash(statement.root(receipt["fields"]))
        proof = receipt["batch"]["proof"]
        if alone:
            receipt["batch"]["proof"] = {"index": 0, "hashes": []}
            root = hashed.hex()
        else:
            root = merkle.root_from_inclusion(1, 3, hashed, [bytes.fromhex(each) for each in proof["hashes"]]).hex()
        for part, name in ((header, "header"), (body, "leaf")):
            if part["root"] == before[name]:
                part["root"] = root
        receipt["batch"]["fields"] = statement.field_digests(header)
        signed = statement.root(receipt["batch"]["fields"])
        try:
            digest = forms.signing_digest(header, signed)
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
            digest = bytes(32)
        vault = self.platform.ctx.vault
        signature = vault.sign(AGENT, KeyKind.P256, digest).hex()
        receipt["signature"] = signature
        body["statement"] |= {"root": signed.hex(), "signature": signature}
        receipt["leaf"]["fields"] = statement.field_digests(body)
        data = leaves.Leaf(bytes.fromhex(receipt["leaf"]["salt"]), body).data
        receipt["leaf"]["data"] = data.hex()
        point = Checkpoint(key_of(self.platform).name, 1, merkle.leaf_hash(data))
        receipt["proof"] = {"index": 0, "hashes": []}
        sign = lambda message: vault.sign(log.KEY, KeyKind.ED25519, message)  # noqa: E731
        receipt["checkpoint"] = note(point, key_of(self.platform), sign)
        return json.loads(json.dumps(receipt))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge()


@pytest.mark.parametrize("alone", [False, True])
def test_a_forge_that_changes_nothing_makes_a_receipt_that_holds(forge: Forge, alone: bool) -> None:
    assert check(forge.made(lambda leaf, header, stated: None, alone=alone), forge.platform).job == forge.ids[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda leaf, header, stated: leaf.update(kind="outcome"), "leaf.body.job"),
        (lambda leaf, header, stated: leaf.update(version=2), "leaf.body.version"),
        (lambda leaf, header, stated: leaf.update(at_ms=-1), "leaf.body.at_ms"),
        (lambda leaf, header, stated: leaf.update(batch="b-1"), "leaf.body.batch"),
        (lambda leaf, header, stated: leaf.update(invocations=4), "leaf.body.invocations"),
        (lambda leaf, header, stated: leaf.update(invocations=0), "leaf.body.invocations"),
        (lambda leaf, header, stated: leaf.update(root="00" * 32), "leaf.body.root"),
        (lambda leaf, header, stated: leaf["bill"].update(units="1"), "leaf.body.bill"),
        (lambda leaf, header, stated: leaf["bill"].update(token="other"), "leaf.body.bill"),
        (lambda leaf, header, stated: header.update(batch="b-1"), "leaf.body.batch"),
        (lambda leaf, header, stated: header.update(invocations=0), "batch.header.invocations"),
        (lambda leaf, header, stated: header.update(invocations="3"), "batch.header.invocations"),
        (lambda leaf, header, stated: header.update(agent="other"), "statement.agent"),
        (lambda leaf, header, stated: header["settlement"].update(chain_id=1), "statement.settlement"),
        (lambda leaf, header, stated: header["settlement"].update(contract="0x"), "batch.header.settlement.contract"),
        (lambda leaf, header, stated: header.update(more=1), "batch.header.more"),
        (lambda leaf, header, stated: stated.update(agent="agent-0"), "statement.agent"),
        (lambda leaf, header, stated: stated["usage"].update(wall_ms=1), "statement.price"),
        (lambda leaf, header, stated: stated["usage"].update(wall_ms="x"), "statement.usage.wall_ms"),
        (lambda leaf, header, stated: stated["usage"].pop("cpu_ms"), "statement.usage.cpu_ms"),
        (lambda leaf, header, stated: stated["price"].update(units="1"), "statement.price"),
        (lambda leaf, header, stated: stated["price"].update(token="other"), "statement.price"),
        (lambda leaf, header, stated: stated["price"].update(most="1"), "statement.price"),
        (lambda leaf, header, stated: stated["price"].update(most="1e9"), "statement.price.most"),
        (lambda leaf, header, stated: stated["price"].update(tariff="9"), "rates"),
        (lambda leaf, header, stated: stated["price"].update(rates="00" * 32), "rates"),
        (lambda leaf, header, stated: stated["runtime"].update(name="docker"), "rates"),
        (lambda leaf, header, stated: stated["tier"].update(basis="evidence"), "statement.tier.basis"),
        (lambda leaf, header, stated: stated["exit"].update(category="won"), "statement.exit.category"),
        (lambda leaf, header, stated: stated.update(evidence="x"), "statement.evidence"),
        (lambda leaf, header, stated: stated.update(started_ms=-1), "statement.started_ms"),
        (lambda leaf, header, stated: stated.update(input=None), "statement.input"),
        (lambda leaf, header, stated: stated.update(job="j-1"), "statement.job"),
        (lambda leaf, header, stated: stated.update(attempt=1), "statement.attempt"),
    ],
)
def test_what_its_keys_have_signed_and_is_wrong(
    change: Callable[[Receipt, Receipt, Receipt], None], told: str, forge: Forge
) -> None:
    assert refused(forge.made(change), forge.platform).name == told


def both(leaf: Receipt, header: Receipt, units: str) -> None:
    leaf["bill"]["units"] = header["price"]["units"] = units


@pytest.mark.parametrize(("units", "alone"), [("332", False), ("334", True), ("332", True), ("0", False)])
def test_a_total_that_cannot_be(units: str, alone: bool, forge: Forge) -> None:
    made = forge.made(lambda leaf, header, stated: both(leaf, header, units), alone=alone)
    assert refused(made, forge.platform).name == "batch.header.price"


def test_a_total_that_no_chain_can_hold(forge: Forge) -> None:
    made = forge.made(lambda leaf, header, stated: both(leaf, header, "9" * 78))
    assert refused(made, forge.platform).name == "batch.header.price"


def test_rates_that_are_none(forge: Forge) -> None:
    changed = forge.receipt["rates"] | {"decimals": -1}
    made = forge.made(lambda leaf, header, stated: stated["price"].update(rates=canonical.digest(changed)))
    assert refused(made | {"rates": changed}, forge.platform).name == "rates"


def test_what_is_signed_of_a_batch_is_no_statement_of_a_job() -> None:
    """A signature over one is never one over the other: the job's id and the names of the fields differ."""
    header = template()["batch"]["header"]
    assert set(header) == set(forms.HEADER)
    job = {"job": header["batch"], "attempt": 1, "price": header["price"], "settlement": header["settlement"]}
    made = statement.root(statement.field_digests(header))
    assert forms.signing_digest(header, made) == statement.signing_digest(job, made)
    assert not set(statement.FIELDS) >= set(header)
    assert header["batch"].startswith("b-")
