"""Bodies of requests about attestation."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from hanzo_compute.attestation.appraisal import BUNDLE_MAX
from hanzo_compute.attestation.policy import POLICY_MAX
from hanzo_compute.model.evidence import EVIDENCE_FILES_MAX, Evidence, Platform
from hanzo_compute.model.spec import JOB_ID
from hanzo_compute.security.tokens import TOKEN_MAX
from hanzo_compute.services.appraisals import Keys


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("base64", "is not valid base64") from None
    return value


Job = Annotated[str, StringConstraints(pattern=JOB_ID)]
Attempt = Annotated[int, Field(ge=1, le=2**31, strict=True)]
Base64 = Annotated[str, AfterValidator(_base64)]
Area = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_base64)]
Challenge = Annotated[str, StringConstraints(pattern=r"^ac-[0-9A-HJKMNP-TV-Z]{26}$")]
Short = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_base64)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class ChallengeRequest(_Body):
    """A runner will present evidence for the attempt that it holds."""

    job: Job
    attempt: Attempt
    signing_key: Short = Field(description="P-256, SubjectPublicKeyInfo in DER, base64: that of the lease.")
    sealing_key: Short = Field(description="X25519, 32 bytes, base64: made for this attempt.")

    def keys(self) -> Keys:
        """The two keys."""
        return Keys(base64.b64decode(self.signing_key), base64.b64decode(self.sealing_key))


class Piece(_Body):
    """Evidence of one platform."""

    platform: Platform
    files: dict[str, Base64] = Field(min_length=1, max_length=EVIDENCE_FILES_MAX, description="By name, in base64.")

    def evidence(self) -> Evidence:
        """Raises InvalidRequest, PayloadTooLarge."""
        return Evidence(self.platform, {name: base64.b64decode(data) for name, data in self.files.items()})


class ActivationRequest(_Body):
    """A runner's TPM is to show that it has both of these keys."""

    challenge: Challenge
    ek_tpm2b: Area = Field(description="The endorsement key's public area (TPM2B_PUBLIC), base64.")
    ak_tpm2b: Area = Field(description="The attestation key's.")

    def ek(self) -> bytes:
        """The endorsement key."""
        return base64.b64decode(self.ek_tpm2b)

    def ak(self) -> bytes:
        """The attestation key."""
        return base64.b64decode(self.ak_tpm2b)


class AppraisalRequest(_Body):
    """All evidence of one runner, which answers a challenge."""

    challenge: Challenge
    evidence: list[Piece] = Field(min_length=1, max_length=BUNDLE_MAX)
    activated: Short | None = Field(default=None, repr=False, description="The secret of the credential, base64.")

    def secret(self) -> bytes | None:
        """What was in the credential."""
        return None if self.activated is None else base64.b64decode(self.activated)


class KeyReleaseRequest(_Body):
    """The runner of an attempt wants its key."""

    attempt: Attempt
    token: Annotated[str, StringConstraints(max_length=TOKEN_MAX)] = Field(description="The attestation result.")


class KeyRequest(_Body):
    """The key of a job: itself, or sealed to the runner of an attempt."""

    key_base64: Short | None = Field(default=None, repr=False, description="The 32 bytes.")
    attempt: Attempt | None = None
    recipient: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None, description="The runner's sealing key, hex, as its evidence commits to it."
    )
    sealed: Short | None = Field(default=None, description="Encapsulated key and ciphertext, base64.")

    @model_validator(mode="after")
    def _one(self) -> KeyRequest:
        sealed = (self.attempt, self.recipient, self.sealed)
        if self.key_base64 is None and None in sealed:
            raise PydanticCustomError("one_of", "give key_base64, or attempt, recipient and sealed")
        if self.key_base64 is not None and any(each is not None for each in sealed):
            raise PydanticCustomError("one_of", "give key_base64 alone, or the sealed key")
        return self

    def key(self) -> bytes:
        """The key itself."""
        return base64.b64decode(self.key_base64 or "")

    def to(self) -> bytes:
        """Whom it is sealed to."""
        return bytes.fromhex(self.recipient or "")

    def sealed_to(self) -> bytes:
        """The sealed key."""
        return base64.b64decode(self.sealed or "")


class PolicyRequest(_Body):
    """A policy as text."""

    policy: Annotated[str, StringConstraints(max_length=POLICY_MAX)] = Field(description="YAML.")
