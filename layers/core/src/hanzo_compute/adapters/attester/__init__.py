"""Evidence of the machine that this process runs on, put together: CPU, GPUs and TPM.

Order matters. The GPUs are asked first, with a nonce that follows from the challenge and the keys; then the CPU's
evidence and the TPM's commit to the digest of what the GPUs answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from hanzo_compute.adapters.attester import detect, nsm, nvml, sev_guest, tsm
from hanzo_compute.adapters.attester.tpm import PCRS, AttestationKey, Tpm
from hanzo_compute.attestation.binding import Binding
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest
from hanzo_compute.model.evidence import EVIDENCE_FILE_MAX, Evidence, Platform, gpu_digest
from hanzo_compute.ports.attesters import Challenge, Found

CCEL = Path("/sys/firmware/acpi/tables/data/CCEL")
"""TDX: the firmware's log of what it measured into the RTMRs."""
NONCE = 32
_PROVIDERS = {Platform.SNP: "sev_guest", Platform.TDX: "tdx_guest"}

__all__ = ["HardwareAttester", "Sources"]


@dataclass(frozen=True)
class Sources:
    """Where evidence comes from; each can be replaced."""

    tpm: Tpm = field(default_factory=Tpm)
    pcrs: str = PCRS
    found: Callable[[], Sequence[Found]] | None = None
    """What is there; None: look at this machine."""
    tsm_root: Path = tsm.ROOT
    tsm: Callable[[tsm.Request, Path], tsm.Report] = tsm.collect
    sev_guest: Callable[[bytes], sev_guest.Report] = sev_guest.collect
    nsm: Callable[[bytes | None, bytes | None, bytes | None], bytes] = nsm.attest
    gpus: Callable[[bytes], Sequence[Evidence]] = nvml.collect
    ccel: Path = CCEL


@dataclass(frozen=True)
class _Asked:
    """What each source is asked with."""

    report_data: bytes
    qualifying_data: bytes
    user_data: bytes | None
    nonce: bytes
    public_key: bytes | None


class HardwareAttester:
    """The attester of this machine: whatever is ready gives evidence.

    Its TPM's attestation key is made once, at the first evidence, and lives as long as this object: a credential that
    is made for it can be activated after the evidence was given.
    """

    def __init__(self, sources: Sources | None = None) -> None:
        self._from = sources or Sources()
        self._making = Lock()
        self._key: AttestationKey | None = None

    def detect(self) -> Sequence[Found]:
        """What is here and what is missing."""
        if self._from.found is not None:
            return self._from.found()
        return detect.detect(tcti=self._from.tpm.tools.tcti)

    def collect(self, binding: Challenge) -> Sequence[Evidence]:
        """Evidence of all that is ready, bound together. Raises EvidenceUnavailable."""
        ready = self._ready(None)
        bound = Binding(binding.nonce, binding.signing_key, binding.sealing_key)
        gpus = self._from.gpus(bound.gpu_nonce()) if Platform.NVIDIA in ready else []
        bound = Binding(binding.nonce, binding.signing_key, binding.sealing_key, gpu_digest(gpus))
        data = bound.report_data()
        asked = _Asked(data, bound.qualifying_data(), data, binding.nonce, binding.sealing_key)
        return [*self._machine(ready, asked), *gpus]

    def answer(self, nonce: bytes, only: Platform | None = None) -> Sequence[Evidence]:
        """Evidence that carries the nonce and commits to nothing. Raises EvidenceUnavailable."""
        if len(nonce) != NONCE:
            raise InvalidRequest(f"a nonce has {NONCE} bytes, not {len(nonce)}")
        ready = self._ready(only)
        gpus = self._from.gpus(nonce) if Platform.NVIDIA in ready else []
        return [*self._machine(ready, _Asked(nonce, nonce, None, nonce, None)), *gpus]

    def activate(self, credential: bytes) -> bytes:
        """The secret of a credential that a verifier made for the TPM's evidence. Raises EvidenceUnavailable."""
        return self._from.tpm.activate(self._attestation_key(), credential)

    def _ready(self, only: Platform | None) -> frozenset[Platform]:
        found = self.detect()
        ready = frozenset(each.platform for each in found if each.platform and each.ready)
        wanted = ready if only is None else ready & {only}
        if wanted:
            return wanted
        looked = [each for each in found if each.platform and only in (None, each.platform)]
        missing = {each.name: [one.as_json() for one in each.missing] for each in looked}
        said = "; ".join(f"{each.name}: {each.summary}" for each in looked)
        raise EvidenceUnavailable(
            f"nothing here gives evidence ({said})",
            hint="hzc attest selftest says what each would take",
            missing=missing,
        )

    def _machine(self, ready: frozenset[Platform], asked: _Asked) -> list[Evidence]:
        """CPU, then TPM."""
        evidence: list[Evidence] = []
        if Platform.SNP in ready:
            evidence.append(self._snp(asked.report_data))
        if Platform.TDX in ready:
            evidence.append(self._tdx(asked.report_data))
        if Platform.NITRO in ready:
            document = self._from.nsm(asked.user_data, asked.nonce, asked.public_key)
            evidence.append(Evidence(Platform.NITRO, {"doc": document}))
        if Platform.TPM in ready:
            evidence.append(self._from.tpm.quote(self._attestation_key(), asked.qualifying_data, self._from.pcrs))
        return evidence

    def _attestation_key(self) -> AttestationKey:
        with self._making:
            if self._key is None:
                self._key = self._from.tpm.make_key()
            return self._key

    def _snp(self, report_data: bytes) -> Evidence:
        if self._from.tsm_root.is_dir():
            by_tsm = self._tsm(Platform.SNP, report_data)
            report, table = by_tsm.outblob, by_tsm.auxblob
        else:
            by_device = self._from.sev_guest(report_data)
            report, table = by_device.report, by_device.cert_table
        _answers(report, report_data)
        return Evidence(Platform.SNP, {"report": report} | ({"cert_table": table} if table else {}))

    def _tdx(self, report_data: bytes) -> Evidence:
        files = {"quote": self._tsm(Platform.TDX, report_data).outblob}
        _answers(files["quote"], report_data)
        with suppress(OSError):
            log = self._from.ccel.read_bytes()
            if 0 < len(log) <= EVIDENCE_FILE_MAX:
                files["ccel"] = log
        return Evidence(Platform.TDX, files)

    def _tsm(self, platform: Platform, report_data: bytes) -> tsm.Report:
        report = self._from.tsm(tsm.Request(report_data), self._from.tsm_root)
        if report.provider != _PROVIDERS[platform]:
            raise EvidenceUnavailable(f"configfs-tsm answers for {report.provider}, not for {_PROVIDERS[platform]}")
        return report


def _answers(report: bytes, report_data: bytes) -> None:
    """It carries its report data as it is; one that does not answers somebody else."""
    if report_data not in report:
        raise EvidenceUnavailable("the report does not carry the report data that it was asked with", hint="try again")
