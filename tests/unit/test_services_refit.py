"""Regimes: found where there are some, promoted only if they explain what they were not fitted to, and never in the
way of the learner."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM as Peer

from hanzo_compute.model import keys
from hanzo_compute.ports import Put
from hanzo_compute.routing import placement, regimes
from hanzo_compute.routing.snapshot import Fit, Snapshot, parse
from hanzo_compute.services import explain, learn, refit
from tests.support.stepped import Platform
from tests.unit.test_services_learn import put, row

CALM, BUSY = (0.2, 3.0), (4.0, 8.5)


def telemetry(count: int, seed: int = 1, stay: float = 0.98) -> list[tuple[int, list[float]]]:
    """A day of two regimes, each with noise of its own."""
    random, regime, rows = np.random.default_rng(seed), 0, []
    for slot in range(count):
        regime = regime if random.random() < stay else 1 - regime
        rows.append((slot, [float(x) for x in random.normal((CALM, BUSY)[regime], 0.3 + 0.3 * regime)]))
    return rows


def noise(count: int, seed: int = 1) -> list[tuple[int, list[float]]]:
    random = np.random.default_rng(seed)
    return [(slot, [float(x) for x in random.normal((1.0, 5.0), 0.5)]) for slot in range(count)]


def keep(platform: Platform, rows: list[tuple[int, list[float]]]) -> None:
    for first in range(0, len(rows), 90):
        part = rows[first : first + 90]
        platform.store.transact([Put(keys.telemetry(slot), {"slot": slot, "seen": seen}) for slot, seen in part])


def test_regimes_that_the_router_cannot_use_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are they looked for again at once: a fit takes a second."""
    platform = Platform()
    put(platform, row(at_ms=1000))
    learn.learn(platform.ctx)
    keep(platform, telemetry(400))
    monkeypatch.setattr("hllm.hmm.GaussianHMM.predict_proba", lambda *_: np.full((80, 3), 0.9))
    assert refit.refit(platform.ctx) == {"refits": 1, "promoted": 0}
    assert refit.refit(platform.ctx) == {}
    assert learn.stored(platform.ctx)[1].fit.model is None


def test_two_regimes_are_found_named_and_scored_as_hmmlearn_scores_them() -> None:
    rows = telemetry(1000)
    found = regimes.refit(rows, Fit(), now_ms=7)
    assert found.promoted, found.why
    fit = found.fit
    assert (fit.tried_ms, fit.fitted_ms, fit.rows) == (7, 7, 1000)
    assert fit.model is not None
    scale, mean = np.array(fit.scale), np.array(fit.mean)
    peer = Peer(len(fit.model["regimes"]), covariance_type="full")
    peer.startprob_, peer.transmat_ = np.array(fit.model["startprob"]), np.array(fit.model["transmat"])
    peer.means_, peer.covars_ = np.array(fit.model["means"]), np.array(fit.model["covars"])
    last = (np.array([seen for _, seen in rows[800:]]) - mean) / scale
    assert fit.held_out == pytest.approx(peer.score(last) / 200 - np.log(scale).sum(), abs=1e-9)
    assert fit.model["belief"] == pytest.approx(peer.predict_proba(last)[-1], abs=1e-9)
    means = np.array(fit.model["means"]) * scale + mean
    assert fit.model["regimes"][0] == "calm"
    assert means[0] == pytest.approx(CALM, abs=0.1)
    assert means[-1] == pytest.approx(BUSY, abs=0.3)
    assert fit.model["transmat"][0][0] == pytest.approx(0.98, abs=0.02)


def test_what_is_no_better_is_not_promoted() -> None:
    first = regimes.refit(telemetry(1000), Fit(), now_ms=7).fit
    again = regimes.refit(telemetry(1000), first, now_ms=8)
    assert not again.promoted
    assert "no better" in again.why
    assert replace(again.fit, tried_ms=7) == first
    flat = regimes.refit(noise(1000), Fit(), now_ms=8)
    # One Gaussian made this: more of them can be better by chance alone, and only by little.
    alone = np.array([seen for _, seen in noise(1000)][800:])
    true = float(np.mean(-0.5 * (((alone - (1.0, 5.0)) / 0.5) ** 2).sum(1) - np.log(2 * np.pi) - 2 * np.log(0.5)))
    assert not flat.promoted or (flat.fit.held_out or 0) < true + 0.02


def test_a_model_of_another_time_is_replaced_by_one_that_explains_today() -> None:
    first = regimes.refit(telemetry(1000), Fit(), now_ms=7).fit
    moved = [(slot, [x + 2.0 for x in seen]) for slot, seen in telemetry(1000, seed=2)]
    found = regimes.refit(moved, first, now_ms=8)
    assert found.promoted
    assert found.fit.model != first.model


@pytest.mark.parametrize(
    "rows",
    [
        [],
        telemetry(regimes.ROWS_MIN - 1),
        [(slot, [0.0, 3.0]) for slot in range(400)],
        [(slot, [0.0, float(slot % 2)]) for slot in range(400)],
        [(slot * 100, [0.0, float(slot % 7)]) for slot in range(400)],
    ],
)
def test_telemetry_that_tells_nothing_is_no_error(rows: list[tuple[int, list[float]]]) -> None:
    found = regimes.refit(rows, Fit(), now_ms=7)
    assert found.why
    assert found.fit.tried_ms == 7
    assert found.promoted == (found.fit.model is not None)


