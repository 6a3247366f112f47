"""`hzc attest collect` and `hzc attest selftest`, on a machine that has a software TPM and nothing else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hanzo_compute.adapters.attester import detect
from hanzo_compute.errors import EvidenceUnavailable
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import Found
from hanzo_compute_host.cli.checks import all_checks
from hanzo_compute_host.cli.evidence_bundle import Bundle
from tests.support.cli import Hzc
from tests.support.swtpm import SoftwareTpm, software_tpm

NONCE = "5a" * 32


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    """One whose maker stored its authority in it."""
    with software_tpm(tmp_path_factory.mktemp("tpm") / "one") as running:
        der = x509.load_pem_x509_certificate(running.issuer).public_bytes(Encoding.DER)
        (running.folder / "issuer").write_bytes(der)
        running.tool("nvdefine", "0x1c00100", "-C", "o", "-s", str(len(der)), "-a", "ownerread|ownerwrite|authread")
        running.tool("nvwrite", "0x1c00100", "-C", "o", "-i", "issuer")
        (running.folder / "root.pem").write_bytes(running.root)
        yield running


@pytest.fixture
def hzc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hzc:
    """The command, on a machine without any hardware."""
    looked, nothing = detect.detect, tmp_path / "machine"
    nothing.mkdir()
    monkeypatch.setattr(detect, "detect", lambda **given: looked(detect.Machine(nothing), **given))
    return Hzc({"HZC_HOME": str(tmp_path / "home")})


class TestCollect:
    def test_what_is_collected_can_be_judged(self, hzc: Hzc, software: SoftwareTpm, tmp_path: Path) -> None:
        out = tmp_path / "evidence"
        shown = hzc("attest", "collect", "--tcti", software.tcti, "--nonce", NONCE, "--out", str(out))
        assert "tpm" in shown.stdout
        assert f"--batch {out / 'manifest.json'} --nonce {NONCE}" in shown.stderr
        assert {"message", "signature", "pcrs", "ak"} <= {each.name for each in (out / "tpm").iterdir()}
        batch = (
            "attest",
            "verify",
            "--batch",
            str(out / "manifest.json"),
            "--anchor",
            str(software.folder / "root.pem"),
        )
        result = hzc.json(*batch, "--nonce", NONCE)
        assert (result["id"], result["authentic"], result["verdict"]) == ("tpm", True, "accept"), result["reasons"]
        assert hzc.json(*batch, "--nonce", "00" * 32)["reasons"] == ["tpm.nonce"]
        assert "tpm.nonce" in hzc.json(*batch, "--nonce", "00" * 32)["reasons"]

    def test_as_json(self, hzc: Hzc, software: SoftwareTpm, tmp_path: Path) -> None:
        out = tmp_path / "evidence"
        told = hzc.json("attest", "collect", "--tcti", software.tcti, "--platform", "tpm", "--out", str(out))
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["cases"] == told["cases"]
        (case,) = told["cases"]
        assert (case["platform"], case["nonce"], len(case["nonce"])) == ("tpm", told["nonce"], 64)
        assert case["files"]["message"]["file"] == "tpm/message"

    def test_nothing_is_written_over(self, hzc: Hzc, software: SoftwareTpm, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        told = hzc("attest", "collect", "--tcti", software.tcti, "--out", str(tmp_path), code=2)
        assert "nothing is written over" in told.stderr

    def test_without_hardware(self, hzc: Hzc, tmp_path: Path) -> None:
        told = hzc("attest", "collect", "--out", str(tmp_path / "evidence"), code=3)
        assert "nothing here gives evidence (SEV-SNP guest: not there" in told.stderr
        assert not (tmp_path / "evidence").exists()
        problem = json.loads(hzc("attest", "collect", "-o", "json", code=3).stderr)
        assert problem["code"] == "evidence_unavailable"
        assert set(problem["missing"]) == {"SEV-SNP guest", "TDX guest", "Nitro Enclave", "NVIDIA GPU", "TPM"}

    @pytest.mark.parametrize("nonce", ["", "5a", "zz" * 32, "5a" * 33])
    def test_what_is_no_nonce(self, hzc: Hzc, nonce: str) -> None:
        assert "64 hex digits" in hzc("attest", "collect", "--nonce", nonce, code=2).stderr


class TestSelftest:
    def test_a_bundle_that_can_be_judged_elsewhere(self, hzc: Hzc, software: SoftwareTpm, tmp_path: Path) -> None:
        archive = tmp_path / "bundle.tar.gz"
        root = str(software.folder / "root.pem")
        told = hzc("attest", "selftest", "--tcti", software.tcti, "--anchor", root, "--out", str(archive))
        assert "accept: authentic" in told.stdout
        assert f"written to {archive}" in told.stderr
        with tarfile.open(archive) as files:
            files.extractall(tmp_path / "there", filter="data")
        recorded = json.loads((tmp_path / "there" / "result.json").read_text())
        batch = ("attest", "verify", "--batch", str(tmp_path / "there" / "manifest.json"), "--anchor", root)
        result = hzc.json(*batch)
        assert (result["verdict"], recorded["results"][0]["verdict"]) == ("accept", "accept")
        assert result["evidence"] == recorded["results"][0]["evidence"]
        assert [each["name"] for each in recorded["found"] if each["ready"]] == ["TPM"]

    def test_what_is_rejected_is_archived_too(self, hzc: Hzc, software: SoftwareTpm, tmp_path: Path) -> None:
        archive = tmp_path / "bundle.tar.gz"
        told = hzc.json("attest", "selftest", "--tcti", software.tcti, "--out", str(archive), code=4)
        assert told["archive"] == str(archive)
        assert told["results"][0]["verdict"] == "reject"
        assert {"manifest.json", "result.json", "tpm/message"} <= names(archive)
        assert "nothing is written over" in hzc("attest", "selftest", "--out", str(archive), code=2).stderr

    def test_without_hardware(self, hzc: Hzc, tmp_path: Path) -> None:
        told = hzc("attest", "selftest", "--out", str(tmp_path / "bundle"), code=3)
        assert "no evidence: there is no hardware here that gives any" in told.stderr
        assert "it takes a guest of AMD SEV-SNP" in told.stdout
        assert not (tmp_path / "bundle").exists()
        document = hzc.json("attest", "selftest", code=3)
        assert (document["archive"], document["results"], len(document["found"])) == (None, [], 6)

    def test_a_source_that_fails_does_not_hide_the_others(
        self, hzc: Hzc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hanzo_compute.wiring.attester", lambda _tcti: Half())
        archive = tmp_path / "bundle.tar.gz"
        told = hzc.json("attest", "selftest", "--out", str(archive), code=4)
        assert told["failures"]["snp"]["detail"] == "the host is busy"
        assert [each["id"] for each in told["results"]] == ["nitro"]
        shown = hzc("attest", "selftest", "--out", str(tmp_path / "other.tar.gz"), code=4)
        assert "snp: the host is busy (try: later)" in shown.stderr
        assert "nitro/doc" in names(archive)

    def test_an_appraisal_that_breaks_loses_no_evidence(
        self, hzc: Hzc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **_given: object) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr("hanzo_compute.wiring.attester", lambda _tcti: Half())
        monkeypatch.setattr("hanzo_compute.attestation.appraise", broken)
        archive = tmp_path / "bundle.tar.gz"
        told = hzc.json("attest", "selftest", "--out", str(archive), code=3)
        assert "ZeroDivisionError: a defect" in told["failures"]["nitro"]["detail"]
        assert "nitro/doc" in names(archive)


class Half:
    """An attester of two sources: one gives nothing, the other what is no evidence."""

    def detect(self) -> Sequence[Found]:
        return [Found(each.value, each, True, "there") for each in (Platform.SNP, Platform.NITRO)]

    def answer(self, nonce: bytes, only: Platform) -> Sequence[Evidence]:
        if only is Platform.SNP:
            raise EvidenceUnavailable("the host is busy", hint="later")
        return [Evidence(only, {"doc": nonce})]


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as files:
        return set(files.getnames())


def test_several_of_one_platform_are_numbered() -> None:
    gpus = [Evidence(Platform.NVIDIA, {"report": bytes([gpu])}) for gpu in range(2)]
    bundle = Bundle([Evidence(Platform.SNP, {"report": b"cpu"}), *gpus], bytes(32), 0)
    assert [name for name, _ in bundle.named()] == ["snp", "nvidia-0", "nvidia-1"]
    assert bundle.files()["nvidia-1/report"] == b"\x01"


def test_doctor_tells_of_every_source(hzc: Hzc, tmp_path: Path) -> None:
    checks = {each.name: each for each in all_checks(tmp_path / "home", 0)}
    for name in ("SEV-SNP guest", "TDX guest", "Nitro Enclave", "NVIDIA GPU", "TPM", "KVM"):
        assert checks[name].verdict == "absent"
        assert "would enable" in checks[name].means
    assert checks["TPM"].found == "not there"
    assert checks["TPM"].means.startswith("it takes a machine with a TPM 2.0; would enable privacy tier at_rest")
    (tmp_path / "machine/dev").mkdir()
    (tmp_path / "machine/dev/kvm").touch()
    checks = {each.name: each for each in all_checks(tmp_path / "home", 0)}
    assert (checks["KVM"].verdict, checks["KVM"].found) == ("ok", "/dev/kvm")


def test_hzc_attest_lists_its_commands(hzc: Hzc) -> None:
    shown = hzc("attest", "--help").stdout
    commands: Any = ("collect", "selftest", "verify", "explain")
    assert all(each in shown for each in commands)
