"""`hzc bench routing`: a tape through the router and the baselines, without a platform."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Hzc


@pytest.fixture
def hzc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hzc:
    monkeypatch.chdir(tmp_path)
    return Hzc({"HZC_HOME": str(tmp_path / "home")})


def packaged() -> list[Any]:
    text = (resources.files("hanzo_compute_host.cli") / "tapes" / "routing.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def written(path: str, rows: list[Any]) -> str:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_packaged_tape_is_replayed_and_a_seed_repeats_it(hzc: Hzc) -> None:
    shown = hzc.json("bench", "routing", "--seed", "3")
    assert shown["requests"] == 300
    agents = {a["agent"]: a for a in shown["agents"]}
    assert len(agents) == 7
    assert 0 < agents["hllm"]["regret"] < agents["least loaded"]["regret"]
    head, *rows = packaged()
    cheapest = [min(row["candidates"], key=lambda c: c["price"]) for row in rows]
    assert agents["cheapest"]["paid"] == pytest.approx(sum(c["price"] for c in cheapest))
    assert agents["cheapest"]["ok"] == pytest.approx(sum(c["ok"] for c in cheapest) / 300)
    assert agents["cheapest"]["met"] == pytest.approx(sum(c["latency_s"] <= head["slo_s"] for c in cheapest) / 300)
    again = {a["agent"]: a for a in hzc.json("bench", "routing", "--seed", "3")["agents"]}
    assert all(again[name]["regret"] == agents[name]["regret"] for name in agents)


def test_a_tape_of_ones_own_with_one_candidate_has_no_regret(hzc: Hzc) -> None:
    head, *rows = packaged()
    for row in rows:
        del row["candidates"][1:]
    shown = hzc("bench", "routing", written("mine.jsonl", [head, *rows[:20]])).stdout
    assert "20 requests" in shown
    hllm = next(line for line in shown.splitlines() if line.startswith("hllm"))
    assert hllm.split()[1] == "0.0"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows.clear(), "no requests"),
        (lambda rows: rows[0].update(format="other"), "line 1"),
        (lambda rows: rows[0].update(state={}), "line 1"),
        (lambda rows: rows[0]["state"].update(format="x"), "refuses this tape"),
        (lambda rows: rows[2].update(candidates=[]), "line 3"),
        (lambda rows: rows[2]["candidates"][0].update(price="free"), "line 3"),
        (lambda rows: rows[2]["candidates"][0].update(name=3), "line 3"),
        (lambda rows: rows[2].update(evidence=None), "line 3"),
        (lambda rows: rows[1].update(evidence=[1.0]), "refuses this tape"),
        (lambda rows: rows.insert(1, "text"), "line 2"),
        (lambda rows: rows[0].update(value=10**400), "line 1"),
        (lambda rows: rows[0].update(value=1e308), "refuses this tape"),
        (lambda rows: rows[2]["candidates"][0].update(price=10**400), "line 3"),
        (lambda rows: rows[2]["evidence"].__setitem__(0, 10**400), "refuses this tape"),
        (lambda rows: rows[0]["state"]["settings"].update(backoff=1e-320), "refuses this tape"),
    ],
)
def test_what_is_no_tape_is_told(hzc: Hzc, change: Any, told: str) -> None:
    rows = packaged()[:4]
    change(rows)
    result = hzc("bench", "routing", written("bad.jsonl", rows), code=2)
    assert told in result.stderr


def test_a_tape_that_is_nested_without_end_is_told(hzc: Hzc) -> None:
    Path("deep.jsonl").write_text(json.dumps(packaged()[0]) + "\n" + "[" * 100_000)
    assert "line 2" in hzc("bench", "routing", "deep.jsonl", code=2).stderr
