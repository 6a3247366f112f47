"""Attestation documents of real enclaves, with the verdicts that are expected of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import cbor2

from hanzo_compute.attestation import appraise, builtin
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nitro.document import read, unwrap
from hanzo_compute.attestation.nitro.examine import signature_problem
from hanzo_compute.attestation.x509 import load_one
from hanzo_compute.model.evidence import Tier
from tests.support import vectors

GENUINE = "nitro-2022-10-13-a72552"
HOUR_MS = timedelta(hours=1) // timedelta(milliseconds=1)


def test_every_document_gets_its_verdict() -> None:
    cases = vectors.cases("nitro")
    found = {case.id: (result.authentic, result.verdict.value) for case in cases for result in [case.appraise()]}
    assert found == {case.id: (case.authentic, case.verdict) for case in cases}


def test_those_that_are_refused_are_so_for_debugging_alone() -> None:
    for case in vectors.cases("nitro"):
        result = case.appraise()
        assert result.reasons == (("nitro.debug",) if case.fields["debug"] else ())
        assert result.tier == (Tier.OPEN if case.fields["debug"] else Tier.CPU_TEE)


def test_claims_are_what_the_documents_say() -> None:
    for case in vectors.cases("nitro"):
        claims = case.appraise().claims["nitro"]
        shared = claims.keys() & case.fields.keys()
        assert len(shared) >= 11
        assert {name: claims[name] for name in shared} == {name: case.fields[name] for name in shared}


def test_they_are_accepted_tagged_too() -> None:
    for case in vectors.cases("nitro"):
        tagged = case.changed(doc=b"\xd2" + case.evidence.files["doc"])
        result = appraise(tagged, builtin("baseline"), {}, case.now_ms)
        assert (result.authentic, result.verdict.value) == (case.authentic, case.verdict)


def test_a_nonce_is_held_against_the_documents() -> None:
    case = vectors.case("nitro", GENUINE)
    nonce = bytes.fromhex(case.fields["nonce"])
    assert case.appraise(nonce=nonce).verdict == "accept"
    assert case.appraise(nonce=nonce[:-1]).reasons == ("nitro.nonce",)


def test_an_hour_later_a_document_is_stale_and_a_day_later_its_chain_has_expired() -> None:
    case = vectors.case("nitro", GENUINE)
    stale = appraise(case.evidence, builtin("baseline"), {}, case.now_ms + HOUR_MS)
    assert (stale.reasons, stale.authentic) == (("nitro.timestamp",), True)
    expired = appraise(case.evidence, builtin("baseline"), {}, case.now_ms + 24 * HOUR_MS)
    assert (expired.reasons, expired.authentic) == (("nitro.chain.validity", "nitro.timestamp"), False)


def flipped(data: bytes, step: int) -> Iterator[bytes]:
    for offset in range(0, len(data), step):
        changed = bytearray(data)
        changed[offset] ^= 1 << (offset % 8)
        yield bytes(changed)


def test_every_flip_of_a_byte_breaks_the_signature() -> None:
    case = vectors.case("nitro", GENUINE)
    document = case.evidence.files["doc"]
    leaf = load_one(read(unwrap(document).payload).certificate)
    assert signature_problem(unwrap(document), leaf) == ""
    held = []
    for offset, changed in enumerate(flipped(document, 1)):
        try:
            envelope = unwrap(changed)
        except Unreadable:
            continue
        if not (signature_problem(envelope, leaf) or envelope.unprotected):
            held.append(offset)
    assert held == []


def test_flips_are_refused() -> None:
    """Of every ninth byte, with all checks."""
    case = vectors.case("nitro", GENUINE)
    for changed in flipped(case.evidence.files["doc"], 9):
        result = appraise(case.changed(doc=changed), builtin("baseline"), {}, case.now_ms)
        assert (result.verdict, result.authentic) == ("reject", False)


def test_a_document_with_the_chain_of_another_is_refused() -> None:
    one, other = (vectors.case("nitro", name) for name in (GENUINE, "nitro-2021-03-17-234f12"))
    parts, others = (cbor2.loads(case.evidence.files["doc"]) for case in (one, other))
    assert not appraise(
        one.changed(doc=cbor2.dumps([*parts[:3], others[3]])), builtin("baseline"), {}, one.now_ms
    ).authentic
    fields = cbor2.loads(parts[2]) | {"certificate": cbor2.loads(others[2])["certificate"]}
    swapped = one.changed(doc=cbor2.dumps([*parts[:2], cbor2.dumps(fields), parts[3]]))
    assert {"nitro.chain.signatures", "nitro.signature"} <= set(
        appraise(swapped, builtin("baseline"), {}, one.now_ms).reasons
    )
