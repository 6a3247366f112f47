"""What the host itself refuses is told like what functions refuse: one header of each name."""

from __future__ import annotations

from collections import Counter

import pytest

from hanzo_compute.errors import ComputeError
from hanzo_compute_host import problems


@pytest.mark.parametrize(
    "error",
    [
        problems.head_too_large(),
        problems.bad_http(),
        problems.no_route("GET", "/nowhere", []),
        problems.no_route("PUT", "/v1/jobs", ["GET", "POST"]),
        problems.defect(),
    ],
    ids=lambda error: error.code,
)
def test_no_header_comes_twice(error: ComputeError) -> None:
    answer = problems.answer(error, "r-1")
    assert answer.status == error.status
    assert set(Counter(name.lower() for name, _ in answer.headers).values()) == {1}
    assert dict(answer.headers)[b"content-type"] == b"application/problem+json"
