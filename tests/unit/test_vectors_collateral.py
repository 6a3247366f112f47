"""What real evidence needs is asked for in the vendors' ways, and with their own answers it is judged as recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from hanzo_compute.attestation import appraise, builtin
from hanzo_compute.attestation.snp import products, report
from hanzo_compute.attestation.tpm import azure
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.collateral_clock import StillClock
from tests.support.collateral_server import CollateralServer, Reply
from tests.support.collateral_services import fetcher, serve_intel, serve_rim, vcek_path
from tests.support.engines import need_vectors
from tests.support.vectors import Case, case, cases

BASELINE = builtin("baseline")
SNP = {"genoa-ms": "Genoa", "turin-ms": "Turin", "milan-v2-trustee": "Milan", "milan-v3-dstack": "Milan"}
NVIDIA = {
    "driver_rim": "NV_GPU_DRIVER_GH100_550.90.07",
    "vbios_rim": "NV_GPU_VBIOS_1010_0200_882_96009F0001",
}


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        yield made


def without(recorded: Case, *names: str) -> Evidence:
    files = {name: data for name, data in recorded.evidence.files.items() if name not in names}
    return Evidence(recorded.evidence.platform, files)


@pytest.mark.parametrize("name", SNP)
def test_the_key_of_a_report(server: CollateralServer, tmp_path: Path, name: str) -> None:
    recorded, line = case("snp", name), SNP[name]
    folder = resources.files("hanzo_compute.attestation") / "roots"
    levels = recorded.fields["reported_tcb"]
    named = {part: levels[part] for part in ("fmc", "bl", "tee", "snp", "ucode") if part in levels}
    path = vcek_path(line, bytes.fromhex(recorded.fields["chip_id"]), **named)
    server.serve(path, Reply(recorded.evidence.files["vek"]))
    server.serve(f"/vcek/v1/{line}/cert_chain", Reply((folder / f"amd_{line.lower()}.pem").read_bytes()))
    bare = without(recorded, "vek")
    assert appraise(bare, BASELINE, {}, recorded.now_ms).verdict == "unavailable"
    source = fetcher(server, tmp_path, StillClock(recorded.now_ms))
    found = source.fetch([bare], recorded.now_ms)
    assert found.files[Platform.SNP]["vek"] == recorded.evidence.files["vek"]
    assert appraise(bare, BASELINE, found.files, recorded.now_ms).verdict == recorded.verdict
    assert [(each.name, "does not have it" in each.reason) for each in found.missing] == [("crl", True)]
    asked = len(server.asked)
    again = fetcher(server, tmp_path, StillClock(recorded.now_ms), offline=True).fetch([bare], recorded.now_ms)
    assert again.files == found.files
    assert len(server.asked) == asked


def test_a_key_that_is_of_the_provider_is_not_asked_for(server: CollateralServer, tmp_path: Path) -> None:
    recorded = case("snp", "milan-vlek-aws")
    bare = without(recorded, "vek")
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([bare], recorded.now_ms)
    (key,) = [each for each in found.missing if each.name == "vek"]
    assert "the evidence must bring it" in key.reason
    assert key.retry_after_s is None
    assert server.count("/vcek/") == 0


@pytest.mark.parametrize("platform", ["tdx", "sgx"])
def test_collateral_of_quotes(server: CollateralServer, tmp_path: Path, platform: str) -> None:
    judged = 0
    for recorded in cases(platform):
        if "collateral" not in recorded.evidence.files:
            continue
        parts = json.loads(recorded.evidence.files["collateral"])
        authority = "platform" if _of_platform_ca(parts) else "processor"
        serve_intel(server, parts, platform, json.loads(parts["tcb_info"])["fmspc"], authority)
        bare = without(recorded, "collateral")
        assert appraise(bare, BASELINE, {}, recorded.now_ms).verdict in ("unavailable", "reject")
        source = fetcher(server, tmp_path / recorded.id, StillClock(recorded.now_ms))
        found = source.fetch([bare], recorded.now_ms)
        assert found.missing == ()
        assert json.loads(found.files[recorded.evidence.platform]["collateral"]) == parts
        result = appraise(bare, BASELINE, found.files, recorded.now_ms)
        assert (result.authentic, result.verdict) == (recorded.authentic, recorded.verdict), recorded.id
        judged += 1
    assert judged >= 2


def _of_platform_ca(parts: dict[str, str]) -> bool:
    return b"Platform CA" in bytes.fromhex(parts["pck_crl"])


def test_reference_values_of_a_gpu(server: CollateralServer, tmp_path: Path) -> None:
    recorded = case("nvidia", "h100-550.90.07")
    for name, rim_id in NVIDIA.items():
        serve_rim(server, rim_id, recorded.evidence.files[name])
    bare = without(recorded, *NVIDIA)
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([bare], recorded.now_ms)
    had = found.files[Platform.NVIDIA]
    assert set(had.values()) == {recorded.evidence.files[name] for name in NVIDIA}
    result = appraise(bare, BASELINE, found.files, recorded.now_ms)
    assert result.verdict == "accept"
    assert next(check for check in result.checks if check.id == "nvidia.measurements").ok
    assert {each.name.split("-")[0] for each in found.missing} == {"ocsp"}


def test_recorded_status_answers_no_nonce_of_ours(server: CollateralServer, tmp_path: Path) -> None:
    recorded = case("nvidia", "h100-550.90.07")
    server.serve("/", Reply((need_vectors("nvidia") / "ocsp-test_gpu_certificate_l4.der").read_bytes()))
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([recorded.evidence], recorded.now_ms)
    reasons = [each.reason for each in found.missing]
    assert any("does not answer the nonce" in reason for reason in reasons)
    assert all("answered with something else" in reason for reason in reasons)
    assert Platform.NVIDIA not in found.files


def test_the_key_of_a_report_inside_of_azures_evidence(server: CollateralServer, tmp_path: Path) -> None:
    recorded = case("tpm", "azure-snp-genoa")
    bare = without(recorded, "vek")
    said = report.parse(azure.parse(bare.files["hcl_report"]).report)
    assert said.line is not None
    levels = products.components(said.reported_tcb, said.line)
    server.serve(vcek_path(said.line, said.chip_id, **levels), Reply(recorded.evidence.files["vek"]))
    assert appraise(bare, BASELINE, {}, recorded.now_ms).verdict == "unavailable"
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([bare], recorded.now_ms)
    assert found.files[Platform.TPM] == {"vek": recorded.evidence.files["vek"]}
    result = appraise(bare, BASELINE, found.files, recorded.now_ms)
    assert (result.authentic, result.verdict) == (recorded.authentic, recorded.verdict)
