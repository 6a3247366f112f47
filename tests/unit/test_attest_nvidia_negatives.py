"""Evidence of NVIDIA's devices that must be refused, and by which reason: minted, and wrong in one thing each."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from hanzo_compute.attestation import AttestationResult, Policy, appraise
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support import mint_nvidia as mint
from tests.support.pki import NOW_MS, Issued, issue, name

RIM = "nvidia.driver_rim"


def policy(**section: Any) -> Policy:
    require = {"freshness": False, "binding": False, "measurement": True}
    return from_document({"name": "test", "version": 1, "require": require, "nvidia": section})


def judged(files: dict[str, bytes], **given: Any) -> AttestationResult:
    under = given.pop("under", policy(require_ocsp=False))
    return appraise(Evidence(Platform.NVIDIA, files), under, {}, NOW_MS, anchors=mint.ANCHORS, **given)


def refused(files: dict[str, bytes], *reasons: str, authentic: bool = False, **given: Any) -> None:
    result = judged(files, **given)
    assert (result.verdict, result.authentic, set(result.reasons)) == ("reject", authentic, set(reasons))


@pytest.fixture(scope="module")
def gpu() -> mint.Device:
    return mint.device()


def test_the_chain_of_another_gpu(gpu: mint.Device) -> None:
    refused(gpu.files(chain=mint.device().pem, **mint.rims()), "nvidia.signature")


def test_another_nonce(gpu: mint.Device) -> None:
    refused(gpu.files(**mint.rims()), "nvidia.nonce", authentic=True, nonce=bytes(32))


def test_a_chain_that_is_short(gpu: mint.Device) -> None:
    chain = gpu.chain
    without_leaf = b"".join(each.pem for each in chain[1:])
    reasons = ("nvidia.chain.length", "nvidia.chain.rules", "nvidia.signature", "nvidia.fwid")
    refused(gpu.files(chain=without_leaf, **mint.rims()), *reasons)
    without_one = b"".join(each.pem for each in (chain[0], *chain[2:]))
    refused(gpu.files(chain=without_one, **mint.rims()), "nvidia.chain.length", "nvidia.chain.signatures")
    root_alone = chain[-1].pem
    result = judged(gpu.files(chain=root_alone, **mint.rims()))
    assert {"nvidia.chain.length", "nvidia.signature"} <= set(result.reasons)


def test_a_chain_that_is_long(gpu: mint.Device) -> None:
    extra = issue(name("GH100 A01 extra"), gpu.chain[0])
    longer = mint.Device("GH100", (extra, *gpu.chain), fields=gpu.fields)
    result = judged(longer.files(**mint.rims()))
    assert {"nvidia.chain.length", "nvidia.chain.rules"} <= set(result.reasons)


def test_a_root_that_only_looks_right() -> None:
    impostor = issue(name("Test Device Identity CA"), ca=True)
    refused(mint.device(root=impostor).files(**mint.rims()), "nvidia.chain.root")


def test_firmware_that_was_not_certified() -> None:
    other = hashlib.sha384(b"other").digest()
    gpu = mint.device()
    refused(gpu.files(report=gpu.report(fields={20: other}), **mint.rims()), "nvidia.fwid")
    blackwell = mint.device("GB100", extension=mint.tcb_info(other))
    result = judged(blackwell.files())
    assert "nvidia.fwid" in result.reasons


@pytest.mark.parametrize(
    "extension",
    [
        b"",
        b"\x30\x80",
        mint.device_id(mint.FWID)[:-1],
        mint.device_id(mint.FWID) + b"\0",
        mint.device_id(mint.FWID[:47]),
        mint.der(0x30, mint.der(0x30, mint.SHA384_OID, mint.der(4, mint.FWID))),
        mint.der(0x30, mint.der(0x87, b"\0\x80"), mint.der(0x81, b"GB100")),
        mint.der(0x30, mint.der(0x87, b"")),
        mint.der(0x30, mint.der(0x87, b"\x08\x80")),
        b"\x30\x81\x05" + bytes(5),
        b"\x1f\x00",
    ],
)
def test_an_extension_that_is_none(extension: bytes) -> None:
    refused(mint.device(extension=extension).files(**mint.rims()), "nvidia.format")


@pytest.mark.parametrize("flag", [1, 2, 3], ids=["not secure", "recovery", "debug"])
def test_a_device_that_is_for_debugging(flag: int) -> None:
    gpu = mint.device("GB100", extension=mint.tcb_info(mint.FWID, 0x80000001 | 1 << 31 - flag))
    files = gpu.files(
        driver_rim=mint.signed(mint.tag(mint.DRIVER_GOLDEN, product="GB100")),
        vbios_rim=mint.signed(mint.tag(mint.VBIOS_GOLDEN, version=mint.VBIOS, product="GB100")),
    )
    refused(files, "nvidia.debug", authentic=True)
    assert judged(files, under=policy(require_ocsp=False, allow_debug=True)).verdict == "accept"


def test_a_mode_that_is_not_known() -> None:
    gpu = mint.device()
    refused(gpu.files(report=gpu.report(fields={36: b"\7\0"}), **mint.rims()), "nvidia.mode", authentic=True)


def test_certificates_of_different_chips() -> None:
    chain = mint.device("GB100").chain
    leaf = issue(name("GH100 A01 GSP FMC LF"), chain[1])
    gpu = mint.Device("GH100", (leaf, *chain[1:]), fields={**mint.opaque("GH100"), 20: b""})
    refused(gpu.files(**mint.rims()), "nvidia.architecture", authentic=True)


# Reports


def twice() -> list[tuple[int, bytes]]:
    return [*mint.MEASURED.items(), (7, mint.value(7))]


def test_a_measurement_that_is_there_twice(gpu: mint.Device) -> None:
    refused(gpu.files(report=gpu.report(measured=twice()), **mint.rims()), "nvidia.format")


def test_a_measurement_of_index_zero(gpu: mint.Device) -> None:
    refused(gpu.files(report=gpu.report(measured=[(0, b"x")]), **mint.rims()), "nvidia.format")


def set_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("at", "to"),
    [
        (0, 0x12),
        (1, 0xE1),
        (2, 0),
        (3, 1),
        (36, 0x10),
        (37, 0x12),
        (38, 0x61),
        (40, 1),
        (41, 63),
        (42, 0xC1),
        (46, 0),
        (47, 0x34),
        (50, 0x31),
    ],
)
def test_a_report_of_another_form_though_signed(gpu: mint.Device, at: int, to: int) -> None:
    body = set_byte(gpu.report()[:-96], at, to)
    refused(gpu.files(report=gpu.sign(body), **mint.rims()), "nvidia.format")


def test_opaque_data_of_another_form_though_signed(gpu: mint.Device) -> None:
    body = gpu.report()[:-96]
    refused(gpu.files(report=gpu.sign(body + b"\0")), "nvidia.format")
    opaque = mint.tlv(gpu.fields)
    start = len(body) - len(opaque) - 2
    for changed in (opaque + mint.tlv({3: b"1"}), opaque[:-1], opaque + b"\1\0\xff\xff"):
        again = body[:start] + len(changed).to_bytes(2, "little") + changed
        refused(gpu.files(report=gpu.sign(again)), "nvidia.format")


@pytest.mark.parametrize("size", [0, 1, 36, 37, 133, 165, 200, 1000, 65_537])
def test_a_report_of_any_size_but_its_own(gpu: mint.Device, size: int) -> None:
    refused(gpu.files(report=gpu.report()[:size].ljust(size, b"\0")), "nvidia.format")


@pytest.mark.parametrize("signature", [bytes(96), b"\xff" * 96, bytes(48) + b"\1" * 48, b"\1" * 48 + bytes(48)])
def test_a_signature_out_of_range(gpu: mint.Device, signature: bytes) -> None:
    refused(gpu.files(report=gpu.report()[:-96] + signature, **mint.rims()), "nvidia.signature")


def test_what_is_missing_or_no_chain(gpu: mint.Device) -> None:
    refused({"report": gpu.report()}, "nvidia.format")
    refused({"chain": gpu.pem}, "nvidia.format")
    refused(gpu.files(chain=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "nvidia.format")
    refused(gpu.files(chain=gpu.pem + b" " * 65_536), "nvidia.format")


# Reference values: signature, chain, version, values


def test_reference_values_that_were_changed(gpu: mint.Device) -> None:
    changed = mint.driver_rim().replace(mint.value(8).hex().encode(), mint.value(9).hex().encode())
    refused(gpu.files(**{**mint.rims(), "driver_rim": changed}), f"{RIM}.digest", "nvidia.measurements")
    text = mint.driver_rim().decode()
    moved = forged().replace("<SIGNATURE/>", text[text.index("<ds:Signature") : text.index("</SoftwareIdentity>")])
    refused(gpu.files(**{**mint.rims(), "driver_rim": moved.encode()}), f"{RIM}.digest", "nvidia.measurements")
    plain = mint.tag(mint.DRIVER_GOLDEN).replace("<SIGNATURE/>", "")
    good, bad = (mint.reference("", digest) for digest in (mint.digest(plain), bytes(48)))
    stated = mint.signed(mint.tag(mint.DRIVER_GOLDEN), references=bad).replace(bad.encode(), good.encode())
    refused(gpu.files(**{**mint.rims(), "driver_rim": stated}), f"{RIM}.signature")


def test_reference_values_that_another_signed(gpu: mint.Device) -> None:
    def given(chain: tuple[Issued, ...]) -> dict[str, bytes]:
        return gpu.files(**{**mint.rims(), "driver_rim": mint.signed(mint.tag(mint.DRIVER_GOLDEN), chain)})

    refused(given(mint.signer(root=issue(name("Test CoRIM signing Root CA"), ca=True))), f"{RIM}.chain.root")
    expired = datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC)
    refused(given(mint.signer(not_after=expired)), f"{RIM}.chain.validity")
    leaf, _, root = mint.signer()
    refused(given((leaf, root)), f"{RIM}.chain.signatures")
    # A device's key is no signer of reference values, whatever root it chains to.
    refused(given((leaf, *gpu.chain[1:])), f"{RIM}.chain.signatures")


def test_reference_values_of_something_else(gpu: mint.Device) -> None:
    def given(**of: str) -> dict[str, bytes]:
        return gpu.files(**{**mint.rims(), "driver_rim": mint.signed(mint.tag(mint.DRIVER_GOLDEN, **of))})

    refused(given(version="550.90.08"), f"{RIM}.version", authentic=True)
    refused(given(product="GB100"), f"{RIM}.product", authentic=True)
    swapped = {"driver_rim": mint.vbios_rim(), "vbios_rim": mint.driver_rim()}
    refused(gpu.files(**swapped), f"{RIM}.version", "nvidia.vbios_rim.version", authentic=True)
    blackwell = mint.device("GB100")
    refused(blackwell.files(**mint.rims()), f"{RIM}.product", "nvidia.vbios_rim.product", authentic=True)


@pytest.mark.parametrize("index", [1, 7, 34])
def test_measurements_that_are_not_the_reference_values(gpu: mint.Device, index: int) -> None:
    for block in ({index + 1: bytes(48)}, {index + 1: mint.value(index + 1)[:47]}):
        report = gpu.report(measured={**mint.MEASURED, **block})
        refused(gpu.files(report=report, **mint.rims()), "nvidia.measurements", authentic=True)
    left = {number: value for number, value in mint.MEASURED.items() if number != index + 1}
    refused(gpu.files(report=gpu.report(measured=left), **mint.rims()), "nvidia.measurements", authentic=True)


def test_a_part_of_the_reference_values_that_does_not_match(gpu: mint.Device) -> None:
    report = gpu.report(measured={**mint.MEASURED, 8: bytes(48)})
    files = gpu.files(report=report, driver_rim=mint.driver_rim())
    refused(files, "nvidia.measurements", "nvidia.vbios_rim.version", authentic=True)


def test_reference_values_that_contradict_each_other(gpu: mint.Device) -> None:
    both = {**mint.VBIOS_GOLDEN, 7: [mint.value(8)]}
    conflict = mint.signed(mint.tag(both, version=mint.VBIOS))
    refused(gpu.files(**{**mint.rims(), "vbios_rim": conflict}), "nvidia.rim_conflict", authentic=True)


def test_reference_values_without_any(gpu: mint.Device) -> None:
    switch = mint.device("LS_10")
    none = mint.signed(mint.tag({}, version="96.10.55.00.01", product="LS10"))
    refused(switch.files(vbios_rim=none), "nvidia.measurements", authentic=True)


# Reference values: the document


def wrapped(text: str) -> bytes:
    """The signed tag within one of the attacker's."""
    inner = mint.signed(mint.tag(mint.DRIVER_GOLDEN)).decode()
    return text.replace("<SIGNATURE/>", inner).encode()


