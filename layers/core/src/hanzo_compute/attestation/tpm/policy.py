"""The section of a policy on evidence of TPM."""

from __future__ import annotations

from hanzo_compute.attestation.sections import Strict


class TpmPolicy(Strict):
    """What is asked of it."""
