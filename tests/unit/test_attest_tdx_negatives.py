"""Evidence of TDX and SGX that does not hold: each fault by the code of its reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from hanzo_compute.attestation import Verdict, appraise, builtin
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support import mint_tdx as mint
from tests.support.judge_tdx import OF, SGX, TD, TDX, judge, refused
from tests.support.mint_eventlog import event, extended, header
from tests.support.pki import NOW_MS, issue

PAST = mint.NOW - mint.DAY


# What makes a quote genuine.


def test_a_quoting_enclave_of_another_vendor() -> None:
    refused(judge(mint.quote(OF, TD, vendor=bytes(16))), "qe_vendor", authentic=False)


def test_an_attestation_key_that_the_quoting_enclave_did_not_name() -> None:
    refused(judge(mint.quote(OF, TD, named_key=mint.p256())), "qe_binding", authentic=False)


def test_a_report_of_the_quoting_enclave_with_more_data_than_the_hash() -> None:
    quote = bytearray(mint.quote(OF, TD))
    # The last byte of the report's data; the signature over it is no longer right either.
    quote[48 + 584 + 4 + 128 + 6 + 383] ^= 1
    refused(judge(bytes(quote)), "qe_signature", "qe_binding", authentic=False)


def test_a_report_that_the_pck_did_not_sign() -> None:
    refused(judge(mint.quote(OF, TD, qe_key=mint.p256())), "qe_signature", authentic=False)


def test_a_quote_that_the_attestation_key_did_not_sign() -> None:
    quote = bytearray(mint.quote(OF, TD))
    quote[48 + 584 + 4] ^= 1
    refused(judge(bytes(quote)), "signature", authentic=False)


def test_an_attestation_key_that_is_no_point() -> None:
    quote = bytearray(mint.quote(OF, TD))
    quote[48 + 584 + 4 + 64] ^= 1
    refused(judge(bytes(quote)), "qe_binding", "signature", authentic=False)


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\1" * 32])
def test_signatures_out_of_range(signature: bytes) -> None:
    quote = mint.quote(OF, TD)
    at = 48 + 584 + 4
    refused(judge(quote[:at] + signature + quote[at + 64 :]), "signature", authentic=False)


def test_an_attestation_key_of_another_type() -> None:
    refused(judge(mint.quote(OF, TD, key_type=3)), "key_type", authentic=False)


def test_a_root_with_the_right_name_that_nobody_pinned() -> None:
    refused(judge(mint.quote(OF, TD), of=None), "chain.root", "tcb_signer", authentic=False)


def test_another_root_that_is_handed_in_does_not_help() -> None:
    refused(judge(mint.quote(OF, TD), of=mint.new_intel()), "chain.root", "tcb_signer", authentic=False)


def test_files_named_root_and_pck_chain_are_not_trusted() -> None:
    result = judge(mint.quote(OF, TD), of=None, root=OF.root.pem, pck_chain=OF.pem)
    refused(result, "chain.root", "tcb_signer", authentic=False)


def test_a_production_policy_trusts_no_root_of_a_test() -> None:
    result = judge(mint.quote(OF, TD), by=builtin("production"), of=None)
    assert not result.authentic
    assert "tdx.chain.root" in result.reasons


def test_an_authority_that_the_root_did_not_issue() -> None:
    forged = mint.authority_of(issue("Intel SGX Root CA", key=mint.p256(), ca=True))
    of = dataclasses.replace(OF, authority=forged, pck=mint.pck_certificate(forged))
    refused(judge(mint.quote(of, TD), mint.collateral(of)), "chain.signatures", authentic=False)


def test_a_pck_certificate_that_expired() -> None:
    of = mint.new_intel(not_after=PAST)
    result = judge(mint.quote(of, TD), mint.collateral(of), of=of)
    refused(result, "chain.validity", authentic=False)


def test_an_authority_that_is_none() -> None:
    authority = issue("Intel SGX PCK Platform CA", OF.root, key=mint.p256(), ca=False)
    of = dataclasses.replace(OF, authority=authority, pck=mint.pck_certificate(authority))
    refused(judge(mint.quote(of, TD), mint.collateral(of)), "chain.rules", authentic=False)


@pytest.mark.parametrize(
    ("pck", "why"),
    [
        ({"name": "Intel SGX TCB Signing"}, "it names"),
        ({"extension": b""}, "no SGX extension"),
        ({"extension": mint.sgx_extension()[:-1]}, "cut off"),
        ({"extension": mint.sgx_extension() + b"\0"}, "follow"),
        ({"extension": mint.sgx_extension(fmspc="00")}, "field 4"),
        ({"extension": mint.sgx_extension(pcesvn=0x10000)}, "above"),
        ({"extension": mint.sgx_extension(components=bytes(15))}, "lacks field 2.16"),
        ({"key": rsa.generate_private_key(65537, 2048)}, "not of curve P-256"),
    ],
)
def test_a_leaf_that_is_no_pck_certificate(pck: dict[str, Any], why: str) -> None:
    of = mint.new_intel(**pck)
    result = judge(mint.quote(of, TD, qe_key=mint.p256()), mint.collateral(of), of=of)
    refused(result, "pck", "qe_signature", "tcb_status", authentic=False)
    assert why in next(each.detail for each in result.checks if each.id == "tdx.pck")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        OF.pck.pem,
        OF.pck.pem + OF.authority.pem,
        OF.pem + OF.root.pem,
        b"note\n" + OF.pem,
        OF.pem + b"rest",
        OF.pem.replace(b"-----END", b"*-----END"),
        OF.pem[:-30],
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 3,
    ],
)
def test_a_pck_chain_of_another_form(pem: bytes) -> None:
    links = ("chain.root", "chain.signatures", "chain.validity", "chain.rules", "pck", "qe_signature")
    refused(judge(mint.quote(OF, TD, pem=pem)), *links, "tcb_status", authentic=False)


def test_a_pck_chain_in_another_order() -> None:
    result = judge(mint.quote(OF, TD, pem=OF.root.pem + OF.authority.pem + OF.pck.pem))
    assert {"tdx.chain.root", "tdx.chain.signatures", "tdx.pck"} <= set(result.reasons)


@pytest.mark.parametrize("cert_type", [1, 2, 3, 4, 7])
def test_certification_data_of_another_type(cert_type: int) -> None:
    links = ("chain.root", "chain.signatures", "chain.validity", "chain.rules", "pck", "qe_signature")
    result = judge(mint.quote(OF, TD, cert_type=cert_type))
    refused(result, "cert_type", *links, "tcb_status", authentic=False)


def test_what_follows_the_quote_is_zeros() -> None:
    refused(judge(mint.quote(OF, TD, trailing=bytes(9) + b"\1")), "trailing", authentic=False)


# Formats that are none.

EXTENDED = mint.td(extended=True)


@pytest.mark.parametrize(
    "quote",
    [
        b"",
        mint.quote(OF, TD)[:47],
        mint.quote(OF, TD)[:600],
        mint.quote(OF, TD)[:-1],
        mint.quote(OF, EXTENDED, version=4),
        mint.quote(OF, EXTENDED, version=5, body_type=2),
        mint.quote(OF, TD, version=5, body_type=3),
        mint.quote(OF, EXTENDED, version=5, body_type=1),
        mint.quote(OF, EXTENDED, version=5, body_type=4),
        mint.quote(OF, TD, version=3),
        mint.quote(OF, TD, version=6),
        mint.quote(OF, mint.enclave(), tee="SGX", version=4),
        mint.sgx_quote(OF),
        mint.quote(OF, TD, outer_type=5),
        mint.quote(OF, TD, inner=b"\0"),
        mint.quote(OF, TD, trailing=bytes(64 * 1024)),
    ],
    ids=[
        "empty",
        "half a header",
        "half a body",
        "cut off",
        "body of v5 under header of v4",
        "type 2 with the size of 3",
        "type 3 with the size of 2",
        "enclave's type",
        "type 4",
        "v3 of TDX",
        "v6",
        "v4 of SGX",
        "an enclave",
        "outer type 5",
        "a byte inside",
        "above 64 KiB",
    ],
)
def test_quotes_of_another_form(quote: bytes) -> None:
    result = judge(quote)
    assert (result.verdict, result.authentic) == (Verdict.REJECT, False)
    assert "tdx.format" in result.reasons


def test_lengths_that_do_not_agree() -> None:
    quote = mint.quote(OF, TD)
    for at, what in ((632, "authentication data"), (632 + 4 + 128 + 2, "outer certification data"), (1220, "auth")):
        for step in (1, 0x100, -1 % 256):
            changed = bytearray(quote)
            changed[at] = (changed[at] + step) % 256
            if step == 0x100:
                changed[at + 1] = (changed[at + 1] + 1) % 256
            assert not judge(bytes(changed)).authentic, what


def test_there_is_no_quote() -> None:
    result = appraise(Evidence(Platform.TDX, {"collateral": TDX}), builtin("baseline"), {}, NOW_MS)
    assert "tdx.format" in result.reasons


def test_a_trust_domain_is_no_enclave() -> None:
    assert "sgx.format" in judge(mint.quote(OF, TD), platform=Platform.SGX).reasons


# What the policy says of the trust domain itself.


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"td_attributes": b"\1\0\0\x10\0\0\0\0"}, "debug"),
        ({"td_attributes": bytes(8)}, "sept_ve_disable"),
        ({"td_attributes": b"\2\0\0\x10\0\0\0\0"}, "td_attributes"),
        ({"td_attributes": b"\0\0\0\x30\0\0\0\0"}, "td_attributes"),
        ({"td_attributes": b"\0\0\0\x10\0\0\0\x40"}, "td_attributes"),
        ({"xfam": (0x602E6).to_bytes(8, "little")}, "xfam"),
        ({"xfam": (0x602E7 | 1 << 13).to_bytes(8, "little")}, "xfam"),
        ({"xfam": (0x602E7 | 1 << 40).to_bytes(8, "little")}, "xfam"),
    ],
)
def test_attributes_that_are_not_accepted(body: dict[str, bytes], code: str) -> None:
    refused(judge(mint.quote(OF, mint.td(**body))), code, authentic=True)


def test_a_service_td_that_is_not_accepted() -> None:
    quote = mint.quote(OF, mint.td(extended=True, mrservicetd=b"\1" * 48), version=5)
    refused(judge(quote), "mrservicetd", authentic=True)


def test_a_tdx_module_that_another_signed() -> None:
    refused(judge(mint.quote(OF, mint.td(mrsignerseam=b"\1" * 48))), "mrsignerseam", "module", authentic=True)


@pytest.mark.parametrize("svn", [mint.TEE_TCB_SVN, mint.VERSIONED])
def test_a_tdx_module_with_other_attributes(svn: bytes) -> None:
    quote = mint.quote(OF, mint.td(seam_attributes=b"\1" + bytes(7), tee_tcb_svn=svn))
    refused(judge(quote), "module", authentic=True)


def test_an_enclave_that_was_never_initialised() -> None:
    result = judge(mint.sgx_quote(OF, attributes=bytes(16)), SGX, platform=Platform.SGX)
    refused(result, "initialised", authentic=True, platform="sgx")


@pytest.mark.parametrize(
    "log",
    [
        header([0x000C]) + event(4, 4, b"other"),
        header([0x000C]),
        header([0x000C]) + event(4, 4, b"application") + event(4, 4, b"more"),
        header([0x000C]) + event(4, 4, b"application") + event(5, 4, b"no register"),
        header([0x000C]) + event(4, 4, b"application") + event(0, 4, b"MRTD is never extended"),
        header([0x000B]) + event(4, 4, b"application", [0x000B]),
        b"no log",
    ],
)
def test_an_event_log_that_does_not_make_the_registers(log: bytes) -> None:
    quote = mint.quote(OF, mint.td(rtmr3=extended([b"application"])))
    assert judge(quote, ccel=header([0x000C]) + event(4, 4, b"application")).verdict is Verdict.ACCEPT
    refused(judge(quote, ccel=log), "eventlog", authentic=True)


def test_where_dcap_qvl_alone_objects_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def objects(*_: object) -> object:
        raise ValueError("an objection")

    monkeypatch.setattr("dcap_qvl.verify_with_root_ca", objects)
    result = judge(mint.quote(OF, TD))
    assert (result.verdict, result.reasons, result.authentic) == (Verdict.REJECT, ("tdx.dcap_qvl",), True)
    assert "an objection" in next(each.detail for each in result.checks if each.id == "tdx.dcap_qvl")
