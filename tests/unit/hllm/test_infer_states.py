"""Beliefs about states: exact where they can be, and never worse by an iteration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.free_energy import infer_states, predict_states, variational_free_energy


def distribution(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.gamma(0.7, size=shape)
    return found / found.sum(axis=0)


def evidence(A: Any, observation: Any, prior: Any) -> float:
    """-ln P(o) by enumeration of the joint states."""
    total = 0.0
    for states in itertools.product(*(range(len(each)) for each in prior)):
        weight = math.prod(float(each[s]) for each, s in zip(prior, states, strict=True))
        for table, outcome in zip(A, observation, strict=True):
            weight *= 1.0 if outcome is None else float(table[(outcome, *states)])
        total += weight
    return -math.log(total)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_one_factor_is_bayes_rule(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, prior = [distribution(rng, 3, 4), distribution(rng, 2, 4)], [distribution(rng, 4)]
    (found,) = infer_states(A, [2, 1], prior)
    joint = prior[0] * A[0][2] * A[1][1]
    np.testing.assert_allclose(found, joint / joint.sum(), rtol=1e-12)
    energy = variational_free_energy(A, [2, 1], [found], prior)
    assert energy == pytest.approx(evidence(A, [2, 1], prior), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_mean_field_bounds_the_evidence_and_descends(seed: int) -> None:
    rng = np.random.default_rng(seed)
    A, prior = [distribution(rng, 3, 3, 2), distribution(rng, 2, 3, 2)], [distribution(rng, 3), distribution(rng, 2)]
    energies = [variational_free_energy(A, [1, 0], prior, prior)]
    for rounds in (1, 2, 4, 200):
        found = infer_states(A, [1, 0], prior, max_iterations=rounds)
        energies.append(variational_free_energy(A, [1, 0], found, prior))
    assert all(after <= before + 1e-10 for before, after in itertools.pairwise(energies))
    assert energies[-1] >= evidence(A, [1, 0], prior) - 1e-10
    for factor in range(2):  # no factor alone could be better
        for mixed in np.eye(len(found[factor])):
            other = [*found]
            other[factor] = 0.99 * found[factor] + 0.01 * mixed
            assert variational_free_energy(A, [1, 0], other, prior) >= energies[-1] - 1e-9


def test_independent_factors_are_found_exactly() -> None:
    """Each modality looks at one factor: then the posterior is a product."""
    rng = np.random.default_rng(4)
    one, two = distribution(rng, 3, 3), distribution(rng, 2, 2)
    A = [np.repeat(one[:, :, None], 2, axis=2), np.repeat(two[:, None, :], 3, axis=1)]
    prior = [distribution(rng, 3), distribution(rng, 2)]
    found = infer_states(A, [0, 1], prior)
    for belief, table, seen, before in zip(found, (one, two), (0, 1), prior, strict=True):
        np.testing.assert_allclose(belief, table[seen] * before / (table[seen] @ before), rtol=1e-12)
    energy = variational_free_energy(A, [0, 1], found, prior)
    assert energy == pytest.approx(evidence(A, [0, 1], prior), abs=1e-10)


def test_what_was_not_observed_tells_nothing() -> None:
    rng = np.random.default_rng(5)
    A, prior = [distribution(rng, 3, 4), distribution(rng, 2, 4)], [distribution(rng, 4)]
    np.testing.assert_allclose(infer_states(A, [None, None], prior)[0], prior[0])
    np.testing.assert_allclose(infer_states(A, [1, None], prior)[0], infer_states(A[:1], [1], prior)[0])
    soft = infer_states(A, [[0.0, 1.0, 0.0], None], prior)[0]
    np.testing.assert_allclose(soft, infer_states(A, [1, None], prior)[0])


def test_names_of_states_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    A, prior = [distribution(rng, 3, 4, 2)], [distribution(rng, 4), distribution(rng, 2)]
    turned = infer_states([A[0][:, ::-1]], [1], [prior[0][::-1], prior[1]])
    found = infer_states(A, [1], prior)
    np.testing.assert_allclose(turned[0][::-1], found[0], atol=1e-10)
    np.testing.assert_allclose(turned[1], found[1], atol=1e-10)


def test_zeros_are_taken_as_they_are() -> None:
    """A likelihood and a prior of 0 exclude a state; nothing is divided by 0 on the way."""
    A = [np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]])]
    np.testing.assert_allclose(infer_states(A, [0], [[0.2, 0.3, 0.5]])[0], [0.2 / 0.35, 0.15 / 0.35, 0])
    np.testing.assert_allclose(infer_states(A, [0], [[0.0, 0.5, 0.5]])[0], [0, 1, 0])
    either = np.zeros((2, 2, 2))
    either[0] = np.eye(2)  # the two factors are in the same state, or not
    either[1] = 1 - np.eye(2)
    found = infer_states([either], [1], [[0.9, 0.1], [0.5, 0.5]])
    assert all(np.isfinite(each).all() and each.sum() == pytest.approx(1) for each in found)
    np.testing.assert_allclose(found[0] @ either[1] @ found[1], 1, atol=1e-6)
    assert math.isfinite(variational_free_energy([either], [1], found, [[0.9, 0.1], [0.5, 0.5]]))
    many = [np.array([[0.01, 0.02], [0.99, 0.98]])] * 300  # their product is far below the smallest float
    np.testing.assert_allclose(infer_states(many, [0] * 300, [[0.5, 0.5]])[0], [2.0**-300, 1])
    wide = [np.stack([[[0.01, 0.01], [0.02, 0.02]], [[0.99, 0.99], [0.98, 0.98]]])] * 300
    np.testing.assert_allclose(infer_states(wide, [0] * 300, [[0.5, 0.5]] * 2)[1], [0.5, 0.5])
    tiny = [np.array([[1e-300, 1e-301], [1 - 1e-300, 1 - 1e-301]])]
    np.testing.assert_allclose(infer_states(tiny, [0], [[0.5, 0.5]])[0], [10 / 11, 1 / 11])


def test_predictions_follow_the_action() -> None:
    B = [np.stack([np.eye(2), [[0.0, 1.0], [1.0, 0.0]]], axis=-1), np.full((3, 3, 1), 1 / 3)]
    found = predict_states(B, [[0.9, 0.1], [1, 0, 0]], [1, 0])
    np.testing.assert_allclose(found[0], [0.1, 0.9])
    np.testing.assert_allclose(found[1], 1 / 3)


A1, D1 = [np.array([[0.9, 0.2], [0.1, 0.8]])], [np.array([0.5, 0.5])]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: infer_states(A1, [2], D1), r"observation\[0\] is 2"),
        (lambda: infer_states(A1, [0.5], D1), r"observation\[0\] is 0.5"),
        (lambda: infer_states(A1, [0, 0], D1), "2 modalities"),
        (lambda: infer_states(A1, 0, D1), r"observation.*list"),
        (lambda: infer_states(A1, [[math.nan, 1]], D1), "not finite"),
        (lambda: infer_states([[[1.0, 1.0], [0.0, 0.0]]], [1], D1), "impossible"),
        (lambda: variational_free_energy([[[1.0, 1.0], [0.0, 0.0]]], [1], D1, D1), "impossible"),
        (lambda: infer_states([np.eye(2)], [1], [[1.0, 0.0]]), "impossible"),
        (lambda: infer_states(A1, [0], [[0.5, 0.5, 0.0]]), r"A\[0\] has shape"),
        (lambda: infer_states(A1, [0], [[-0.5, 1.5]]), "negative"),
        (lambda: infer_states([np.full((2, 2, 2), 0.5)], [0], D1 * 2, max_iterations=0), "max_iterations"),
        (lambda: variational_free_energy(A1, [0], [[1.0]], D1), "qs has other"),
        (lambda: predict_states([np.ones((2, 2, 1)) / 2], D1, [1]), r"action\[0\] is 1"),
        (lambda: predict_states([np.ones((2, 2, 1)) / 2], D1, [0, 0]), "action has 2"),
    ],
)
def test_bad_input_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()
