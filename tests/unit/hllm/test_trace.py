"""The trace: its terms are the definition's, it recomputes, and its counterfactuals are true."""

import functools
import json
import math
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput, NoCandidate
from hllm.router import Candidate, Feedback, Request, Router, RouterSettings, RouterState
from hllm.trace import moved, recompute

ROUTER = Router()
ROUTES = [
    Candidate("a", "a", "small", price=0.05, provider="p", load=1),
    Candidate("b", "b", "small", price=0.08),
    Candidate("c", "a", "large", price=0.2, adapter="x"),
    Candidate("d", "b", "large", price=0.25, tier=1),
    Candidate("e", "c", "large", price=5.0),
]


@functools.cache
def world(seed=0, **changes):
    rng = np.random.default_rng(seed)
    state = RouterState.new(RouterSettings(**changes), domains=("x", "y"), regimes=("calm", "storm"))
    batch = []
    for _ in range(300):
        c = ROUTES[rng.integers(5)]
        d, z = rng.integers(2), rng.integers(2)
        ok = rng.random() < (0.9 if c.model == "large" else [0.8, 0.4][d])
        met = rng.random() < (0.95 if c.backend == "b" else [0.9, 0.3][z])
        batch.append(
            Feedback(c.model, c.backend, bool(ok), bool(met), np.eye(2)[d], np.eye(2)[z], load=rng.integers(5))
        )
    return ROUTER.learn(state, batch).with_domains(state.domain_transition, [0.6, 0.4])


def decide(state, seed=0, request=None, routes=ROUTES, mode=None):
    return ROUTER.decide(state, request or Request(price_cap=1.0), routes, seed=seed, mode=mode)


def test_keys_are_those_of_hip_7():
    trace = decide(world()).trace.to_dict()
    assert set(trace) >= {
        "beliefs",
        "uncertainty",
        "candidates",
        "rejected",
        "chosen",
        "why",
        "counterfactuals",
        "inputs",
    }
    row = trace["candidates"][0]
    assert set(row) >= {"action", "efe", "utility", "curiosity", "risk", "ambiguity", "price"}
    assert [r["efe"] for r in trace["candidates"]] == sorted(r["efe"] for r in trace["candidates"])
    assert trace["rejected"] == [{"action": "e", "predicate": "price_cap", "detail": "costs 5, cap 1"}]
    assert trace["beliefs"]["domain"] == {"x": 0.6, "y": 0.4}
    assert math.isclose(trace["uncertainty"]["regime"], math.log(2))


@pytest.mark.parametrize("mode", ["sampled", "expected"])
def test_terms_are_the_definition(mode):
    """risk = KL from the preferences, over the four outcomes one by one; efe = risk + ambiguity - parameter gain."""
    request = Request(value=1.0, miss_cost=0.5)
    gamma = 3.0
    trace = decide(world(gamma=gamma, backoff=0.0), request=request, mode=mode).trace.to_dict(counterfactuals=False)
    norm = sum(math.exp(gamma * (1.0 * ok - 0.5 * (1 - met))) for ok in (0, 1) for met in (0, 1))
    for row in trace["candidates"]:
        p, q = row["p_ok"], row["p_met"]
        risk = 0.0
        for ok, met in ((0, 0), (0, 1), (1, 0), (1, 1)):
            joint = (p if ok else 1 - p) * (q if met else 1 - q)
            preferred = math.log(math.exp(gamma * (ok - 0.5 * (1 - met))) / norm) - gamma * row["price"]
            risk += joint * (math.log(joint) - preferred)
        assert math.isclose(row["risk"], risk, rel_tol=1e-9, abs_tol=1e-9)
        assert math.isclose(row["efe"], row["risk"] + row["ambiguity"] - row["parameter_gain"], abs_tol=1e-9)
        assert math.isclose(row["utility"], p - 0.5 * (1 - q) - row["price"], abs_tol=1e-12)


@given(
    seed=st.integers(0, 2**128 - 1), mode=st.sampled_from(["sampled", "expected"]), backoff=st.sampled_from([0.0, 4.0])
)
@settings(max_examples=20, deadline=None)
def test_a_trace_recomputes_bit_equal_from_its_json(seed, mode, backoff):
    trace = decide(world(backoff=backoff), seed, Request(price_cap=1.0, domain_evidence=[0.2, 0.9]), mode=mode).trace
    text = json.dumps(trace.to_dict(counterfactuals=False))
    assert json.dumps(recompute(json.loads(text)) | {"counterfactuals": []}) == text


def test_counterfactuals_recompute_as_well():
    trace = decide(world(), 4).trace.to_dict()
    assert trace["counterfactuals"]
    assert recompute(json.loads(json.dumps(trace))) == trace


def test_counterfactuals_are_true():
    """Each is applied to the inputs just before and just beyond its boundary, and the router decides again."""
    kinds = set()
    for seed in range(25):
        state = world(seed % 3)
        decision = decide(state, seed)
        for c in decision.trace.to_dict()["counterfactuals"]:
            side = "above" if "above" in c else "below"
            kinds.add((c["of"], side))
            beyond, inside = (1e-7, -1e-7) if side == "above" else (-1e-7, 1e-7)
            for shift, expected in ((beyond, c["then"]), (inside, decision.chosen.name)):
                x = c[side] + shift
                routes, changed = ROUTES, state
                if c["of"] == "price":
                    routes = [
                        Candidate(r.name, r.backend, r.model, price=x, load=r.load) if r.name == c["name"] else r
                        for r in ROUTES
                    ]
                elif c["of"] == "domain":
                    j = state.domains.index(c["name"])
                    changed = state.with_domains(state.domain_transition, moved(state.domain_belief, j, x))
                else:
                    j = state.regimes.index(c["name"])
                    belief = moved(state.regime_belief, j, x)
                    changed = state.with_regimes(state.regime_transition, [[0.0], [1.0]], [[[1.0]], [[1.0]]], belief)
                assert decide(changed, seed, routes=routes).chosen.name == expected
    assert {("price", "above"), ("domain", "above"), ("regime", "above"), ("regime", "below")} <= kinds


def test_the_trace_of_no_candidate_recomputes():
    with pytest.raises(NoCandidate) as e:
        decide(world(), request=Request(tier=4))
    trace = e.value.trace.to_dict()
    assert recompute(json.loads(json.dumps(trace))) == trace
    assert trace["candidates"] == []
    assert len(trace["rejected"]) == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.clear(),
        lambda t: t["inputs"].update(engine="other"),
        lambda t: t["inputs"].update(state=None),
        lambda t: t["inputs"].update(state=t["inputs"]["state"].replace('"version":1', '"version":9')),
        lambda t: t["inputs"].update(state=json.loads(t["inputs"]["state"])),
        lambda t: t["inputs"].update(state="\ud800"),
        lambda t: t["inputs"].update(state="{", state_digest=sha256(b"{").hexdigest()),
        lambda t: t["inputs"].update(state="3", state_digest=sha256(b"3").hexdigest()),
        lambda t: t["inputs"].update(candidates=3),
        lambda t: t["inputs"].update(candidates=[3]),
        lambda t: t["inputs"].update(request=[]),
        lambda t: t["inputs"].update(seed="1"),
        lambda t: t["inputs"].update(mode="x"),
        lambda t: t["inputs"]["candidates"][0].update(price="free"),
    ],
)
def test_what_is_no_trace_is_refused(change):
    trace = json.loads(json.dumps(decide(world()).trace.to_dict(counterfactuals=False)))
    change(trace)
    with pytest.raises(InvalidInput):
        recompute(trace)
