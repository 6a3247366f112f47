"""What Intel's collateral says of the platform, and whether that can be believed.

Every check is made here, with a reason of its own; dcap-qvl judges quote and collateral once more, as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.remembered import LIST, remembered
from hanzo_compute.attestation.tdx import collateral as intel
from hanzo_compute.attestation.tdx import tcb
from hanzo_compute.attestation.tdx.collateral import Collateral, Signed
from hanzo_compute.attestation.tdx.ecdsa import key_of
from hanzo_compute.attestation.tdx.pck import Known, Pck, common_name
from hanzo_compute.attestation.tdx.policy import TcbPolicy, TcbStatus
from hanzo_compute.attestation.tdx.quote import Quote, TdReport

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
    known: Known
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
        info, identity = collateral.tcb_info_signed, collateral.qe_identity_signed
        problem = self._signer(info)
        if not problem and identity.certificates is not info.certificates:
            problem = self._signer(identity)
        self._note("tcb_signer", not problem, problem or "the collateral's signer is Intel's")
        text = "the TCB info is " + ("signed" if info.ok else "not signed") + " by the collateral's signer"
        self._note("tcb_info_signature", info.ok, text)
        text = "the identity of the quoting enclave is " + ("signed" if identity.ok else "not signed")
        self._note("qe_identity_signature", identity.ok, text + " by the collateral's signer")

    def _signer(self, signed: Signed) -> str:
        """Why it is no signer: it must stand below the root of the quote, and be valid."""
        chain = self.known.chain
        if signed.problem or chain.root:
            return signed.problem or chain.root
        if signed.certificates[-1] != chain.certificates[-1]:
            return "the collateral's signer is below another root than the PCK certificate"
        return chains.validity(signed.certificates, self.context.now_ms)

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
        problem = problem or tcb.qe_problem(identity, self.quote.qe)
        self._note("qe_identity", not problem, problem or "the quoting enclave is what its identity says")
        if isinstance(self.quote.body, TdReport):
            problem = tcb.module_problem(info, self.quote.body)
            self._note("module", not problem, problem or "the TDX module is Intel's")

    def _revoked(self, collateral: Collateral) -> None:
        authority = self.known.chain.certificates[1]
        root_crl, pck_crl = collateral.root_crl, collateral.pck_crl
        problem = ""
        if not _list_signed(root_crl.der, self.known.root):
            problem = "the root's list of revoked certificates is not signed by the root"
        if not _list_signed(pck_crl.der, self.known.authority):
            problem = "the list of revoked PCK certificates is not signed by the PCK's authority"
        self._note("crl", not problem, problem or "the lists of revoked certificates are signed by their issuers")
        text = "the root's list of revoked certificates"
        self._dated("root_crl_validity", text, root_crl.this_update, root_crl.next_update)
        self._dated("pck_crl_validity", "the list of revoked PCKs", pck_crl.this_update, pck_crl.next_update)
        ok = self.pck.serial not in pck_crl.serials
        self._note("pck_revoked", ok, "the PCK certificate is not revoked" if ok else "the PCK certificate is revoked")
        info, identity = collateral.tcb_info_signed, collateral.qe_identity_signed
        below = (authority, *info.certificates[:1], *identity.certificates[:1])
        revoked = [each for each in below if each.serial_number in root_crl.serials]
        text = "neither the PCK's authority nor the collateral's signer is revoked"
        if revoked:
            text = f"{common_name(revoked[0].subject)} is revoked"
        self._note("authority_revoked", not revoked, text)

    def _levels(self, collateral: Collateral) -> None:
        found = tcb.evaluate(collateral.tcb_info, collateral.qe_identity, self.pck, self.quote)
        status, advisories = found.status, found.advisories
        self.findings.claims["tcb_status"] = status and status.value
        self.findings.claims["advisories"] = list(advisories)
        text = "; ".join(
            [part.name + ": " + (part.level.tcb_status if part.level else part.problem) for part in found.parts]
        )
        allowed = self.policy.tcb_statuses
        self._note(
            "tcb_status",
            self._acceptable(status),
            text,
            expected=", ".join(allowed),
            actual=status,
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
        if beyond or self.known.chain.root:
            why = beyond or "the root is not trusted"
            text = f"dcap-qvl was not asked: {why}"
            self._note("dcap_qvl", None, text, source=_QVL, required=not beyond)
            return
        status, advisories, problem = _dcap_qvl(self.raw, collateral, self.known.root, self.context.now_ms // 1000)
        ok = not problem and self._acceptable(status) and not self._unwanted(advisories)
        text = f"dcap-qvl {'refuses it: ' + problem if problem else 'says ' + status}"
        self._note("dcap_qvl", ok, text, actual=", ".join((status, *advisories)), source=_QVL)


@remembered(_CACHED, LIST)
def _list_signed(der: bytes, by: bytes) -> bool:
    """Whether a list of revoked certificates names the certificate ``by``, and is signed by it."""
    crl, issuer = x509.load_der_x509_crl(der), chains.load_one(by)
    key = key_of(issuer)
    if key is None or crl.issuer.public_bytes() != issuer.subject.public_bytes():
        return False
    try:
        return crl.is_signature_valid(key)
    except (TypeError, ValueError, UnsupportedAlgorithm):  # it says that it is signed by another kind of key
        return False


def _dcap_qvl(raw: bytes, collateral: Collateral, root: bytes, now: int) -> tuple[str, Sequence[str], str]:
    """Status, advisories, and why it refuses; of its answer only these are used, and none says what is genuine."""
    try:
        report = dcap_qvl.verify_with_root_ca(raw, collateral.given, root, now)
    except Exception as error:  # its kinds of errors are not documented, and each of them refuses
        return "", (), str(error)[:300] or type(error).__name__
    return report.status, report.advisory_ids, ""
