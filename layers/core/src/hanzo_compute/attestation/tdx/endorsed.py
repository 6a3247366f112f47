"""What Intel's collateral says of the platform, and whether that can be believed.

Every check is made here, with a reason of its own; dcap-qvl judges quote and collateral once more, as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.pins import INTEL
from hanzo_compute.attestation.tdx import collateral as intel
from hanzo_compute.attestation.tdx import pck, tcb
from hanzo_compute.attestation.tdx.collateral import Collateral
from hanzo_compute.attestation.tdx.genuine import verified
from hanzo_compute.attestation.tdx.pck import Pck
from hanzo_compute.attestation.tdx.policy import TcbPolicy, TcbStatus
from hanzo_compute.attestation.tdx.quote import Quote, TdReport, parse_enclave

_PCS: Final = "Intel PCS API version 4"
_QVL: Final = "dcap-qvl 0.7"
_CACHED: Final = 256
_QE_IDS: Final = {"TDX": ("TD_QE", (2, 3)), "SGX": ("QE", (2,))}


@dataclass(frozen=True, slots=True)
class Endorsed:
    """Checks of one quote against one file of collateral."""

    findings: Findings
    prefix: str
    quote: Quote
    raw: bytes
    chain: chains.Chain
    pck: Pck
    context: Context
    policy: TcbPolicy

    def check(self, data: bytes, *, beyond: str) -> None:
        """Write all checks down.

        Args:
            data: the file of collateral.
            beyond: why dcap-qvl refuses this quote by fixed rules, on which the policy alone decides here.
        """
        try:
            collateral = intel.read(data)
        except Unreadable as error:
            self._note("collateral", False, str(error))
            self._note("tcb_status", None, "the collateral cannot be read")
            return
        self._note("collateral", True, "the collateral can be read")
        self._signed(collateral)
        self._dates(collateral)
        self._about(collateral)
        self._revoked(collateral)
        self._levels(collateral)
        self._second_opinion(collateral, beyond)

    def _note(
        self,
        name: str,
        ok: bool | None,
        detail: str,
        *,
        expected: object = None,
        actual: object = None,
        source: str = _PCS,
        required: bool = True,
    ) -> None:
        self.findings.check(
            f"{self.prefix}.{name}",
            Group.POLICY,
            ok,
            detail,
            expected=expected,
            actual=actual,
            source=source,
            required=required,
        )

    def _signed(self, collateral: Collateral) -> None:
        problem = self._signer(collateral.tcb_chain)
        if not problem and collateral.qe_chain != collateral.tcb_chain:
            problem = self._signer(collateral.qe_chain)
        self._note("tcb_signer", not problem, problem or "the collateral's signer is Intel's")
        file = collateral.file
        parts = (
            ("tcb_info_signature", "the TCB info", collateral.tcb_chain, file.tcb_info, file.tcb_info_signature),
            (
                "qe_identity_signature",
                "the identity of the quoting enclave",
                collateral.qe_chain,
                file.qe_identity,
                file.qe_identity_signature,
            ),
        )
        for name, what, chain, text, signature in parts:
            ok = bool(chain) and _text_signed(chain[0], text, signature)
            self._note(name, ok, f"{what} is {'' if ok else 'not '}signed by the collateral's signer")

    def _signer(self, certificates: Sequence[x509.Certificate]) -> str:
        """Why the chain of a signer is none; a signer's certificate is the root's own."""
        chain = chains.verify(
            certificates, now_ms=self.context.now_ms, pins=INTEL, anchors=self.context.anchors, leaf_signs=True
        )
        problem = chain.root or chain.links or chain.validity or chain.rules
        if not problem and (len(certificates) != 2 or pck.subject(certificates[0]) != pck.TCB_SIGNER):
            return f"the collateral's signer is not {pck.TCB_SIGNER}, issued by the root"
        return problem

    def _dates(self, collateral: Collateral) -> None:
        info, identity = collateral.tcb_info, collateral.qe_identity
        self._dated("tcb_info_validity", "the TCB info", info.issue_date, info.next_update)
        self._dated(
            "qe_identity_validity", "the identity of the quoting enclave", identity.issue_date, identity.next_update
        )
        number = min(info.tcb_evaluation_data_number, identity.tcb_evaluation_data_number)
        least = self.policy.min_tcb_evaluation_data_number
        ok = number >= least
        text = f"the collateral is of TCB recovery {number}" + ("" if ok else ", which is too old")
        field = f"policy: {self.prefix}.min_tcb_evaluation_data_number"
        self._note("evaluation_number", ok, text, expected=f">= {least}", actual=number, source=field)
        self.findings.claims["tcb_evaluation_data_number"] = number

    def _dated(self, name: str, what: str, start: int, end: int) -> None:
        now = self.context.now_ms
        problem = "is of the future" if now < start else "is out of date" if now > end else ""
        self._note(name, not problem, f"{what} {problem or 'is of now'}")

    def _about(self, collateral: Collateral) -> None:
        """Are TCB info and identity of this kind of quote, this family of processors and this quoting enclave?"""
        info, identity = collateral.tcb_info, collateral.qe_identity
        kind = self.prefix.upper()
        ok = info.id == kind and info.version == 3 and info.tcb_type == 0
        text = f"the TCB info is {info.id} of version {info.version}"
        self._note("tcb_info_kind", ok, text, expected=f"{kind} of version 3")
        ok = info.fmspc == self.pck.fmspc and info.pce_id == self.pck.pceid
        text = "the TCB info is of this family of processors" if ok else "the TCB info is of other processors"
        expected, actual = f"{self.pck.fmspc.hex()} {self.pck.pceid.hex()}", f"{info.fmspc.hex()} {info.pce_id.hex()}"
        self._note("fmspc", ok, text, expected=expected, actual=actual)
        name, versions = _QE_IDS[kind]
        problem = "" if identity.id == name and identity.version in versions else f"the identity is of {identity.id}"
        problem = problem or tcb.qe_problem(identity, parse_enclave(self.quote.qe_report))
        self._note("qe_identity", not problem, problem or "the quoting enclave is what its identity says")
        if isinstance(self.quote.body, TdReport):
            problem = tcb.module_problem(info, self.quote.body)
            self._note("module", not problem, problem or "the TDX module is Intel's")

    def _revoked(self, collateral: Collateral) -> None:
        leaf, authority, root = self.chain.certificates
        lists = ((collateral.root_crl, root, "the root"), (collateral.pck_crl, authority, "the PCK's authority"))
        wrong = [name for crl, by, name in lists if not _list_signed(crl.der, by)]
        text = "the lists of revoked certificates are signed by their issuers"
        text = f"the list of revoked certificates is not signed by {wrong[0]}" if wrong else text
        self._note("crl", not wrong, text)
        for name, crl, what in (("root_crl", collateral.root_crl, "root"), ("pck_crl", collateral.pck_crl, "PCK")):
            text = f"the {what}'s list of revoked certificates"
            self._dated(f"{name}_validity", text, crl.this_update, crl.next_update)
        ok = leaf.serial_number not in collateral.pck_crl.serials
        self._note("pck_revoked", ok, f"the PCK certificate is {'not ' if ok else ''}revoked")
        signers = {chain[0] for chain in (collateral.tcb_chain, collateral.qe_chain) if chain}
        revoked = [each for each in (authority, *signers) if each.serial_number in collateral.root_crl.serials]
        text = "neither the PCK's authority nor the collateral's signer is revoked"
        if revoked:
            text = f"{pck.subject(revoked[0])} is revoked"
        self._note("authority_revoked", not revoked, text)

    def _levels(self, collateral: Collateral) -> None:
        qe = parse_enclave(self.quote.qe_report)
        found = tcb.evaluate(collateral.tcb_info, collateral.qe_identity, self.pck, self.quote.body, qe)
        status, advisories = found.status, found.advisories
        self.findings.claims["tcb_status"] = status and status.value
        self.findings.claims["advisories"] = list(advisories)
        levels = [f"{part.name}: {part.level.tcb_status if part.level else part.problem}" for part in found.parts]
        text = "; ".join(levels)
        allowed = self.policy.tcb_statuses
        self._note(
            "tcb_status",
            self._acceptable(status),
            text,
            expected=", ".join(allowed),
            actual=status and status.value,
            source=f"policy: {self.prefix}.tcb_statuses",
        )
        wrong = self._unwanted(advisories)
        text = (
            f"advisories apply that are not accepted: {', '.join(wrong)}" if wrong else "no advisory speaks against it"
        )
        source = f"policy: {self.prefix}.rejected_advisories, accepted_advisories"
        self._note("advisories", not wrong, text, actual=", ".join(advisories), source=source)

    def _acceptable(self, status: TcbStatus | str | None) -> bool:
        return status in self.policy.tcb_statuses and status != TcbStatus.REVOKED

    def _unwanted(self, advisories: Sequence[str]) -> list[str]:
        rejected, accepted = self.policy.rejected_advisories, self.policy.accepted_advisories
        return [each for each in advisories if each in rejected or (accepted is not None and each not in accepted)]

    def _second_opinion(self, collateral: Collateral, beyond: str) -> None:
        if beyond or self.chain.root:
            why = beyond or "the root is not trusted"
            text = f"dcap-qvl was not asked: {why}"
            self._note("dcap_qvl", None, text, source=_QVL, required=not beyond)
            return
        root = _der(self.chain.certificates[-1])
        status, advisories, problem = _dcap_qvl(self.raw, collateral, root, self.context.now_ms // 1000)
        ok = not problem and self._acceptable(status) and not self._unwanted(advisories)
        text = f"dcap-qvl {'refuses it: ' + problem if problem else 'says ' + status}"
        self._note("dcap_qvl", ok, text, actual=", ".join((status, *advisories)), source=_QVL)


@lru_cache(maxsize=_CACHED)
def _list_signed(der: bytes, issuer: x509.Certificate) -> bool:
    """Whether a list of revoked certificates names ``issuer`` and is signed by it."""
    crl, key = x509.load_der_x509_crl(der), issuer.public_key()
    if crl.issuer.public_bytes() != issuer.subject.public_bytes() or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        return crl.is_signature_valid(key)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # it says that it is signed by another kind of key
        return False


@lru_cache(maxsize=_CACHED)
def _text_signed(signer: x509.Certificate, text: str, signature: bytes) -> bool:
    key = signer.public_key()
    return isinstance(key, ec.EllipticCurvePublicKey) and verified(key, signature, text.encode())


@lru_cache(maxsize=_CACHED)
def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _dcap_qvl(raw: bytes, collateral: Collateral, root: bytes, now: int) -> tuple[str, Sequence[str], str]:
    """Status, advisories, and why it refuses; of its answers only these are used, and none says what is genuine."""
    try:
        report = dcap_qvl.verify_with_root_ca(raw, collateral.given, root, now)
    except Exception as error:  # its kinds of errors are not documented, and each of them refuses
        return "", (), str(error)[:300] or type(error).__name__
    return report.status, report.advisory_ids, ""
