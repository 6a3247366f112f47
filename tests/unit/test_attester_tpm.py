"""Evidence and sealed keys of a TPM, on a real software TPM; an independent tool checks the quotes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from hanzo_compute.adapters.attester import tpm_tools
from hanzo_compute.adapters.attester.tpm import AttestationKey, Tpm, selected
from hanzo_compute.adapters.attester.tpm_seal import Sealed, seal, unseal
from hanzo_compute.adapters.attester.tpm_tools import ToolFailed, Tools
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform
from tests.support.swtpm import SoftwareTpm, software_tpm

QUALIFYING = bytes(range(32))
KEY = bytes(range(100, 132))


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm") / "one") as found:
        yield found


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm") / "two") as found:
        yield found


def of(software: SoftwareTpm, event_log: Path | None = None) -> Tpm:
    return Tpm(Tools(software.tcti), event_log)


@pytest.fixture(scope="module")
def key(software: SoftwareTpm) -> AttestationKey:
    return of(software).make_key()


@pytest.fixture(scope="module")
def evidence(software: SoftwareTpm, key: AttestationKey) -> Evidence:
    """One quote, for the tests that look at what comes with it."""
    return of(software).quote(key, QUALIFYING, "sha256:0")


def checked(software: SoftwareTpm, evidence: Evidence, qualifying: bytes) -> bool:
    """Whether tpm2_checkquote, which needs no TPM, accepts it."""
    for name in ("message", "signature", "pcrs", "ak"):
        (software.folder / f"check.{name}").write_bytes(evidence.files[name])
    command = ["tpm2_checkquote", "-u", "check.ak", "-m", "check.message", "-s", "check.signature", "-f", "check.pcrs"]
    command += ["-g", "sha256", "-q", qualifying.hex()]
    return subprocess.run(command, cwd=software.folder, capture_output=True, check=False).returncode == 0


def credential(software: SoftwareTpm, evidence: Evidence, name: bytes, secret: bytes) -> bytes:
    """A verifier's challenge, made without a TPM for the EK and the name of the AK in evidence."""
    (software.folder / "verifier.ek").write_bytes(evidence.files["ek_tpm2b"])
    (software.folder / "verifier.secret").write_bytes(secret)
    made = ("-T", "none", "-u", "verifier.ek", "-s", "verifier.secret", "-n", name.hex(), "-o", "verifier.blob")
    software.tool("makecredential", *made)
    return software.read("verifier.blob")[8:]


def handles(software: SoftwareTpm) -> bytes:
    return software._run("tpm2_getcap", "handles-transient") + software._run("tpm2_getcap", "handles-loaded-session")


