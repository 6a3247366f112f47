"""The router's choices: constraints, seeds and order, what is learnt, and what is refused."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm import router_terms
from hllm.errors import HllmError, InvalidInput
from hllm.router import Candidate, Feedback, NoCandidate, Request, Router, RouterSettings, RouterState

ROUTER = Router()


def pools(n, **changes):
    return [Candidate(f"pool-{i}", f"pool-{i}", "wasm", **changes) for i in range(n)]


def learnt(state, backend, met, n, model="wasm"):
    return ROUTER.learn(state, [Feedback(model, backend, True, met)] * n)


@pytest.mark.parametrize(
    ("candidate", "predicate"),
    [
        (Candidate("x", "x", excluded="stale attestation"), "excluded"),
        (Candidate("x", "x", tier=1, capabilities=frozenset({"gpu"})), "tier"),
        (Candidate("x", "x", tier=2), "capabilities"),
        (Candidate("x", "x", tier=2, capabilities=frozenset({"gpu"}), limits={"memory_mib": 10.0}), "resources"),
        (Candidate("x", "x", tier=2, capabilities=frozenset({"gpu"}), price=3.0), "price_cap"),
    ],
)
def test_a_hard_constraint_rejects_and_names_its_predicate(candidate, predicate):
    request = Request(tier=2, capabilities=frozenset({"gpu"}), resources={"memory_mib": 11.0}, price_cap=2.0)
    good = Candidate(
        "good", "good", tier=2, capabilities=frozenset({"gpu", "py"}), limits={"cpu_millis": 1.0}, price=2.0
    )
    decision = ROUTER.decide(RouterState.new(), request, [candidate, good], seed=1)
    assert decision.chosen is good
    assert [(r.action, r.predicate) for r in decision.trace.choice.rejected] == [("x", predicate)]
    with pytest.raises(NoCandidate) as e:
        ROUTER.decide(RouterState.new(), request, [candidate], seed=1)
    assert isinstance(e.value, HllmError)
    trace = e.value.trace.to_dict()
    assert trace["chosen"] is None
    assert [r["predicate"] for r in trace["rejected"]] == [predicate]


def test_no_candidate_at_all_is_told():
    with pytest.raises(NoCandidate, match="no candidate was given"):
        ROUTER.decide(RouterState.new(), Request(), [], seed=0)


def test_without_data_the_least_loaded_is_taken_and_said():
    routes = [
        Candidate("a", "a", load=3, price=0.1),
        Candidate("b", "b", load=1, price=9.0),
        Candidate("c", "c", load=2),
    ]
    for seed in range(20):
        decision = ROUTER.decide(RouterState.new(), Request(), routes, seed=seed)
        assert decision.chosen.name == "b"
        assert decision.trace.to_dict()["why"] == "no data: least loaded"


@given(seed=st.integers(0, 2**128 - 1), shuffle=st.integers(0, 1000), mode=st.sampled_from(["sampled", "expected"]))
@settings(max_examples=40, deadline=None)
def test_the_order_of_candidates_changes_nothing(seed, shuffle, mode):
    rng = random.Random(shuffle)
    state = RouterState.new(domains=("a", "b"), regimes=("calm", "storm"))
    routes = [
        Candidate(f"r{i}", f"b{i % 3}", f"m{i % 2}", price=rng.random(), load=rng.randrange(3), tier=i % 2)
        for i in range(7)
    ]
    state = ROUTER.learn(
        state, [Feedback(f"m{rng.randrange(2)}", f"b{rng.randrange(3)}", rng.random() < 0.7, True) for _ in range(30)]
    )
    request = Request(tier=1, domain_evidence=[0.0, 1.0])
    first = ROUTER.decide(state, request, routes, seed=seed, mode=mode)
    rng.shuffle(routes)
    second = ROUTER.decide(state, request, routes, seed=seed, mode=mode)
    assert first.chosen == second.chosen
    by_name = [{r["action"]: r for r in d.trace.to_dict(counterfactuals=False)["candidates"]} for d in (first, second)]
    assert by_name[0] == by_name[1]


def test_a_seed_decides_and_seeds_differ():
    state = learnt(learnt(RouterState.new(), "pool-0", True, 2), "pool-1", True, 1)
    chosen = [ROUTER.decide(state, Request(), pools(3), seed=s).chosen.name for s in range(60)]
    assert chosen == [ROUTER.decide(state, Request(), pools(3), seed=s).chosen.name for s in range(60)]
    assert len(set(chosen)) == 3


def test_samples_follow_the_dirichlet_posterior():
    """P(met) of 2,000 decisions has the mean and variance of Beta(1 + 7, 1 + 2)."""
    state = RouterState.new(RouterSettings(forgetting=1.0, backoff=0.0))
    state = learnt(learnt(state, "pool-0", True, 7), "pool-0", False, 2)
    met = [ROUTER.decide(state, Request(), pools(1), seed=s).trace.choice.terms.met[0] for s in range(2000)]
    mean, variance = 8 / 11, 8 * 3 / (11**2 * 12)
    assert abs(np.mean(met) - mean) < 4 * np.sqrt(variance / 2000)
    assert abs(np.var(met) / variance - 1) < 0.2


def test_the_filter_is_bayes_rule():
    transition, mean = np.array([[0.9, 0.1], [0.3, 0.7]]), np.array([[0.0], [2.0]])
    state = RouterState.new(regimes=("calm", "storm")).with_regimes(
        transition, mean, np.full((2, 1, 1), 4.0), [0.5, 0.5]
    )
    belief = [0.5, 0.5]
    for x in (0.3, 2.5, 1.9):
        state = ROUTER.advance(state, telemetry=[x])
        prior = [sum(belief[i] * transition[i][j] for i in range(2)) for j in range(2)]
        joint = [prior[j] * np.exp(-((x - mean[j, 0]) ** 2) / 8) for j in range(2)]
        belief = [j / sum(joint) for j in joint]
        assert np.allclose(state.regime_belief, belief, rtol=1e-12)
    with_telemetry = ROUTER.decide(state, Request(telemetry=[1.0]), pools(2), seed=0).trace.regime
    assert np.array_equal(with_telemetry, ROUTER.advance(state, telemetry=[1.0]).regime_belief)
    assert np.allclose(ROUTER.advance(state).regime_belief, state.regime_belief @ transition)


def test_a_count_goes_to_the_posterior_of_its_outcome():
    """By hand: prior belief .6/.4, P(met) .5/.25 → posterior of a miss ∝ .6·.5, .4·.75 = .5/.5."""
    state = RouterState.new(RouterSettings(forgetting=1.0, backoff=0.0), regimes=("calm", "storm"))
    state = ROUTER.learn(state, [Feedback("m", "b", True, False, regime=[0.0, 1.0])] * 2)
    before = state.service.rows(["b"])[0]
    assert np.allclose(before, [[1, 1], [1, 3]])
    after = ROUTER.learn(state, [Feedback("m", "b", True, False, regime=[0.6, 0.4])]).service.rows(["b"])[0]
    assert np.allclose(after - before, [[0, 0.5], [0, 0.5]])


def test_prices_and_values_move_the_choice():
    state = RouterState.new(RouterSettings(mode="expected", curiosity=0.0))
    state = ROUTER.learn(state, [Feedback("good", "b", i % 10 != 0, True) for i in range(200)])
    state = ROUTER.learn(state, [Feedback("poor", "b", i % 2 == 0, True) for i in range(200)])
    routes = [Candidate("dear", "b", "good", price=0.3), Candidate("cheap", "b", "poor", price=0.1)]
    assert ROUTER.decide(state, Request(value=1.0), routes, seed=0).chosen.name == "dear"
    assert ROUTER.decide(state, Request(value=0.1), routes, seed=0).chosen.name == "cheap"


def test_expected_mode_is_curious_and_a_finer_table_is_believed_when_it_predicts_better():
    state = RouterState.new(RouterSettings(mode="expected"), domains=("x", "y"))
    known = ROUTER.learn(state, [Feedback("m", "known", True, i % 2 == 0) for i in range(400)])
    terms = ROUTER.decide(known, Request(), [Candidate("k", "known", "m"), Candidate("n", "new", "m")], seed=0)
    gain = terms.trace.choice.terms.gain
    assert gain[1] > 3 * gain[0] > 0
    crossed = [
        Feedback("m", b, True, (b == "a") == (d == 0), domain=[1.0 - d, float(d)])
        for _ in range(60)
        for b in ("a", "b")
        for d in (0, 1)
    ]
    state = ROUTER.learn(state, crossed)
    routes = [Candidate("a", "a", "m"), Candidate("b", "b", "m")]
    for d, best in ((0, "a"), (1, "b")):
        evidence = [20.0 * (1 - d), 20.0 * d]
        assert ROUTER.decide(state, Request(domain_evidence=evidence), routes, seed=0).chosen.name == best
    flat = RouterState.new(RouterSettings(mode="expected", backoff=0.0), domains=("x", "y"))
    flat = ROUTER.learn(flat, crossed)
    met = ROUTER.decide(flat, Request(domain_evidence=[20.0, 0.0]), routes, seed=0).trace.choice.terms.met
    assert abs(met[0] - met[1]) < 0.05


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: ROUTER.decide(s, Request(), pools(2), seed=-1), "seed"),
        (lambda s: ROUTER.decide(s, Request(), pools(2), seed=True), "seed"),
        (lambda s: ROUTER.decide(s, Request(), pools(2), seed=0, mode="best"), "mode"),
        (lambda s: ROUTER.decide(s, Request(), [*pools(1), *pools(1)], seed=0), "one name"),
        (lambda s: ROUTER.decide(s, Request(), pools(1, price=float("nan")), seed=0), "price"),
        (lambda s: ROUTER.decide(s, Request(), pools(1, load=-1.0), seed=0), "load"),
        (lambda s: ROUTER.decide(s, Request(value=float("inf")), pools(1), seed=0), "value"),
        (lambda s: ROUTER.decide(s, Request(value=1e308), pools(2), seed=0), "value"),
        (lambda s: ROUTER.decide(s, Request(miss_cost=-1e308), pools(2), seed=0), "miss_cost"),
        (lambda s: ROUTER.decide(s, Request(), pools(2, price=-1e308), seed=0), "price"),
        (lambda s: ROUTER.decide(s, Request(), pools(2, load=1e308), seed=0), "load"),
        (lambda s: ROUTER.decide(s, Request(domain_evidence=[1.0]), pools(1), seed=0), "domain_evidence"),
        (lambda s: ROUTER.decide(s, Request(domain_evidence=[10**400, 0]), pools(1), seed=0), "domain_evidence"),
        (lambda s: ROUTER.decide(s, Request(domain_evidence=[1.0, float("nan")]), pools(1), seed=0), "domain_evidence"),
        (lambda s: ROUTER.decide(s, Request(telemetry=[1.0]), pools(1), seed=0), "emission"),
        (lambda s: ROUTER.learn(s, [Feedback("m", "b", True, True, domain=[0.0, 0.0])]), "domain"),
        (lambda s: ROUTER.learn(s, [Feedback("m", "b", True, True, at=float("nan"))]), "at is"),
    ],
)
def test_bad_input_is_told(call, message):
    with pytest.raises(InvalidInput, match=message):
        call(RouterState.new(domains=("x", "y")))


@pytest.mark.parametrize("seed", [0, 2**64 - 1, 2**64, 2**128 - 1])
def test_the_generator_of_a_seed_is_philox_with_that_key(seed):
    ours = np.random.Generator(np.random.Philox(router_terms._Key(seed)))
    assert (ours.random(9) == np.random.Generator(np.random.Philox(key=seed)).random(9)).all()


def test_what_a_state_keeps_of_earlier_routes_changes_nothing():
    """The same decisions from a state that has seen many sets of routes and from one that is new each time."""
    state = ROUTER.learn(RouterState.new(), [Feedback("m1", "b1", True, False), Feedback("m0", "b2", False, True)])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        routes = [Candidate(f"c{i}", f"b{rng.integers(4)}", f"m{rng.integers(3)}") for i in range(rng.integers(1, 6))]
        new = RouterState.from_dict(state.to_dict())
        kept, fresh = (ROUTER.decide(each, Request(), routes, seed=seed).trace.to_dict() for each in (state, new))
        assert kept == fresh
