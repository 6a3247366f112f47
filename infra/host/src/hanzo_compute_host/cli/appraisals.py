"""Appraisals that the platform made of a job's runners, made again here from all that it kept of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hanzo_compute import errors
from hanzo_compute.model.evidence import Evidence, Platform, gpu_digest

if TYPE_CHECKING:
    from hanzo_compute.attestation import AttestationResult, Binding, Policy
    from hanzo_compute_host.cli.session import Session

Body = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """What an appraisal was made of."""

    evidence: Sequence[Evidence]
    collateral: Mapping[Platform, Mapping[str, bytes]]
    binding: Binding
    activated: Sequence[tuple[bytes, bytes]]
    """Keys of a TPM whose credential the platform saw opened: its word, and no evidence."""
    policy: Policy
    now_ms: int

    def again(self, policy: Policy | None = None, now_ms: int | None = None) -> AttestationResult:
        """The same appraisal, or by another policy or at another time."""
        from hanzo_compute.attestation import appraise

        at = self.now_ms if now_ms is None else now_ms
        activated = self.activated
        return appraise(
            self.evidence, policy or self.policy, self.collateral, at, binding=self.binding, activated=activated
        )

    def judged(self, policy: Policy, now_ms: int) -> AttestationResult:
        """An appraisal that takes nothing on the platform's word."""
        from hanzo_compute.attestation import appraise

        return appraise(self.evidence, policy, self.collateral, now_ms, binding=self.binding)


def fetch(session: Session, shown: Body) -> Kept:
    """What the platform kept of an appraisal that it shows.

    Raises:
        Rejected: it is no such thing.
    """
    from hanzo_compute.attestation import Binding, policy

    try:
        kept = json.loads(session.jobs.blob(shown["bundle"]))
        evidence = [Evidence(Platform(each["platform"]), _files(each["files"])) for each in kept["evidence"]]
        bound = kept["binding"]
        return Kept(
            evidence,
            {Platform(name): _files(files) for name, files in kept["collateral"].items()},
            Binding(
                nonce=bytes.fromhex(bound["nonce"]),
                signing_key=base64.b64decode(bound["signing_key"]),
                sealing_key=bytes.fromhex(bound["sealing_key"]),
                gpu_digest=gpu_digest(evidence),
            ),
            [(bytes.fromhex(ek), bytes.fromhex(ak)) for ek, ak in kept["activated"]],
            policy.from_document(kept["policy"]),
            int(kept["now_ms"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise errors.Rejected(
            f"what the platform kept of the appraisal cannot be read: {type(error).__name__}", name="appraisal"
        ) from None


def _files(files: dict[str, str]) -> dict[str, bytes]:
    return {name: base64.b64decode(data) for name, data in files.items()}
