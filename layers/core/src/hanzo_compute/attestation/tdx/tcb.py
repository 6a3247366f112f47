"""The status of a TCB by Intel's collateral.

Intel PCS API version 4, "Determining TCB status": of the platform by its security versions, of the TDX module and of
the quoting enclave by theirs. The status of all is the worst of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import ge

from hanzo_compute.attestation.tdx.collateral import EnclaveLevel, Level, ModuleIdentity, QeIdentity, TcbInfo
from hanzo_compute.attestation.tdx.pck import Pck
from hanzo_compute.attestation.tdx.policy import TcbStatus
from hanzo_compute.attestation.tdx.quote import EnclaveReport, Quote, TdReport


@dataclass(frozen=True, slots=True)
class Part:
    """What the collateral says of one part of the TCB: a level, or why there is none."""

    name: str
    level: Level | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Tcb:
    """What it says of all parts."""

    parts: Sequence[Part]

    @property
    def status(self) -> TcbStatus | None:
        """The worst of all parts; None if one has no level."""
        levels = [part.level for part in self.parts]
        known = [level.tcb_status for level in levels if level is not None]
        return max(known, key=lambda each: each.badness) if len(known) == len(levels) else None

    @property
    def advisories(self) -> tuple[str, ...]:
        """Of all parts, each once."""
        levels = [part.level for part in self.parts if part.level is not None]
        return tuple(dict.fromkeys(each for level in levels for each in level.advisory_ids))


def evaluate(info: TcbInfo, identity: QeIdentity, pck: Pck, quote: Quote) -> Tcb:
    """The levels of platform, quoting enclave, and TDX module."""
    svn = quote.body.tee_tcb_svn if isinstance(quote.body, TdReport) else None
    parts = [_platform(info, pck, svn), _enclave("quoting enclave", identity.tcb_levels, quote.qe.isvsvn)]
    if svn is not None and _versioned(info, svn):
        parts.append(_module(info, svn))
    return Tcb(parts)


def module_problem(info: TcbInfo, body: TdReport) -> str:
    """Why the TDX module is not what the TCB info says that Intel's are; empty if it is."""
    versioned = _versioned(info, body.tee_tcb_svn)
    module = _identity(info, body.tee_tcb_svn) if versioned else info.tdx_module
    if module is None:
        return f"the TCB info knows no TDX module of version {body.tee_tcb_svn[1]}"
    if body.mrsignerseam != module.mrsigner:
        return "the TDX module is signed by another than the TCB info says"
    if _masked(body.seam_attributes, module.attributes_mask) != _masked(module.attributes, module.attributes_mask):
        return "the TDX module has other attributes than the TCB info says"
    return ""


def qe_problem(identity: QeIdentity, qe: EnclaveReport) -> str:
    """Why a quoting enclave is not what the identity says that Intel's are; empty if it is."""
    if qe.mrsigner != identity.mrsigner:
        return "the quoting enclave is signed by another than its identity says"
    if qe.isvprodid != identity.isvprodid:
        return f"the quoting enclave is product {qe.isvprodid}, not {identity.isvprodid}"
    if _masked(qe.miscselect, identity.miscselect_mask) != _masked(identity.miscselect, identity.miscselect_mask):
        return "the quoting enclave has another MISCSELECT than its identity says"
    if _masked(qe.attributes, identity.attributes_mask) != _masked(identity.attributes, identity.attributes_mask):
        return "the quoting enclave has other attributes than its identity says"
    return ""


def _platform(info: TcbInfo, pck: Pck, tee_tcb_svn: bytes | None) -> Part:
    # From version 1 of the TDX module on, its own levels judge the first two bytes, which are its versions.
    first = 2 if tee_tcb_svn is not None and _versioned(info, tee_tcb_svn) else 0
    for level in info.tcb_levels:
        if pck.pcesvn < level.tcb.pcesvn or not _at_least(pck.components, level.tcb.sgx):
            continue
        if tee_tcb_svn is None:
            return Part("platform", level)
        if level.tcb.tdx is None:
            return Part("platform", None, "the TCB info has a level without components of TDX")
        if _at_least(tee_tcb_svn[first:], level.tcb.tdx[first:]):
            return Part("platform", level)
    return Part("platform", None, "the platform's TCB is below every level of the TCB info")


def _module(info: TcbInfo, tee_tcb_svn: bytes) -> Part:
    identity = _identity(info, tee_tcb_svn)
    if identity is None:
        return Part("TDX module", None, f"the TCB info knows no TDX module of version {tee_tcb_svn[1]}")
    return _enclave("TDX module", identity.tcb_levels, tee_tcb_svn[0])


def _enclave(name: str, levels: Iterable[EnclaveLevel], svn: int) -> Part:
    level = next((each for each in levels if svn >= each.tcb.isvsvn), None)
    return Part(name, level, "" if level else f"version {svn} of the {name} is below every level")


def _versioned(info: TcbInfo, tee_tcb_svn: bytes) -> bool:
    return tee_tcb_svn[1] > 0 and bool(info.tdx_module_identities)


def _identity(info: TcbInfo, tee_tcb_svn: bytes) -> ModuleIdentity | None:
    name = f"TDX_{tee_tcb_svn[1]:02X}"
    return next((each for each in info.tdx_module_identities if each.id.upper() == name), None)


def _at_least(have: Iterable[int], want: Iterable[int]) -> bool:
    return all(map(ge, have, want))


def _masked(data: bytes, mask: bytes) -> int:
    return int.from_bytes(data, "little") & int.from_bytes(mask, "little")
