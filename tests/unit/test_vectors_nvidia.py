"""Evidence that NVIDIA's hardware made, and reference values that NVIDIA signed."""

from __future__ import annotations

from tests.support.vectors import cases


def test_each_vector_gets_its_verdict() -> None:
    for case in cases("nvidia"):
        result = case.appraise()
        assert (result.authentic, result.verdict.value) == (case.authentic, case.verdict), (case.id, result.reasons)
