"""The sections of a policy on evidence of TDX and SGX."""

from __future__ import annotations

from hanzo_compute.attestation.sections import Strict


class TdxPolicy(Strict):
    """What is asked of a trust domain."""


class SgxPolicy(Strict):
    """What is asked of an enclave."""
