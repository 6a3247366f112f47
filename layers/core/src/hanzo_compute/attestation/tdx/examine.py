"""The checks of TDX and SGX: genuine, of an acceptable TCB, as the policy wants it, and measured as it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.tdx import genuine, measured
from hanzo_compute.attestation.tdx.endorsed import Endorsed
from hanzo_compute.attestation.tdx.policy import EnclaveReference, SgxPolicy, TcbPolicy, TdReference, TdxPolicy
from hanzo_compute.attestation.tdx.quote import SGX_TYPE, TDX_TYPE, EnclaveReport, Quote, TdReport, parse
from hanzo_compute.model.evidence import Tier

_MODULE: Final = "TDX Module 1.5 Base Architecture Specification"
_SDM: Final = "Intel SDM volume 3D, section 38.7.1"
_DEBUG, _SEPT_VE_DISABLE, _XFAM_ALWAYS = 1 << 0, 1 << 28, 0b11
_KNOWN_ATTRIBUTES: Final = int.from_bytes(bytes.fromhex(TdxPolicy().td_attributes_allowed), "little")
_SGX_INIT, _SGX_DEBUG = 1 << 0, 1 << 1
_MEASURED: Final = ("mrtd", *measured.RTMRS, "mrconfigid", "mrowner", "mrownerconfig")


def examine_tdx(files: Mapping[str, bytes], context: Context) -> Findings:
    """The checks of a trust domain.

    Files: ``quote``; ``collateral`` (JSON, DCAP's QuoteCollateralV3); ``ccel`` or ``eventlog``, if there is one.

    Raises:
        Unreadable: there is no quote, or it cannot be read.
    """
    quote, findings = _read(files, TDX_TYPE), Findings()
    body, policy = quote.body, context.policy.tdx or TdxPolicy()
    assert isinstance(body, TdReport)
    beyond = _attributes(findings, body, policy)
    _registers(findings, body, policy)
    _judge(findings, "tdx", files, quote, context, policy, beyond)
    actual = {name: getattr(body, name) for name in _MEASURED}
    references = [_td_reference(each) for each in policy.references]
    measured.compare(findings, "tdx", actual, references, required=context.policy.require.measurement)
    log = files.get("ccel", files.get("eventlog"))
    measured.replay_log(findings, body, log, required=policy.require_event_log)
    findings.tier, findings.tier_why = Tier.CPU_TEE, "no evidence of a GPU is bound to it"
    return findings


def examine_sgx(files: Mapping[str, bytes], context: Context) -> Findings:
    """The checks of an enclave.

    Files: ``quote``; ``collateral`` (JSON, DCAP's QuoteCollateralV3).

    Raises:
        Unreadable: there is no quote, or it cannot be read.
    """
    quote, findings = _read(files, SGX_TYPE), Findings()
    body, policy = quote.body, context.policy.sgx or SgxPolicy()
    assert isinstance(body, EnclaveReport)
    flags = int.from_bytes(body.attributes[:8], "little")
    debug = bool(flags & _SGX_DEBUG)
    _debug(findings, "sgx", debug, policy.allow_debug)
    ok = bool(flags & _SGX_INIT)
    text = "the enclave is initialised" if ok else "the enclave was never initialised"
    findings.check("sgx.initialised", Group.POLICY, ok, text, actual=body.attributes, source=_SDM)
    findings.claims["debug"] = debug
    _judge(findings, "sgx", files, quote, context, policy, "the enclave is of a debugger" if debug else "")
    actual = {name: getattr(body, name) for name in ("mrenclave", "mrsigner", "isvprodid", "isvsvn")}
    references = [_enclave_reference(each) for each in policy.references]
    measured.compare(findings, "sgx", actual, references, required=context.policy.require.measurement)
    findings.tier_why = "an enclave is a part of a process, and jobs run in machines"
    return findings


def _read(files: Mapping[str, bytes], tee_type: int) -> Quote:
    data = files.get("quote")
    if data is None:
        raise Unreadable("there is no quote")
    quote = parse(data)
    if quote.tee_type != tee_type:
        raise Unreadable(f"the quote is of TEE type 0x{quote.tee_type:x}, not 0x{tee_type:x}")
    return quote


def _judge(
    findings: Findings,
    prefix: str,
    files: Mapping[str, bytes],
    quote: Quote,
    context: Context,
    policy: TcbPolicy,
    beyond: str,
) -> None:
    """Claims, what is genuine, and what the collateral says."""
    findings.claims.update(_claims(quote))
    findings.commitment = quote.body.report_data
    known = genuine.check(findings, prefix, quote, context)
    pck = known.pck if known else None
    if known and pck:
        findings.identity = f"{pck.serial:x}"
        findings.claims["pck_ca"] = pck.authority
        findings.claims["pck_validity"] = list(known.validity)
        findings.claims["fmspc"] = pck.fmspc.hex()
    data = files.get("collateral")
    if data is None:
        text = "it cannot be said without Intel's collateral"
        findings.check(f"{prefix}.tcb_status", Group.POLICY, None, text, missing="collateral")
    elif known is None or pck is None:
        findings.check(f"{prefix}.tcb_status", Group.POLICY, None, "there is no PCK certificate to judge by")
    else:
        Endorsed(findings, prefix, quote, files["quote"], known, pck, context, policy).check(data, beyond=beyond)


def _attributes(findings: Findings, body: TdReport, policy: TdxPolicy) -> str:
    """Attributes of the trust domain; why dcap-qvl refuses it by them, whatever a policy says."""
    attributes = int.from_bytes(body.td_attributes, "little")
    debug, closed = bool(attributes & _DEBUG), bool(attributes & _SEPT_VE_DISABLE)
    findings.claims["debug"] = debug
    _debug(findings, "tdx", debug, policy.allow_debug)
    text = f"SEPT_VE_DISABLE is {'set' if closed else 'clear: the host can interrupt it by taking pages away'}"
    source = "policy: tdx.require_sept_ve_disable"
    findings.check(
        "tdx.sept_ve_disable", Group.POLICY, closed or not policy.require_sept_ve_disable, text, source=source
    )
    more = attributes & ~int.from_bytes(bytes.fromhex(policy.td_attributes_allowed), "little")
    text = "td_attributes has only bits that may be set" if not more else f"td_attributes has bits 0x{more:x}"
    source = f"{_MODULE}, ATTRIBUTES; policy: tdx.td_attributes_allowed"
    findings.check("tdx.td_attributes", Group.POLICY, not more, text, actual=body.td_attributes, source=source)
    xfam = int.from_bytes(body.xfam, "little")
    ok = (
        not xfam & ~int.from_bytes(bytes.fromhex(policy.xfam_allowed), "little") and xfam & _XFAM_ALWAYS == _XFAM_ALWAYS
    )
    text = "XFAM has its fixed bits" if ok else "XFAM has a bit that must be clear, or lacks one that must be set"
    source = f"{_MODULE}, XFAM; policy: tdx.xfam_allowed"
    findings.check("tdx.xfam", Group.POLICY, ok, text, expected=policy.xfam_allowed, actual=body.xfam, source=source)
    if debug:
        return "the trust domain is of a debugger"
    if not closed:
        return "SEPT_VE_DISABLE is clear"
    if attributes & ~_KNOWN_ATTRIBUTES:
        return "td_attributes has a bit that it does not know"
    return "a service TD is bound" if body.mrservicetd and any(body.mrservicetd) else ""


def _registers(findings: Findings, body: TdReport, policy: TdxPolicy) -> None:
    ok = not any(body.mrsignerseam)
    text = "Intel signed the TDX module" if ok else "another than Intel signed the TDX module"
    source = f"{_MODULE}, MRSIGNERSEAM"
    findings.check(
        "tdx.mrsignerseam", Group.POLICY, ok, text, expected=bytes(48), actual=body.mrsignerseam, source=source
    )
    given = bool(policy.mrseam)
    known = body.mrseam.hex() in policy.mrseam if given else None
    text = "any TDX module of Intel's is accepted" if not given else f"the TDX module is {'' if known else 'not '}known"
    findings.check(
        "tdx.mrseam", Group.MEASURED, known, text, actual=body.mrseam, source="policy: tdx.mrseam", required=given
    )
    bound = (body.mrservicetd or bytes(48)).hex()
    ok = bound in policy.mrservicetd
    text = "no service TD is bound that is not accepted" if ok else "a service TD is bound that is not accepted"
    findings.check("tdx.mrservicetd", Group.POLICY, ok, text, actual=bound, source="policy: tdx.mrservicetd")
    least = bytes.fromhex(policy.min_tee_tcb_svn) if policy.min_tee_tcb_svn else None
    new = all(one >= other for one, other in zip(body.tee_tcb_svn, least, strict=True)) if least else None
    text = "TEE_TCB_SVN is not limited" if least is None else f"TEE_TCB_SVN is {'' if new else 'not '}high enough"
    findings.check(
        "tdx.tee_tcb_svn",
        Group.POLICY,
        new,
        text,
        expected=least,
        actual=body.tee_tcb_svn,
        source="policy: tdx.min_tee_tcb_svn",
        required=least is not None,
    )


def _debug(findings: Findings, prefix: str, debug: bool, allowed: bool) -> None:
    text = "it is of a debugger: the host can read its memory" if debug else "it is not of a debugger"
    source = f"policy: {prefix}.allow_debug"
    findings.check(f"{prefix}.debug", Group.POLICY, allowed or not debug, text, source=source)


def _claims(quote: Quote) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "version": quote.version,
        "att_key_type": quote.att_key_type,
        "tee": "SGX" if quote.tee_type == SGX_TYPE else "TDX",
        "qe_vendor": quote.qe_vendor.hex(),
        "user_data": quote.user_data.hex(),
        "cert_data_type": quote.cert_type,
        "trailing": len(quote.trailing),
    }
    if quote.body_type is not None:
        claims["body_type"] = quote.body_type
    for each in fields(quote.body):
        value = getattr(quote.body, each.name)
        if value is not None:
            claims[each.name] = value.hex() if isinstance(value, bytes) else value
    return claims


def _td_reference(reference: TdReference) -> measured.Reference:
    values = {name: getattr(reference, name) for name in _MEASURED}
    return {name: bytes.fromhex(value) for name, value in values.items() if value is not None}


def _enclave_reference(reference: EnclaveReference) -> measured.Reference:
    found = {name: getattr(reference, name) for name in ("mrenclave", "mrsigner")}
    hashes = {name: bytes.fromhex(value) for name, value in found.items() if value is not None}
    return {**hashes, "isvprodid": reference.isvprodid, "isvsvn": reference.min_isvsvn}
