"""Expected free energy against its definition, closed forms, and identities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.free_energy import Planner, expected_free_energy
from tests.support import enumerated

TERMS = ("utility", "risk", "ambiguity", "state_gain")


def distribution(rng: np.random.Generator, *shape: int, sparse: bool = False) -> np.ndarray:
    found = rng.gamma(0.7, size=shape)
    if sparse:
        found *= rng.random(shape) < 0.6
        found[0] += 1e-3
    return found / found.sum(axis=0)


def model(
    seed: int, states: list[int], outcomes: list[int], controls: list[int], *, sparse: bool = False, steps: int = 0
) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    A = [distribution(rng, size, *states, sparse=sparse) for size in outcomes]
    B = [distribution(rng, size, size, many, sparse=sparse) for size, many in zip(states, controls, strict=True)]
    C = [rng.normal(size=(size, steps) if steps else size) for size in outcomes]
    return A, B, C, [distribution(rng, size) for size in states]


MODELS = [
    ([2], [2], [2], 3, {}),
    ([4], [3], [3], 3, {}),
    ([3], [4, 2], [2], 2, {"sparse": True}),
    ([3, 2], [3, 2], [2, 3], 2, {}),
    ([2, 3, 2], [2, 3, 2], [2, 1, 2], 2, {"sparse": True}),
    ([3], [3], [2], 3, {"steps": 3}),
    ([1], [1], [1], 4, {}),
]


@pytest.mark.parametrize(("states", "outcomes", "controls", "horizon", "more"), MODELS)
def test_the_tree_gives_what_every_policy_alone_gives(
    states: list[int], outcomes: list[int], controls: list[int], horizon: int, more: dict[str, Any]
) -> None:
    A, B, C, qs = model(3, states, outcomes, controls, **more)
    found = expected_free_energy(A, B, C, qs, horizon)
    wanted = enumerated.policies(controls, horizon)
    assert found.policies.tolist() == [list(map(list, each)) for each in wanted]
    terms = [enumerated.evaluate(A, B, C, qs, each) for each in wanted]
    for name in TERMS:
        np.testing.assert_allclose(getattr(found, name), [getattr(each, name) for each in terms], atol=1e-12, rtol=0)
    np.testing.assert_allclose(found.efe, [each.risk + each.ambiguity for each in terms], atol=1e-12, rtol=0)
    lowest = min(range(len(wanted)), key=lambda index: terms[index].risk + terms[index].ambiguity)
    assert found.efe[found.best] == pytest.approx(found.efe[lowest], abs=1e-12)
    assert found.action == tuple(found.plan[0]) == wanted[found.best][0]


@pytest.mark.parametrize("r", [0.9, 0.6, 0.99])
def test_a_binary_channel_with_flat_preferences_has_a_closed_form(r: float) -> None:
    """The capacity of the channel is ln 2 - H(r); flat preferences cost ln 2."""
    A, B = [np.array([[r, 1 - r], [1 - r, r]])], [np.stack([np.eye(2), np.eye(2)[::-1]], axis=-1)]
    entropy = -r * math.log(r) - (1 - r) * math.log(1 - r)
    found = expected_free_energy(A, B, [np.zeros(2)], [[0.5, 0.5]])
    np.testing.assert_allclose(found.efe, entropy, atol=1e-15)
    np.testing.assert_allclose(found.state_gain, math.log(2) - entropy, atol=1e-15)
    if r == 0.9:
        np.testing.assert_allclose(-found.efe, -0.3250830, atol=5e-8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_risk_and_ambiguity_are_cost_and_information(seed: int, sparse: bool) -> None:
    A, B, C, qs = model(seed, [3, 2], [3, 2], [2, 2], sparse=sparse)
    found = expected_free_energy(A, B, C, qs, 3)
    np.testing.assert_allclose(found.risk + found.ambiguity, -found.utility - found.state_gain, atol=1e-12)
    assert found.risk.min() >= -1e-12
    assert found.ambiguity.min() >= 0
    assert found.state_gain.min() >= -1e-12


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(4)), st.permutations(range(3)), st.permutations(range(2)))
def test_names_do_not_matter(seed: int, states: list[int], outcomes: list[int], actions: list[int]) -> None:
    A, B, C, qs = model(seed, [4], [3], [2])
    found = expected_free_energy(A, B, C, qs, 3)
    renamed = expected_free_energy(
        [A[0][outcomes][:, states]], [B[0][states][:, states][:, :, actions]], [C[0][outcomes]], [qs[0][states]], 3
    )
    for name in TERMS:
        before = getattr(found, name).reshape(2, 2, 2)
        np.testing.assert_allclose(getattr(renamed, name).reshape(2, 2, 2), before[np.ix_(actions, actions, actions)])


def test_the_order_of_factors_and_modalities_does_not_matter() -> None:
    A, B, C, qs = model(5, [3, 2], [3, 2, 4], [2, 3])
    found = expected_free_energy(A, B, C, qs, 2)
    turned = expected_free_energy([each.swapaxes(1, 2) for each in A[::-1]], B[::-1], C[::-1], qs[::-1], 2)
    np.testing.assert_allclose(turned.efe.reshape(3, 2, 3, 2), found.efe.reshape(2, 3, 2, 3).transpose(1, 0, 3, 2))


def test_a_constant_in_the_preferences_changes_nothing() -> None:
    A, B, C, qs = model(6, [3], [3], [2])
    moved = expected_free_energy(A, B, [C[0] + 1000], qs, 3)
    np.testing.assert_allclose(moved.efe, expected_free_energy(A, B, C, qs, 3).efe, atol=1e-10)


def test_large_levels_are_gone_through_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    from hllm.free_energy import expected

    A, B, C, qs = model(7, [3, 2], [3, 2], [2, 2])
    whole = expected_free_energy(A, B, C, qs, 3)
    monkeypatch.setattr(expected, "_SLICE", 20)
    sliced = expected_free_energy(A, B, C, qs, 3)
    for name in TERMS:
        np.testing.assert_allclose(getattr(sliced, name), getattr(whole, name), atol=1e-13)


def test_a_planner_plans_again_and_again() -> None:
    A, B, C, _ = model(7, [3, 2], [3, 2], [2, 2], steps=2)
    planner = Planner(A, B, C, 2)
    for seed in range(3):
        qs = model(seed, [3, 2], [3], [2, 2])[3]
        np.testing.assert_array_equal(planner.evaluate(qs).efe, expected_free_energy(A, B, C, qs, 2).efe)


def test_the_posterior_is_a_softmax_with_a_prior() -> None:
    A, B, C, qs = model(8, [3], [3], [2])
    found = expected_free_energy(A, B, C, qs, 2)
    weights = [math.exp(-2.0 * each) for each in found.efe]
    np.testing.assert_allclose(found.posterior(2.0), np.array(weights) / sum(weights), rtol=1e-12)
    habit = np.array([0.5, 0.0, 0.25, 0.25])
    expected = habit * weights / (habit @ weights)
    np.testing.assert_allclose(found.posterior(2.0, habit), expected, rtol=1e-12)
    np.testing.assert_allclose(
        found.first_actions(found.posterior(2.0, habit)), [expected[:2].sum(), expected[2:].sum()]
    )
    np.testing.assert_allclose(found.posterior(0.0), 0.25)
    assert found.posterior(1e300)[found.best] == 1.0


GOOD = model(1, [2], [2], [2])
A, B, C, QS = GOOD


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((A[0], B, C, QS), r"A is one array.*\[A\]"),
        (([], B, C, QS), "A is empty"),
        ((3, B, C, QS), "A is int"),
        (([A[0] * 2], B, C, QS), r"A\[0\] is not normalised"),
        (([A[0] - 1], B, C, QS), r"A\[0\] has a negative"),
        (([A[0] * np.nan], B, C, QS), r"A\[0\] has a value that is not finite"),
        (([[["x", "y"], ["z", "w"]]], B, C, QS), r"A\[0\] is no array of numbers"),
        (([[[1.0, 0.0], [0.0]]], B, C, QS), r"A\[0\] is no array of numbers"),
        (([distribution(np.random.default_rng(0), 2, 3)], B, C, QS), r"A\[0\] has shape \(2, 3\)"),
        ((A, [B[0].swapaxes(0, 1) * 1.1], C, QS), r"B\[0\] is not normalised"),
        ((A, [B[0][:, :, 0]], C, QS), r"B\[0\] has shape \(2, 2\)"),
        ((A, B * 2, C, QS), r"A\[0\] has shape"),
        ((A, B, C, QS * 2), r"qs has states \[2, 2\] by factor, and B has \[2\]"),
        ((A, B, C, [[0.2, 0.3, 0.5]]), "qs has states"),
        ((A, B, [np.zeros(3)], QS), r"C\[0\] has shape \(3,\)"),
        ((A, B, [np.array([np.inf, 0])], QS), r"C\[0\] has a value that is not finite"),
        ((A, B, C * 2, QS), "C has 2 modalities"),
        ((A, B, C, [[0.5, 0.6]]), r"qs\[0\] is not normalised"),
        ((A, B, C, [[[0.5], [0.5]]]), r"qs\[0\] has shape"),
        ((A, B, C, [0.5]), r"qs\[0\] has shape \(\)"),
        ((A, B, C, QS, 0), "horizon is 0"),
        ((A, B, C, QS, 2.0), r"horizon is 2\.0"),
        ((A, B, C, QS, True), "horizon is True"),
        ((A, B, C, QS, 21), "2 joint actions over 21 steps are more than 1048576 policies"),
        ((A, B, C, QS, 60_000), "use a shorter horizon"),
    ],
)
def test_bad_input_is_refused(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        expected_free_energy(*arguments)


def test_sums_that_are_a_little_off_are_rounding_however_many_there_are() -> None:
    A, B, C, qs = model(2, [400], [3], [1])
    A = [(A[0] * (1 + 5e-7)).astype(np.float32)]
    assert np.linalg.norm(A[0].sum(axis=0, dtype=float) - 1) > 1e-6
    found = expected_free_energy(A, B, C, qs)
    np.testing.assert_allclose(found.risk + found.ambiguity, -found.utility - found.state_gain, atol=1e-12)
    with pytest.raises(InvalidInput, match="off 1 by 2"):
        expected_free_energy([A[0].astype(float) * (1 + 1.5e-6)], B, C, qs)


@pytest.mark.parametrize("bad", [[[1e308], [1e308]], [[np.inf], [np.inf]], [[np.inf], [-np.inf]], [[np.nan], [1.0]]])
def test_numbers_that_overflow_are_refused_without_a_warning(bad: list[list[float]]) -> None:
    with pytest.raises(InvalidInput, match=r"A\[0\] (has a value that is not finite|is not normalised|has a negative)"):
        expected_free_energy([bad], [np.ones((1, 1, 1))], [np.zeros(2)], [[1.0]])


def test_a_table_that_is_too_large_is_refused() -> None:
    large = [np.full((200, 200), 1 / 200)] * 4
    with pytest.raises(InvalidInput, match="joint outcomes"):
        expected_free_energy(large, [np.eye(200)[:, :, None]], [np.zeros(200)] * 4, [np.full(200, 1 / 200)])


def test_bad_arguments_of_the_result_are_refused() -> None:
    found = expected_free_energy(*GOOD, 2)
    for bad in (-1.0, math.nan, "x"):
        with pytest.raises(InvalidInput, match="gamma"):
            found.posterior(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="E has shape"):
        found.posterior(1.0, [1.0])
    with pytest.raises(InvalidInput, match="fits the policies"):
        found.first_actions(np.ones(3))
    with pytest.raises(InvalidInput, match="index of a policy"):
        found.policy(4)