def forged() -> str:
    return mint.tag({7: [bytes(48)]})


def id_reference() -> bytes:
    """Signed by its identity, beside what is read: the signature is good, and about something else."""
    inner = '<ns0:Link xml:id="signed"/>'
    return mint.signed(
        forged().replace("<SIGNATURE/>", f"{inner}<SIGNATURE/>"),
        references=mint.reference("#signed", mint.digest('<Link xml:id="signed"/>')),
    )


def two_references() -> bytes:
    digest = mint.digest(forged().replace("<SIGNATURE/>", ""))
    return mint.signed(forged(), references=mint.reference("", digest) + mint.reference("#x", bytes(48)))


def good(old: str, new: str) -> Callable[[], bytes]:
    return lambda: mint.driver_rim().decode().replace(old, new, 1).encode()


def resigned(old: str, new: str) -> Callable[[], bytes]:
    return lambda: mint.signed(mint.tag(mint.DRIVER_GOLDEN).replace(old, new, 1))


DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "wrapped in another tag": lambda: wrapped(forged()),
    "signature twice": lambda: mint.signed(
        mint.tag(mint.DRIVER_GOLDEN).replace("<SIGNATURE/>", "<SIGNATURE/><SIGNATURE/>")
    ),
    "signature below": lambda: mint.signed(
        mint.tag(mint.DRIVER_GOLDEN).replace("<SIGNATURE/>", "<ns0:Link><SIGNATURE/></ns0:Link>")
    ),
    "no signature": lambda: mint.tag(mint.DRIVER_GOLDEN).replace("<SIGNATURE/>", "").encode(),
    "reference to a part": id_reference,
    "two references": two_references,
    "no reference": lambda: mint.signed(forged(), references=" "),
    "reference to elsewhere": lambda: mint.signed(forged(), references=mint.reference("http://127.0.0.1/x", bytes(48))),
    "a DTD": good("<SoftwareIdentity", "<!DOCTYPE x []><SoftwareIdentity"),
    "an entity": good("<SoftwareIdentity", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><SoftwareIdentity'),
    "UTF-16": lambda: mint.driver_rim().decode().encode("utf-16"),
    "UTF-7 declared": good(
        "<SoftwareIdentity", '<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE x+AD4-<SoftwareIdentity'
    ),
    "a comment": good("</ds:DigestValue>", "<!-- --></ds:DigestValue>"),
    "a comment before": good("<SoftwareIdentity", "<!-- --><SoftwareIdentity"),
    "an instruction": good("<ds:SignedInfo>", "<?x y?><ds:SignedInfo>"),
    "text in the signature": good("<ds:SignedInfo>", "<ds:SignedInfo>text"),
    "an object": good("</ds:Signature>", "<ds:Object/></ds:Signature>"),
    "a key beside": good("<ds:X509Data>", "<ds:KeyName>x</ds:KeyName><ds:X509Data>"),
    "no certificates": lambda: mint.signed(mint.tag(mint.DRIVER_GOLDEN)).replace(b"X509Certificate", b"X509SKI"),
    "another method": lambda: mint.signed(
        mint.tag(mint.DRIVER_GOLDEN), method="http://www.w3.org/2000/09/xmldsig#hmac-sha1"
    ),
    "a transform": lambda: mint.signed(
        mint.tag(mint.DRIVER_GOLDEN),
        references=mint.reference("", bytes(48), "http://www.w3.org/TR/1999/REC-xslt-19991116"),
    ),
    "exclusive canonical": lambda: mint.signed(
        mint.tag(mint.DRIVER_GOLDEN),
        references=mint.reference("", bytes(48), "http://www.w3.org/2001/10/xml-exc-c14n#"),
    ),
    "parameters of a transform": good(
        'xmldsig#enveloped-signature"/>', 'xmldsig#enveloped-signature"><ds:XPath>x</ds:XPath></ds:Transform>'
    ),
    "a signature that is cut": good("<ds:SignatureValue>", "<ds:SignatureValue>AAAA"),
    "too large": resigned("<ns0:Payload>", "<ns0:Payload>" + " " * 262_144),
    "no XML": lambda: b"reference values",
    "too deep": lambda: b"<a>" * 1000,
    "another root": lambda: mint.signed(mint.tag(mint.DRIVER_GOLDEN).replace("SoftwareIdentity", "Software")),
    "another namespace": lambda: mint.signed(mint.tag(mint.DRIVER_GOLDEN).replace("19770/-2/2015", "19770/-2/2016")),
    "two payloads": resigned("</ns0:Payload>", "</ns0:Payload><ns0:Payload/>"),
    "evidence": resigned("</ns0:Payload>", "</ns0:Payload><ns0:Evidence/>"),
    "no creator": resigned('role="softwareCreator tagCreator"', 'role="aggregator"'),
    "no version": resigned('colloquialVersion="550.90.07" ', ""),
    "no product": lambda: mint.signed(mint.tag(mint.DRIVER_GOLDEN).replace('edition="GPU" product="GH100"', "")),
    "no measurements": lambda: mint.signed(mint.tag({}).replace(mint.payload({}), "")),
    "an index twice": resigned('index="3"', 'index="4"'),
    "an index beyond": resigned('index="3"', 'index="254"'),
    "an index below": resigned('index="3"', 'index="-3"'),
    "no index": resigned('index="3" ', ""),
    "no activity": resigned('active="False" ', ""),
    "an activity of its own": resigned('active="False"', 'active="1"'),
    "more values than said": resigned('alternatives="1"', 'alternatives="0"'),
    "fewer values than said": resigned('alternatives="1"', 'alternatives="2"'),
    "a value of another name": resigned("ns2:Hash0", "ns2:Hash7"),
    "a value of no namespace": resigned("ns2:Hash0", "Hash0"),
    "a value that is short": resigned(bytes(48).hex(), bytes(47).hex()),
    "another size": resigned('size="48"', 'size="32"'),
    "another resource": resigned('type="Measurement"', 'type="File"'),
}


