"""Recorded evidence of TDX and SGX, and what is expected of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.attestation import Policy, Verdict, appraise, builtin, eventlog
from hanzo_compute.attestation.checks import Context, Findings, Group, Unreadable
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.attestation.tdx import genuine
from hanzo_compute.attestation.tdx.pck import read_chain
from hanzo_compute.attestation.tdx.quote import parse
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.engines import need_vectors
from tests.support.vectors import Case, case, cases

PLATFORMS = ("tdx", "sgx")


def _every() -> list[Case]:
    return [each for platform in PLATFORMS for each in cases(platform)]


def _companion(name: str) -> bytes:
    folder = need_vectors("tdx")
    entries = json.loads((folder / "manifest.json").read_text())["companions"]
    entry = next(each for each in entries if each["id"] == name)
    return Path(folder / entry["files"]["data"]["file"]).read_bytes()


def _policy(**section: Any) -> Policy:
    return from_document(builtin("baseline").model_dump(mode="json") | {"tdx": section})


def test_each_case_is_judged_as_expected() -> None:
    judged = {each.id: each.appraise() for each in _every()}
    expected = {each.id: (each.authentic, each.verdict) for each in _every()}
    assert {name: (result.authentic, result.verdict.value) for name, result in judged.items()} == expected


def test_each_case_says_what_was_parsed_of_it() -> None:
    for each in _every():
        claims = each.appraise().claims[each.evidence.platform.value]
        assert {name: claims.get(name) for name in each.fields} == each.fields, each.id


def test_status_and_advisories_are_intels() -> None:
    found = 0
    for each in _every():
        if "tcb_status" in each.expected:
            claims = each.appraise().claims[each.evidence.platform.value]
            assert claims["tcb_status"] == each.expected["tcb_status"], each.id
            assert sorted(claims["advisories"]) == sorted(each.expected["advisories"]), each.id
            found += 1
    assert found


REASONS = {
    "v5-outdated": {"tdx.tcb_status", "tdx.dcap_qvl"},
    "v5-trustee-oldtcb": {"tdx.mrservicetd", "tdx.tcb_status"},
    "v4-trustee-debug": {"tdx.debug", "tdx.tcb_status"},
    "v4-automata-advisories": {"tdx.tcb_status", "tdx.dcap_qvl"},
    "v4-azure-noseptve": {"tdx.sept_ve_disable", "tdx.tcb_status"},
}


@pytest.mark.parametrize("name", REASONS)
def test_refusals_name_their_reasons(name: str) -> None:
    assert set(case("tdx", name).appraise().reasons) == REASONS[name]


def test_an_enclave_of_a_debugger_names_its_reason() -> None:
    assert "sgx.debug" in case("sgx", "v3-occlum-debug").appraise().reasons


def test_outside_of_the_window_of_its_collateral_each_case_is_refused() -> None:
    for each in _every():
        if each.verdict == "accept":
            for days in (-60, 60):
                result = appraise(each.evidence, builtin("baseline"), {}, each.now_ms + days * 86_400_000)
                assert result.verdict is Verdict.REJECT, each.id
                assert result.authentic or days < 0, each.id


def test_without_collateral_what_is_genuine_still_is() -> None:
    for each in _every():
        if each.verdict == "accept":
            quote = {"quote": each.evidence.files["quote"]}
            result = appraise(Evidence(each.evidence.platform, quote), builtin("baseline"), {}, each.now_ms)
            assert (result.verdict, result.authentic) == (Verdict.UNAVAILABLE, True), each.id


def test_collateral_of_another_family_of_processors_is_refused() -> None:
    one, other = case("tdx", "v4-dcapqvl"), case("tdx", "v5-gotdx")
    evidence = one.changed(collateral=other.evidence.files["collateral"])
    result = appraise(evidence, builtin("baseline"), {}, other.now_ms)
    assert "tdx.fmspc" in result.reasons
    assert result.authentic


def test_the_recorded_event_log_makes_the_registers_of_its_quote() -> None:
    recorded, log = case("tdx", "v4-gcp-cos113"), _companion("cos113-ccel_data")
    asked = _policy(require_event_log=True)
    evidence = recorded.changed(ccel=log + b"\xff" * 4096)
    nonce = _companion("cos113-nonce")
    assert appraise(evidence, asked, {}, recorded.now_ms, nonce=nonce).verdict is Verdict.ACCEPT
    assert appraise(evidence, asked, {}, recorded.now_ms, nonce=b"\1" * 64).reasons == ("tdx.nonce",)


def test_any_other_event_in_the_recorded_log_is_refused() -> None:
    recorded, log = case("tdx", "v4-gcp-cos113"), _companion("cos113-ccel_data")
    events = [each for each in eventlog.parse(log) if each.type != eventlog.EV_NO_ACTION]
    for each in events:
        changed = bytearray(log)
        changed[log.index(each.digests[eventlog.SHA384])] ^= 1
        result = appraise(recorded.changed(ccel=bytes(changed)), _policy(), {}, recorded.now_ms)
        assert result.reasons == ("tdx.eventlog",)
    shorter = recorded.changed(ccel=log[: len(log) // 2])
    assert appraise(shorter, _policy(), {}, recorded.now_ms).reasons == ("tdx.eventlog",)


def test_the_table_that_points_to_a_log_is_no_log() -> None:
    recorded = case("tdx", "v4-gcp-cos113")
    result = appraise(recorded.changed(ccel=_companion("cos113-ccel_table")), _policy(), {}, recorded.now_ms)
    assert result.reasons == ("tdx.eventlog",)


@pytest.mark.parametrize(("platform", "name"), [("tdx", "v4-dcapqvl"), ("tdx", "v5-gotdx"), ("sgx", "v3-dcapqvl")])
def test_every_flip_of_a_byte_that_is_signed_is_refused(platform: str, name: str) -> None:
    recorded = case(platform, name)
    quote = recorded.evidence.files["quote"]
    context = Context(recorded.now_ms, builtin("baseline"))
    read = parse(quote)
    # Header and body, signatures, attestation key, the report and data of the quoting enclave; and all lengths.
    end = quote.index(read.cert_data)
    accepted = [at for at in range(end) if _genuine(quote, at, 1 << at % 8, context)]
    assert accepted == []


def _genuine(quote: bytes, at: int, bit: int, context: Context) -> bool:
    changed = bytearray(quote)
    changed[at] ^= bit
    findings = Findings()
    try:
        genuine.check(findings, "x", parse(bytes(changed)), context)
    except Unreadable:
        return False
    return all(each.ok is True for each in findings.checks if each.group is Group.GENUINE)


def test_a_flip_in_the_certificates_is_refused_or_leaves_the_same_certificates() -> None:
    recorded = case("tdx", "v4-dcapqvl")
    quote = recorded.evidence.files["quote"]
    context = Context(recorded.now_ms, builtin("baseline"))
    read = parse(quote)
    start = quote.index(read.cert_data)
    for at in range(start, start + len(read.cert_data), 7):
        if _genuine(quote, at, 1 << at % 8, context):
            changed = bytearray(quote)
            changed[at] ^= 1 << at % 8
            assert read_chain(parse(bytes(changed)).cert_data) == read_chain(read.cert_data)


def test_the_platform_of_a_case_is_not_what_its_name_says() -> None:
    recorded = case("tdx", "v4-dcapqvl")
    result = appraise(Evidence(Platform.SGX, recorded.evidence.files), builtin("baseline"), {}, recorded.now_ms)
    assert "sgx.format" in result.reasons
    assert not result.authentic


def test_a_root_that_came_with_the_evidence_is_not_trusted_and_does_not_help_if_handed_in() -> None:
    recorded = case("sgx", "neg-intel-testroot")
    result = recorded.appraise(anchors=[recorded.evidence.files["root"]])
    assert (result.authentic, result.verdict) == (False, Verdict.REJECT)
    assert "sgx.cert_type" in result.reasons
