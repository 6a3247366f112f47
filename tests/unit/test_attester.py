"""The attester of a machine: which sources are asked, in which order, and what binds what they say together."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hanzo_compute.adapters.attester import HardwareAttester, Sources, nsm, nvml, sev_guest, tsm
from hanzo_compute.adapters.attester.tpm import Tpm
from hanzo_compute.adapters.attester.tpm_tools import Tools
from hanzo_compute.attestation import Binding, Policy, Verdict, appraise, builtin
from hanzo_compute.attestation.policy import from_document
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform, Tier, bundle_digest
from hanzo_compute.ports import Attester, Found, Missing
from tests.support import mint_nitro, pki
from tests.support.fake_devices import REPORT_DATA_AT, Nsm, SevGuest
from tests.support.fake_nvml import FakeNvml
from tests.support.fake_tsm import ROOT, Blobs, Entry, KernelTsm
from tests.support.swtpm import SoftwareTpm, software_tpm

NONCE = bytes(range(32))
SIGNING = (
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
)
SEALING = bytes(range(64, 96))
BINDING = Binding(NONCE, SIGNING, SEALING)
ANY = Path("/dev/null")


@pytest.fixture(scope="module")
def software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftwareTpm]:
    with software_tpm(tmp_path_factory.mktemp("tpm") / "one") as running:
        yield running


def found(*ready: Platform) -> Sequence[Found]:
    """A look at a machine that has these."""
    there = [Found(each.value, each, True, "there") for each in ready]
    absent = [each for each in Platform if each not in ready and each is not Platform.SGX]
    return there + [Found(each.value, each, False, "absent", {}, (Missing("it", "absent", "buy"),)) for each in absent]


def report(user_data: bytes, vmpl: int) -> bytes:
    body = bytearray(1184)
    body[REPORT_DATA_AT : REPORT_DATA_AT + 64] = user_data
    return bytes(body)


@dataclass
class Machine:
    """Sources that are played, and whatever was asked of them."""

    ready: tuple[Platform, ...]
    kernel: KernelTsm | None = None
    guest: SevGuest = field(default_factory=lambda: SevGuest(report, b"certificates"))
    module: Nsm = field(default_factory=lambda: Nsm(lambda _: {"Error": "InternalError"}))
    gpus: FakeNvml = field(default_factory=lambda: FakeNvml(count=2))
    tpm: Tpm = field(default_factory=lambda: Tpm(Tools("none"), None))
    asked: list[str] = field(default_factory=list)

    def attester(self, folder: Path) -> HardwareAttester:
        def by_tsm(request: tsm.Request, _root: Path) -> tsm.Report:
            self.asked.append("tsm")
            assert self.kernel is not None
            return tsm.collect(request, ROOT, tree=self.kernel, sleep=lambda _: None)

        def by_device(data: bytes) -> sev_guest.Report:
            self.asked.append("sev-guest")
            return sev_guest.collect(data, device=ANY, call=self.guest)

        def by_nsm(*given: bytes | None) -> bytes:
            self.asked.append("nsm")
            return nsm.attest(*given, device=ANY, call=self.module)

        def by_nvml(nonce: bytes) -> list[Evidence]:
            self.asked.append("nvml")
            return nvml.collect(nonce, self.gpus)

        root = folder / "report"
        if self.kernel is not None:
            root.mkdir()
        return HardwareAttester(
            Sources(self.tpm, "sha256:0,1,2,3,4,5,6,7", lambda: found(*self.ready), root, by_tsm, by_device, by_nsm,
                    by_nvml, folder / "ccel")
        )  # fmt: skip


def test_it_is_an_attester(tmp_path: Path) -> None:
    assert isinstance(Machine(()).attester(tmp_path), Attester)


def test_nothing_is_ready(tmp_path: Path) -> None:
    attester = Machine(()).attester(tmp_path)
    with pytest.raises(EvidenceUnavailable, match="snp: absent; tdx: absent") as failed:
        attester.collect(BINDING)
    assert failed.value.data["missing"]["tpm"] == [{"what": "it", "why": "absent", "remedy": "buy"}]
    with pytest.raises(EvidenceUnavailable, match=r"\(tdx: absent\)"):
        Machine((Platform.SNP,)).attester(tmp_path).answer(NONCE, Platform.TDX)


class TestSnp:
    def test_by_the_device(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP,))
        (evidence,) = machine.attester(tmp_path).collect(BINDING)
        assert evidence.platform is Platform.SNP
        assert evidence.files["report"] == report(BINDING.report_data(), 0)
        assert evidence.files["cert_table"].startswith(b"certificates")
        assert machine.asked == ["sev-guest"]

    def test_by_configfs_where_it_is_there(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP,), KernelTsm(lambda entry: (report(entry.inblob, 0), b"", b"")))
        (evidence,) = machine.attester(tmp_path).collect(BINDING)
        assert evidence.files == {"report": report(BINDING.report_data(), 0)}
        assert machine.asked == ["tsm"]

    def test_of_another_provider(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP,), KernelTsm(lambda entry: (entry.inblob, b"", b""), provider="tdx_guest"))
        with pytest.raises(EvidenceUnavailable, match="answers for tdx_guest, not for sev_guest"):
            machine.attester(tmp_path).collect(BINDING)

    def test_a_report_that_answers_somebody_else(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP,), guest=SevGuest(lambda _data, vmpl: report(bytes(64), vmpl)))
        with pytest.raises(EvidenceUnavailable, match="does not carry the report data"):
            machine.attester(tmp_path).collect(BINDING)


def test_tdx_with_its_log(tmp_path: Path) -> None:
    def quote(entry: Entry) -> Blobs:
        return b"quote" + entry.inblob, b"", b""

    attributes = frozenset({"inblob", "outblob", "generation", "provider"})
    kernel = KernelTsm(quote, provider="tdx_guest", attributes=attributes)
    attester = Machine((Platform.TDX,), kernel).attester(tmp_path)
    assert attester.answer(NONCE)[0].files == {"quote": b"quote" + NONCE.ljust(64, b"\0")}
    (tmp_path / "ccel").write_bytes(b"events")
    assert attester.collect(BINDING)[0].files == {"quote": b"quote" + BINDING.report_data(), "ccel": b"events"}


class TestNitro:
    ENCLAVE = mint_nitro.enclave()

    def module(self) -> Nsm:
        """A security module whose documents an authority of our own vouches for."""

        def answer(request: Any) -> Any:
            return {"Attestation": {"document": self.ENCLAVE.document(**request["Attestation"])}}

        return Nsm(answer)

    def test_what_is_collected_is_accepted(self, tmp_path: Path) -> None:
        attester = Machine((Platform.NITRO,), module=self.module()).attester(tmp_path)
        evidence = attester.collect(BINDING)
        result = self.judged(evidence, binding=BINDING)
        assert (result.verdict, result.tier) == (Verdict.ACCEPT, Tier.CPU_TEE), result.reasons
        checks = {each.id: each.ok for each in result.checks}
        assert (checks["nitro.binding"], checks["nitro.nonce"]) == (True, True)
        other = Binding(NONCE, SIGNING, bytes(32))
        assert "nitro.binding" in self.judged(evidence, binding=other).reasons
        assert "nitro.nonce" in self.judged(evidence, binding=Binding(bytes(32), SIGNING, SEALING)).reasons

    def test_an_answer_to_a_nonce(self, tmp_path: Path) -> None:
        evidence = Machine((Platform.NITRO,), module=self.module()).attester(tmp_path).answer(NONCE)
        assert self.judged(evidence, nonce=NONCE).verdict is Verdict.ACCEPT
        assert self.judged(evidence, nonce=bytes(32)).reasons == ("nitro.nonce",)

    def judged(self, evidence: Sequence[Evidence], **given: Any) -> Any:
        policy = Policy.model_validate(
            builtin("baseline").model_dump() | {"require": {"freshness": True, "binding": "binding" in given,
                                                            "measurement": False}}
        )  # fmt: skip
        return appraise(evidence, policy, {}, pki.NOW_MS, anchors=[self.ENCLAVE.root], **given)


class TestGpus:
    def test_they_are_asked_first_and_the_cpu_commits_to_them(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP, Platform.NVIDIA))
        cpu, *gpus = machine.attester(tmp_path).collect(BINDING)
        assert machine.asked == ["nvml", "sev-guest"]
        assert [each.files["report"][4:36] for each in gpus] == [BINDING.gpu_nonce()] * 2
        bound = Binding(NONCE, SIGNING, SEALING, bundle_digest(gpus))
        assert bound.report_data() in cpu.files["report"]
        assert BINDING.report_data() not in cpu.files["report"]
        assert machine.gpus.ready == 0

    def test_they_are_looked_at_by_themselves(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP, Platform.NVIDIA))
        found = machine.attester(tmp_path).answer(NONCE, Platform.NVIDIA)
        assert [each.platform for each in found] == [Platform.NVIDIA] * 2
        assert machine.asked == ["nvml"]

    def test_a_gpu_in_a_wrong_mode_is_not_left_out(self, tmp_path: Path) -> None:
        machine = Machine((Platform.SNP, Platform.NVIDIA), gpus=FakeNvml(devtools=1))
        with pytest.raises(EvidenceUnavailable, match="devtools"):
            machine.attester(tmp_path).collect(BINDING)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_nonce_has_32_bytes(tmp_path: Path, size: int) -> None:
    with pytest.raises(InvalidRequest):
        Machine((Platform.SNP,)).attester(tmp_path).answer(bytes(size))


class TestTpm:
    def policy(self, software: SoftwareTpm) -> Policy:
        """That of a demonstration, whose operator has pinned the authority of the software TPM."""
        document = builtin("local-demo").model_dump(mode="json")
        document["tpm"]["roots"] = [software.root.decode()]
        return from_document(document)

    def test_what_is_collected_is_accepted_once_its_key_was_activated(
        self, software: SoftwareTpm, tmp_path: Path
    ) -> None:
        attester = Machine((Platform.TPM,), tpm=Tpm(Tools(software.tcti), None)).attester(tmp_path)
        evidence = attester.collect(BINDING)
        policy, collateral = self.policy(software), {Platform.TPM: {"ca": software.issuer}}
        now = time.time_ns() // 1_000_000  # the certificates are as young as the TPM
        given: dict[str, Any] = {"binding": BINDING, "anchors": []}
        before = appraise(evidence, policy, collateral, now, **given)
        assert before.verdict is Verdict.REJECT
        names = self.activated(software, attester, evidence[0])
        after = appraise(evidence, policy, collateral, now, activated=[names], **given)
        assert (after.verdict, after.tier) == (Verdict.ACCEPT, Tier.AT_REST), after.reasons
        other = Binding(NONCE, SIGNING, bytes(32))
        moved = appraise(evidence, policy, collateral, now, activated=[names], binding=other)
        assert moved.reasons == ("tpm.binding",)

    def activated(self, software: SoftwareTpm, attester: HardwareAttester, evidence: Evidence) -> tuple[bytes, bytes]:
        """The verifier's side: a secret for the key's name and the endorsement key, which must come back."""
        (software.folder / "ek").write_bytes(evidence.files["ek_tpm2b"])
        (software.folder / "ak").write_bytes(evidence.files["ak_tpm2b"])
        (software.folder / "secret").write_bytes(SEALING)
        software.tool("loadexternal", "-C", "n", "-u", "ak", "-c", "ak.ctx", "-n", "ak.name")
        name = software.read("ak.name")
        software.tool("makecredential", "-T", "none", "-u", "ek", "-s", "secret", "-n", name.hex(), "-o", "credential")
        assert attester.activate(software.read("credential")[8:]) == SEALING
        return b"\x00\x0b" + hashlib.sha256(evidence.files["ek_tpm2b"][2:]).digest(), name

    def test_one_key_for_all_its_evidence(self, software: SoftwareTpm, tmp_path: Path) -> None:
        attester = Machine((Platform.TPM,), tpm=Tpm(Tools(software.tcti), None)).attester(tmp_path)
        first, second = attester.answer(NONCE)[0], attester.collect(BINDING)[0]
        assert first.files["ak_tpm2b"] == second.files["ak_tpm2b"]
        assert first.files["message"] != second.files["message"]
