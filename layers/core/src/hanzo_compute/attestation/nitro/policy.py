"""The section of a policy on evidence of Nitro."""

from __future__ import annotations

from hanzo_compute.attestation.sections import Strict


class NitroPolicy(Strict):
    """What is asked of it."""
