"""Digamma, the gain about parameters, and learning by counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats

from hllm.errors import InvalidInput
from hllm.free_energy import (
    digamma,
    expected_free_energy,
    expected_parameters,
    learn_likelihood,
    learn_prior,
    learn_transitions,
    parameter_gain,
)


def test_digamma_is_that_of_scipy() -> None:
    x = np.concatenate([np.logspace(-8, 12, 4001), np.linspace(0.01, 30, 3001)])
    wanted = special.digamma(x)
    assert (np.abs(digamma(x) - wanted) / np.maximum(1, np.abs(wanted))).max() < 2e-14


@pytest.mark.parametrize("bad", [0.0, -1.5, math.nan, math.inf])
def test_digamma_is_of_positive_numbers(bad: float) -> None:
    with pytest.raises(InvalidInput, match="digamma"):
        digamma([1.0, bad])


@pytest.mark.parametrize(("counts", "exact", "half"), [((1.6, 0.4), 0.166, 0.25), ((80, 20), 0.00496, 0.005)])
def test_the_exact_gain_and_the_usual_approximation(counts: tuple[float, float], exact: float, half: float) -> None:
    assert float(parameter_gain(counts)) == pytest.approx(exact, abs=10.0 ** -(3 if exact > 0.01 else 5) / 2)
    assert 1 / (2 * sum(counts)) == half  # (K - 1) / 2n


@pytest.mark.parametrize("counts", [(1.0, 1.0), (0.3, 2.0), (5.0, 0.5), (40.0, 60.0)])
def test_the_gain_is_a_mutual_information(counts: tuple[float, float]) -> None:
    """H[o] - E H[o | theta] with theta ~ Beta, by quadrature."""

    def expected(theta: float) -> float:
        entropy = -special.xlogy(theta, theta) - special.xlogy(1 - theta, 1 - theta)
        return float(entropy * stats.beta.pdf(theta, *counts))

    inside, _ = integrate.quad(expected, 0, 1, epsabs=1e-10, limit=200)
    p = counts[0] / sum(counts)
    outside = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert float(parameter_gain(counts)) == pytest.approx(outside - inside, abs=1e-7)


@settings(max_examples=50)
@given(st.lists(st.floats(0.01, 1e6), min_size=2, max_size=6), st.floats(1.5, 100))
def test_more_counts_leave_less_to_learn(counts: list[float], factor: float) -> None:
    few, many = parameter_gain(counts), parameter_gain(np.array(counts) * factor)
    assert 0 <= many <= few + 1e-12


def test_an_outcome_without_counts_cannot_occur() -> None:
    np.testing.assert_allclose(parameter_gain([[1.6], [0.4], [0.0]]), parameter_gain([[1.6], [0.4]]), rtol=1e-14)
    assert float(parameter_gain([3.0, 0.0])) == 0.0


def test_gains_of_a_plan_are_weighted_by_where_it_leads() -> None:
    """Two states: one is known well, one is not; looking at the latter tells more; moves tell, too."""
    pA = [np.array([[50.0, 0.5], [50.0, 0.5]])]
    B = [np.stack([[[1.0, 1.0], [0, 0]], [[0, 0], [1.0, 1.0]]], axis=-1)]
    found = expected_free_energy(expected_parameters(pA), B, [np.zeros(2)], [[0.5, 0.5]], 2, pA=pA)
    known, unknown = parameter_gain(pA[0])
    np.testing.assert_allclose(found.parameter_gain, [2 * known, known + unknown, unknown + known, 2 * unknown])
    assert found.plan.tolist() == [[1], [1]]
    pB = [np.ones((2, 2, 2)) * np.array([100.0, 0.5])]
    moved = expected_free_energy(
        expected_parameters(pA), expected_parameters(pB), [np.zeros(2)], [[0.5, 0.5]], 2, pB=pB
    )
    sure, unsure = parameter_gain(pB[0])[0]
    np.testing.assert_allclose(moved.parameter_gain, [2 * sure, sure + unsure, unsure + sure, 2 * unsure])


def test_gains_of_two_factors_add_up() -> None:
    rng = np.random.default_rng(3)
    pA = [rng.gamma(1, size=(3, 2, 2)), rng.gamma(1, size=(2, 2, 2))]
    pB = [rng.gamma(1, size=(2, 2, 2)), rng.gamma(1, size=(2, 2, 3))]
    A, B = expected_parameters(pA), expected_parameters(pB)
    C, qs = [np.zeros(3), np.zeros(2)], [np.array([0.3, 0.7]), np.array([0.8, 0.2])]
    found = expected_free_energy(A, B, C, qs, 1, pA=pA, pB=pB).parameter_gain.reshape(2, 3)
    for u in range(2):
        for v in range(3):
            moves = parameter_gain(pB[0])[:, u] @ qs[0] + parameter_gain(pB[1])[:, v] @ qs[1]
            after = np.outer(B[0][:, :, u] @ qs[0], B[1][:, :, v] @ qs[1])
            looks = sum(float((parameter_gain(each) * after).sum()) for each in pA)
            assert found[u, v] == pytest.approx(moves + looks, rel=1e-12)


def test_what_is_learnt_fades() -> None:
    start = [np.array([[1.0, 2.0], [3.0, 0.0]])]
    held = [np.array([[5.0, 2.0], [3.0, 0.0]])]
    (found,) = learn_likelihood(held, [None], [[0.5, 0.5]], forgetting=0.5, initial=start)
    np.testing.assert_allclose(found, [[3.0, 2.0], [3.0, 0.0]])
    (found,) = learn_likelihood(held, [1], [[0.25, 0.75]], forgetting=0.5, initial=start)
    np.testing.assert_allclose(found, [[3.0, 2.0], [3.25, 0.0]])  # an impossible outcome stays one
    (found,) = learn_likelihood(held, [[0.5, 0.5]], [[1.0, 0.0]])
    np.testing.assert_allclose(found, [[5.5, 2.0], [3.5, 0.0]])
    (found,) = learn_prior([[1.0, 3.0]], [[0.5, 0.5]], forgetting=0.0, initial=[[1.0, 1.0]])
    np.testing.assert_allclose(found, [1.5, 1.5])
    np.testing.assert_allclose(held[0], [[5.0, 2.0], [3.0, 0.0]])


def test_counting_finds_the_model() -> None:
    """Of known states, the expected parameters go to the frequencies."""
    rng = np.random.default_rng(1)
    A = np.array([[0.9, 0.2], [0.1, 0.8]])
    counts = [np.ones((2, 2))]
    for _ in range(4000):
        state = int(rng.integers(2))
        counts = learn_likelihood(counts, [int(rng.random() > A[0, state])], [np.eye(2)[state]])
    np.testing.assert_allclose(expected_parameters(counts)[0], A, atol=0.03)


B1 = [np.ones((2, 2, 2))]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: parameter_gain([-1.0, 2.0]), "negative count"),
        (lambda: parameter_gain([[0.0], [0.0]]), "without any count"),
        (lambda: learn_likelihood([np.ones((2, 2))], [2], [[0.5, 0.5]]), r"observation\[0\] is 2"),
        (lambda: learn_likelihood([np.ones((2, 2))], [0, 1], [[0.5, 0.5]]), "2 modalities"),
        (lambda: learn_likelihood([np.ones((2, 2))], [[0.5, 0.6]], [[0.5, 0.5]]), "not normalised"),
        (lambda: learn_likelihood([np.ones((2, 2))], [[1.0]], [[0.5, 0.5]]), r"shape \(1,\)"),
        (lambda: learn_likelihood([np.ones((2, 3))], [0], [[0.5, 0.5]]), r"pA\[0\] has shape"),
        (lambda: learn_transitions(B1, [2], [[1, 0]], [[1, 0]]), r"action\[0\] is 2"),
        (lambda: learn_transitions(B1, [0, 0], [[1, 0]], [[1, 0]]), "action has 2"),
        (lambda: learn_transitions(B1, [0], [[1, 0]], [[1, 0, 0]]), "previous has other"),
        (lambda: learn_prior([[1.0, 1.0]], [[1.0]]), "other shapes"),
        (lambda: learn_prior([[1.0, 1.0]], [[0.5, 0.5]], forgetting=0.5), "give initial"),
        (lambda: learn_prior([[1.0, 1.0]], [[0.5, 0.5]], initial=[[1.0]]), "initial has other"),
        (lambda: learn_prior([[1.0, 1.0]], [[0.5, 0.5]], rate=-1), "rate"),
        (lambda: learn_prior([[1.0, 1.0]], [[0.5, 0.5]], forgetting=1.1), "forgetting"),
    ],
)
def test_bad_counts_are_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()


def test_counts_must_have_the_shape_of_the_model() -> None:
    A, B, C, qs = [np.full((2, 2), 0.5)], [np.full((2, 2, 2), 0.5)], [np.zeros(2)], [[0.5, 0.5]]
    with pytest.raises(InvalidInput, match="pA has other"):
        expected_free_energy(A, B, C, qs, pA=[np.ones((3, 2))])
    with pytest.raises(InvalidInput, match="pB has other"):
        expected_free_energy(A, B, C, qs, pB=[np.ones((2, 2, 3))])