def test_a_pause_begins_a_new_sequence() -> None:
    assert regimes._lengths([1, 2, 3, 7, 12, 13, 40]) == [4, 2, 1]


def lesson(platform: Platform, *, pool: str = "local", count: int = 5, category: str = "ok") -> None:
    now = platform.clock.now_ms()
    put(platform, *(row(at_ms=now + number, pool=pool, category=category) for number in range(count)))
    learn.learn(platform.ctx)


def test_a_fit_is_made_once_a_day_and_keeps_what_was_learnt() -> None:
    platform = Platform()
    assert refit.refit(platform.ctx) == {}
    lesson(platform)
    keep(platform, telemetry(600))
    assert refit.refit(platform.ctx) == {"refits": 1, "promoted": 1}
    shown = explain.regimes(platform.ctx)
    assert shown["regimes"][0]["name"] == "calm"
    assert sum(each["probability"] for each in shown["regimes"]) == pytest.approx(1)
    assert shown["regimes"][0]["wait_ms"] == pytest.approx(np.expm1(3.0), rel=0.1)
    assert shown["fit"]["rows"] == 600
    engine = learn.stored(platform.ctx)[1].engine
    assert engine is not None
    counts = np.array(engine["service"]["local"])
    assert (counts - 1).sum() == pytest.approx(5, abs=0.1)  # five attempts, whatever the regime was
    assert refit.refit(platform.ctx) == {}
    platform.clock.advance(platform.ctx.policy.refit_ms)
    assert refit.refit(platform.ctx) == {"refits": 1, "promoted": 0}


def test_too_little_telemetry_is_looked_at_again_in_an_hour() -> None:
    platform = Platform()
    lesson(platform)
    assert refit.refit(platform.ctx) == {}
    keep(platform, telemetry(600))
    platform.clock.advance(refit.SOON_MS - 1)
    assert refit.refit(platform.ctx) == {}
    platform.clock.advance(1)
    assert refit.refit(platform.ctx)["refits"] == 1


def test_what_the_learner_writes_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = Platform()
    lesson(platform)
    keep(platform, telemetry(600))
    fitted = regimes.refit

    def slow(*args: Any, **kwargs: Any) -> regimes.Refit:
        lesson(platform, pool="spare")
        return fitted(*args, **kwargs)

    monkeypatch.setattr(regimes, "refit", slow)
    assert refit.refit(platform.ctx)["promoted"] == 1
    found = learn.stored(platform.ctx)[1]
    assert (found.folded, found.pool("spare").seen, found.fit.rows) == (10, 5, 600)
    assert found.engine is not None
    assert set(found.engine["service"]) == {"local", "spare"}


def test_telemetry_moves_the_belief_and_the_belief_the_choice() -> None:
    """A pool that is good when it is calm and bad when it is busy, and one that is the other way round."""
    fit = regimes.refit(telemetry(1000), Fit(), now_ms=7).fit
    assert fit.model is not None
    names, mean, scale = fit.model["regimes"], np.array(fit.mean), np.array(fit.scale)
    state = regimes.new(fit).to_dict()
    count = len(names)
    state["service"] = {
        "day": [[40.0, 1.0]] + [[1.0, 40.0]] * (count - 1),
        "night": [[1.0, 40.0]] + [[40.0, 1.0]] * (count - 1),
    }
    for table, size in (("service_domains", 1), ("service_loads", 4)):
        state[table] = {name: [[[0.0, 0.0]] * size] * count for name in state["service"]}
    from hllm.router import Router, RouterState

    places = [placement.Place("day", "wasm"), placement.Place("night", "wasm")]
    bounds = placement.Bounds(10_000, 1)
    for seen, expected in ((CALM, "day"), (BUSY, "night")):
        router = RouterState.from_dict(state)
        for _ in range(5):
            router = Router().advance(router, telemetry=list((np.array(seen) - mean) / scale))
        known = Snapshot(fit=fit, engine=router.to_dict())
        choice = placement.choose(places, parse(known.body()), tier=0, seed=3, now_ms=9, bounds=bounds)
        assert choice.place.pool == expected
        assert json.loads(choice.trace["decision"])["beliefs"]["regime"]["calm"] == pytest.approx(
            1.0 if expected == "day" else 0.0, abs=0.01
        )


def test_the_learner_filters_what_it_sees_and_a_new_engine_keeps_the_regimes() -> None:
    platform = Platform()
    lesson(platform)
    keep(platform, telemetry(600))
    refit.refit(platform.ctx)
    for wait_ms in (9000, 9000, 9000, 9000):
        platform.clock.advance(platform.ctx.policy.telemetry_ms)
        put(platform, row(at_ms=platform.clock.now_ms(), wait_ms=wait_ms))
        learn.learn(platform.ctx)
    shown = explain.regimes(platform.ctx)["regimes"]
    assert shown[-1]["probability"] + (shown[1]["probability"] if len(shown) > 2 else 0) > 0.9
    record = platform.store.get(keys.routing())
    assert record is not None
    record.body["engine"] = {"format": "another"}
    platform.store.transact([Put(record.key, record.body, expect=record.rev)])
    lesson(platform)
    assert [each["name"] for each in explain.regimes(platform.ctx)["regimes"]] == [each["name"] for each in shown]
