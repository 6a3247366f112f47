"""The benchmark of price dynamics and features runs, at a tiny size."""

from __future__ import annotations

from tests.bench.hllm.dynamics import reports


def test_every_table_is_made():
    made = reports(tiny=True)
    assert [len(report.rows) for report in made] == [1, 1, 3, 4, 2]
    for report in made:
        assert f"### {report.title}" in report.markdown()
        assert all(len(row) == len(report.columns) for row in report.rows)
