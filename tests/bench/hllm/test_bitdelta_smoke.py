"""The benchmark of BitDelta runs, at a tiny size and without its peer."""

from __future__ import annotations

import numpy as np
import pytest

from hllm.bitdelta import compress_matrix, merge_matrix
from tests.bench.hllm import bitdelta


def test_the_plain_side_does_the_same_and_the_rest_runs(capsys: pytest.CaptureFixture[str]) -> None:
    base, tuned = bitdelta.pair(64)
    compress, merge = bitdelta.numpy_sides(base, tuned)
    np.testing.assert_allclose(merge(compress()), merge_matrix(base, compress_matrix(base, tuned)), atol=1e-6)
    bitdelta.products(64, 1)
    bitdelta.memory(64, (1, 2))
    told = capsys.readouterr().out
    assert told.count("apply to") == 3
    assert "2 adapters of 64 x 64" in told
