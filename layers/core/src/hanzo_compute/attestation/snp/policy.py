"""The section of a policy on evidence of SEV-SNP."""

from __future__ import annotations

from hanzo_compute.attestation.sections import Strict


class SnpPolicy(Strict):
    """What is asked of it."""
