"""Appraisal of evidence: pure, offline, with an explicit clock, and closed when it fails.

Words are those of RATS (RFC 9334): evidence, endorsements, reference values, appraisal policy, attestation result.
"""

from hanzo_compute.attestation.appraisal import AttestationResult, Verdict, appraise, refused
from hanzo_compute.attestation.binding import Binding
from hanzo_compute.attestation.checks import Check, Group
from hanzo_compute.attestation.policy import Policy, builtin

__all__ = ["AttestationResult", "Binding", "Check", "Group", "Policy", "Verdict", "appraise", "builtin", "refused"]
