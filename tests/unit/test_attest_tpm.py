"""Quotes of a TPM that are accepted: forms of keys, signatures and values, and what makes a key one of a known TPM."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.x509.oid import AuthorityInformationAccessOID

from hanzo_compute.attestation import AttestationResult, Binding, Policy, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.attestation.tpm.public import primary
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import Evidence, Tier
from tests.support import mint_eventlog, mint_tpm
from tests.support.mint_tpm import NONCE, PCRS, SHA256, SHA384, SWTPM, MintedTpm, evidence, sign, sized
from tests.support.pki import NOW_MS, issue

REFERENCES = {"sha256": {index: [value.hex()] for index, value in PCRS.items()}}


@pytest.fixture(scope="module")
def tpm() -> MintedTpm:
    return mint_tpm.minted()


def judged(item: Evidence, tpm: MintedTpm, policy: Policy | None = None, **given: Any) -> AttestationResult:
    """The result under baseline, with the minted root handed in."""
    return appraise(item, policy or builtin("baseline"), {}, NOW_MS, **{"anchors": [tpm.root.pem], **given})


def strict(tpm: MintedTpm, **section: Any) -> Policy:
    """What keys are released on: production with the minted root as the operator's, and reference values."""
    document = {"name": "own", "version": 1, "release_keys": True}
    return from_document({**document, "tpm": {"roots": [tpm.root.pem.decode()], "pcrs": REFERENCES, **section}})


def binding() -> Binding:
    return Binding(nonce=bytes(32), signing_key=b"key", sealing_key=bytes(32))


def test_a_quote_is_accepted_as_tier_1_with_what_it_says(tpm: MintedTpm) -> None:
    result = judged(tpm.evidence(), tpm, nonce=NONCE)
    assert (result.verdict, result.authentic, result.tier, result.reasons) == (Verdict.ACCEPT, True, Tier.AT_REST, ())
    assert "protects no memory" in result.tier_why
    claims = result.claims["tpm"]
    assert claims["extra_data"] == NONCE.hex()
    assert claims["pcr_select"] == [[SHA256, list(range(8))]]
    assert claims["pcrs"]["sha256"]["3"] == PCRS[3].hex()
    assert (claims["manufacturer"], claims["model"], claims["software"]) == ("id:54455354", "Minted", False)


def test_without_its_root_it_is_authentic_and_refused(tpm: MintedTpm) -> None:
    result = judged(tpm.evidence(), tpm, anchors=[])
    assert (result.verdict, result.authentic) == (Verdict.REJECT, True)
    assert set(result.reasons) == {"tpm.ek_cert.root", "tpm.identity"}


def test_a_root_of_the_policy_counts_as_pem_or_by_its_digest(tpm: MintedTpm) -> None:
    fingerprint = tpm.root.certificate.fingerprint(hashes.SHA256()).hex().upper()
    for root in (tpm.root.pem.decode(), fingerprint):
        policy = from_document(
            {"name": "own", "version": 1, "require": LOOKING, "tpm": {"roots": [root], "activation": False}}
        )
        assert judged(tpm.evidence(), tpm, policy, anchors=[]).verdict is Verdict.ACCEPT


LOOKING = {"freshness": False, "binding": False, "measurement": False}


def forms_of_the_key(tpm: MintedTpm) -> dict[str, dict[str, bytes]]:
    key, area = tpm.ak.public_key(), tpm.ak_area.raw
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {
        "TPMT": {"ak": area},
        "TPM2B": {"ak": sized(area)},
        "PEM beside the area": {"ak": pem, "ak_tpm2b": sized(area)},
        "DER beside the area": {"ak": der, "ak_tpm2b": area},
        "the area alone": {"ak_tpm2b": sized(area)},
    }


def test_the_attestation_key_comes_in_any_form(tpm: MintedTpm) -> None:
    base = {name: data for name, data in tpm.quote().items() if name != "ak"}
    for what, files in forms_of_the_key(tpm).items():
        result = judged(evidence({**base, **files}), tpm)
        assert result.verdict is Verdict.ACCEPT, (what, result.reasons)


def test_a_key_without_its_public_area_has_no_name_that_could_tie_it(tpm: MintedTpm) -> None:
    pem = forms_of_the_key(tpm)["PEM beside the area"]["ak"]
    result = judged(tpm.evidence(ak=pem), tpm)
    assert result.authentic
    assert "tpm.ek_ak" in result.reasons