@pytest.mark.parametrize("what", DOCUMENTS)
def test_a_document_that_is_refused(gpu: mint.Device, what: str) -> None:
    document = DOCUMENTS[what]()
    result = judged(gpu.files(**{**mint.rims(), "driver_rim": document}))
    assert (result.verdict, result.authentic, result.reasons) == ("reject", False, (f"{RIM}.format",)), what
    alone = judged({"rim": document})
    assert (alone.verdict, alone.reasons) == ("reject", ("nvidia.rim.format",))


def test_the_document_that_those_are_made_of_is_accepted(gpu: mint.Device) -> None:
    for document in (good("nothing", "nothing"), resigned("nothing", "nothing")):
        assert judged(gpu.files(**{**mint.rims(), "driver_rim": document()})).verdict == "accept"


# Revocation


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize(
    "answer",
    [
        mint.revoked(),
        mint.on_hold(),
        mint.Answer(mint.ocsp.OCSPCertStatus.UNKNOWN),
        mint.Answer(next_update=mint.NOW - datetime.timedelta(minutes=1)),
        mint.Answer(
            this_update=mint.NOW + datetime.timedelta(minutes=1), next_update=mint.NOW + datetime.timedelta(hours=2)
        ),
    ],
    ids=["revoked", "hold", "unknown", "stale", "future"],
)
def test_a_certificate_that_is_not_good(gpu: mint.Device, answer: mint.Answer, number: int) -> None:
    files = gpu.files(**mint.rims(), **mint.answers(gpu.chain[1:], answer, only=number))
    refused(files, "nvidia.ocsp", authentic=True)


