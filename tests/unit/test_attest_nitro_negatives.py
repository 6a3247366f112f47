"""Documents that must be refused, each by the code of its reason."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hanzo_compute.attestation import AttestationResult, appraise, builtin
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nitro import cbor
from tests.support import mint_nitro as mint
from tests.support import pki

ENCLAVE = mint.enclave()
GOOD = ENCLAVE.document()
ROOT, REGION, ZONE, INSTANCE = ENCLAVE.authorities
ORDER = int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16)


def judge(document: bytes, **given: Any) -> AttestationResult:
    given = {"anchors": [ENCLAVE.root], "now_ms": pki.NOW_MS} | given
    return appraise(mint.evidence(document), builtin("baseline"), {}, **given)


def key_usage(*, sign: bool, issue: bool) -> tuple[x509.KeyUsage, bool]:
    return x509.KeyUsage(sign, False, False, False, False, issue, False, False, False), True


def constraints(*, ca: bool, path_length: int | None = None) -> tuple[x509.BasicConstraints, bool]:
    return x509.BasicConstraints(ca, path_length), True


def leaf(*extensions: Any) -> bytes:
    return mint.enclave(usage=False, extensions=extensions).document()


def other_root() -> bytes:
    """Right names, all the way up."""
    root = pki.issue(ROOT.certificate.subject, ca=True)
    region = pki.issue(REGION.certificate.subject, root, ca=True, path_length=2)
    return mint.enclave([root, region]).document()


def deeper() -> bytes:
    """The instance, which may issue for enclaves alone, has made an authority."""
    return mint.enclave([*ENCLAVE.authorities, pki.issue("below", INSTANCE, ca=True)]).document()


def no_authority() -> bytes:
    return mint.enclave([ROOT, pki.issue("no authority", ROOT)]).document()


def may_not_issue() -> bytes:
    above = pki.issue("a", ROOT, usage=False, extensions=[constraints(ca=True), key_usage(sign=True, issue=False)])
    return mint.enclave([ROOT, above]).document()


def critical() -> bytes:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    return mint.enclave(extensions=[(unknown, True)]).document()


def issued_later() -> bytes:
    now = datetime.datetime.fromtimestamp(pki.NOW_MS / 1000, datetime.UTC)
    return mint.enclave(not_before=now - datetime.timedelta(seconds=10)).document(timestamp=pki.NOW_MS - 11_000)


def of_p256() -> bytes:
    enclave = mint.enclave(key=ec.generate_private_key(ec.SECP256R1()))
    return enclave.sign(cbor2.dumps(enclave.fields()), headers={1: -7}, digest=hashes.SHA256())


def with_signature(change: Callable[[bytes], bytes]) -> bytes:
    parts = cbor2.loads(GOOD)
    return cbor2.dumps([*parts[:3], change(parts[3])])


def signed(headers: object = mint.ES384, **given: Any) -> bytes:
    return ENCLAVE.sign(cbor2.dumps(ENCLAVE.fields()), headers=headers, **given)


def payload(data: bytes) -> bytes:
    return ENCLAVE.sign(data)


def twice(name: str) -> bytes:
    fields = ENCLAVE.fields()
    return payload(mint.pairs([*fields.items(), (name, fields[name])]))


def pcrs(entries: dict[Any, Any]) -> bytes:
    return ENCLAVE.document(pcrs=entries)


def raw_pcrs(data: bytes) -> bytes:
    """A document whose map of registers is these bytes."""
    mark = b"\x64pcrs\xa0"
    return payload(cbor2.dumps(ENCLAVE.fields(pcrs={})).replace(mark, mark[:-1] + data, 1))


REGISTER = b"p" * 48
FORMAT = {"nitro.format"}
HALF = 48
NEGATIVES: dict[str, tuple[bytes, set[str]]] = {
    # 41
    "ES256": (signed({1: -7}), {"nitro.protected"}),
    "ES512": (signed({1: -36}), {"nitro.protected"}),
    "no algorithm": (signed({}), {"nitro.protected"}),
    "no header": (signed(b""), {"nitro.protected"}),
    "algorithm null": (signed({1: None}), {"nitro.protected"}),
    "a key of P-256": (of_p256(), {"nitro.protected", "nitro.signature"}),
    # 42
    "unprotected": (signed(unprotected={4: b"kid"}), {"nitro.unprotected"}),
    "algorithm unprotected": (signed({}, unprotected={1: -35}), {"nitro.protected", "nitro.unprotected"}),
    "crit": (signed({1: -35, 2: [1]}), {"nitro.protected"}),
    "a header more": (signed({1: -35, 4: b"kid"}), {"nitro.protected"}),
    # 43
    "no root": (
        ENCLAVE.document(cabundle=[each.der for each in (REGION, ZONE, INSTANCE)]),
        {"nitro.chain.root", "nitro.chain.signatures"},
    ),
    "other root": (other_root(), {"nitro.chain.root"}),
    "root before another's chain": (
        replace(mint.enclave([pki.issue("o", ca=True)]), authorities=(ROOT,)).document(),
        {"nitro.chain.signatures"},
    ),
    "bundle upside down": (
        ENCLAVE.document(cabundle=[each.der for each in reversed(ENCLAVE.authorities)]),
        {"nitro.chain.root", "nitro.chain.signatures", "nitro.chain.rules"},
    ),
    "an authority left out": (
        ENCLAVE.document(cabundle=[ROOT.der, REGION.der, INSTANCE.der]),
        {"nitro.chain.signatures"},
    ),
    # 44
    "leaf may not sign": (leaf(constraints(ca=False), key_usage(sign=False, issue=False)), {"nitro.chain.rules"}),
    "leaf is an authority": (leaf(constraints(ca=True), key_usage(sign=True, issue=True)), {"nitro.chain.rules"}),
    "leaf says no usage": (leaf(constraints(ca=False)), {"nitro.chain.usage"}),
    "root says no usage": (
        mint.enclave([ROOT, pki.issue("r", ROOT, usage=False, extensions=[constraints(ca=True)])]).document(),
        {"nitro.chain.usage"},
    ),
    # 45
    "a path too long": (deeper(), {"nitro.chain.rules"}),
    "issued by no authority": (no_authority(), {"nitro.chain.rules"}),
    "issued by one that may not": (may_not_issue(), {"nitro.chain.rules"}),
    "critical and not understood": (critical(), {"nitro.chain.rules"}),
    # 46, of the time of signing
    "signed before it was issued": (issued_later(), {"nitro.chain.at_timestamp"}),
    # 47
    "stale": (ENCLAVE.document(timestamp=pki.NOW_MS - 300_001), {"nitro.timestamp"}),
    "of the future": (ENCLAVE.document(timestamp=pki.NOW_MS + 60_001), {"nitro.timestamp"}),
    # 49
    "a field twice": (twice("timestamp"), FORMAT),
    "a register twice": (raw_pcrs(mint.pairs([(0, REGISTER), (0, REGISTER)])), FORMAT),
    "a register twice, written longer": (
        raw_pcrs(b"\xa2\x00\x58\x30" + REGISTER + b"\x18\x00\x58\x30" + REGISTER),
        FORMAT,
    ),
    "index a text": (pcrs({"0": REGISTER}), FORMAT),
    "index bytes": (pcrs({b"0": REGISTER}), FORMAT),
    "index a float": (raw_pcrs(b"\xa1\xf9\x00\x00\x58\x30" + REGISTER), FORMAT),
    "index true": (raw_pcrs(b"\xa1\xf5\x58\x30" + REGISTER), FORMAT),
    "index a big number": (raw_pcrs(b"\xa1\xc2\x41\x00\x58\x30" + REGISTER), FORMAT),
    "index 32": (pcrs({0: REGISTER, 32: REGISTER}), FORMAT),
    "index -1": (pcrs({-1: REGISTER}), FORMAT),
    "register of 20 bytes": (pcrs({0: bytes(20)}), FORMAT),
    "register a text": (pcrs({0: "p" * 48}), FORMAT),
    "register null": (pcrs({0: None}), FORMAT),
    "no registers": (pcrs({}), FORMAT),
    "registers an array": (ENCLAVE.document(pcrs=[REGISTER]), FORMAT),
    "SHA512": (ENCLAVE.document(digest="SHA512"), {"nitro.digest"}),
    "sha384": (ENCLAVE.document(digest="sha384"), {"nitro.digest"}),
    "digest null": (ENCLAVE.document(digest=None), FORMAT),
    # 50
    "a byte after it": (GOOD + b"\0", {"nitro.trailing"}),
    "itself after it": (GOOD + GOOD, {"nitro.trailing"}),
    "a byte after the payload": (payload(cbor2.dumps(ENCLAVE.fields()) + b"\xf6"), FORMAT),
    "a byte after the header": (signed(cbor2.dumps(mint.ES384) + b"\0"), FORMAT),
    # the form of everything else
    "empty": (b"", FORMAT),
    "tagged as another": (b"\xd1" + GOOD, FORMAT),
    "tagged twice": (b"\xd2" + b"\xd2" + GOOD, FORMAT),
    "three parts": (cbor2.dumps(cbor2.loads(GOOD)[:3]), FORMAT),
    "a detached payload": (cbor2.dumps([b"\xa1\x01\x38\x22", {}, None, bytes(96)]), FORMAT),
    "headers an array": (signed([1, -35]), FORMAT),
    "no payload": (payload(b""), FORMAT),
    "an array for a payload": (payload(b"\x80"), FORMAT),
    "a payload too large": (payload(cbor2.dumps("x" * 16_384)), FORMAT),
    "no module": (ENCLAVE.document(module_id=...), FORMAT),
    "module without a name": (ENCLAVE.document(module_id=""), FORMAT),
    "module null": (ENCLAVE.document(module_id=None), FORMAT),
    "a field that is not known": (ENCLAVE.document(extra=1), FORMAT),
    "a NitroTPM's registers": (ENCLAVE.document(pcrs=..., nitrotpm_pcrs=mint.PCRS), FORMAT),
    "timestamp 0": (ENCLAVE.document(timestamp=0), FORMAT),
    "timestamp -1": (ENCLAVE.document(timestamp=-1), FORMAT),
    "timestamp of the year 10000": (ENCLAVE.document(timestamp=253_402_300_800_000), FORMAT),
    "timestamp a float": (ENCLAVE.document(timestamp=1.5), FORMAT),
    "nonce a text": (ENCLAVE.document(nonce="n"), FORMAT),
    "user data too long": (ENCLAVE.document(user_data=bytes(1025)), FORMAT),
    "no certificate in it": (ENCLAVE.document(certificate=b"certificate"), FORMAT),
    "certificate empty": (ENCLAVE.document(certificate=b""), FORMAT),
    "certificate too long": (ENCLAVE.document(certificate=ENCLAVE.leaf.der.ljust(1025, b"\0")), FORMAT),
    "bundle empty": (ENCLAVE.document(cabundle=[]), FORMAT),
    "bundle too long": (ENCLAVE.document(cabundle=[ROOT.der] * 10), FORMAT),
    # the signature
    "signature of 95 bytes": (with_signature(lambda data: data[:-1]), {"nitro.signature"}),
    "signature of 97 bytes": (with_signature(lambda data: data + b"\0"), {"nitro.signature"}),
    "no signature": (with_signature(lambda _: b""), {"nitro.signature"}),
    "r = 0": (with_signature(lambda data: bytes(HALF) + data[HALF:]), {"nitro.signature"}),
    "s = 0": (with_signature(lambda data: data[:HALF] + bytes(HALF)), {"nitro.signature"}),
    "all zero": (with_signature(lambda _: bytes(96)), {"nitro.signature"}),
    "r = order": (with_signature(lambda data: ORDER.to_bytes(HALF, "big") + data[HALF:]), {"nitro.signature"}),
    "all ones": (with_signature(lambda _: b"\xff" * 96), {"nitro.signature"}),
    "signed by another": (
        replace(ENCLAVE, leaf=mint.enclave().leaf).document(certificate=ENCLAVE.leaf.der),
        {"nitro.signature"},
    ),
    "signed as another context": (
        cbor2.dumps([*cbor2.loads(GOOD)[:2], cbor2.dumps(ENCLAVE.fields(nonce=b"other")), cbor2.loads(GOOD)[3]]),
        {"nitro.signature"},
    ),
}


@pytest.mark.parametrize("case", NEGATIVES)
def test_it_is_refused(case: str) -> None:
    document, codes = NEGATIVES[case]
    result = judge(document)
    assert set(result.reasons) == codes
    assert (result.verdict, result.tier) == ("reject", 0)
    assert result.authentic == (codes == {"nitro.timestamp"})


# 40
@pytest.mark.parametrize("size", [32, 48, 64])
def test_an_enclave_in_debug_mode_is_genuine_and_refused(size: int) -> None:
    result = judge(ENCLAVE.document(pcrs={**mint.PCRS, 0: bytes(size)}))
    assert (result.reasons, result.authentic) == (("nitro.debug",), True)


def test_without_pcr0_nobody_knows_whether_it_is_debugged() -> None:
    result = judge(ENCLAVE.document(pcrs={1: REGISTER}))
    assert (result.verdict, result.reasons, result.authentic) == ("reject", ("nitro.debug",), True)


# 46
@pytest.mark.parametrize("hours", [-2, 2])
def test_a_chain_that_is_not_valid_now_is_refused(hours: int) -> None:
    result = judge(GOOD, now_ms=pki.NOW_MS + hours * 3_600_000)
    assert set(result.reasons) == {"nitro.chain.validity", "nitro.timestamp"}
    assert not result.authentic


def test_an_authority_that_has_expired_is_refused() -> None:
    now = datetime.datetime.fromtimestamp(pki.NOW_MS / 1000, datetime.UTC)
    region = pki.issue("r", ROOT, ca=True, not_after=now - datetime.timedelta(seconds=1))
    document = mint.enclave([ROOT, region]).document(timestamp=pki.NOW_MS - 5000)
    assert judge(document).reasons == ("nitro.chain.validity",)


# 48
@pytest.mark.parametrize("nonce", [None, b"", b"n" * 31, b"n" * 31 + b"m"])
def test_a_nonce_that_is_absent_or_different_is_refused(nonce: bytes | None) -> None:
    result = judge(ENCLAVE.document(nonce=nonce), nonce=b"n" * 32)
    assert (result.reasons, result.authentic) == (("nitro.nonce",), True)


# 77
def test_a_document_that_is_too_large_is_refused() -> None:
    result = judge(GOOD + bytes(64 * 1024))
    assert result.reasons == ("nitro.format",)
    assert "65536" in result.checks[0].detail


def test_a_flip_of_what_is_signed_is_refused() -> None:
    """Of every seventh byte; of a recorded document every byte is flipped."""
    for offset in range(4, len(GOOD), 7):
        changed = bytearray(GOOD)
        changed[offset] ^= 1 << (offset % 8)
        assert not judge(bytes(changed)).authentic, offset


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ("", "ends"),
        ("18", "ends"),
        ("1b00", "ends"),
        ("5bffffffffffffffff00", "ends"),
        ("9bffffffffffffffff00", "ends"),
        ("bbffffffffffffffff0001", "ends"),
        ("1c", "reserved"),
        ("fe", "reserved"),
        ("1f", "indefinite"),
        ("3f", "indefinite"),
        ("df", "tag"),
        ("c101", "tag"),
        ("d9d9f701", "tag"),
        ("f4", "float"),
        ("f7", "float"),
        ("f90000", "float"),
        ("fb0000000000000000", "float"),
        ("ff", "float"),
        ("81ff", "float"),
        ("61ff", "UTF-8"),
        ("62c0af", "UTF-8"),
        ("63eda080", "UTF-8"),
        ("5f6161ff", "no such string"),
        ("5f5f4161ffff", "no such string"),
        ("5f00ff", "no such string"),
        ("a1800100", "neither text nor integer"),
        ("a1f600", "neither text nor integer"),
        ("a1410000", "neither text nor integer"),
        ("a200010002", "twice"),
        ("bf616100616101ff", "twice"),
        ("bf00ff", "float"),
        ("0000", "follow"),
        ("81" * 9 + "80", "inside of each other"),
        ("9f" * 60_000, "inside of each other"),
        ("a100" * 30_000, "inside of each other"),
    ],
)
def test_what_is_not_of_the_subset_of_cbor_is_unreadable(data: str, what: str) -> None:
    with pytest.raises(Unreadable, match=what):
        cbor.decode(bytes.fromhex(data))


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536])
def test_byte_strings_are_written_in_their_shortest_form(size: int) -> None:
    assert cbor.encode_bytes(bytes(size)) == cbor2.dumps(bytes(size))