def test_ecdsa_signatures_come_as_tpmt_as_der_and_bare(tpm: MintedTpm) -> None:
    message = tpm.message()
    der = tpm.ak.sign(message, ec.ECDSA(hashes.SHA256()))
    r, s = utils.decode_dss_signature(der)
    for form in (sign(tpm.ak, message), der, r.to_bytes(32, "big") + s.to_bytes(32, "big")):
        assert judged(tpm.evidence(signature=form), tpm).verdict is Verdict.ACCEPT


def test_rsa_signatures_come_as_rsassa_and_rsapss_with_and_without_their_head(tpm: MintedTpm) -> None:
    owner = tpm.with_(ak=mint_tpm.RSA_KEY, scheme=mint_tpm.NULL)
    message = owner.message()
    short = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    bare = mint_tpm.RSA_KEY.sign(message, short, hashes.SHA256())
    forms = [sign(owner.ak, message), sign(owner.ak, message, pss=True), sign(owner.ak, message)[6:], bare]
    for form in forms:
        assert judged(owner.evidence(signature=form), owner).verdict is Verdict.ACCEPT


def test_a_key_signs_with_its_own_scheme_only(tpm: MintedTpm) -> None:
    owner = tpm.with_(ak=mint_tpm.RSA_KEY, scheme=bytes.fromhex("0014000b"))
    message = owner.message()
    assert judged(owner.evidence(), owner).verdict is Verdict.ACCEPT
    result = judged(owner.evidence(signature=sign(owner.ak, message, pss=True)), owner)
    assert (result.authentic, result.reasons) == (False, ("tpm.signature",))


def test_a_quote_signed_with_sha384_has_a_digest_of_that(tpm: MintedTpm) -> None:
    owner = tpm.with_(scheme=bytes.fromhex("0018000c"))
    message = owner.message(digest=hashlib.sha384(b"".join(PCRS.values())).digest())
    result = judged(owner.evidence(message=message, signature=sign(owner.ak, message, SHA384)), owner)
    assert result.verdict is Verdict.ACCEPT, result.reasons


def tools_file(values: Mapping[int, bytes]) -> bytes:
    """As ``tpm2_quote --pcr`` writes it."""
    head = struct.pack("<IHB4sx", 1, SHA256, 3, sum(1 << each for each in values).to_bytes(4, "little")).ljust(
        132, b"\0"
    )
    digests = [struct.pack("<H64s", len(value), value) for value in values.values()]
    lists = [digests[at : at + 8] for at in range(0, len(digests), 8)]
    body = b"".join((struct.pack("<I", len(each)) + b"".join(each)).ljust(532, b"\0") for each in lists)
    return head + struct.pack("<I", len(lists)) + body


def test_pcr_values_come_as_json_by_number_by_bank_as_a_list_and_as_the_tools_write_them(tpm: MintedTpm) -> None:
    values = [value.hex() for value in PCRS.values()]
    forms = [
        json.dumps(values).encode(),
        json.dumps({str(index): value.upper() for index, value in enumerate(values)}).encode(),
        json.dumps({"sha256": values, "sha1": ["00" * 20] * 24}).encode(),
        json.dumps([*values, *["ff" * 32] * 16]).encode(),
        tools_file(PCRS),
    ]
    for form in forms:
        result = judged(tpm.evidence(pcrs=form), tpm)
        assert result.verdict is Verdict.ACCEPT, result.reasons
        assert list(result.claims["tpm"]["pcrs"]["sha256"]) == [str(index) for index in PCRS]


def test_values_of_two_banks_are_digested_in_the_order_of_the_selection(tpm: MintedTpm) -> None:
    values = {SHA384: {4: bytes(48)}, SHA256: PCRS}
    assert judged(evidence(tpm.quote(values=values) | signed(tpm, values=values)), tpm).verdict is Verdict.ACCEPT


def signed(tpm: MintedTpm, **fields: Any) -> dict[str, bytes]:
    message = tpm.message(**fields)
    return {"message": message, "signature": sign(tpm.ak, message)}


def test_a_certificate_of_the_attestation_key_is_enough(tpm: MintedTpm) -> None:
    leaf = issue("AK", tpm.authority, key=tpm.ak)
    names = ("message", "signature", "pcrs", "ca", "ca_root")
    files = {name: data for name, data in tpm.quote().items() if name in names}
    item = evidence({**files, "ak_cert": leaf.der + bytes(900)})
    result = judged(item, tpm)
    assert (result.verdict, result.authentic) == (Verdict.ACCEPT, True)
    result = judged(item, tpm, anchors=[])
    assert (result.verdict, result.authentic) == (Verdict.REJECT, False)
    assert "tpm.ak_cert.root" in result.reasons


