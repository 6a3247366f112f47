"""What collects evidence of the machine that it runs on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from hanzo_compute.model.evidence import Evidence, Platform


class Challenge(Protocol):
    """What evidence must commit to: :class:`hanzo_compute.attestation.binding.Binding` is one."""

    @property
    def nonce(self) -> bytes:
        """32 bytes of the verifier, of use once."""
        ...

    @property
    def signing_key(self) -> bytes:
        """P-256, SubjectPublicKeyInfo in DER."""
        ...

    @property
    def sealing_key(self) -> bytes:
        """X25519, 32 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that keeps an interface from being used."""

    what: str
    why: str
    remedy: str

    def as_json(self) -> dict[str, str]:
        """It as a JSON object."""
        return {"what": self.what, "why": self.why, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at the machine says of one source of evidence, or of what it stands on."""

    name: str
    """``SEV-SNP guest``, ``TPM``, ``KVM``, …"""
    platform: Platform | None
    """Whose evidence it gives; None of what gives none (KVM)."""
    ready: bool
    """Whether it can be used now, by this user."""
    summary: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was looked at, and what it said: device files, modules, options of the kernel."""
    missing: Sequence[Missing] = ()
    """Why it is not ready; where nothing of it is there at all, the first says what it would take."""

    def as_json(self) -> dict[str, Any]:
        """It as a JSON object."""
        return {
            "name": self.name,
            "platform": self.platform.value if self.platform else None,
            "ready": self.ready,
            "summary": self.summary,
            "facts": dict(self.facts),
            "missing": [each.as_json() for each in self.missing],
        }


@runtime_checkable
class Attester(Protocol):
    """Evidence of this machine."""

    def detect(self) -> Sequence[Found]:
        """What is here and what is missing; looks only, and raises nothing."""
        ...

    def collect(self, binding: Challenge) -> Sequence[Evidence]:
        """Evidence of everything that is ready, bound together: the CPU's and the TPM's commit to that of the GPUs.

        Raises:
            EvidenceUnavailable: there is nothing to collect from, or a source does not do what it should.
        """
        ...

    def answer(self, nonce: bytes, only: Platform | None = None) -> Sequence[Evidence]:
        """Evidence that carries a nonce and nothing else, each in its platform's own field: for looking.

        It commits to no keys, and so no key is ever released on it.

        Args:
            nonce: 32 bytes.
            only: leave the others out.

        Raises:
            EvidenceUnavailable: as for :meth:`collect`.
        """
        ...

    def activate(self, credential: bytes) -> bytes:
        """The secret of a credential that a verifier made for the TPM's attestation key (TPM 2.0 part 1, section 24).

        Giving it back shows that this key and the endorsement key are in one TPM.

        Args:
            credential: TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET, one after the other.

        Raises:
            InvalidRequest: it is no credential.
            EvidenceUnavailable: it was made for another key or another TPM.
        """
        ...
