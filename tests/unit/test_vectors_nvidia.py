"""Evidence that NVIDIA's hardware made, and reference values that NVIDIA signed."""

from __future__ import annotations

import datetime
import json

from hanzo_compute.attestation import Verdict, appraise, builtin, x509
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.nvidia import rim, spdm
from hanzo_compute.attestation.nvidia.ecdsa import verifies
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.engines import need_vectors
from tests.support.vectors import Case, case, cases

NAME_MAX = 70
"""Characters that the manifest has of a name."""


def test_each_gets_its_verdict_and_says_what_is_known_of_it() -> None:
    for each in cases("nvidia"):
        result = each.appraise()
        assert (result.authentic, result.verdict.value) == (each.authentic, each.verdict), (each.id, result.reasons)
        claims = {name: said[:NAME_MAX] if name == "leaf" else said for name, said in result.claims["nvidia"].items()}
        expected = dict(each.fields)
        if not each.authentic:  # A chain that is cut has other names at the ends.
            expected = {name: value for name, value in expected.items() if name not in ("leaf", "l2")}
        assert {name: claims.get(name) for name in expected} == expected, each.id


def test_what_is_wrong_is_named() -> None:
    expected = {
        "neg-h100-545-badchain": {"nvidia.chain.length", "nvidia.chain.signatures"},
        "neg-h100-chain-case2": {"nvidia.chain.length", "nvidia.signature"},
        "neg-h100-chain-case4": {"nvidia.chain.length", "nvidia.signature", "nvidia.chain.rules", "nvidia.fwid"},
        "neg-gb100-crossgpu": {"nvidia.signature"},
        "neg-rim-badchain": {"nvidia.rim.chain.root"},
        "neg-rim-badsig": {"nvidia.rim.signature"},
        "neg-rim-expired": {"nvidia.rim.digest", "nvidia.rim.chain.validity"},
    }
    for name, reasons in expected.items():
        assert reasons <= set(case("nvidia", name).appraise().reasons), name


def test_genuine_measurements_are_the_reference_values() -> None:
    for name, count in (("h100-550.90.07", 33), ("ls10-96.10.55", 31)):
        (found,) = (check for check in case("nvidia", name).appraise().checks if check.id == "nvidia.measurements")
        assert (found.ok, found.detail) == (True, f"{count} measurements are as they should be")


def test_reference_values_of_another_gpu_are_refused() -> None:
    h100, gb100 = case("nvidia", "h100-550.90.07"), case("nvidia", "gb100-mpt-gpu0")
    evidence = gb100.changed(driver_rim=h100.evidence.files["driver_rim"])
    result = appraise(evidence, builtin("baseline"), {}, h100.now_ms)
    assert {"nvidia.driver_rim.version", "nvidia.driver_rim.product", "nvidia.measurements"} <= set(result.reasons)
    assert result.authentic


def test_reference_values_expire_with_their_signer() -> None:
    h100 = case("nvidia", "h100-550.90.07")
    late = round(datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000)
    result = appraise(h100.evidence, builtin("baseline"), {}, late)
    assert set(result.reasons) == {"nvidia.driver_rim.chain.validity", "nvidia.vbios_rim.chain.validity"}


def responses() -> dict[str, bytes]:
    folder = need_vectors("nvidia")
    manifest = json.loads((folder / "manifest.json").read_text())
    given = [file["file"] for each in manifest["companions"] for name, file in each["files"].items() if name == "ocsp"]
    return {f"ocsp-{number}": (folder / name).read_bytes() for number, name in enumerate(given)}


def test_ocsp_responses_hold_for_their_day() -> None:
    h100 = case("nvidia", "h100-550.90.07")
    evidence = h100.changed(**responses())
    for day, ok in ((20, False), (21, True), (22, False)):
        now = datetime.datetime(2025, 8, day, 12, tzinfo=datetime.UTC)
        result = appraise(evidence, builtin("baseline"), {}, round(now.timestamp() * 1000))
        assert {check.id: check.ok for check in result.checks}["nvidia.ocsp"] is ok, day
        assert (result.verdict is Verdict.ACCEPT) is ok
    other = case("nvidia", "h100-cert-hold").changed(**responses())
    now = datetime.datetime(2025, 8, 21, 12, tzinfo=datetime.UTC)
    result = appraise(other, builtin("baseline"), {}, round(now.timestamp() * 1000))
    assert {check.id: check.ok for check in result.checks}["nvidia.ocsp"] is None


def test_every_byte_of_a_report_counts() -> None:
    files = case("nvidia", "ls10-96.10.55").evidence.files
    report, leaf = files["report"], x509.load(files["chain"])[0]
    for at in range(len(report)):
        changed = bytearray(report)
        changed[at] ^= 1 << at % 8
        try:
            read = spdm.parse(bytes(changed))
        except Unreadable:
            continue
        assert not verifies(leaf, read.signature, read.signed), at


def test_every_part_of_reference_values_counts() -> None:
    document = case("nvidia", "rim-driver-550.144.03").evidence.files["rim"]
    for at in range(0, document.index(b"<ds:SignatureValue>"), 37):
        changed = bytearray(document)
        changed[at] ^= 1 << at % 7
        try:
            read = rim.parse.__wrapped__(bytes(changed))
        except Unreadable:
            continue
        assert not (read.digest_ok and read.signature_ok), at


def test_a_gpu_is_there_once_whatever_it_is_asked() -> None:
    first, second = case("nvidia", "gb100-mpt-gpu0"), case("nvidia", "gb100-mpt-gpu2")

    def together(*bundle: Case) -> set[str]:
        evidence = [Evidence(Platform.NVIDIA, each.evidence.files) for each in bundle]
        return set(appraise(evidence, builtin("baseline"), {}, first.now_ms).reasons)

    assert together(first, second) == set()
    assert together(first, first) == {"nvidia.distinct"}
