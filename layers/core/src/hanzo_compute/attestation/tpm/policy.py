"""The section of a policy on evidence of TPMs."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from cryptography import x509
from pydantic import AfterValidator, BeforeValidator, Field

from hanzo_compute.attestation.sections import Hex, Strict

Bank = Literal["sha1", "sha256", "sha384", "sha512"]
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PCR_MAX: Final = 31


def _root(value: str) -> str:
    if _SHA256.fullmatch(value.lower()):
        return value.lower()
    try:
        x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise ValueError("a root is a certificate in PEM, or the SHA-256 of one in 64 hex digits") from None
    return value


def _index(value: Any) -> Any:
    """JSON has no numbers as names."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,2}", value) else value


Root = Annotated[str, AfterValidator(_root)]
Index = Annotated[int, BeforeValidator(_index), Field(ge=0, le=_PCR_MAX)]


class TpmPolicy(Strict):
    """What is asked of a TPM, and which one it may be."""

    roots: tuple[Root, ...] = Field(
        default=(),
        strict=False,
        description="Certificate authorities of TPMs that are trusted beside the built-in ones: PEM, or the SHA-256 of "
        "a certificate that comes with the evidence.",
    )
    endorsement_keys: tuple[Hex, ...] = Field(
        default=(),
        strict=False,
        description="SHA-256 of the SubjectPublicKeyInfo of endorsement keys that are known from elsewhere, as EC2 "
        "tells those of NitroTPMs: they need no certificate.",
    )
    attestation_keys: tuple[Hex, ...] = Field(
        default=(),
        strict=False,
        description="Names (34 bytes and more), or SHA-256 of the SubjectPublicKeyInfo, of attestation keys that were "
        "enrolled: they need no certificate.",
    )
    activation: bool = Field(
        default=True,
        description="An attestation key without certificate must have been activated by the verifier (credential "
        "activation): that a quote names an endorsement key is only what the quote says.",
    )
    software: bool = Field(
        default=False,
        description="Whether a software TPM is accepted, if its authority is one of `roots` or handed in.",
    )
    not_before: bool = Field(
        default=True, description="Whether a certificate of a TPM is refused before its validity begins."
    )
    banks: tuple[Bank, ...] = Field(
        default=("sha256", "sha384", "sha512"), strict=False, description="Banks of PCRs that may be quoted."
    )
    required_pcrs: tuple[Index, ...] = Field(
        default=tuple(range(8)), strict=False, description="PCRs that must be quoted, from one bank."
    )
    pcrs: dict[Bank, dict[Index, Annotated[tuple[Hex, ...], Field(min_length=1, strict=False)]]] = Field(
        default={}, description="Reference values: by bank and number, the digests that a PCR may have."
    )
    azure_sept_ve_disable: bool = Field(
        default=False,
        description="Whether Azure's trust domains must have SEPT_VE_DISABLE. Azure clears it: its paravisor, and not "
        "the guest, meets the exceptions that it would prevent. Stands for `tdx.require_sept_ve_disable` there.",
    )
    minimum_reset_count: int = Field(
        default=0, ge=0, lt=2**32, description="Fewer resets than were seen before are a rollback."
    )
    minimum_restart_count: int = Field(
        default=0, ge=0, lt=2**32, description="Fewer restarts after the last of these resets are a rollback."
    )
    minimum_clock: int = Field(
        default=0,
        ge=0,
        lt=2**53,
        description="Milliseconds of the TPM's clock; less than was seen before is a rollback.",
    )