def test_ocsp_responses_answer_the_nonce_that_they_were_asked_with(gpu: mint.Device) -> None:
    def given(nonce: bytes | None) -> dict[str, bytes]:
        answers = mint.answers(gpu.chain[1:], mint.Answer(nonce=nonce))
        return gpu.files(ocsp_nonce=b"asked with", **mint.rims(), **answers)

    assert judged(given(b"asked with")).verdict == "accept"
    refused(given(b"another"), "nvidia.ocsp", authentic=True)
    refused(given(None), "nvidia.ocsp", authentic=True)


def test_a_responder_that_nobody_appointed(gpu: mint.Device) -> None:
    issuer = gpu.chain[2]
    past = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
    purpose = mint.appointed(issuer).certificate.extensions.get_extension_for_class(mint.x509.ExtendedKeyUsage).value
    for responder in (
        mint.appointed(gpu.chain[3]),
        issue(name("Responder"), issuer),
        issue(name("Responder"), issuer, not_after=past, extensions=[(purpose, True)]),
        issue(name("Responder"), extensions=[(purpose, True)]),
    ):
        answer = mint.Answer(responder=responder)
        files = gpu.files(**mint.rims(), **mint.answers(gpu.chain[1:], answer, only=0))
        refused(files, "nvidia.ocsp", authentic=True)