class TestQuote:
    def test_a_quote_holds(self, software: SoftwareTpm, key: AttestationKey) -> None:
        found = of(software).quote(key, QUALIFYING)
        assert found.platform is Platform.TPM
        names = {"message", "signature", "pcrs", "ak", "ak_tpm2b", "ek_tpm2b", "ek_cert"}
        assert set(found.files) == names
        assert checked(software, found, QUALIFYING)
        assert not checked(software, found, bytes(32))
        assert found.files["ak_tpm2b"] == key.public
        load_pem_public_key(found.files["ak"])

    def test_its_certificate_is_of_the_authority(self, software: SoftwareTpm, evidence: Evidence) -> None:
        certificate = x509.load_der_x509_certificate(evidence.files["ek_cert"])
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(software.issuer))
        modulus = certificate.public_key().public_numbers().n  # type: ignore[union-attr]
        assert modulus.to_bytes(256, "big") in evidence.files["ek_tpm2b"]

    def test_the_authorities_in_the_tpm_go_with_it(self, software: SoftwareTpm, key: AttestationKey) -> None:
        """One stream of certificates, cut at any place, with filling at its end."""
        issuer = x509.load_pem_x509_certificate(software.issuer).public_bytes(Encoding.DER)
        root = x509.load_pem_x509_certificate(software.root).public_bytes(Encoding.DER)
        stream = issuer + root
        stored = {"0x1c00100": stream[:700], "0x1c00101": stream[700:1400], "0x1c00102": stream[1400:] + bytes(20)}
        for index, data in stored.items():
            (software.folder / "nv").write_bytes(data)
            software.tool("nvdefine", index, "-C", "o", "-s", str(len(data)), "-a", "ownerread|ownerwrite|authread")
            software.tool("nvwrite", index, "-C", "o", "-i", "nv")
        try:
            files = of(software).quote(key, QUALIFYING, "sha256:0").files
        finally:
            for index in stored:
                software.tool("nvundefine", index, "-C", "o")
        assert (files["ca_0"], files["ca_1"]) == (issuer, root)
        assert "ca_2" not in files

    def test_the_firmware_log_goes_with_it(self, software: SoftwareTpm, key: AttestationKey, tmp_path: Path) -> None:
        assert "eventlog" not in of(software, tmp_path / "none").quote(key, QUALIFYING, "sha256:0").files
        log = tmp_path / "log"
        log.write_bytes(b"events")
        assert of(software, log).quote(key, QUALIFYING, "sha256:0").files["eventlog"] == b"events"

    def test_nothing_is_left_in_the_tpm(self, software: SoftwareTpm, key: AttestationKey) -> None:
        of(software).quote(key, QUALIFYING)
        seal(Tools(software.tcti), KEY)
        assert handles(software) == b""

    @pytest.mark.parametrize(
        "pcrs", ["", "sha1:0", "sha256:", "sha256:24", "sha256:0,0", "sha256:0,", "sha256:0+sha1:0", "sha256:all"]
    )
    def test_what_selects_nothing(self, software: SoftwareTpm, key: AttestationKey, pcrs: str) -> None:
        with pytest.raises(InvalidRequest, match="selects no PCRs"):
            of(software).quote(key, QUALIFYING, pcrs)

    @pytest.mark.parametrize("size", [0, 65])
    def test_sizes_of_qualifying_data(self, software: SoftwareTpm, key: AttestationKey, size: int) -> None:
        with pytest.raises(InvalidRequest):
            of(software).quote(key, bytes(size))

    def test_a_key_of_another_tpm(self, other: SoftwareTpm, key: AttestationKey) -> None:
        with pytest.raises(ToolFailed, match="tpm2_load failed"):
            of(other).quote(key, QUALIFYING)
        assert handles(other) == b""


class TestActivation:
    def test_the_secret_comes_back(self, software: SoftwareTpm, key: AttestationKey, evidence: Evidence) -> None:
        blob = credential(software, evidence, key.name, KEY)
        assert of(software).activate(key, blob) == KEY
        assert handles(software) == b""

    def test_not_for_another_key(self, software: SoftwareTpm, key: AttestationKey, evidence: Evidence) -> None:
        blob = credential(software, evidence, of(software).make_key().name, KEY)
        with pytest.raises(ToolFailed, match="activatecredential"):
            of(software).activate(key, blob)

    def test_not_in_another_tpm(self, software: SoftwareTpm, other: SoftwareTpm, key: AttestationKey) -> None:
        """The attestation key of one TPM, and the endorsement key of another."""
        foreign = of(other).quote(of(other).make_key(), QUALIFYING, "sha256:0")
        blob = credential(other, foreign, key.name, KEY)
        with pytest.raises(ToolFailed, match="activatecredential"):
            of(software).activate(key, blob)

    @pytest.mark.parametrize("blob", [b"", bytes(3), b"\x00\x05ab", b"\x00\x01a\x00\x01bc", bytes(2000)])
    def test_what_is_no_credential(self, software: SoftwareTpm, key: AttestationKey, blob: bytes) -> None:
        with pytest.raises(InvalidRequest, match="a credential is"):
            of(software).activate(key, blob)


