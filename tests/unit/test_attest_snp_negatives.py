"""Evidence of SEV-SNP that must be refused, each with the reason code that it is refused with."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from hanzo_compute.attestation import Binding, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support import mint_snp as mint
from tests.support.mint_snp import ORDER, TCB, Guest, Vek
from tests.support.pki import NOT_BEFORE, NOW_MS

R, S = 0x2A0, 0x2A0 + 72
MILAN = TCB["Milan"]


def changed(change: Callable[[bytearray], None], **fields: Any) -> bytes:
    raw = bytearray(mint.report(**fields))
    change(raw)
    return bytes(raw)


def put(at: int, data: bytes) -> Callable[[bytearray], None]:
    def change(raw: bytearray) -> None:
        raw[at : at + len(data)] = data

    return change


def with_report(raw: bytes) -> Guest:
    return Guest(files={"report": raw})


def with_vek(**vek: Any) -> Guest:
    return Guest(vek=vek)


def tcb(**parts: int) -> bytes:
    found = bytearray(MILAN)
    for name, value in parts.items():
        found[{"bl": 0, "tee": 1, "spl4": 2, "snp": 6, "ucode": 7}[name]] = value
    return bytes(found)


def expired(kind: str) -> Guest:
    end = datetime.datetime(2025, 12, 31, tzinfo=datetime.UTC)
    return Guest(kind=kind, vek={"not_after": end})


ZERO, ORDER_LE = bytes(72), ORDER.to_bytes(72, "little")
LEGACY_TURIN = mint.report("Turin", version=2)

# What it is, the code it is refused with, and the evidence.
FORGED: list[tuple[str, str, Guest]] = [
    ("a byte of what is signed is another", "snp.signature", with_report(changed(put(0x91, b"\xee")))),
    ("signed by another key of the same kind", "snp.signature", with_vek(key=1)),
    ("r is zero", "snp.signature_format", with_report(changed(put(R, ZERO)))),
    ("s is zero", "snp.signature_format", with_report(changed(put(S, ZERO)))),
    ("r is the order", "snp.signature_format", with_report(changed(put(R, ORDER_LE)))),
    ("s is all ones", "snp.signature_format", with_report(changed(put(S, b"\xff" * 48)))),
    ("r has a byte in its padding", "snp.signature_format", with_report(changed(put(R + 48, b"\x01")))),
    ("s has a byte in its padding", "snp.signature_format", with_report(changed(put(S + 71, b"\x01")))),
    ("a byte follows the signature", "snp.signature_format", with_report(changed(put(0x49F, b"\x01")))),
    ("another algorithm", "snp.signature_algorithm", Guest().but(sig_algo=2)),
    ("no algorithm", "snp.signature", Guest().but(sig_algo=0)),
    ("too short", "snp.format", with_report(mint.report()[:-1])),
    ("too long", "snp.format", with_report(mint.report() + b"\0")),
    ("the whole answer of the device", "snp.format", with_report(bytes(32) + mint.report() + bytes(2784))),
    ("version 1", "snp.version", Guest().but(version=1)),
    ("version 6", "snp.version", Guest().but(version=6)),
    ("key of another chip", "snp.chip_id", with_vek(hardware_id=bytes(range(1, 65)))),
    ("a chip id that only begins the same", "snp.chip_id", Guest("Turin").but(chip_id=mint.hardware_id("Turin") * 8)),
    ("key of an older TCB", "snp.tcb.endorsed", with_vek(tcb=tcb(ucode=218))),
    ("key of a newer TCB", "snp.tcb.endorsed", with_vek(tcb=tcb(snp=25))),
    ("key with another reserved component", "snp.tcb.endorsed", with_vek(tcb=tcb(spl4=1))),
    ("key without a component", "snp.tcb.endorsed", with_vek(changed={"3.8": None})),
    ("key of Milan with a component of Turin", "snp.tcb.endorsed", with_vek(changed={"3.9": b"\x02\x01\x00"})),
    (
        "key of another line's issuer",
        "snp.chain.signatures",
        Guest("Genoa", vek={"issuer": mint.ask("Genoa", key=3)}),
    ),
    (
        "a self-made root of the right name",
        "snp.chain.root",
        Guest(
            vek={"issuer": mint.ask("Milan", key=3, root=4)},
            files={"chain": mint.ask("Milan", key=3, root=4).pem + mint.ark("Milan", 4).pem},
        ),
    ),
    ("our own root, which nobody handed in", "snp.chain.root", Guest(anchors=())),
    (
        "an issuer that is no authority",
        "snp.chain.rules",
        Guest(
            vek={"issuer": mint.ask("Milan", ca=False)},
            files={"chain": mint.ask("Milan", ca=False).pem},
        ),
    ),
    ("flags say VLEK of what a VCEK signed", "snp.key_kind", Guest().but(flags=1 << 2)),
    ("flags say VCEK of what a VLEK signed", "snp.key_kind", Guest(kind="VLEK").but(flags=0)),
    ("flags say that nothing signed it", "snp.key_kind", Guest().but(flags=7 << 2)),
    ("flags name a key that there is not", "snp.key_kind", Guest().but(flags=2 << 2)),
    ("a VLEK that a VCEK's issuer made", "snp.key_kind", Guest(kind="VLEK", vek={"issuer": mint.ask("Milan")})),
    ("a VCEK that a VLEK's issuer made", "snp.key_kind", Guest(vek={"issuer": mint.ask("Milan", "VLEK")})),
    ("a Turin read as Milan", "snp.tcb.endorsed", Guest(fields={"version": 2, "reported_tcb": TCB["Turin"]})),
    ("a processor of another line than its key", "snp.product", Guest().but(cpuid=b"\x19\x11\x01")),
    ("a processor that is not known", "snp.product", Guest().but(cpuid=b"\x19\x21\x01")),
    ("a key of another line than its issuer", "snp.product", with_vek(product="Genoa")),
    ("expired VLEK", "snp.vek.validity", expired("VLEK")),
    ("expired VCEK", "snp.vek.validity", expired("VCEK")),
    (
        "a key of the future",
        "snp.vek.validity",
        with_vek(not_before=datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)),
    ),
]


@pytest.mark.parametrize(("code", "guest"), [each[1:] for each in FORGED], ids=[each[0] for each in FORGED])
def test_what_is_not_genuine(code: str, guest: Guest) -> None:
    result = guest.appraise()
    assert result.verdict is Verdict.REJECT
    assert not result.authentic
    assert code in result.reasons
    assert result.tier == 0


# What the extension has, and why that is not how AMD writes it.
ENCODINGS = {
    "a longer INTEGER than needed": {"3.1": b"\x02\x02\x00\x04"},
    "an INTEGER that reads as negative": {"3.8": b"\x02\x01\xdb"},
    "an INTEGER of two bytes": {"3.8": b"\x02\x02\x01\xdb"},
    "an INTEGER with bytes after it": {"3.1": b"\x02\x01\x04\x00"},
    "a bare byte": {"3.1": b"\x04"},
    "an OCTET STRING for an INTEGER": {"3.1": b"\x04\x01\x04"},
    "an empty INTEGER": {"3.1": b"\x02\x00"},
    "nothing": {"3.1": b""},
    "a hardware id of 63 bytes": {"4": bytes(range(64, 127))},
    "a hardware id of 65 bytes": {"4": bytes(range(64, 129))},
    "a hardware id in two wrappers": {"4": b"\x04\x42\x04\x40" + bytes(range(64, 128))},
    "a hardware id in a wrapper of a longer form": {"4": b"\x04\x81\x40" + bytes(range(64, 128))},
    "a hardware id of Turin's size": {"4": bytes(range(64, 72))},
    "no hardware id": {"4": None},
    "a cloud provider's id": {"5": b"\x16\x01A"},
    "no product": {"2": None},
    "a product that is not known": {"2": b"\x16\x06Venice"},
    "a product of another type": {"2": b"\x0c\x08Milan-B0"},
    "a structure that is not known": {"1": b"\x02\x01\x02"},
    "an extension of AMD's that is not known": {"9": b"\x02\x01\x00"},
}


@pytest.mark.parametrize("changes", ENCODINGS.values(), ids=ENCODINGS)
def test_extensions_have_one_form(changes: dict[str, bytes | None]) -> None:
    result = with_vek(changed=changes).appraise()
    assert not result.authentic
    assert "snp.vek.format" in result.reasons


@pytest.mark.parametrize(
    "vek",
    [
        {"critical": ("3.1",)},
        {"twice": ("3.1",)},
        {
            "public": mint.tlv(
                0x30, mint.tlv(0x30, mint.oid("1.2.840.10045.2.1"), mint.oid("1.3.132.0.34")), b"\x03\x00"
            )
        },
    ],
    ids=["critical", "twice", "no point"],
)
def test_certificates_have_one_form(vek: dict[str, Any]) -> None:
    assert "snp.vek.format" in with_vek(**vek).appraise().reasons


def test_a_key_with_another_point_format_is_refused() -> None:
    compressed = (
        mint.chip_key()
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    )
    algorithm = mint.tlv(0x30, mint.oid("1.2.840.10045.2.1"), mint.oid("1.3.132.0.34"))
    public = mint.tlv(0x30, algorithm, mint.tlv(0x03, b"\0", compressed))
    assert "snp.vek.format" in with_vek(public=public).appraise().reasons


def test_every_byte_of_a_certificate_counts() -> None:
    """It cannot be changed anywhere, not even where nothing is read."""
    der = Vek().der()
    files = Guest().evidence().files
    for at in range(0, len(der), 5):
        raw = bytearray(der)
        raw[at] ^= 0x01
        evidence = Evidence(Platform.SNP, {**files, "vek": bytes(raw)})
        assert not appraise(evidence, builtin("baseline"), {}, NOW_MS, anchors=(ARK.pem,)).authentic, at


# What a policy asks, the code that it refuses with, and evidence that is genuine all the same.
UNWANTED: list[tuple[str, str, dict[str, Any], Guest]] = [
    ("a cloud provider that is not allowed", "snp.csp_id", {"csp_ids": ["CN=other"]}, Guest(kind="VLEK")),
    ("no cloud provider is allowed", "snp.csp_id", {"csp_ids": []}, Guest(kind="VLEK")),
    ("no key of a cloud provider", "snp.vlek", {"vlek": False}, Guest(kind="VLEK")),
    ("debugging", "snp.guest.debug", {}, Guest().but(policy=mint.GENUINE_POLICY | 1 << 19)),
    ("a migration agent", "snp.guest.migrate_ma", {}, Guest().but(policy=mint.GENUINE_POLICY | 1 << 18)),
    ("memory on CXL", "snp.guest.cxl_allow", {}, Guest().but(policy=mint.GENUINE_POLICY | 1 << 21)),
    ("a bit that is not known", "snp.guest.reserved", {}, Guest().but(policy=mint.GENUINE_POLICY | 1 << 26)),
    ("a bit that is always one is not", "snp.guest.reserved", {}, Guest().but(policy=1 << 16)),
    ("level 1", "snp.vmpl", {}, Guest().but(vmpl=1)),
    ("level 2 where 1 is allowed", "snp.vmpl", {"vmpl": 1}, Guest().but(vmpl=2)),
    ("the host asked", "snp.vmpl", {"vmpl": 3}, Guest().but(vmpl=0xFFFFFFFF)),
    ("reported TCB", "snp.tcb.minimum", {"minimum_tcb": {"milan": {"snp": 25}}}, Guest()),
    ("microcode", "snp.tcb.minimum", {"minimum_tcb": {"milan": {"ucode": 220}}}, Guest()),
    ("a line without a minimum", "snp.tcb.minimum", {"minimum_tcb": {"genoa": {}}}, Guest()),
    ("FMC", "snp.tcb.minimum", {"minimum_tcb": {"turin": {"fmc": 2}}}, Guest("Turin")),
    ("launch TCB", "snp.tcb.launch_minimum", {"minimum_launch_tcb": {"milan": {"bl": 5}}}, Guest()),
    ("more reported than committed", "snp.tcb.order", {}, Guest().but(committed_tcb=tcb(snp=23))),
    ("more committed than runs", "snp.tcb.order", {}, Guest().but(current_tcb=tcb(ucode=218))),
    ("lower and higher", "snp.tcb.order", {}, Guest().but(current_tcb=tcb(ucode=255, bl=3))),
    ("provisional", "snp.tcb.provisional", {"provisional_firmware": False}, Guest().but(current_tcb=tcb(ucode=220))),
    ("a line", "snp.line", {"lines": ["genoa"]}, Guest()),
    ("security version of the guest", "snp.guest_svn", {"guest_svn": 3}, Guest().but(guest_svn=2)),
    ("ABI", "snp.guest.abi", {"guest": {"abi_major": 1, "abi_minor": 0}}, Guest()),
    ("another measurement", "snp.measurement", {"measurements": ["ab" * 48]}, Guest()),
    ("other host data", "snp.host_data", {"host_data": ["ab" * 32]}, Guest()),
    ("no identity key", "snp.id_key", {"id_keys": ["ab" * 48]}, Guest()),
    (
        "an author key that is not in force",
        "snp.author_key",
        {"author_keys": ["ab" * 48]},
        Guest().but(author_key_digest=b"\xab" * 48),
    ),
    ("another family", "snp.family_id", {"family_ids": ["ab" * 16]}, Guest()),
    ("another image", "snp.image_id", {"image_ids": ["ab" * 16]}, Guest()),
]


@pytest.mark.parametrize(
    ("code", "section", "guest"), [each[1:] for each in UNWANTED], ids=[each[0] for each in UNWANTED]
)
def test_what_is_genuine_and_not_wanted(code: str, section: dict[str, Any], guest: Guest) -> None:
    result = guest.appraise(section)
    assert result.verdict is Verdict.REJECT
    assert result.authentic
    assert result.reasons == (code,)


GUEST_BITS = {"smt": 16, "single_socket": 20, "mem_aes_256_xts": 22, "rapl_dis": 23}
GUEST_BITS |= {"ciphertext_hiding_dram": 24, "page_swap_disable": 25, "cxl_allow": 21, "migrate_ma": 18}
PLATFORM_BITS = {"smt_en": 0, "tsme_en": 1, "ecc_en": 2, "rapl_dis": 3, "ciphertext_hiding_dram_en": 4}
PLATFORM_BITS |= {"alias_check_complete": 5, "iommu_write_safe": 6, "tio_en": 7}


@pytest.mark.parametrize(
    ("part", "field", "name", "bit", "base"),
    [("guest", "policy", *each, 1 << 17) for each in GUEST_BITS.items()]
    + [("platform", "platform_info", *each, 0) for each in PLATFORM_BITS.items()],
)
def test_each_bit_can_be_asked_for(part: str, field: str, name: str, bit: int, base: int) -> None:
    for wanted in (True, False):
        for found in (True, False):
            result = Guest().but(**{field: base | found << bit}).appraise({part: {name: wanted}})
            code = f"snp.{part}.{name}"
            assert (code in result.reasons) is (wanted is not found), (wanted, found)


ARK, ASK = mint.ark("Milan"), mint.ask("Milan")
PAST = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
LISTS = {
    "the issuer is revoked": mint.crl(ARK, 65537),
    "the root is revoked": mint.crl(ARK, 65536),
    "out of date": mint.crl(ARK, following=PAST),
    "of the future": mint.crl(ARK, last=datetime.datetime(2026, 2, 1, tzinfo=datetime.UTC)),
    "of another root": mint.crl(mint.ark("Genoa", 3)),
    "of another root with the same key": mint.crl(mint.ark("Genoa")),
    "signed by another key": mint.crl(ARK, key=mint.rsa_key(3)),
    "signed by the issuer": mint.crl(ASK),
    "no list at all": b"list",
    "empty": b"",
}


@pytest.mark.parametrize("crl", LISTS.values(), ids=LISTS)
def test_revocation(crl: bytes) -> None:
    result = Guest(files={"crl": crl}).appraise()
    assert result.verdict is Verdict.REJECT
    assert result.authentic
    assert result.reasons == ("snp.revocation",)


def test_a_list_cannot_name_the_key_of_a_chip() -> None:
    """All of them have the serial number 0: an entry of 0 would revoke all chips that there are."""
    entry = mint.crl(ARK, 1)
    result = Guest(files={"crl": entry}).appraise({"crl_required": True})
    assert result.verdict is Verdict.ACCEPT


def binding(**changed: bytes) -> Binding:
    return Binding(**{"nonce": bytes(32), "signing_key": b"A", "sealing_key": bytes(32), **changed})


def test_evidence_for_one_channel_is_no_evidence_for_another() -> None:
    guest = Guest().but(report_data=binding().report_data())
    assert guest.appraise(binding=binding()).verdict is Verdict.ACCEPT
    for other in (binding(signing_key=b"B"), binding(sealing_key=b"\x01" * 32), binding(nonce=b"\x01" * 32)):
        assert guest.appraise(binding=other).reasons == ("snp.binding",)


def test_a_nonce_is_answered_once_whatever_form_the_signature_has() -> None:
    """(r, n - s) signs whatever (r, s) does: so evidence is told apart by its nonce and never by its digest."""
    first = mint.report(report_data=b"nonce".ljust(64, b"\0"))
    s = ORDER - int.from_bytes(first[S : S + 72], "little")
    second = first[:S] + s.to_bytes(72, "little") + first[S + 72 :]
    assert first != second
    for raw in (first, second):
        assert with_report(raw).appraise(nonce=b"nonce").verdict is Verdict.ACCEPT
        assert with_report(raw).appraise(nonce=b"another").reasons == ("snp.nonce",)


@pytest.mark.parametrize("now_ms", [None, 0, -1])
def test_without_a_clock_nothing_is_judged(now_ms: int | None) -> None:
    with pytest.raises(InvalidRequest, match="needs the time"):
        appraise(Guest().evidence(), builtin("baseline"), {}, now_ms)


def test_a_policy_without_this_platform_refuses_it() -> None:
    policy = from_document({"name": "other", "version": 1, "tpm": {}})
    assert Guest().appraise(policy).reasons[0] == "snp.platform"


@pytest.mark.parametrize("name", ["report", "vek", "chain", "cert_table"])
def test_files_are_bounded(name: str) -> None:
    assert Guest(files={name: bytes(64 * 1024 + 1)}).appraise().reasons == ("snp.format",)


def test_lists_are_bounded() -> None:
    assert Guest(files={"crl": bytes(1024 * 1024 + 1)}).appraise().reasons == ("snp.format",)


CUT = mint.cert_table(vcek=Vek().der())
BAD_FILES = {
    "no report": {"report": None},
    "two keys": {"vek": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" * 2},
    "no base64": {"vek": b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"},
    "no end": {"vek": b"-----BEGIN CERTIFICATE-----\nAAAA\n"},
    "no chain": {"chain": b"chain"},
    "a chain with the number 0": {"chain": ASK.pem.replace(b"MII", b"AAA", 1)},
    "a table that ends early": {"cert_table": CUT[:30]},
    "a table that points beyond its end": {"cert_table": CUT[:-1]},
    "more certificates than any chain has": {"chain": ASK.pem * 17},
    "a table without an end": {"cert_table": CUT[:24] * 70},
}


@pytest.mark.parametrize("files", BAD_FILES.values(), ids=BAD_FILES)
def test_files_that_cannot_be_read(files: dict[str, bytes | None]) -> None:
    result = Guest(files=files).appraise()
    assert result.reasons == ("snp.format",)
    assert not result.authentic


def test_an_anchor_that_is_no_certificate_is_a_fault_of_the_caller() -> None:
    with pytest.raises(InvalidRequest, match="anchor"):
        Guest(anchors=(b"anchor",)).appraise()


@pytest.mark.parametrize("name", ["baseline", "production"])
def test_no_policy_of_the_product_trusts_our_root(name: str) -> None:
    evidence = Evidence(Platform.SNP, Guest().evidence().files)
    result = appraise(evidence, builtin(name), {}, NOW_MS)
    assert result.verdict is Verdict.REJECT
    assert "snp.chain.root" in result.reasons
    assert NOT_BEFORE.timestamp() * 1000 < NOW_MS


def test_whatever_comes_is_judged() -> None:
    """Bytes changed, lost and added anywhere end in a verdict, and never in another error."""
    chance = random.Random(20260101)
    table = mint.cert_table(vcek=Vek().der(), ask=ASK.der, ark=ARK.der)
    files = Guest(files={"crl": mint.crl(ARK, 5), "cert_table": table, "chain": ASK.der}).evidence().files
    for _ in range(400):
        name = chance.choice(list(files))
        raw = bytearray(files[name])
        at = chance.randrange(len(raw))
        match chance.randrange(4):
            case 0:
                del raw[at : at + chance.randrange(1, 9)]
            case 1:
                raw[at:at] = chance.randbytes(chance.randrange(1, 9))
            case _:
                raw[at] ^= chance.randrange(1, 256)
        given = {each: data for each, data in files.items() if each != "vek" or name != "cert_table"}
        evidence = Evidence(Platform.SNP, {**given, name: bytes(raw)})
        result = appraise(evidence, builtin("baseline"), {}, NOW_MS, anchors=(ARK.pem,))
        assert not (result.authentic and name in ("report", "vek")), name