def test_an_ocsp_response_that_was_changed(gpu: mint.Device) -> None:
    response = mint.Answer().of(gpu.chain[1], gpu.chain[2])
    at = response.index(b"20251231")
    refused(
        gpu.files(ocsp=response[:at] + b"20251230" + response[at + 8 :], **mint.rims()), "nvidia.ocsp", authentic=True
    )
    refused(gpu.files(ocsp=response[:-1], **mint.rims()), "nvidia.ocsp.format", authentic=True)
    refused(gpu.files(ocsp=response.ljust(16_385, b"\0"), **mint.rims()), "nvidia.ocsp.format", authentic=True)


def test_a_revocation_outweighs_a_good_answer(gpu: mint.Device) -> None:
    files = gpu.files(
        **mint.rims(), **mint.answers(gpu.chain[1:]), **{"ocsp-0": mint.revoked().of(gpu.chain[1], gpu.chain[2])}
    )
    refused(files, "nvidia.ocsp", authentic=True)


def test_an_answer_about_another_certificate_is_none(gpu: mint.Device) -> None:
    other = mint.device()
    files = gpu.files(**mint.rims(), **mint.answers(other.chain[1:]))
    result = judged(files, under=policy())
    assert (result.verdict, result.reasons) == (
        "unavailable",
        ("nvidia.ocsp", f"{RIM}.ocsp", "nvidia.vbios_rim.ocsp"),
    )


