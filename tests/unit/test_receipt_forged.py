"""Receipts that the right keys have signed, and that are wrong all the same."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from hanzo_compute.model import canonical, statement
from hanzo_compute.ports import KeyKind
from hanzo_compute.services import leaves, log
from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.checkpoint import Checkpoint, note
from tests.support import statements
from tests.support.receipts import Receipt, check, finished, key_of, receipt_of, refused, settled
from tests.support.stepped import Platform


class Forge:
    """A platform and an agent that sign whatever they are told."""

    def __init__(self) -> None:
        self.platform = Platform()
        self.job = finished(self.platform)
        settled(self.platform)
        self.receipt = receipt_of(self.platform, self.job)

    def made(self, change: Callable[[Receipt, Receipt], None]) -> Receipt:
        """The receipt with statement and leaf changed, everything signed anew."""
        receipt = copy.deepcopy(self.receipt)
        body, stated = receipt["leaf"]["body"], receipt["statement"]
        change(body, stated)
        receipt["fields"] = statement.field_digests(stated)
        root = statement.root(receipt["fields"])
        try:
            digest = statement.signing_digest(stated, root)
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError):
            digest = bytes(32)
        signature = statements.VAULT.sign("agent-agent-0", KeyKind.P256, digest).hex()
        receipt["signature"] = signature
        if isinstance(body.get("statement"), dict):
            body["statement"] |= {"root": root.hex(), "signature": signature}
        receipt["leaf"]["fields"] = statement.field_digests(body)
        data = leaves.Leaf(bytes.fromhex(receipt["leaf"]["salt"]), body).data
        receipt["leaf"]["data"] = data.hex()
        point = Checkpoint(key_of(self.platform).name, 1, merkle.leaf_hash(data))
        receipt["proof"] = {"index": 0, "hashes": []}
        vault = self.platform.ctx.vault
        sign = lambda message: vault.sign(log.KEY, KeyKind.ED25519, message)  # noqa: E731
        receipt["checkpoint"] = note(point, key_of(self.platform), sign)
        return json.loads(json.dumps(receipt))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def forge() -> Forge:
    return Forge()


def test_a_forge_that_changes_nothing_makes_a_receipt_that_holds(forge: Forge) -> None:
    assert check(forge.made(lambda leaf, stated: None), forge.platform).job == forge.job


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda leaf, stated: leaf.update(category="trap", state="failed"), "leaf.body.category"),
        (lambda leaf, stated: leaf.update(state="failed"), "leaf.body.state"),
        (lambda leaf, stated: leaf.update(state="retrying"), "leaf.body.state"),
        (lambda leaf, stated: leaf.update(state="won"), "leaf.body.state"),
        (lambda leaf, stated: leaf.update(kind="end"), "leaf.body.kind"),
        (lambda leaf, stated: leaf.update(kind="audit"), "leaf.body.kind"),
        (lambda leaf, stated: leaf.update(version=2), "leaf.body.version"),
        (lambda leaf, stated: leaf.update(at_ms=-1), "leaf.body.at_ms"),
        (lambda leaf, stated: leaf.update(attempt=True), "leaf.body.attempt"),
        (lambda leaf, stated: leaf.update(billed="0"), "leaf.body.billed"),
        (lambda leaf, stated: leaf.update(statement=None), "statement"),
        (lambda leaf, stated: leaf["bill"].update(units="1"), "leaf.body.bill"),
        (lambda leaf, stated: leaf.update(job="j-" + "0" * 26), "statement.job"),
        (lambda leaf, stated: stated.update(attempt=2), "statement.attempt"),
        (lambda leaf, stated: stated["usage"].update(wall_ms="x"), "statement.usage.wall_ms"),
        (lambda leaf, stated: stated["usage"].update(wall_ms=[[1]]), "statement.usage.wall_ms"),
        (lambda leaf, stated: stated["usage"].update(wall_ms=1), "statement.price"),
        (lambda leaf, stated: stated["usage"].update(fuel=[]), "statement.usage.fuel"),
        (lambda leaf, stated: stated["usage"].pop("cpu_ms"), "statement.usage.cpu_ms"),
        (lambda leaf, stated: stated["price"].pop("rates"), "statement.price.rates"),
        (lambda leaf, stated: stated["price"].update(most="1e300"), "statement.price.most"),
        (lambda leaf, stated: stated["price"].update(most="1"), "statement.price"),
        (lambda leaf, stated: stated["price"].update(tariff="9"), "rates"),
        (lambda leaf, stated: stated["runtime"].update(name="docker"), "rates"),
        (lambda leaf, stated: stated.update(runtime="wasm"), "statement.runtime"),
        (lambda leaf, stated: stated["tier"].update(basis="evidence"), "statement.evidence"),
        (lambda leaf, stated: stated["tier"].update(basis="hearsay"), "statement.tier.basis"),
        (lambda leaf, stated: stated.update(evidence="ab" * 32), "statement.evidence"),
        (lambda leaf, stated: stated["tier"].update(delivered=5), "statement.tier.delivered"),
        (lambda leaf, stated: stated.update(evidence="x"), "statement.evidence"),
        (lambda leaf, stated: stated["settlement"].update(chain_id="1_0"), "statement.settlement.chain_id"),
        (lambda leaf, stated: stated["settlement"].update(contract="0x0"), "statement.settlement.contract"),
        (lambda leaf, stated: stated["exit"].update(oom=1), "statement.exit.oom"),
        (lambda leaf, stated: stated.update(outputs=[{}]), "statement.outputs.0.name"),
        (lambda leaf, stated: stated.update(more=1), "statement.more"),
    ],
)
def test_what_its_keys_have_signed_and_is_wrong(
    change: Callable[[Receipt, Receipt], None], told: str, forge: Forge
) -> None:
    assert refused(forge.made(change), forge.platform).name == told


@pytest.mark.parametrize(
    "change",
    [{"decimals": 10**9}, {"decimals": -1}, {"symbol": "\x1b[2J"}, {"version": "\n"}, {"tier": 9}, {"token": ""}],
)
def test_rates_that_are_none(change: Receipt, forge: Forge) -> None:
    def with_rates(leaf: Receipt, stated: Receipt) -> None:
        stated["price"]["rates"] = canonical.digest(forge.receipt["rates"] | change)

    receipt = forge.made(with_rates)
    receipt["rates"] |= change
    assert refused(receipt, forge.platform).name == "rates"
