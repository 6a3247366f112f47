"""Collateral of Intel's that does not fit or cannot be believed. The quote is genuine in all of these."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from cryptography import x509

from hanzo_compute.attestation import Verdict
from hanzo_compute.model.evidence import Platform
from tests.support import mint_tdx as mint
from tests.support.judge_tdx import OF, TD, TDX, judge, refused, strict
from tests.support.pki import NOT_BEFORE, issue

PAST, FUTURE = mint.NOW - mint.DAY, mint.NOW + mint.DAY
LATER = {"issueDate": FUTURE.isoformat(), "nextUpdate": (FUTURE + mint.DAY).isoformat()}
OVER = {"issueDate": (PAST - mint.DAY).isoformat(), "nextUpdate": PAST.isoformat()}


@pytest.mark.parametrize("reason", [None, x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold])
def test_a_pck_certificate_that_is_revoked_or_held(reason: x509.ReasonFlags | None) -> None:
    crl = mint.crl(OF.authority, (1, OF.pck.certificate.serial_number), reason=reason)
    refused(judge(mint.quote(OF, TD), mint.collateral(OF, pck_crl=crl)), "pck_revoked", authentic=True)


@pytest.mark.parametrize("who", ["authority", "signer"])
def test_an_authority_or_signer_that_is_revoked(who: str) -> None:
    crl = mint.crl(OF.root, (getattr(OF, who).certificate.serial_number,))
    refused(judge(mint.quote(OF, TD), mint.collateral(OF, root_crl=crl)), "authority_revoked", authentic=True)


@pytest.mark.parametrize(
    "crls",
    [
        {"root_crl": mint.crl(OF.authority)},
        {"pck_crl": mint.crl(OF.root)},
        {"pck_crl": mint.crl(mint.new_intel().authority)},
        {"root_crl": mint.crl(issue("Intel SGX Root CA", ca=True))},
        {"pck_crl": mint.crl(issue("Intel SGX PCK Processor CA", key=OF.authority.key, ca=True))},
    ],
    ids=[
        "root's by another",
        "PCKs' by the root",
        "right name, other key",
        "right name, other curve",
        "right key, other name",
    ],
)
def test_lists_that_their_issuers_did_not_sign(crls: dict[str, bytes]) -> None:
    refused(judge(mint.quote(OF, TD), mint.collateral(OF, **crls)), "crl", authentic=True)


@pytest.mark.parametrize("which", ["root_crl", "pck_crl"])
@pytest.mark.parametrize(("start", "end"), [(FUTURE, FUTURE + mint.DAY), (PAST - mint.DAY, PAST)])
def test_lists_of_another_time(which: str, start: datetime.datetime, end: datetime.datetime) -> None:
    by = OF.root if which == "root_crl" else OF.authority
    given = {which: mint.crl(by, start=start, end=end)}
    refused(judge(mint.quote(OF, TD), mint.collateral(OF, **given)), f"{which}_validity", authentic=True)


@pytest.mark.parametrize("dates", [LATER, OVER])
def test_tcb_info_of_another_time(dates: dict[str, str]) -> None:
    data = mint.collateral(OF, info=mint.tcb_info(**dates))
    refused(judge(mint.quote(OF, TD), data), "tcb_info_validity", authentic=True)


@pytest.mark.parametrize("dates", [LATER, OVER])
def test_an_identity_of_another_time(dates: dict[str, str]) -> None:
    data = mint.collateral(OF, identity=mint.qe_identity(**dates))
    refused(judge(mint.quote(OF, TD), data), "qe_identity_validity", authentic=True)


@pytest.mark.parametrize("given", [{"fmspc": "00606A000001"}, {"pceId": "0100"}])
def test_tcb_info_of_other_processors(given: dict[str, str]) -> None:
    data = mint.collateral(OF, info=mint.tcb_info(**given))
    refused(judge(mint.quote(OF, TD), data), "fmspc", authentic=True)


def test_tcb_info_of_sgx_for_a_trust_domain() -> None:
    data = mint.collateral(OF, info=mint.tcb_info("SGX"))
    refused(judge(mint.quote(OF, TD), data), "tcb_info_kind", "module", "tcb_status", authentic=True)


def test_tcb_info_of_tdx_for_an_enclave() -> None:
    data = mint.collateral(OF, "SGX", info=mint.tcb_info("TDX"))
    result = judge(mint.sgx_quote(OF), data, platform=Platform.SGX)
    refused(result, "tcb_info_kind", authentic=True, platform="sgx")


@pytest.mark.parametrize("given", [{"version": 2}, {"tcbType": 1}])
def test_tcb_info_of_another_version(given: dict[str, int]) -> None:
    data = mint.collateral(OF, info=mint.tcb_info(**given))
    refused(judge(mint.quote(OF, TD), data), "tcb_info_kind", authentic=True)


@pytest.mark.parametrize(
    ("text", "code"), [("tcb_info", "tcb_info_signature"), ("qe_identity", "qe_identity_signature")]
)
def test_texts_that_were_changed(text: str, code: str) -> None:
    file = json.loads(TDX)
    file[text] = file[text].replace("OutOfDate", "UpToDate")
    refused(judge(mint.quote(OF, TD), json.dumps(file).encode()), code, authentic=True)


@pytest.mark.parametrize("name", ["Intel SGX PCK Certificate", "Intel SGX TCB Signing "])
def test_a_signer_of_another_name_below_the_root(name: str) -> None:
    signer = issue(name, OF.root, key=mint.p256())
    result = judge(mint.quote(OF, TD), mint.collateral(OF, signer=signer))
    assert "tdx.tcb_signer" in result.reasons
    assert result.authentic


@pytest.mark.parametrize(
    "signer",
    [
        issue("Intel SGX TCB Signing", mint.new_intel().root, key=mint.p256()),
        issue("Intel SGX TCB Signing", key=mint.p256()),
        issue("Intel SGX TCB Signing", OF.root, key=mint.p256(), not_before=NOT_BEFORE, not_after=PAST),
        issue("Intel SGX TCB Signing", OF.root, key=mint.p256(), ca=True),
    ],
    ids=["other root", "self-signed", "expired", "an authority"],
)
def test_signers_that_are_none(signer: Any) -> None:
    refused(judge(mint.quote(OF, TD), mint.collateral(OF, signer=signer)), "tcb_signer", authentic=True)


def test_collateral_of_another_authority_altogether() -> None:
    other = mint.collateral(mint.new_intel())
    refused(judge(mint.quote(OF, TD), other), "tcb_signer", "crl", authentic=True)


def test_collateral_that_nobody_signed() -> None:
    data = mint.collateral(OF, tcb_info_issuer_chain="", qe_identity_issuer_chain="")
    result = judge(mint.quote(OF, TD), data)
    refused(result, "tcb_signer", "tcb_info_signature", "qe_identity_signature", authentic=True)


def test_an_identity_signed_below_another_root() -> None:
    other = mint.new_intel()
    file = json.loads(TDX)
    file["qe_identity_issuer_chain"] = (other.signer.pem + other.root.pem).decode()
    file["qe_identity_signature"] = mint.sign(other.signer.key, file["qe_identity"].encode()).hex()
    refused(judge(mint.quote(OF, TD), json.dumps(file).encode()), "tcb_signer", authentic=True)


@pytest.mark.parametrize("which", ["info", "identity"])
def test_genuine_collateral_that_is_too_old(which: str) -> None:
    made: dict[str, Any] = {"info": mint.tcb_info, "identity": mint.qe_identity}
    data = mint.collateral(OF, **{which: made[which](tcbEvaluationDataNumber=16)})
    assert judge(mint.quote(OF, TD), data, by=strict(min_tcb_evaluation_data_number=16)).verdict is Verdict.ACCEPT
    result = judge(mint.quote(OF, TD), data, by=strict(min_tcb_evaluation_data_number=17))
    refused(result, "evaluation_number", authentic=True)


def test_a_tcb_that_is_revoked_is_not_accepted_by_any_policy() -> None:
    levels = mint.tcb_info()["tcbLevels"]
    data = mint.collateral(OF, info=mint.tcb_info(tcbLevels=[levels[0] | {"tcbStatus": "Revoked"}]))
    result = judge(mint.quote(OF, TD), data, by=strict(tcb_statuses=["UpToDate", "Revoked"]))
    refused(result, "tcb_status", authentic=True)


@pytest.mark.parametrize(
    ("extension", "svn"),
    [
        (mint.sgx_extension(components=bytes([7] * 15 + [4])), mint.TEE_TCB_SVN),
        (mint.sgx_extension(components=bytes([4]) + bytes([9] * 15)), mint.TEE_TCB_SVN),
        (mint.sgx_extension(pcesvn=10), mint.TEE_TCB_SVN),
        (mint.sgx_extension(), bytes([3, 0, 3, *[0] * 13])),
        (mint.sgx_extension(), bytes([9, 0, 2, *[0] * 13])),
        (mint.sgx_extension(), bytes([9, 1, 2, *[0] * 13])),
        (mint.sgx_extension(), bytes([3, 1, 3, *[0] * 13])),
    ],
    ids=["last component", "first component", "PCESVN", "module", "microcode", "microcode, module 1", "module 1"],
)
def test_a_tcb_below_every_level(extension: bytes, svn: bytes) -> None:
    of = mint.new_intel(extension=extension)
    result = judge(mint.quote(of, mint.td(tee_tcb_svn=svn)), mint.collateral(of), of=of)
    refused(result, "tcb_status", authentic=True)
    assert result.claims["tdx"]["tcb_status"] is None


def test_a_tdx_module_that_the_tcb_info_does_not_know() -> None:
    result = judge(mint.quote(OF, mint.td(tee_tcb_svn=bytes([9, 2, 3, *[0] * 13]))))
    refused(result, "module", "tcb_status", authentic=True)


def test_levels_without_components_of_tdx() -> None:
    levels = mint.tcb_info("SGX")["tcbLevels"]
    result = judge(mint.quote(OF, TD), mint.collateral(OF, info=mint.tcb_info(tcbLevels=levels)))
    refused(result, "tcb_status", authentic=True)


@pytest.mark.parametrize(
    "qe",
    [
        {"mrsigner": bytes(32)},
        {"isvprodid": 1},
        {"miscselect": b"\1\0\0\0"},
        {"attributes": bytes.fromhex("13000000000000000000000000000000")},
        {"attributes": bytes.fromhex("01000000000000000000000000000000")},
    ],
    ids=["signer", "product", "MISCSELECT", "debug", "provision key"],
)
def test_a_quoting_enclave_that_is_not_intels(qe: dict[str, Any]) -> None:
    refused(judge(mint.quote(OF, TD, qe=qe)), "qe_identity", authentic=True)


@pytest.mark.parametrize("given", [{"id": "QE"}, {"version": 1}])
def test_an_identity_of_another_enclave(given: dict[str, Any]) -> None:
    data = mint.collateral(OF, identity=mint.qe_identity(**given))
    refused(judge(mint.quote(OF, TD), data), "qe_identity", authentic=True)


def test_a_quoting_enclave_below_every_level() -> None:
    refused(judge(mint.quote(OF, TD, qe={"isvsvn": 5})), "tcb_status", authentic=True)


def _without(name: str) -> bytes:
    file = json.loads(TDX)
    del file[name]
    return json.dumps(file).encode()


def _info(**given: Any) -> bytes:
    return mint.collateral(OF, info=mint.tcb_info(**given))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        _without("pck_crl"),
        _info(tcbLevels=[{"tcbStatus": "UpToDate"}]),
        _info(tcbLevels=[mint.tcb_info()["tcbLevels"][0] | {"tcbStatus": "Fine"}]),
        _info(issueDate="2026-01-01T00:00:00"),
        _info(issueDate="yesterday"),
        _info(fmspc="00"),
        _info(fmspc="zz" * 6),
        mint.collateral(OF, tcb_info="no JSON"),
        mint.collateral(OF, tcb_info_signature="00"),
        mint.collateral(OF, tcb_info_issuer_chain="none"),
        mint.collateral(OF, pck_crl=b"\x30\x00"),
        mint.collateral(OF, pck_crl=mint.crl(OF.authority) + b"\0"),
        mint.collateral(OF, pck_crl=mint.crl(OF.authority).replace(b"\x02\x01\x01", b"\x02\x01\x7f", 1)),
        mint.collateral(OF, pck_crl=mint.crl(OF.authority, extension=x509.DeltaCRLIndicator(1))),
        TDX + b" " * 512 * 1024,
    ],
)
def test_collateral_that_cannot_be_read(data: bytes) -> None:
    refused(judge(mint.quote(OF, TD), data), "collateral", "tcb_status", authentic=True)