def test_reference_values_whose_signer_is_on_hold(gpu: mint.Device) -> None:
    files = gpu.files(**mint.rims(), **mint.answers(mint.signer(), mint.on_hold(), only=0))
    refused(files, f"{RIM}.ocsp", "nvidia.vbios_rim.ocsp", authentic=True)
    lenient = policy(require_ocsp=False, allow_hold=True)
    assert judged(files, under=lenient).verdict == "accept"
    gone = gpu.files(**mint.rims(), **mint.answers(mint.signer(), mint.revoked(), only=0))
    refused(gone, f"{RIM}.ocsp", "nvidia.vbios_rim.ocsp", authentic=True, under=lenient)
    held = gpu.files(**mint.rims(), **mint.answers(gpu.chain[1:], mint.on_hold(), only=0))
    refused(held, "nvidia.ocsp", authentic=True, under=lenient)


# Several devices


def test_the_same_gpu_twice(gpu: mint.Device) -> None:
    first = gpu.files(**mint.rims())
    second = gpu.files(report=gpu.report(), **mint.rims())
    assert first["report"] != second["report"]
    pair = [Evidence(Platform.NVIDIA, files) for files in (first, second)]
    result = appraise(pair, policy(require_ocsp=False), {}, NOW_MS, anchors=mint.ANCHORS)
    assert (result.verdict, result.reasons) == ("reject", ("nvidia.distinct",))


def test_a_policy_without_a_section_accepts_no_gpu(gpu: mint.Device) -> None:
    nothing = from_document({"name": "test", "version": 1})
    result = judged(gpu.files(**mint.rims()), under=nothing)
    assert result.verdict == "reject"
    assert "nvidia.platform" in result.reasons
