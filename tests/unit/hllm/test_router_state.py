"""The router's state: its JSON form, and what is refused as one."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.router import Feedback, Router, RouterSettings, RouterState

ROUTER = Router()
NAMES = st.text(max_size=6)
FEEDBACK = st.builds(
    Feedback,
    candidate_model=NAMES,
    backend=NAMES,
    ok=st.booleans(),
    met=st.none() | st.booleans(),
    domain=st.none() | st.tuples(st.floats(0.001, 1), st.floats(0, 1)),
    regime=st.none() | st.tuples(st.floats(0.001, 1), st.floats(0, 1)),
    at=st.none() | st.floats(0, 1e6),
    load=st.none() | st.floats(0, 100),
)


def full_state():
    state = RouterState.new(RouterSettings(half_life=60.0), domains=("a", "b"), regimes=("calm", "storm"))
    state = state.with_regimes([[0.9, 0.1], [0.2, 0.8]], [[0.0], [1.0]], [[[1.0]], [[2.0]]], [0.7, 0.3])
    state = ROUTER.learn(state, [Feedback("m", "b", True, False, at=1.5, load=2), Feedback("n", "c", False, at=2.5)])
    return ROUTER.advance(state, telemetry=[0.3], domain_evidence=[0.1, 0.2])


def test_json_gives_the_state_back_bit_for_bit():
    state = full_state()
    again = RouterState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    assert again.digest() == state.digest()
    assert np.array_equal(again.emission.whiten, state.emission.whiten)
    assert RouterState.new() != state


@given(st.lists(FEEDBACK, max_size=12))
@settings(max_examples=40, deadline=None)
def test_any_feedback_leaves_a_valid_state(batch):
    before = RouterState.new(
        RouterSettings(half_life=10.0, forgetting=0.9), domains=("a", "b"), regimes=("calm", "storm")
    )
    frozen = json.dumps(before.to_dict())
    state = ROUTER.learn(before, batch)
    assert json.dumps(before.to_dict()) == frozen
    assert RouterState.from_dict(json.loads(json.dumps(state.to_dict()))) == state
    assert state.version == (1 if batch else 0)
    counted = state.quality.counts - 1
    assert counted.min(initial=0.0) > -1e-12
    assert counted.sum() <= len(batch) + 1e-9


def test_two_batches_are_one():
    batch = [Feedback("m", f"b{i % 3}", i % 2 == 0, i % 3 == 0, load=i) for i in range(20)]
    one = ROUTER.learn(RouterState.new(), batch).to_dict() | {"version": 0}
    two = ROUTER.learn(ROUTER.learn(RouterState.new(), batch[:7]), batch[7:]).to_dict() | {"version": 0}
    assert one == two


def changed(path, value):
    d = copy.deepcopy(full_state().to_dict())
    *parents, last = path
    at = d
    for key in parents:
        at = at[key]
    at[last] = value
    return d


@pytest.mark.parametrize(
    "hostile",
    [
        None,
        [],
        "x",
        {},
        {"format": "hllm.router/1"},
        changed(["format"], "hllm.router/2"),
        changed(["settings"], None),
        changed(["settings"], {"gamma": "big"}),
        changed(["settings"], {"speed": 1}),
        changed(["settings", "gamma"], float("nan")),
        changed(["settings", "gamma"], 10**400),
        changed(["settings", "mode"], ["sampled"]),
        changed(["settings", "forgetting"], 0.0),
        changed(["settings", "quality_prior"], [1.0]),
        changed(["settings", "quality_prior"], [1.0, 0.0]),
        changed(["domains"], []),
        changed(["domains"], ["a", "a"]),
        changed(["domains"], ["a", 3]),
        changed(["domains"], ["a", "b", "c"]),
        changed(["regimes"], "ab"),
        changed(["domain_transition"], [[1.0, 1.0], [0.0, 1.0]]),
        changed(["domain_transition"], None),
        changed(["regime_transition", 0, 0], -0.1),
        changed(["domain_belief"], [0.5, float("inf")]),
        changed(["domain_belief"], [[0.5], [0.5, 1]]),
        changed(["emission"], [1]),
        changed(["emission"], {}),
        changed(["emission", "covariance"], [[[0.0]], [[1.0]]]),
        changed(["emission", "mean"], [[1.0, 2.0], [1.0, 2.0]]),
        changed(["quality"], []),
        changed(["quality", "m"], [[1.0, 1.0]]),
        changed(["quality", "m"], [[1.0, 1.0], [-1.0, 1.0]]),
        changed(["service", "b"], [[1.0, 1.0], [1e300, 1.0]]),
        changed(["service_loads", "b"], {"a": 1}),
        changed(["quality_score"], [0.0]),
        changed(["service_score"], [0.0, 0.0, float("nan")]),
        changed(["version"], -1),
        changed(["version"], True),
        changed(["at"], "now"),
    ],
    ids=range(39),
)
def test_a_hostile_state_is_refused(hostile):
    with pytest.raises(InvalidInput):
        RouterState.from_dict(hostile)


@pytest.mark.parametrize(
    "bad",
    [
        {"mode": "x"},
        {"gamma": -1.0},
        {"gamma": 1e308},
        {"backoff": 1e308},
        {"backoff": 1e-320},
        {"service_prior": (1.0, 1e308)},
        {"curiosity": float("nan")},
        {"forgetting": 1.1},
        {"half_life": 0.0},
        {"service_prior": (0.0, 1.0)},
        {"scores_kept": 0.0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(InvalidInput, match=next(iter(bad))):
        RouterSettings(**bad)