def test_a_chain_whose_authority_can_be_fetched_is_unavailable_and_not_refused(tpm: MintedTpm) -> None:
    access = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example/ca.crt")
    )
    leaf = issue("AK", tpm.authority, key=tpm.ak, extensions=[(x509.AuthorityInformationAccess([access]), False)])
    files = {name: tpm.quote()[name] for name in ("message", "signature", "pcrs", "ak")}
    result = judged(evidence({**files, "ak_cert": leaf.pem}), tpm)
    assert (result.verdict, result.authentic) == (Verdict.UNAVAILABLE, True)
    assert result.reasons == ("tpm.ak_cert.root", "tpm.identity")
    assert {check.missing for check in result.checks if check.id in result.reasons} == {"ca"}


@pytest.mark.parametrize("by", ["name", "digest"])
def test_an_enrolled_attestation_key_needs_no_certificate(tpm: MintedTpm, by: str) -> None:
    files = {name: tpm.quote()[name] for name in ("message", "signature", "pcrs", "ak")}
    enrolled = tpm.ak_area.name.hex() if by == "name" else mint_tpm.spki_digest(tpm.ak)
    given = {"nonce": NONCE, "anchors": []}
    policy = from_document({"name": "own", "version": 1, "require": LOOKING, "tpm": {"attestation_keys": [enrolled]}})
    assert judged(evidence(files), tpm, policy, **given).verdict is Verdict.ACCEPT
    other = policy.model_copy(update={"tpm": policy.tpm.model_copy(update={"attestation_keys": ("00" * 32,)})})
    assert judged(evidence(files), tpm, other, **given).reasons == ("tpm.identity",)


def test_an_endorsement_key_that_the_operator_knows_needs_no_certificate(tpm: MintedTpm) -> None:
    files = {name: data for name, data in tpm.quote().items() if not name.startswith(("ca", "ek_cert"))}
    section = {"endorsement_keys": [mint_tpm.spki_digest(tpm.ek)]}
    policy = from_document({"name": "own", "version": 1, "require": LOOKING, "tpm": section})
    assert judged(evidence(files), tpm, policy, anchors=[]).reasons == ("tpm.activation",)
    activated = {"anchors": [], "activated": [tpm.names]}
    assert judged(evidence(files), tpm, policy, **activated).verdict is Verdict.ACCEPT


def test_keys_are_released_only_to_an_activated_key(tpm: MintedTpm) -> None:
    bound = binding()
    item = evidence(tpm.quote() | signed(tpm, nonce=bound.qualifying_data()))
    policy = strict(tpm)
    assert judged(item, tpm, policy, binding=bound, anchors=[]).reasons == ("tpm.activation",)
    result = judged(item, tpm, policy, binding=bound, anchors=[], activated=[tpm.names])
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.AT_REST)
    other = mint_tpm.minted()
    assert "tpm.activation" in judged(item, tpm, policy, binding=bound, activated=[other.names]).reasons


def test_an_activated_key_may_be_a_primary_key_beside_the_endorsement_key(tpm: MintedTpm) -> None:
    signer = tpm.ak_area.qualified_name(primary(0x4000000B))
    item = tpm.resigned(tpm.message(signer=signer))
    assert judged(item, tpm).reasons == ("tpm.ek_ak",)
    assert judged(item, tpm, activated=[tpm.names]).verdict is Verdict.ACCEPT


def test_production_takes_no_anchor_that_is_handed_in(tpm: MintedTpm) -> None:
    result = judged(tpm.evidence(), tpm, builtin("production"), nonce=NONCE, activated=[tpm.names])
    assert {"tpm.ek_cert.root", "tpm.identity", "tpm.pcrs"} <= set(result.reasons)


def test_a_software_tpm_is_labelled_and_accepted_only_where_the_policy_says_so(tpm: MintedTpm) -> None:
    soft = tpm.with_(quote_fields={"firmware": SWTPM})
    activated = {"activated": [tpm.names], "binding": binding()}
    item = evidence(soft.quote() | signed(soft, nonce=binding().qualifying_data()))
    demo = builtin("local-demo")
    assert demo.tpm is not None
    pinned = demo.model_copy(
        update={"tpm": demo.tpm.model_copy(update={"roots": (tpm.root.pem.decode(),), "pcrs": strict(tpm).tpm.pcrs})}
    )
    result = judged(item, tpm, pinned, **activated)
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.AT_REST)
    assert "a software TPM" in result.tier_why
    assert result.claims["tpm"]["software"] is True
    assert "tpm.identity" in judged(item, tpm, demo, **activated).reasons
    assert judged(item, tpm, strict(tpm), **activated).reasons == ("tpm.software",)
    assert "tpm.software" in judged(item, tpm, builtin("production"), **activated).reasons


