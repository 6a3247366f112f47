"""The benchmarks run, at sizes whose figures mean nothing, and report what they should.

`peer` and `durability` need a Redis server, `profile` py-spy, and most of the sandbox clang, node, extism or the
interpreters: `make bench ARGS=--smoke` runs those, too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import document, flame
from tests.bench.__main__ import BENCHMARKS, DOCUMENT, WASM, parse
from tests.bench.profile import named
from tests.bench.report import Report, Target, number, percentile, ratios, spread

ROOT = Path(__file__).resolve().parents[2]
ALONE = ("post", "get", "writer", "jobs", "store", "receipts", "wasm.ending", "wasm.bulk")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_benchmarks_run(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "tests.bench", "--smoke", "--rounds", "1", "--only", ",".join(ALONE)]
    done = subprocess.run(
        [*command, "--json", str(path)], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text())
    assert tuple(found["benchmarks"]) == ALONE
    for name, result in found["benchmarks"].items():
        assert result["rows"], name
        assert result["targets"], name
        assert f"### {result['title']}\n" in done.stdout


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--only", "post,pots"])
    assert "pots" in capsys.readouterr().err


def test_every_benchmark_has_its_place_in_the_document() -> None:
    text = DOCUMENT.read_text()
    once = document.filled(text, {"machine": "- cores: 2", **dict.fromkeys([*BENCHMARKS, *WASM], "a table")})
    assert once.count("\na table\n<!-- /") == len(BENCHMARKS) + len(WASM)
    assert document.filled(once, {"post": "another \\1 table"}).count("another \\1 table") == 1
    with pytest.raises(LookupError, match="soup"):
        document.filled(text, {"soup": ""})


def test_those_of_the_sandbox_have_a_name_together() -> None:
    assert parse(["--only", "get,wasm"]).names == ["get", *WASM]


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert percentile([7.0], 0.5) == 7


def test_a_ratio_is_formed_in_each_round() -> None:
    found = ratios([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert (found.least, found.median, found.greatest) == (2, 3, 4)


def test_a_report_says_what_was_missed() -> None:
    report = Report("Title", ["", "a"], [["row", spread([1.0, 2.0, 3.0])]], [Target("cost", spread([2.0]), 1.5)])
    text = report.markdown()
    assert "| row | 2.00 (1.00 … 3.00) |" in text
    assert "- cost: 2.00, aimed at ≤ 1.50: MISSED" in text
    assert report.as_json()["targets"][0]["met"] is False


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.123, 12.34, 1234.5)] == ["0.12", "12.3", "1,234"]


def test_a_flame_graph_is_as_wide_as_its_samples() -> None:
    root = flame.tree("all", {("front", "run (a.py:1)"): 3, ("front", "<lambda> (b.py:2)"): 1})
    picture = ElementTree.fromstring(flame.svg(root))
    titles = [str(each.text) for each in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles) == ["<lambda> (b.py:2): 25.0%", "all: 100.0%", "front: 100.0%", "run (a.py:1): 75.0%"]


def test_frames_name_no_folder_of_this_machine() -> None:
    assert named("f (/a/b/layers/core/src/hanzo_compute/x.py:3)") == "f (hanzo_compute/x.py:3)"
    assert named("g (/v/lib/python3.11/site-packages/uvicorn/server.py:7)") == "g (uvicorn/server.py:7)"