class TestSeal:
    def test_a_key_comes_back_until_a_pcr_moves(self, software: SoftwareTpm) -> None:
        tools = Tools(software.tcti)
        sealed = seal(tools, KEY, "sha256:0,1,2,3,4,5,6,7,8,9,16")
        assert KEY not in sealed.public + sealed.private
        assert unseal(tools, sealed) == KEY
        software.tool("pcrextend", f"16:sha256={'11' * 32}")
        with pytest.raises(EvidenceUnavailable, match="a policy check failed"):
            unseal(tools, sealed)
        software.tool("pcrreset", "16")
        assert unseal(tools, sealed) == KEY

    def test_each_part_of_a_long_selection_counts(self, software: SoftwareTpm) -> None:
        """More than eight PCRs are more than one command: the first of them must not be forgotten."""
        tools = Tools(software.tcti)
        sealed = seal(tools, KEY, "sha256:16,0,1,2,3,4,5,6,7,8")
        software.tool("pcrextend", f"16:sha256={'22' * 32}")
        with pytest.raises(EvidenceUnavailable, match="a policy check failed"):
            unseal(tools, sealed)
        software.tool("pcrreset", "16")

    def test_no_password_opens_it(self, software: SoftwareTpm) -> None:
        sealed = seal(Tools(software.tcti), KEY, "sha256:0")
        (software.folder / "s.pub").write_bytes(sealed.public)
        (software.folder / "s.priv").write_bytes(sealed.private)
        software.tool("createprimary", "-C", "o", "-G", "ecc", "-g", "sha256", "-c", "s.primary")
        software.tool("load", "-C", "s.primary", "-u", "s.pub", "-r", "s.priv", "-c", "s.ctx")
        with pytest.raises(AssertionError, match="auth"):
            software.tool("unseal", "-c", "s.ctx")
        software._run("tpm2_flushcontext", "-t")

    def test_not_with_another_selection(self, software: SoftwareTpm) -> None:
        sealed = seal(Tools(software.tcti), KEY, "sha256:0,7")
        with pytest.raises(EvidenceUnavailable, match="a policy check failed"):
            unseal(Tools(software.tcti), Sealed("sha256:0", sealed.public, sealed.private))

    def test_not_in_another_tpm(self, software: SoftwareTpm, other: SoftwareTpm) -> None:
        sealed = seal(Tools(software.tcti), KEY, "sha256:0")
        with pytest.raises(EvidenceUnavailable, match="tpm2_load failed"):
            unseal(Tools(other.tcti), sealed)

    def test_sizes(self, software: SoftwareTpm) -> None:
        with pytest.raises(InvalidRequest, match="32 bytes"):
            seal(Tools(software.tcti), bytes(16))


class TestTools:
    def test_no_tpm(self) -> None:
        with pytest.raises(ToolFailed) as failed:
            Tpm(Tools("swtpm:host=127.0.0.1,port=1"), None).make_key()
        assert "is there a TPM at swtpm:host=127.0.0.1,port=1" in str(failed.value.hint)

    def test_no_tools(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(ToolFailed, match="is not installed"):
            Tpm(Tools("none"), None).make_key()
        assert "tpm2_quote" in tpm_tools.missing_tools()

    def test_a_tool_that_does_not_end(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        tool = tmp_path / "tpm2_getcap"
        tool.write_text("#!/bin/sh\nexec sleep 10\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        with pytest.raises(ToolFailed, match="did not end"):
            Tpm(Tools("none", timeout_s=0.2), None).make_key()

    def test_the_folder_goes_and_is_private(self, software: SoftwareTpm) -> None:
        with Tools(software.tcti).session() as at:
            folder = at.folder
            assert folder.stat().st_mode & 0o777 == 0o700
        assert not folder.exists()


def test_selections() -> None:
    assert selected("sha256:0") == ("sha256", [0])
    assert selected("sha384:23,1") == ("sha384", [23, 1])
