"""Evidence of SEV-SNP that is genuine, in all the forms that it has, and what policies ask of it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import ValidationError

from hanzo_compute.attestation import Verdict, appraise, builtin, pins
from hanzo_compute.attestation import x509 as certificates
from hanzo_compute.attestation.policy import parse
from hanzo_compute.attestation.snp import chain, products, vek
from hanzo_compute.attestation.snp.products import Line
from hanzo_compute.errors import InternalError
from hanzo_compute.model.evidence import Platform, Tier
from tests.support import mint_snp as mint
from tests.support.mint_snp import TCB, Guest, Vek
from tests.support.pki import NOW_MS


def pem(der: bytes) -> bytes:
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"


ASK, ARK = mint.ask("Milan"), mint.ark("Milan")
VLEK = Vek(kind="VLEK").der()

GENUINE = {
    "Milan": Guest("Milan"),
    "Genoa": Guest("Genoa"),
    "Turin": Guest("Turin"),
    "Milan, lent": Guest("Milan", "VLEK"),
    "Genoa, lent": Guest("Genoa", "VLEK"),
    "Turin, lent": Guest("Turin", "VLEK"),
    "Bergamo": Guest("Genoa").but(cpuid=b"\x19\xa0\x02", version=5),
    "Siena by name": Guest("Genoa", vek={"product": "Siena"}).but(cpuid=b"\x19\xa0\x02"),
    "Turin Dense": Guest("Turin").but(cpuid=b"\x1a\x11\x00"),
    "product with a stepping": Guest("Turin", vek={"product": "Turin-B0"}),
    "version 2": Guest("Milan").but(version=2, cpuid=bytes(3)),
    "version 2 of Genoa": Guest("Genoa").but(version=2, cpuid=bytes(3)),
    "version 2 of Turin": Guest("Turin").but(version=2, cpuid=bytes(3)),
    "version 4": Guest("Milan").but(version=4),
    "hardware id in a wrapper": Guest(vek={"wrapped": True}),
    "hardware id of Turin in a wrapper": Guest("Turin", vek={"wrapped": True}),
    "hardware id that begins as a wrapper does": Guest(
        vek={"hardware_id": b"\x04\x40" + bytes(62)}, fields={"chip_id": b"\x04\x40" + bytes(62)}
    ),
    "parameters with the trailer field": Guest(vek={"trailer": True}),
    "another serial number": Guest(vek={"serial": 7}),
    "a host that hides its chip": Guest().but(chip_id=bytes(64)),
    "a VLEK on a host that tells its chip": Guest(kind="VLEK").but(chip_id=mint.hardware_id("Milan")),
    "more runs than is committed, and more is committed than reported": Guest().but(
        current_tcb=bytes((4, 0, 0, 0, 0, 0, 26, 222)), committed_tcb=bytes((4, 0, 0, 0, 0, 0, 25, 220))
    ),
    "launched on what was taken back": Guest().but(launch_tcb=bytes((4, 0, 0, 0, 0, 0, 30, 230))),
    "PEM": Guest(files={"vek": pem(Vek().der())}),
    "PEM with lines of Windows": Guest(files={"vek": pem(Vek().der()).replace(b"\n", b"\r\n")}),
    "the key in the chain": Guest(files={"vek": None, "chain": pem(Vek().der()) + ASK.pem + ARK.pem}),
    "no root in the chain": Guest(files={"chain": ASK.pem}),
    "issuer in DER": Guest(files={"chain": ASK.der}),
    "table": Guest(
        files={"vek": None, "chain": None, "cert_table": mint.cert_table(vcek=Vek().der(), ask=ASK.der, ark=ARK.der)}
    ),
    "table with what is not known, in PEM": Guest(
        files={
            "vek": None,
            "chain": None,
            "cert_table": mint.cert_table(other=b"?", ask=ASK.pem, vcek=pem(Vek().der())),
        }
    ),
    "table of a lent key": Guest(
        kind="VLEK",
        files={
            "vek": None,
            "chain": None,
            "cert_table": mint.cert_table(vlek=VLEK, ask=mint.ask("Milan", "VLEK").der),
        },
    ),
    "empty table beside the key": Guest(files={"cert_table": b""}),
    "issuer as the anchor": Guest(files={"chain": None}, anchors=(ASK.der,)),
    "both as anchors": Guest(files={"chain": None}, anchors=(ARK.pem + ASK.pem,)),
    "a list that revokes others": Guest(files={"crl": mint.crl(ARK, 1, 2, 3)}),
    "a list in PEM": Guest(
        files={"crl": pem(mint.crl(ARK)).replace(b"CERTIFICATE", b"X509 CRL")},
    ),
}


@pytest.mark.parametrize("guest", GENUINE.values(), ids=GENUINE)
def test_genuine(guest: Guest) -> None:
    result = guest.appraise()
    assert result.reasons == ()
    assert result.verdict is Verdict.ACCEPT
    assert result.authentic
    assert result.tier is Tier.CPU_TEE
    assert "tier 3" in result.tier_why


def test_what_a_report_says() -> None:
    guest = Guest("Turin", fields={"guest_svn": 7, "host_data": b"\x05" * 32})
    evidence = guest.evidence()
    claims = appraise(evidence, builtin("baseline"), {}, NOW_MS, anchors=(mint.ark("Turin").pem,)).claims["snp"]
    assert claims["guest_svn"] == 7
    assert claims["host_data"] == "05" * 32
    assert claims["cpuid"] == [26, 2, 1]
    assert claims["reported_tcb"] == {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81}
    assert claims["turin"] is True
    assert claims["vek"] == {"structv": 1, "product": "Turin", "fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81}
    assert claims["vek_issuer"] == "SEV-Turin"
    assert claims["vek_sha256"] == hashlib.sha256(evidence.files["vek"]).hexdigest()


def test_without_the_key_it_cannot_be_said() -> None:
    result = Guest(files={"vek": None}).appraise()
    assert result.verdict is Verdict.UNAVAILABLE
    assert not result.authentic
    assert {check.missing for check in result.checks if check.id in result.reasons} == {"vek"}


def test_without_the_key_what_is_wrong_is_wrong_all_the_same() -> None:
    result = Guest(files={"vek": None}).but(policy=mint.GENUINE_POLICY | 1 << 19).appraise()
    assert result.verdict is Verdict.REJECT
    assert "snp.guest.debug" in result.reasons


def test_a_list_that_is_asked_for_and_not_there_can_be_fetched() -> None:
    result = Guest().appraise({"crl_required": True})
    assert result.verdict is Verdict.UNAVAILABLE
    assert result.authentic
    assert result.reasons == ("snp.revocation",)


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ({"vmpl": 1}, {"vmpl": 1}),
        ({"guest_svn": 3}, {"guest_svn": 3}),
        ({"minimum_tcb": {"milan": {"snp": 24, "ucode": 219}}}, {}),
        ({"minimum_launch_tcb": {"milan": {"bl": 4}, "genoa": {"bl": 99}}}, {}),
        ({"lines": ["milan"]}, {}),
        ({"measurements": [bytes(range(100, 148)).hex().upper(), "00" * 48]}, {}),
        ({"host_data": ["ab" * 32]}, {"host_data": b"\xab" * 32}),
        ({"id_keys": ["ab" * 48]}, {"id_key_digest": b"\xab" * 48}),
        ({"author_keys": ["ab" * 48]}, {"author_key_digest": b"\xab" * 48, "flags": 1}),
        ({"family_ids": ["ab" * 16]}, {"family_id": b"\xab" * 16}),
        ({"image_ids": ["ab" * 16]}, {"image_id": b"\xab" * 16}),
        ({"provisional_firmware": False}, {}),
        ({"guest": {"migrate_ma": None}}, {"policy": mint.GENUINE_POLICY | 1 << 18}),
        ({"guest": {"cxl_allow": None}}, {"policy": mint.GENUINE_POLICY | 1 << 21}),
        ({"guest": {"abi_major": 0, "abi_minor": 31}}, {}),
        ({"guest": {"abi_minor": 31}}, {"policy": 1 << 17 | 0x0100}),
    ],
)
def test_what_is_asked_for_and_there(section: dict[str, Any], fields: dict[str, Any]) -> None:
    assert Guest().but(**fields).appraise(section).reasons == ()


def test_a_cloud_provider_that_is_allowed() -> None:
    assert Guest(kind="VLEK").appraise({"csp_ids": ["CN=cc-us-east-2.amazonaws.com"]}).reasons == ()


def test_the_strict_default_asks_for_a_reference_value() -> None:
    policy = parse("{name: strict, version: 1, snp: {}}")
    result = Guest().appraise(policy, nonce=bytes(range(64)))
    assert result.authentic
    assert result.reasons == ("snp.measurement", "snp.binding")


@pytest.mark.parametrize(
    "section",
    [
        {"guest": {"debug": True}},
        {"guest": {"debug": None}},
        {"vmpl": 4},
        {"measurements": ["ab"]},
        {"host_data": ["zz" * 32]},
        {"lines": ["rome"]},
        {"minimum_tcb": {"milan": {"snp": 256}}},
        {"unknown": 1},
    ],
)
def test_sections_that_are_none(section: dict[str, Any]) -> None:
    from hanzo_compute.attestation.snp.policy import SnpPolicy

    with pytest.raises(ValidationError):
        SnpPolicy.model_validate(section)


def test_the_product_brings_the_roots_that_it_pins() -> None:
    names = {each.certificate.subject.rfc4514_string().split(",")[0] for each in chain.shipped()}
    expected = {f"CN={kind}-{line}" for line in Line for kind in ("ARK", "SEV", "SEV-VLEK")}
    assert names == expected
    pinned = {pin.sha256: pin.name for pin in pins.AMD}
    for each in chain.shipped():
        if each.subject == each.issuer:
            name = each.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
            assert pinned[each.certificate.fingerprint(hashes.SHA256()).hex()] == name


def test_a_root_that_was_exchanged_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    chain.shipped.cache_clear()
    monkeypatch.setattr(pins, "AMD", pins.AMD[1:])
    with pytest.raises(InternalError, match="not pinned"):
        chain.shipped()
    monkeypatch.undo()
    assert len(chain.shipped()) == 9


def test_certificates_of_chips_do_not_need_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """It warns of the serial number 0 now, and says that it will refuse it."""
    evidence = Guest().evidence()
    with pytest.warns(UserWarning, match="will cause an exception"):
        x509.load_der_x509_certificate(evidence.files["vek"])
    load, loaded = x509.load_der_x509_certificate, []

    def recorded(data: bytes) -> x509.Certificate:
        loaded.append(data)
        return load(data)

    monkeypatch.setattr(x509, "load_der_x509_certificate", recorded)
    chain.authority.cache_clear()
    certificates._read.cache_clear()
    assert appraise(evidence, builtin("baseline"), {}, NOW_MS, anchors=(ARK.pem,)).verdict is Verdict.ACCEPT
    assert ARK.der in loaded
    assert evidence.files["vek"] not in loaded


def test_verdicts_are_not_remembered() -> None:
    """The same evidence, once it has been accepted, is refused when the time is another or an anchor is gone."""
    guest = Guest()
    evidence = guest.evidence()
    policy = builtin("baseline")
    for now_ms, anchors, accepted in [(NOW_MS, (ARK.pem,), True), (NOW_MS, (), False), (1, (ARK.pem,), False)]:
        result = appraise(evidence, policy, {}, now_ms, anchors=anchors)
        assert (result.verdict is Verdict.ACCEPT) is accepted


def test_collateral_is_what_was_missing() -> None:
    evidence = Guest(files={"vek": None, "chain": None}).evidence()
    given = {Platform.SNP: {"vek": Vek().der(), "chain": ASK.pem}}
    policy = builtin("baseline")
    assert appraise(evidence, policy, {}, NOW_MS, anchors=(ARK.pem,)).verdict is Verdict.UNAVAILABLE
    assert appraise(evidence, policy, given, NOW_MS, anchors=(ARK.pem,)).verdict is Verdict.ACCEPT


def test_product_lines() -> None:
    assert products.by_cpuid(0x19, 0x01) is Line.MILAN
    assert products.by_cpuid(0x19, 0x11) is Line.GENOA
    assert products.by_cpuid(0x19, 0xA0) is Line.GENOA
    assert products.by_cpuid(0x1A, 0x02) is Line.TURIN
    assert products.by_cpuid(0x17, 0x31) is None
    assert products.components(TCB["Turin"], Line.TURIN) == {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81}
    assert products.components(TCB["Milan"], None) == {"bl": 4, "tee": 0, "snp": 24, "ucode": 219}


def test_keys_tell_their_line_and_tcb() -> None:
    for line in Line:
        key = vek.parse(Vek(line.value).der())
        assert (key.line, key.tcb, key.kind) == (line, TCB[line.value], "VCEK")
