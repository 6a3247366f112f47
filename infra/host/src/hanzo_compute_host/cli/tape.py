"""Tapes of routing: requests whose every candidate's outcome is on record, replayed through the router and baselines.

A tape is JSON lines. The first has `format`, `value` and `miss_cost` (credits), `slo_s`, and `state`, a router's state.
Each other is a request: `evidence`, `telemetry`, and `candidates`, each with `name`, `backend`, `model`, `price` and
what became of it, had it been chosen: `ok`, `latency_s`, and the rates `p_ok` and `p_met` behind them, for the regret.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hanzo_compute import errors

Row = dict[str, Any]
FORMAT = "hzc.routing-tape/1"


@dataclass(frozen=True, slots=True)
class Tape:
    """A tape that was read and looked through."""

    head: Row
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class Played:
    """What an agent's choices came to, over a whole tape. Credits, seconds; `decision_s` is CPU time per request."""

    agent: str
    regret: float
    paid: float
    ok: float
    met: float
    latency_p50_s: float
    latency_p99_s: float
    decision_s: float


def read(path: Path | None) -> Tape:
    """The tape of a file, or the packaged one. Raises InvalidRequest."""
    packaged = resources.files("hanzo_compute_host.cli") / "tapes" / "routing.jsonl"
    text = packaged.read_text("utf-8") if path is None else path.read_text("utf-8", errors="replace")
    rows = []
    for n, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            rows.append(_head(row) if n == 1 else _checked(row))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise errors.InvalidRequest(
                f"line {n} is no line of a routing tape: {error}", hint=f"The first line has format {FORMAT}."
            ) from None
    if len(rows) < 2:
        raise errors.InvalidRequest("the tape has no requests", hint="A tape is a line of settings, then requests.")
    return Tape(rows[0], rows[1:])


def replay(tape: Tape, seed: int) -> Iterator[Played]:
    """Every agent's result, the router's first. Raises InvalidRequest when the tape's state is no router's."""
    from hllm.errors import HllmError

    for name, make in AGENTS.items():
        try:
            yield _play(name, make(tape.head, seed), tape)
        except HllmError as error:
            raise errors.InvalidRequest(f"the router refuses this tape: {error}") from None


def _play(name: str, agent: Any, tape: Tape) -> Played:
    value, miss, slo = tape.head["value"], tape.head["miss_cost"], tape.head["slo_s"]
    regret = paid = ok = met = spent = 0.0
    latencies = []
    for t, row in enumerate(tape.rows):
        began = time.process_time()
        i = agent.choose(t, row)
        spent += time.process_time() - began
        worth = [value * c["p_ok"] - miss * (1 - c["p_met"]) - c["price"] for c in row["candidates"]]
        c = row["candidates"][i]
        in_time = c["latency_s"] <= slo
        regret += max(worth) - worth[i]
        paid, ok, met = paid + c["price"], ok + c["ok"], met + in_time
        latencies.append(c["latency_s"])
        agent.learn(i, row, bool(c["ok"]), in_time)
    latencies.sort()
    n = len(latencies)
    at = [latencies[min(n - 1, math.ceil(q * n) - 1)] for q in (0.5, 0.99)]
    return Played(name, regret, paid, ok / n, met / n, at[0], at[1], spent / n)


class _Router:
    """hllm.router, from the tape's state on."""

    def __init__(self, head: Row, seed: int) -> None:
        from hllm.router import Router, RouterState

        self.router, self.head, self.seed = Router(), head, seed
        self.state = RouterState.from_dict(head["state"])

    def choose(self, t: int, row: Row) -> int:
        from hllm.router import Candidate, Request

        routes = [
            Candidate(c["name"], c["backend"], c["model"], price=c["price"], load=c.get("load", 0.0))
            for c in row["candidates"]
        ]
        request = Request(
            value=self.head["value"],
            miss_cost=self.head["miss_cost"],
            domain_evidence=row["evidence"],
            telemetry=row["telemetry"],
        )
        chosen = self.router.decide(self.state, request, routes, seed=self.seed * 1_000_003 + t).chosen
        self.state = self.router.advance(self.state, telemetry=row["telemetry"], domain_evidence=row["evidence"])
        return routes.index(chosen)

    def learn(self, i: int, row: Row, ok: bool, met: bool) -> None:
        from hllm.router import Feedback

        c = row["candidates"][i]
        self.state = self.router.learn(self.state, [Feedback(c["model"], c["backend"], ok, met, load=c.get("load"))])