def test_a_software_tpm_tells_itself_by_its_certificate_too(tpm: MintedTpm) -> None:
    leaf = mint_tpm.ek_certificate(tpm.authority, tpm.ek, model="swtpm")
    policy = strict(tpm, software=False)
    reasons = judged(tpm.evidence(ek_cert=leaf.der), tpm, policy, nonce=NONCE).reasons
    assert "tpm.software" in reasons


def test_reference_values_of_pcrs(tpm: MintedTpm) -> None:
    document = {"name": "own", "version": 1, "require": LOOKING}
    section = {"roots": [tpm.root.pem.decode()], "activation": False}
    good = from_document(
        {**document, "tpm": {**section, "pcrs": {"sha256": {"7": ["00" * 32, PCRS[7].hex().upper()]}}}}
    )
    assert judged(tpm.evidence(), tpm, good).verdict is Verdict.ACCEPT
    for pcrs in ({"sha256": {7: ["00" * 32]}}, {"sha256": {9: ["00" * 32]}}, {"sha384": {7: [PCRS[7].hex()]}}):
        bad = from_document({**document, "tpm": {**section, "pcrs": pcrs}})
        assert judged(tpm.evidence(), tpm, bad).reasons == ("tpm.pcrs",)


def test_an_event_log_that_replays(tpm: MintedTpm) -> None:
    value = mint_eventlog.extended([b"kernel"], SHA256)
    values = {SHA256: {**PCRS, 4: value}}
    log = mint_eventlog.header([SHA256]) + mint_eventlog.event(4, 1, b"kernel", [SHA256])
    files = tpm.quote(values=values) | signed(tpm, values=values)
    result = judged(evidence({**files, "eventlog": log}), tpm)
    assert result.verdict is Verdict.ACCEPT, result.reasons
    assert result.claims["tpm"]["eventlog_events"] == 2


def test_clock_and_counters_that_went_on(tpm: MintedTpm) -> None:
    seen = {"minimum_reset_count": 2, "minimum_restart_count": 1, "minimum_clock": 1307}
    policy = from_document(
        {
            "name": "own",
            "version": 1,
            "require": LOOKING,
            "tpm": {"roots": [tpm.root.pem.decode()], "activation": False, **seen},
        }
    )
    assert judged(tpm.evidence(), tpm, policy).verdict is Verdict.ACCEPT
    item = tpm.resigned(tpm.message(resets=3, restarts=0, clock=1308))
    assert judged(item, tpm, policy).verdict is Verdict.ACCEPT


def test_an_authority_younger_than_the_time_is_refused_unless_the_policy_lets_it(tpm: MintedTpm) -> None:
    before = NOW_MS - 5 * 365 * 24 * 3600 * 1000
    given: dict[str, Any] = {"anchors": [tpm.root.pem]}
    assert appraise(tpm.evidence(), builtin("baseline"), {}, before, **given).verdict is Verdict.ACCEPT
    section = {"roots": [tpm.root.pem.decode()], "activation": False}
    policy = from_document({"name": "own", "version": 1, "require": LOOKING, "tpm": section})
    result = appraise(tpm.evidence(), policy, {}, before, **given)
    assert "tpm.ek_cert.validity" in result.reasons


def test_the_parts_of_a_policy_are_strict() -> None:
    for section in (
        {"roots": ["no certificate"]},
        {"roots": ["ab" * 31]},
        {"banks": ["md5"]},
        {"pcrs": {"sha256": {32: ["00" * 32]}}},
        {"pcrs": {"sha256": {0: []}}},
        {"required_pcrs": [-1]},
        {"minimum_clock": -1},
        {"unknown": 1},
    ):
        with pytest.raises(InvalidRequest):
            from_document({"name": "own", "version": 1, "tpm": section})


def test_checks_have_distinct_ids(tpm: MintedTpm) -> None:
    ids = [check.id for check in judged(tpm.evidence(), tpm).checks]
    assert len(set(ids)) == len(ids)
    assert all(each.startswith("tpm.") for each in ids)
