"""Quotes of a TPM that are refused, each for its reason."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ObjectIdentifier

from hanzo_compute.attestation import AttestationResult, Policy, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence
from tests.support import mint_eventlog, mint_tpm
from tests.support.mint_tpm import NONCE, PCRS, SHA1, SHA256, MintedTpm, evidence, sign, sized
from tests.support.pki import NOW_MS, issue

LOOKING = {"freshness": False, "binding": False, "measurement": False}


@pytest.fixture(scope="module")
def tpm() -> MintedTpm:
    return mint_tpm.minted()


def judged(item: Evidence, tpm: MintedTpm, policy: Policy | None = None, **given: Any) -> AttestationResult:
    result = appraise(item, policy or builtin("baseline"), {}, NOW_MS, **{"anchors": [tpm.root.pem], **given})
    assert result.verdict is not Verdict.ACCEPT
    return result


def looking(tpm: MintedTpm, **section: Any) -> Policy:
    roots = [tpm.root.pem.decode()]
    return from_document(
        {"name": "own", "version": 1, "require": LOOKING, "tpm": {"roots": roots, "activation": False, **section}}
    )


def detail(result: AttestationResult, reason: str) -> str:
    return next(check.detail for check in result.checks if check.id == reason)


# --- what was signed ---


def test_what_no_tpm_made(tpm: MintedTpm) -> None:
    result = judged(tpm.resigned(tpm.message(magic=0xFF544348)), tpm)
    assert (result.authentic, result.reasons) == (False, ("tpm.magic",))


def test_a_certify_passed_as_a_quote(tpm: MintedTpm) -> None:
    result = judged(tpm.resigned(tpm.message(kind=0x8017)), tpm)
    assert not result.authentic
    assert "tpm.type" in result.reasons


def test_another_nonce(tpm: MintedTpm) -> None:
    result = judged(tpm.evidence(), tpm, nonce=bytes(32))
    assert (result.authentic, result.reasons) == (True, ("tpm.nonce",))
    assert judged(tpm.evidence(), tpm, nonce=NONCE[:31]).reasons == ("tpm.nonce",)


def test_values_that_are_not_of_the_digest(tpm: MintedTpm) -> None:
    other = {str(index): value.hex() for index, value in {**PCRS, 3: bytes(32)}.items()}
    result = judged(tpm.evidence(pcrs=json.dumps(other).encode()), tpm)
    assert (result.authentic, result.reasons) == (False, ("tpm.pcr_digest",))
    assert "pcrs" not in result.claims["tpm"]


@pytest.mark.parametrize(
    "selection",
    [[(SHA256, [0, 1, 2, 3, 4, 5, 6])], [(SHA256, [])], []],
    ids=["one is lacking", "none of the bank", "no bank"],
)
def test_a_selection_that_lacks_a_required_pcr(tpm: MintedTpm, selection: list[tuple[int, list[int]]]) -> None:
    values = {bank: {index: PCRS[index] for index in indices} for bank, indices in selection if indices}
    message = tpm.message(values=values, selection=selection)
    item = evidence({**tpm.quote(values=values), "message": message, "signature": sign(tpm.ak, message)})
    assert "tpm.pcr_selection" in judged(item, tpm).reasons


def test_required_pcrs_are_of_one_bank(tpm: MintedTpm) -> None:
    values = {SHA256: {index: PCRS[index] for index in range(4)}, 0x000C: {index: bytes(48) for index in range(4, 8)}}
    message = tpm.message(values=values)
    shown = {
        "sha256": [PCRS[index].hex() for index in range(4)],
        "sha384": {str(each): "00" * 48 for each in range(4, 8)},
    }
    item = tpm.evidence(message=message, signature=sign(tpm.ak, message), pcrs=json.dumps(shown).encode())
    assert judged(item, tpm).reasons == ("tpm.pcr_selection",)


def test_the_bank_of_sha1_is_refused_unless_the_policy_takes_it(tpm: MintedTpm) -> None:
    values = {SHA1: {index: hashlib.sha1(bytes([index])).digest() for index in range(8)}}
    message = tpm.message(values=values)
    item = evidence({**tpm.quote(values=values), "message": message, "signature": sign(tpm.ak, message)})
    result = judged(item, tpm)
    assert (result.authentic, result.reasons) == (True, ("tpm.pcr_bank", "tpm.pcr_selection"))
    policy = looking(tpm, banks=["sha1"])
    assert appraise(item, policy, {}, NOW_MS).verdict is Verdict.ACCEPT


def test_a_signature_with_sha1(tpm: MintedTpm) -> None:
    owner = tpm.with_(scheme=mint_tpm.NULL, ak=mint_tpm.RSA_KEY)
    message = owner.message(digest=hashlib.sha1(b"".join(PCRS.values())).digest())
    result = judged(owner.evidence(message=message, signature=sign(owner.ak, message, SHA1)), tpm)
    assert (result.authentic, result.reasons) == (True, ("tpm.strength",))


def test_a_signature_by_another_key(tpm: MintedTpm) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    result = judged(tpm.evidence(signature=sign(other, tpm.message())), tpm)
    assert (result.authentic, result.reasons) == (False, ("tpm.signature",))


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (2**256 - 1, 1)], ids=str)
def test_numbers_of_a_signature_out_of_range(tpm: MintedTpm, numbers: tuple[int, int]) -> None:
    form = bytes.fromhex("0018000b") + b"".join(sized(each.to_bytes(32, "big")) for each in numbers)
    assert judged(tpm.evidence(signature=form), tpm).reasons == ("tpm.signature",)


# --- whose key it is ---


@pytest.mark.parametrize(
    "attributes",
    [0x00040072, 0x00050070, 0x00070072, 0x00010072, 0x00050052],
    ids=["not restricted", "not of one TPM", "decrypts too", "does not sign", "made outside"],
)
def test_an_attestation_key_that_signs_anything(tpm: MintedTpm, attributes: int) -> None:
    result = judged(tpm.with_(ak_attributes=attributes).evidence(), tpm)
    assert result.reasons == ("tpm.ak_attributes",)


def test_an_attestation_key_that_is_not_below_the_endorsement_key(tpm: MintedTpm) -> None:
    other = mint_tpm.minted().with_(ek=ec.generate_private_key(ec.SECP256R1()))
    result = judged(tpm.resigned(tpm.message(signer=other.qualified_signer)), tpm)
    assert (result.authentic, result.reasons) == (True, ("tpm.ek_ak",))


def test_an_attestation_key_that_was_activated_with_another_endorsement_key(tpm: MintedTpm) -> None:
    """An endorsement key is public, with its certificate: who shows it, and solves credentials of a key of his own."""
    forged = tpm.resigned(tpm.message(signer=bytes(34)))
    own = mint_tpm.area(mint_tpm.public(ec.generate_private_key(ec.SECP256R1()), mint_tpm.EK))
    result = judged(forged, tpm, looking(tpm, activation=True), activated=[(own.name, tpm.ak_area.name)])
    assert {"tpm.ek_ak", "tpm.activation"} <= set(result.reasons)
    shown = judged(tpm.evidence(ek_tpm2b=own.raw), tpm, activated=[(own.name, tpm.ak_area.name)])
    assert "tpm.ek_key" in shown.reasons


def test_an_endorsement_key_of_another_certificate(tpm: MintedTpm) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    leaf = mint_tpm.ek_certificate(tpm.authority, other)
    assert judged(tpm.evidence(ek_cert=leaf.der), tpm).reasons == ("tpm.ek_key",)


def test_an_endorsement_key_that_signs(tpm: MintedTpm) -> None:
    area = mint_tpm.public(tpm.ek, mint_tpm.EK | 1 << 18, symmetric=mint_tpm.AES_128_CFB)
    assert "tpm.ek_attributes" in judged(tpm.evidence(ek_tpm2b=area), tpm).reasons


def test_another_authority_of_the_same_name(tpm: MintedTpm) -> None:
    other = mint_tpm.minted()
    given = {"anchors": [other.root.pem]}
    assert "tpm.ek_cert.root" in judged(tpm.evidence(), tpm, **given).reasons
    mixed = tpm.evidence(ca=other.authority.pem, ca_root=other.root.pem)
    reasons = judged(mixed, tpm, **given).reasons
    assert {"tpm.ek_cert.root", "tpm.ek_cert.signatures", "tpm.identity"} <= set(reasons)


def test_an_endorsement_certificate_whose_authority_is_not_there(tpm: MintedTpm) -> None:
    files = {name: data for name, data in tpm.quote().items() if not name.startswith("ca")}
    assert set(judged(evidence(files), tpm).reasons) == {"tpm.ek_cert.root", "tpm.identity"}


@pytest.mark.parametrize(
    ("usage", "purpose"),
    [
        (x509.KeyUsage(True, False, False, False, False, False, False, False, False), mint_tpm.EK_PURPOSE),
        (
            x509.KeyUsage(False, False, True, False, False, False, False, False, False),
            x509.ExtendedKeyUsage([ObjectIdentifier("2.23.133.8.2")]),
        ),
    ],
    ids=["for signatures", "of a platform"],
)
def test_an_endorsement_certificate_for_another_purpose(
    tpm: MintedTpm, usage: x509.KeyUsage, purpose: x509.ExtendedKeyUsage
) -> None:
    leaf = mint_tpm.ek_certificate(tpm.authority, tpm.ek, usage=usage, purpose=purpose)
    assert "tpm.ek_cert.purpose" in judged(tpm.evidence(ek_cert=leaf.der), tpm).reasons


def test_an_endorsement_certificate_by_what_is_no_authority(tpm: MintedTpm) -> None:
    between = issue("no authority", tpm.root)
    leaf = mint_tpm.ek_certificate(between, tpm.ek)
    result = judged(tpm.evidence(ek_cert=leaf.der, ca=between.pem), tpm)
    assert set(result.reasons) == {"tpm.ek_cert.rules", "tpm.identity"}


def test_a_certificate_of_an_attestation_key_that_is_another_key(tpm: MintedTpm) -> None:
    leaf = issue("AK", tpm.authority)
    result = judged(tpm.evidence(ak_cert=leaf.der), tpm)
    assert (result.authentic, result.reasons) == (False, ("tpm.ak_key",))


def test_two_attestation_keys(tpm: MintedTpm) -> None:
    other = mint_tpm.public(ec.generate_private_key(ec.SECP256R1()), mint_tpm.AK, scheme=mint_tpm.ECDSA_SHA256)
    assert "tpm.ak_key" in judged(tpm.evidence(ak_tpm2b=other), tpm).reasons


def test_an_expired_certificate_is_refused_under_baseline_too(tpm: MintedTpm) -> None:
    after = NOW_MS + 30 * 365 * 24 * 3600 * 1000
    result = appraise(tpm.evidence(), builtin("baseline"), {}, after, anchors=[tpm.root.pem])
    assert "tpm.ek_cert.validity" in result.reasons


# --- measurements and clock ---


def test_an_event_log_that_does_not_replay(tpm: MintedTpm) -> None:
    log = mint_eventlog.header([SHA256]) + mint_eventlog.event(4, 1, b"kernel", [SHA256])
    result = judged(tpm.evidence(eventlog=log), tpm)
    assert (result.authentic, result.reasons) == (True, ("tpm.eventlog",))
    assert "sha256:4" in detail(result, "tpm.eventlog")


@pytest.mark.parametrize(
    "log",
    [b"", b"\x00" * 31, mint_eventlog.header([SHA1]), mint_eventlog.header([SHA256])],
    ids=["empty", "cut off", "of another bank", "without events"],
)
def test_an_event_log_that_says_nothing_of_the_quote(tpm: MintedTpm, log: bytes) -> None:
    assert judged(tpm.evidence(eventlog=log), tpm).reasons == ("tpm.eventlog",)


@pytest.mark.parametrize(
    ("seen", "now"),
    [
        ({"minimum_reset_count": 3}, {"resets": 2}),
        ({"minimum_reset_count": 2, "minimum_restart_count": 2}, {"resets": 2, "restarts": 1}),
        ({"minimum_clock": 1308}, {"clock": 1307}),
        ({"minimum_clock": 1307}, {"clock": 2000, "safe": 0}),
    ],
    ids=["resets", "restarts", "clock", "a clock that may have been turned back"],
)
def test_a_rollback(tpm: MintedTpm, seen: dict[str, int], now: dict[str, int]) -> None:
    result = judged(tpm.resigned(tpm.message(**now)), tpm, looking(tpm, **seen))
    assert (result.authentic, result.reasons) == (True, ("tpm.clock",))


# --- formats ---


def broken(tpm: MintedTpm) -> dict[str, dict[str, bytes]]:
    files = tpm.quote()
    message, signature = files["message"], files["signature"]
    selection = message.index(bytes.fromhex("00000001000b03"))
    twice = message[:selection] + bytes.fromhex("00000002000b03ff0000000b03ff0000") + message[selection + 10 :]
    digits = json.dumps([value.hex() for value in PCRS.values()])
    return {
        "message empty": {"message": b""},
        "message cut off": {"message": message[:-1]},
        "message with something behind it": {"message": message + b"\0"},
        "message too large": {"message": message.ljust(70_000, b"\0")},
        "safe neither yes nor no": {"message": tpm.message(safe=2)},
        "qualifying data too long": {"message": tpm.message(nonce=bytes(67))},
        "bank selected twice": {"message": twice},
        "17 banks": {"message": message.replace(bytes.fromhex("00000001000b03"), bytes.fromhex("00000011000b03"))},
        "selection of two bytes": {"message": message.replace(bytes.fromhex("000b03ff"), bytes.fromhex("000b02ff"))},
        "unknown bank": {"message": message.replace(bytes.fromhex("000b03ff"), bytes.fromhex("001203ff"))},
        "signature empty": {"signature": b""},
        "signature of an unknown scheme": {"signature": b"\x00\x1b" + signature[2:]},
        "signature with something behind it": {"signature": signature + b"\0"},
        "signature too large": {"signature": bytes(2000)},
        "no values": {"pcrs": b""},
        "values that are no JSON": {"pcrs": b"[1,"},
        "values nested too deep": {"pcrs": b"[" * 30_000},
        "values by a name twice": {"pcrs": b'{"0": "00", "0": "00"}'},
        "values that lack one": {"pcrs": json.dumps([value.hex() for value in PCRS.values()][:7]).encode()},
        "values that are too short": {"pcrs": digits.replace(PCRS[0].hex(), "00").encode()},
        "values that are no digits": {"pcrs": digits.replace(PCRS[0].hex(), "zz").encode()},
        "values by odd numbers": {"pcrs": b'{"00": "00"}'},
        "values too large": {"pcrs": digits.encode() + b" " * 70_000},
        "values of no bank": {"pcrs": b'"text"'},
        "key empty": {"ak": b""},
        "key that is text": {"ak": b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n"},
        "key with something behind it": {"ak": files["ak"] + b"\0"},
        "key off its curve": {"ak": files["ak"][:-1] + bytes([files["ak"][-1] ^ 1])},
        "key that is symmetric": {"ak": b"\x00\x25" + files["ak"][2:]},
        "key too large": {"ak": files["ak"].ljust(5000, b"\0")},
        "certificate that is none": {"ek_cert": b"\x30\x03\x02\x01\x00"},
        "authority that is none": {"ca": b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"},
        "too many authorities": {"ca": tpm.authority.pem * 33},
    }


def test_what_is_not_of_its_format(tpm: MintedTpm) -> None:
    for what, files in broken(tpm).items():
        result = judged(tpm.evidence(**files), tpm)
        assert (result.authentic, result.reasons) == (False, ("tpm.format",)), what


@pytest.mark.parametrize("name", ["message", "signature", "pcrs"])
def test_a_quote_that_lacks_a_file(tpm: MintedTpm, name: str) -> None:
    files = {each: data for each, data in tpm.quote().items() if each != name}
    assert judged(evidence(files), tpm).reasons == ("tpm.format",)


def test_a_quote_without_any_key(tpm: MintedTpm) -> None:
    files = {each: tpm.quote()[each] for each in ("message", "signature", "pcrs", "ek_tpm2b", "ek_cert")}
    assert judged(evidence(files), tpm).reasons == ("tpm.format",)


@pytest.mark.parametrize("change", [b"\x10", b"\x00\x00\x00\x11"], ids=["cut off", "17 banks"])
def test_a_file_of_the_tools_that_is_broken(tpm: MintedTpm, change: bytes) -> None:
    pcrs = change if len(change) == 1 else b"\x11\x00\x00\x00".ljust(132, b"\0") + b"\x01\x00\x00\x00" + bytes(532)
    assert judged(tpm.evidence(pcrs=pcrs), tpm).reasons == ("tpm.format",)


def test_every_flipped_byte_of_a_message_is_refused(tpm: MintedTpm) -> None:
    message = tpm.message()
    for at in range(len(message)):
        changed = message[:at] + bytes([message[at] ^ 0x01]) + message[at + 1 :]
        result = judged(tpm.evidence(message=changed), tpm)
        assert not result.authentic, at