class _Baseline:
    """Counts per route; with `given`, per the most probable domain and regime of the router's own filter as well."""

    def __init__(self, head: Row, seed: int, *, by: str, given: bool) -> None:
        self.filter = _Router(head, seed) if given else None
        self.by, self.value, self.miss, self.rng = by, head["value"], head["miss_cost"], random.Random(seed)
        self.cell: Any = None
        self.counts: dict[Any, list[float]] = {}

    def choose(self, t: int, row: Row) -> int:
        routes = row["candidates"]
        if self.filter is not None:
            state = self.filter.router.advance(
                self.filter.state, telemetry=row["telemetry"], domain_evidence=row["evidence"]
            )
            self.filter.state = state
            self.cell = int(state.domain_belief.argmax()), int(state.regime_belief.argmax())
        if self.by == "load":
            return min(range(len(routes)), key=lambda i: (routes[i].get("load", 0.0), (i - t) % len(routes)))
        if self.by == "price":
            return min(range(len(routes)), key=lambda i: routes[i]["price"])
        return max(range(len(routes)), key=lambda i: self.index(routes, i) - routes[i]["price"])

    def index(self, routes: Sequence[Row], i: int) -> float:
        ok, bad, met, missed = self.of(routes[i])
        if self.by == "thompson":
            p, q = self.rng.betavariate(1 + ok, 1 + bad), self.rng.betavariate(1 + met, 1 + missed)
            return float(self.value * p - self.miss * (1 - q))
        n = ok + bad
        if n == 0:
            return math.inf
        total = sum(sum(self.of(c)[:2]) for c in routes)
        mean = (self.value * ok - self.miss * missed) / n
        return float(mean + 0.1 * (self.value + self.miss) * math.sqrt(2 * math.log(total) / n))

    def of(self, c: Row) -> list[float]:
        return self.counts.setdefault((self.cell, c["name"]), [0.0] * 4)

    def learn(self, i: int, row: Row, ok: bool, met: bool) -> None:
        counts = self.of(row["candidates"][i])
        counts[0 if ok else 1] += 1
        counts[2 if met else 3] += 1


def _baseline(by: str, *, given: bool = False) -> Callable[[Row, int], _Baseline]:
    return lambda head, seed: _Baseline(head, seed, by=by, given=given)


AGENTS: dict[str, Callable[[Row, int], Any]] = {
    "hllm": _Router,
    "UCB1 by domain and regime": _baseline("ucb1", given=True),
    "Thompson by domain and regime": _baseline("thompson", given=True),
    "UCB1": _baseline("ucb1"),
    "Thompson": _baseline("thompson"),
    "least loaded": _baseline("load"),
    "cheapest": _baseline("price"),
}


def _head(row: Row) -> Row:
    if row["format"] != FORMAT:
        raise ValueError(f"format {row['format']!r}")
    for key in ("value", "miss_cost", "slo_s"):
        row[key] = _number(row[key], key)
    row["state"]["format"]
    return row


def _checked(row: Row) -> Row:
    if not row["candidates"] or len({c["name"] for c in row["candidates"]}) != len(row["candidates"]):
        raise ValueError("candidates: at least one, with names of their own")
    for c in row["candidates"]:
        for key in ("price", "latency_s", "p_ok", "p_met", "ok"):
            c[key] = _number(c[key], key)
        if not all(isinstance(c[key], str) for key in ("name", "backend", "model")):
            raise ValueError("name, backend and model are strings")
    row["evidence"], row["telemetry"] = list(row["evidence"]), list(row["telemetry"])
    return row


def _number(x: Any, key: str) -> float:
    try:
        if isinstance(x, (int, float)) and math.isfinite(x):
            return float(x)
    except OverflowError:
        raise ValueError(f"{key} is a number that is too large") from None
    raise ValueError(f"{key} is {x!r}, not a finite number")
