"""What OCSP responses that came along say of whole chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography.x509.ocsp import OCSPResponse

from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.nvidia import ocsp
from hanzo_compute.attestation.nvidia.policy import NvidiaPolicy
from hanzo_compute.attestation.x509 import Cert


@dataclass(frozen=True, slots=True)
class Answers:
    """The responses, and how they are to be judged."""

    responses: Sequence[OCSPResponse]
    nonce: bytes | None
    now_ms: int
    policy: NvidiaPolicy

    @classmethod
    def of(cls, findings: Findings, files: Mapping[str, bytes], context: Context) -> Answers:
        """Those among the files; one that is no response is a finding."""
        responses = []
        for name in sorted(files):
            if name == "ocsp" or name.startswith("ocsp-"):
                try:
                    responses.append(ocsp.load(files[name]))
                except Unreadable as error:
                    findings.check("nvidia.ocsp.format", Group.POLICY, False, f"{name}: {error}", source="RFC 6960")
        return cls(responses, files.get("ocsp_nonce"), context.now_ms, context.policy.nvidia or NvidiaPolicy())

    def check(
        self,
        findings: Findings,
        id: str,  # noqa: A002 the name of the field
        chain: Sequence[Cert],
        *,
        may_hold: bool = False,
    ) -> None:
        """Check the status of each certificate of a chain but its root, which is nobody's to revoke."""
        unknown = max(len(chain) - 1, 1) if not self.responses or len(chain) < 2 else 0
        for certificate, issuer in pairwise(chain) if self.responses else ():
            status = ocsp.status(
                certificate.loaded,
                issuer.loaded,
                self.responses,
                now_ms=self.now_ms,
                nonce=self.nonce,
                allow_hold=may_hold and self.policy.allow_hold,
            )
            if status.good is False:
                findings.check(id, Group.POLICY, False, f"{certificate.subject}: {status.why}", source="RFC 6960")
                return
            unknown += status.good is None
        source, required = "policy: nvidia.require_ocsp", self.policy.require_ocsp
        if unknown:
            text = f"no OCSP response about {unknown} of the chain's certificates"
            findings.check(id, Group.POLICY, None, text, source=source, required=required, missing="ocsp")
        else:
            findings.check(id, Group.POLICY, True, "each certificate has a good response of now", source=source)
