"""The benchmarks of placements run, at sizes whose figures mean nothing."""

from __future__ import annotations

import pytest

from tests.bench.hllm import placement, pools


def test_placements_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    placement.main(["--rounds", "1", "--jobs", "4", "--pools", "1,2"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [int(row[0]) for row in rows] == [1, 2]
    assert all(float(value) > 0 for row in rows for value in row)


def test_pools_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    pools.main(["--seeds", "1", "--jobs", "20", "--only", "two equal"])
    (row,) = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    assert row[0].strip() == "two equal"
    assert float(row[1]) > 0 < float(row[2])
