"""Evidence as an attester hands it over, and the privacy tiers that it can prove (RFC 9334's words)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final

from hanzo_compute.errors import FieldProblem, InvalidRequest, PayloadTooLarge

EVIDENCE_FILE_MAX: Final = 4 * 1024 * 1024
"""Bytes of one file of evidence or collateral: reference values of a GPU's driver are the largest there are."""
EVIDENCE_FILES_MAX: Final = 32
_NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")


class Platform(StrEnum):
    """What makes evidence."""

    SNP = "snp"
    TDX = "tdx"
    SGX = "sgx"
    NITRO = "nitro"
    NVIDIA = "nvidia"
    TPM = "tpm"


class Tier(IntEnum):
    """Privacy: a job asks for at least one of them, a runner proves at most one."""

    OPEN = 0
    AT_REST = 1
    """Encrypted at rest, the key sealed to a TPM or a key service."""
    CPU_TEE = 2
    """SEV-SNP, TDX or Nitro."""
    GPU_CC = 3
    """That, and a Hopper-class GPU whose evidence is bound to it."""
    GPU_TEE_IO = 4
    """That, with a Blackwell-class GPU."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one platform signed, and what came with it, as files by name (``report``, ``quote``, ``doc``, …).

    Raises:
        InvalidRequest: a name is no name, or there are too many.
        PayloadTooLarge: a file is larger than any real one.
    """

    platform: Platform
    files: Mapping[str, bytes] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.files) > EVIDENCE_FILES_MAX:
            raise InvalidRequest(f"evidence has at most {EVIDENCE_FILES_MAX} files; these are {len(self.files)}")
        for name, data in self.files.items():
            if not _NAME.fullmatch(name):
                problem = FieldProblem(name[:64], "a name of a file has a-z, 0-9, '_', '.', '-'", "name")
                raise InvalidRequest("a file of the evidence has a name that is none", fields=[problem])
            if len(data) > EVIDENCE_FILE_MAX:
                raise PayloadTooLarge(f"{name} has {len(data)} bytes; a file of evidence has {EVIDENCE_FILE_MAX}")

    def digest(self) -> str:
        """64 hex digits that name this evidence: SHA-256 of the canonical form of its files' digests."""
        # The canonical form is written out: names and digests need no escapes.
        files = ",".join([f'"{name}":"{hashlib.sha256(self.files[name]).hexdigest()}"' for name in sorted(self.files)])
        text = f'{{"files":{{{files}}},"platform":"{self.platform.value}"}}'
        return hashlib.sha256(text.encode()).hexdigest()


def bundle_digest(bundle: Sequence[Evidence]) -> bytes:
    """32 bytes that name several pieces of evidence, whatever their order."""
    return hashlib.sha256(b"".join(sorted(bytes.fromhex(each.digest()) for each in bundle))).digest()


NO_GPU: Final = bytes(32)


def gpu_digest(bundle: Sequence[Evidence]) -> bytes:
    """32 bytes that name the evidence of the GPUs among these pieces; zeros if there is none."""
    gpus = [each for each in bundle if each.platform is Platform.NVIDIA]
    return bundle_digest(gpus) if gpus else NO_GPU
