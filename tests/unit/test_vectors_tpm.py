"""Recorded quotes of TPMs: of Azure and Google, and of software TPMs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from hanzo_compute.attestation import Verdict, builtin
from hanzo_compute.attestation.checks import Context, Unreadable
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.attestation.tpm.examine import examine
from hanzo_compute.model.evidence import Tier
from tests.support.vectors import Case, case, cases

AZURE = ("azure-snp-genoa", "azure-snp-v2", "azure-tdx-v1")
_RUNTIME = 1236


def ids(found: Case) -> list[str]:
    return [check.id for check in found.appraise().checks]


def test_each_has_the_verdict_and_the_fields_that_are_expected() -> None:
    for each in cases("tpm"):
        result = each.appraise()
        assert (result.authentic, result.verdict.value) == (each.authentic, each.verdict), (each.id, result.reasons)
        said = result.claims["tpm"]
        assert {name: said.get(name) for name in each.fields} == each.fields, each.id
        if "with_anchor" in each.expected:
            wanted = each.expected["with_anchor"]
            anchored = each.appraise(anchors=[each.evidence.files[wanted["file"]]])
            assert anchored.verdict.value == wanted["default_policy"], (each.id, anchored.reasons)


def test_reasons() -> None:
    assert case("tpm", "swtpm-trustee").appraise().reasons == ("tpm.identity", "tpm.software")
    reasons = case("tpm", "swtpm-own-ecc").appraise().reasons
    assert reasons == ("tpm.ek_cert.root", "tpm.identity", "tpm.software")
    assert case("tpm", "gce-cos-85-nonce9009").appraise().reasons == ("tpm.identity",)
    assert case("tpm", "azure-tdx-v1").appraise().reasons == ("tdx.tcb_status",)


def test_azure_is_of_the_tier_of_its_processor() -> None:
    result = case("tpm", "azure-snp-genoa").appraise()
    assert result.tier is Tier.CPU_TEE
    assert {"snp.signature", "snp.chain.root", "tpm.azure_runtime_data"} <= {check.id for check in result.checks}
    assert result.claims["tpm"]["snp"]["measurement"]


def test_runtime_data_that_the_report_does_not_vouch_for() -> None:
    """Another key in the runtime data, with a quote that this key signed, would pass every other check."""
    found = case("tpm", "azure-snp-genoa")
    blob = found.evidence.files["hcl_report"]
    changed = blob.replace(b'"console-enabled":true,', b'"console-enabled":null,')
    assert len(changed) == len(blob) != 0
    assert changed != blob
    result = case("tpm", "azure-snp-genoa").appraise().reasons
    assert result == ()
    item = found.changed(hcl_report=changed)
    refused = replace(found, evidence=item).appraise()
    assert (refused.authentic, refused.reasons) == (False, ("tpm.azure_runtime_data",))


def test_a_report_of_another_machine() -> None:
    one, two = case("tpm", "azure-snp-genoa"), case("tpm", "azure-snp-v2")
    own, other = one.evidence.files["hcl_report"], two.evidence.files["hcl_report"]
    mixed = one.changed(hcl_report=own[:32] + other[32:1216] + own[1216:], vek=two.evidence.files["vek"])
    refused = replace(one, evidence=mixed).appraise()
    assert (refused.authentic, refused.reasons) == (False, ("tpm.azure_runtime_data",))


def test_a_quote_of_another_machine() -> None:
    one, two = case("tpm", "azure-snp-genoa"), case("tpm", "azure-snp-v2")
    names = ("message", "signature", "pcrs")
    mixed = one.changed(**{name: two.evidence.files[name] for name in names})
    refused = replace(one, evidence=mixed).appraise()
    assert (refused.authentic, refused.reasons) == (False, ("tpm.signature",))


def test_a_processor_that_the_policy_does_not_accept() -> None:
    found = case("tpm", "azure-snp-genoa")
    policy = builtin("baseline").model_copy(update={"snp": None})
    assert set(found.appraise(policy).reasons) == {"snp.platform", "snp.examined"}


def test_a_trust_domain_without_its_quote_is_unavailable() -> None:
    found = case("tpm", "azure-tdx-v1")
    files = {name: data for name, data in found.evidence.files.items() if name != "td_quote"}
    item = type(found.evidence)(found.evidence.platform, files)
    result = replace(found, evidence=item).appraise()
    assert (result.verdict, result.authentic, result.reasons) == (Verdict.UNAVAILABLE, False, ("tpm.azure_td_quote",))


def test_a_trust_domain_that_the_host_can_interrupt_is_refused_if_the_policy_says_so() -> None:
    found = case("tpm", "azure-tdx-v1")
    document = builtin("baseline").model_dump(mode="json")
    document["tpm"]["azure_sept_ve_disable"] = True
    document = {name: section for name, section in document.items() if name not in {"sgx", "nitro", "nvidia", "snp"}}
    assert "tdx.sept_ve_disable" in found.appraise(from_document({**document, "tdx": {}})).reasons


@pytest.mark.parametrize(
    ("at", "with_"),
    [
        (0, b"HCLB"),
        (4, b"\x03"),
        (12, b"\x01"),
        (1216, b"\x00"),
        (1224, b"\x03"),
        (1228, b"\x00"),
        (1232, b"\xff\xff"),
        (_RUNTIME, b"["),
        (-1, b"\x01"),
    ],
)
def test_a_blob_of_azure_that_is_not_of_its_format(at: int, with_: bytes) -> None:
    found = case("tpm", "azure-snp-genoa")
    blob = bytearray(found.evidence.files["hcl_report"])
    at %= len(blob)
    blob[at : at + len(with_)] = with_
    item = found.changed(hcl_report=bytes(blob))
    refused = replace(found, evidence=item).appraise()
    assert (refused.authentic, refused.reasons) == (False, ("tpm.format",))


def test_the_enrolled_key_of_google_is_accepted() -> None:
    found = case("tpm", "gce-cos-85-nonce9009")
    name = "000b" + hashlib.sha256(found.evidence.files["ak"]).hexdigest()
    looking = {"freshness": False, "binding": False, "measurement": False}
    policy = from_document({"name": "own", "version": 1, "require": looking, "tpm": {"attestation_keys": [name]}})
    result = found.appraise(policy, nonce=bytes.fromhex(found.fields["extra_data"]))
    assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.AT_REST)


def test_a_changed_event_log_is_refused() -> None:
    found = case("tpm", "gce-cos-85-nonce9009")
    log = bytearray(found.evidence.files["eventlog"])
    values = json.loads(found.evidence.files["pcrs"])
    # The SHA-256 digest of an event: the log has SHA-1 and SHA-256 in this order.
    at = log.index(b"\x0b\x00", 200) + 2
    log[at] ^= 1
    refused = replace(found, evidence=found.changed(eventlog=bytes(log))).appraise()
    assert "tpm.eventlog" in refused.reasons
    assert len(values) == 24


@pytest.mark.parametrize("name", ["swtpm-own-ecc", "azure-tdx-v1"])
def test_every_flipped_byte_of_what_was_signed_is_refused(name: str) -> None:
    found = case("tpm", name)
    files = {
        each: data for each, data in found.evidence.files.items() if each in {"message", "signature", "pcrs", "ak"}
    }
    if "ak" not in files:
        files["hcl_report"] = found.evidence.files["hcl_report"]
    context = Context(found.now_ms, builtin("baseline"))
    message = files["message"]
    for at in range(len(message)):
        changed = message[:at] + bytes([message[at] ^ 0x80]) + message[at + 1 :]
        try:
            findings = examine({**files, "message": changed}, context)
        except Unreadable:
            continue
        wrong = {check.id for check in findings.checks if check.ok is False}
        assert "tpm.signature" in wrong, at


def test_checks_have_distinct_ids() -> None:
    for name in AZURE:
        found = ids(case("tpm", name))
        assert len(set(found)) == len(found), name
