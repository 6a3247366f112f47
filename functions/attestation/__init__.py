"""Attestation: challenges, appraisals, policies, and the key of a job."""
