"""The agent's signature: what it says of an attempt, under its own key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from hanzo_compute.model import statement
from hanzo_compute.model.outcome import Outcome
from hanzo_compute.model.spec import code_digest, digest, input_digest
from hanzo_compute.model.statement import Signed, Subject, Terms
from hanzo_compute.ports import KeyKind, KeyVault, Lease


@dataclass(frozen=True)
class Signer:
    """Signs statements as the agent of this name, whose key has its name, too; made at the first start."""

    vault: KeyVault
    agent: str

    @property
    def _key(self) -> str:
        return f"agent-{self.agent}"

    @cached_property
    def key_id(self) -> str:
        """What the key is known by: SHA-256, hex, of the public key."""
        return statement.key_id(self.public_key)

    @property
    def public_key(self) -> bytes:
        """The public key (SubjectPublicKeyInfo, DER)."""
        return self.vault.public_key(self._key, KeyKind.P256)

    def sign(self, lease: Lease, outcome: Outcome) -> Signed:
        """The signature over the statement of an outcome."""
        spec = lease.spec
        subject = Subject(
            lease.job,
            lease.attempt,
            self.agent,
            digest(spec),
            code_digest(spec),
            input_digest(spec),
            lease.runtime,
            delivered=lease.delivered_tier,
            evidence=lease.evidence,
        )
        body = statement.body(subject, outcome, Terms.from_json(lease.terms))
        root = statement.root(statement.field_digests(body))
        signature = self.vault.sign(self._key, KeyKind.P256, statement.signing_digest(body, root))
        return Signed(self.public_key, signature)
