"""The section of a policy on evidence of NVIDIA."""

from __future__ import annotations

from hanzo_compute.attestation.sections import Strict


class NvidiaPolicy(Strict):
    """What is asked of it."""
