"""Confidential VMs of Azure: a virtual TPM whose attestation key the hardware's report vouches for.

The paravisor (HCL) keeps a blob in NV index 0x01400001: a header of 32 bytes, the report of SEV-SNP or TDX, and the
runtime data, JSON with the TPM's keys, whose hash is the report's data (Azure documentation, "Guest attestation for
confidential VMs", and the structures of its open-source paravisor).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa

from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.tpm.public import rsa_key
from hanzo_compute.attestation.tpm.wire import read_json
from hanzo_compute.model.evidence import Platform

BLOB_MAX: Final = 16 * 1024
"""Bytes; the NV index has 2600."""
_HEADER: Final = struct.Struct("<4sIII16s")
_RUNTIME: Final = struct.Struct("<5I")
_REPORT: Final = 1184
_RUNTIME_AT: Final = _HEADER.size + _REPORT
_JSON_AT: Final = _RUNTIME_AT + _RUNTIME.size
_PLATFORMS: Final = {2: Platform.SNP, 4: Platform.TDX}
_HASHES: Final[Mapping[int, Callable[..., Any]]] = {1: hashlib.sha256, 2: hashlib.sha384, 3: hashlib.sha512}
_REPORT_DATA: Final = 64
_SOURCE: Final = "Azure HCL attestation report"


@dataclass(frozen=True, slots=True)
class HclReport:
    """The blob, read."""

    platform: Platform
    report: bytes = field(repr=False)
    """SEV-SNP's, or the TDREPORT, which only its own machine can check: the TD quote stands for it."""
    report_data: bytes
    """What the report must have as its data, 64 bytes."""
    runtime: Mapping[str, Any] = field(repr=False)
    ak: rsa.RSAPublicKey
    """``HCLAkPub``."""

    def claims(self) -> dict[str, Any]:
        """What the runtime data says."""
        configuration = self.runtime.get("vm-configuration")
        configuration = configuration if isinstance(configuration, dict) else {}
        return {
            "hcl_report_type": self.platform.value.upper(),
            "hcl_user_data": self.runtime.get("user-data"),
            "secure_boot": configuration.get("secure-boot"),
            "vm_configuration": configuration,
        }


def parse(blob: bytes) -> HclReport:
    """The blob of a confidential VM. Raises Unreadable."""
    if not _JSON_AT < len(blob) <= BLOB_MAX:
        raise Unreadable(f"the HCL report has {len(blob)} bytes; it has more than {_JSON_AT} and at most {BLOB_MAX}")
    signature, version, whole, request, reserved = _HEADER.unpack_from(blob)
    if signature != b"HCLA" or version not in {1, 2} or request != 2 or any(reserved):
        raise Unreadable("the HCL report does not start with the header HCLA of version 1 or 2, of an attestation")
    size, version, kind, hashed, length = _RUNTIME.unpack_from(blob, _RUNTIME_AT)
    if size != _RUNTIME.size + length or whole != _JSON_AT + length or whole > len(blob) or version != 1:
        raise Unreadable(f"the runtime data of the HCL report claim {whole}, {size} and {length} bytes: no such form")
    if any(blob[_JSON_AT + length :]):
        raise Unreadable("the HCL report has something behind its runtime data")
    if kind not in _PLATFORMS or hashed not in _HASHES:
        raise Unreadable(f"the HCL report is of type {kind} with hash {hashed}; known are SNP and TDX with SHA-2")
    data = blob[_JSON_AT : _JSON_AT + length]
    runtime = _runtime(data)
    expected: bytes = _HASHES[hashed](data).digest()
    report = blob[_HEADER.size : _RUNTIME_AT]
    return HclReport(_PLATFORMS[kind], report, expected.ljust(_REPORT_DATA, b"\0"), runtime, _ak(runtime))


def examine(hcl: HclReport, files: Mapping[str, bytes], context: Context, findings: Findings) -> Findings | None:
    """Judge the report by its own platform's checks, which become ours; what was found, None if nothing could be.

    Nonce and keys are the quote's to commit to: the report commits to the runtime data.
    """
    name = hcl.platform.value
    if getattr(context.policy, name) is None:
        text = f"the policy {context.policy.name} does not accept evidence of {name}"
        findings.check(f"{name}.platform", Group.POLICY, False, text, source=f"policy: {name}")
        findings.check(f"{name}.examined", Group.GENUINE, None, "not examined")
        return None
    inner = _examined(hcl, files, context, findings)
    if inner is None:
        return None
    findings.checks += inner.checks
    findings.claims[name] = inner.claims
    ok = inner.commitment == hcl.report_data
    text = "the report's data is" if ok else "the report's data is not"
    findings.check(
        "tpm.azure_runtime_data",
        Group.GENUINE,
        ok,
        f"{text} the hash of the runtime data",
        expected=hcl.report_data,
        actual=inner.commitment,
        source=_SOURCE,
    )
    return inner


def _examined(hcl: HclReport, files: Mapping[str, bytes], context: Context, findings: Findings) -> Findings | None:
    # The log is of PCRs, and not of a trust domain's registers.
    files = {name: data for name, data in files.items() if name != "eventlog"}
    try:
        if hcl.platform is Platform.SNP:
            from hanzo_compute.attestation.snp.examine import examine as examine_snp

            return examine_snp({**files, "report": hcl.report}, context)
        quote = files.get("td_quote")
        if quote is None:
            text = "the HCL report is of TDX, and only a TD quote can say that it is genuine"
            findings.check("tpm.azure_td_quote", Group.GENUINE, None, text, missing="td_quote", source=_SOURCE)
            return None
        from hanzo_compute.attestation.tdx.examine import examine_tdx

        return examine_tdx({**files, "quote": quote}, _below_paravisor(context))
    except Unreadable as error:
        findings.unreadable(f"{hcl.platform.value}.format", str(error))
        return None


def _below_paravisor(context: Context) -> Context:
    policy = context.policy
    asked = bool(policy.tpm and policy.tpm.azure_sept_ve_disable)
    assert policy.tdx is not None
    tdx = policy.tdx.model_copy(update={"require_sept_ve_disable": asked})
    return context._replace(policy=policy.model_copy(update={"tdx": tdx}))


def _runtime(data: bytes) -> dict[str, Any]:
    document = read_json(data, "the runtime data of the HCL report")
    if not isinstance(document, dict):
        raise Unreadable("the runtime data of the HCL report are no JSON object")
    return document


def _ak(runtime: Mapping[str, Any]) -> rsa.RSAPublicKey:
    """The JWK (RFC 7517) ``HCLAkPub``."""
    keys = runtime.get("keys")
    named = (
        [key for key in keys if isinstance(key, dict) and key.get("kid") == "HCLAkPub"]
        if isinstance(keys, list)
        else []
    )
    if len(named) != 1 or named[0].get("kty") != "RSA" or "sign" not in (named[0].get("key_ops") or ["sign"]):
        raise Unreadable("the runtime data of the HCL report do not have one RSA key HCLAkPub that signs")
    return rsa_key(_number(named[0].get("n")), _number(named[0].get("e")), "HCLAkPub")


def _number(text: Any) -> int:
    if not isinstance(text, str):
        raise Unreadable("the key HCLAkPub lacks a number")
    try:
        return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), "big")
    except (binascii.Error, ValueError):
        raise Unreadable("a number of the key HCLAkPub is no base64url") from None
