"""Appraises changed evidence, and looks for what must not be.

Whatever comes in, a result comes out, or the error of a request that is too large: in bounded time, in bounded memory,
with reasons where it refuses, and never genuine with other contents than were signed.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hanzo_compute.attestation import AttestationResult, Binding, Verdict, appraise, builtin
from hanzo_compute.errors import ComputeError
from hanzo_compute.model.evidence import Evidence, Platform
from tests.security.evidence_fuzz.mutate import mutate
from tests.support import mint_nitro, mint_nvidia, mint_snp, mint_tdx, mint_tpm, pki, vectors

CASE_S = 2.0
"""Seconds of processor time that one piece of evidence may take."""
MEMORY_MIB = 256
"""What the process may grow by, caches of certificates included."""
RESULT_MAX = 1024 * 1024
BINDING = Binding(nonce=bytes(32), signing_key=b"spki", sealing_key=bytes(32))


@dataclass(frozen=True)
class Sample:
    """Evidence to begin with, and how it is judged."""

    evidence: Evidence
    now_ms: int
    anchors: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Target:
    """The parsers of one platform's evidence."""

    minted: Callable[[], Sequence[Sample]]
    signed: tuple[str, ...]
    """Claims that its signature covers."""


def _nitro() -> list[Sample]:
    enclave = mint_nitro.enclave()
    full = enclave.fields(user_data=BINDING.report_data(), nonce=BINDING.nonce, public_key=BINDING.sealing_key)
    documents = [
        enclave.document(),
        b"\xd2" + enclave.sign(mint_nitro.pairs(full.items())),
        mint_nitro.container(enclave.document(user_data=bytes(64)), {"a": b"b"}, bytes(64), "{}"),
    ]
    return [Sample(mint_nitro.evidence(each), pki.NOW_MS, (enclave.root,)) for each in documents]


def _snp() -> list[Sample]:
    guests = [mint_snp.Guest("Milan"), mint_snp.Guest("Genoa", "VLEK"), mint_snp.Guest("Turin")]
    return [Sample(each.evidence(), pki.NOW_MS, (mint_snp.ark(each.line).pem,)) for each in guests]


def _tdx(kind: Platform) -> list[Sample]:
    of, tee = mint_tdx.intel(), kind.value.upper()
    made = mint_tdx.quote(of, mint_tdx.td()) if kind is Platform.TDX else mint_tdx.sgx_quote(of)
    return [Sample(Evidence(kind, {"quote": made, "collateral": mint_tdx.collateral(of, tee)}), pki.NOW_MS, of.anchors)]


def _nvidia() -> list[Sample]:
    device = mint_nvidia.device()
    files = device.files(**mint_nvidia.rims(), **mint_nvidia.answers(device.chain))
    return [Sample(Evidence(Platform.NVIDIA, files), pki.NOW_MS, mint_nvidia.ANCHORS)]


def _tpm() -> list[Sample]:
    tpm = mint_tpm.minted()
    return [Sample(tpm.evidence(), pki.NOW_MS, (tpm.root.pem,))]


TARGETS = {
    "nitro": Target(_nitro, ("module_id", "timestamp_ms", "pcrs", "user_data", "nonce", "public_key", "certificate")),
    "snp": Target(_snp, ("report_data", "measurement", "chip_id", "policy")),
    "tdx": Target(lambda: _tdx(Platform.TDX), ("report_data", "mrtd")),
    "sgx": Target(lambda: _tdx(Platform.SGX), ("report_data", "mrenclave")),
    "nvidia": Target(_nvidia, ("chip", "measurements", "req_nonce")),
    "tpm": Target(_tpm, ("qualified_signer", "pcr_digest", "extra_data", "clock")),
}


class Campaign:
    """Many cases, by one seed: case N of a seed is always the same, as far as the samples are."""

    def __init__(self, platform: str, seed: int, folder: Path) -> None:
        self.platform = platform
        self.target = TARGETS[platform]
        self.samples = [*self.target.minted(), *_recorded(platform)]
        self.ends: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []
        self.slowest_s = 0.0
        self._seed = seed
        self._folder = folder
        self._genuine = {said for each in self.samples if (said := self._said(self._appraise(each, None)))}
        self._memory_mib = _memory_mib()

    def case(self, number: int) -> None:
        """Make a case, and judge it."""
        dice = random.Random(f"{self._seed}/{number}")
        sample, other = dice.choice(self.samples), dice.choice(self.samples)
        files = dict(sample.evidence.files)
        name = dice.choice(sorted(files))
        theirs = other.evidence.files.get(name) or dice.choice(list(other.evidence.files.values()))
        files[name] = theirs if dice.random() < 0.01 else mutate(dice, files[name], theirs)
        if dice.random() < 0.01:
            del files[dice.choice(sorted(files))]
        self.judge(f"case {number}", files, sample, BINDING if dice.random() < 0.5 else None)

    def judge(self, name: str, files: Mapping[str, bytes], sample: Sample, binding: Binding | None) -> None:
        """Appraise these files as the sample is, and write down how it ended."""
        began = time.process_time()
        try:
            changed = Sample(Evidence(Platform(self.platform), files), sample.now_ms, sample.anchors)
            result = self._appraise(changed, binding)
            wrong = self._wrong(result)
            self.ends[f"{result.verdict}: {', '.join(result.reasons[:3])}"] += 1
        except ComputeError as error:
            wrong = ""
            self.ends[f"error: {error.code}"] += 1
        except Exception:
            wrong = traceback.format_exc()
        took = time.process_time() - began
        self.slowest_s = max(self.slowest_s, took)
        if took > CASE_S:
            wrong = wrong or f"it took {took:.1f} s"
        if (grown := self.grown_mib()) > MEMORY_MIB:
            wrong = wrong or f"the process has grown by {grown} MiB"
        if wrong:
            self._violated(name, files, wrong)

    def grown_mib(self) -> int:
        """What the process has grown by, at its largest."""
        return _memory_mib() - self._memory_mib

    def _appraise(self, sample: Sample, binding: Binding | None) -> AttestationResult:
        policy = builtin("baseline")
        return appraise(sample.evidence, policy, {}, sample.now_ms, binding=binding, anchors=sample.anchors)

    def _said(self, result: AttestationResult) -> str | None:
        """What is signed in evidence that is genuine."""
        if not result.authentic:
            return None
        claims = result.claims[self.platform]
        return json.dumps([claims.get(name) for name in self.target.signed])

    def _wrong(self, result: AttestationResult) -> str:
        if len(json.dumps(result.as_json())) > RESULT_MAX:
            return "the result is too large"
        accepted = result.verdict is Verdict.ACCEPT
        if accepted == bool(result.reasons) or accepted > result.authentic:
            return f"{result.verdict} with reasons {result.reasons}, authentic: {result.authentic}"
        said = self._said(result)
        return f"genuine, and yet nothing that was signed: {said}" if said and said not in self._genuine else ""

    def _violated(self, name: str, files: Mapping[str, bytes], wrong: str) -> None:
        folder = self._folder / f"{self.platform}-{len(self.violations)}"
        folder.mkdir(parents=True, exist_ok=True)
        for each, data in files.items():
            (folder / each).write_bytes(data)
        self.violations.append(f"{name} of seed {self._seed}, in {folder}: {wrong}")


def _recorded(platform: str) -> list[Sample]:
    """Evidence of real hardware, where it is."""
    if not os.environ.get("HZC_VECTORS"):
        return []
    return [Sample(each.evidence, each.now_ms) for each in vectors.cases(platform)]


def _memory_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
