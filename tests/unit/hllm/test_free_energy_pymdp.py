"""Against what pymdp says (tests/vectors/pymdp-*.json, by tests/support/record_pymdp.py)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hllm.free_energy import (
    expected_free_energy,
    infer_states,
    learn_likelihood,
    learn_prior,
    learn_transitions,
    variational_free_energy,
)
from tests.support import enumerated

VECTORS = Path(__file__).parents[2] / "vectors"
NUMPY = json.loads((VECTORS / "pymdp-0.0.7.1.json").read_text())
JAX = json.loads((VECTORS / "pymdp-1.0.4.json").read_text())
EPSILON = math.exp(-16)
"""What pymdp 0.0.7.1 adds before logarithms of likelihoods, and the least probable joint state that it looks at."""


def arrays(values: list[Any]) -> list[np.ndarray]:
    return [np.array(each, dtype=float) for each in values]


def model_of(case: dict[str, Any]) -> tuple[list[np.ndarray], ...]:
    return tuple(arrays(case[name]) for name in ("A", "B", "C", "qs"))


@pytest.mark.parametrize("case", NUMPY["plans"])
def test_plans_are_those_of_pymdp(case: dict[str, Any]) -> None:
    """It differs by what it adds to probabilities: at most epsilon for each joint outcome, and each state left out."""
    A, B, C, qs = model_of(case["model"])
    found = expected_free_energy(A, B, C, qs, case["horizon"])
    assert found.policies.tolist() == case["policies"]
    np.testing.assert_allclose(found.utility, case["utility"], atol=1e-12, rtol=0)
    outcomes, states = (math.prod(map(len, each)) for each in (A, qs))
    bound = case["horizon"] * EPSILON * (outcomes + states * (16 + math.log(outcomes)))
    np.testing.assert_allclose(found.state_gain, case["state_gain"], atol=bound, rtol=0)
    np.testing.assert_allclose(-found.efe, case["negative_efe"], atol=bound, rtol=0)
    posterior = found.posterior(case["gamma"], case["E"])
    np.testing.assert_allclose(posterior, case["posterior"], rtol=2 * case["gamma"] * bound)
    assert posterior.argmax() == np.argmax(case["posterior"])


@pytest.mark.parametrize("case", NUMPY["plans"])
def test_what_pymdp_adds_is_all_that_it_differs_by(case: dict[str, Any]) -> None:
    """The definition with its epsilon gives its numbers; without, ours (test_expected_free_energy)."""
    A, B, C, qs = model_of(case["model"])
    chosen = range(0, len(case["policies"]), max(1, len(case["policies"]) // 8))
    for index in chosen:
        terms = enumerated.evaluate(A, B, C, qs, case["policies"][index], EPSILON)
        assert terms.state_gain == pytest.approx(case["state_gain"][index], abs=1e-12)


@pytest.mark.parametrize("case", NUMPY["inferences"])
def test_posteriors_are_those_of_pymdp(case: dict[str, Any]) -> None:
    A, prior = arrays(case["A"]), arrays(case["prior"])
    found = infer_states(A, case["observation"], prior, max_iterations=1000)
    for ours, theirs in zip(found, case["qs"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    energy = variational_free_energy(A, case["observation"], found, prior)
    assert energy == pytest.approx(case["free_energy"], abs=1e-9)


def test_learning_is_that_of_pymdp() -> None:
    case = NUMPY["learning"]
    pA, pB, pD, qs, previous = (arrays(case[name]) for name in ("pA", "pB", "pD", "qs", "previous"))
    rate = case["rate"]
    for found, wanted in (
        (learn_likelihood(pA, case["observation"], qs, rate=rate), case["qA"]),
        (learn_transitions(pB, case["action"], qs, previous, rate=rate), case["qB"]),
        (learn_prior(pD, qs, rate=rate), case["qD"]),
    ):
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-14)


@pytest.mark.parametrize("case", JAX["gains"])
def test_gains_about_parameters_are_those_of_pymdp(case: dict[str, Any]) -> None:
    """Its weights (Da Costa et al. 2020, D.15) are exact; where states are known, so is what it does with them."""
    counts = {name: arrays(value) for name, value in case["counts"].items()}
    found = expected_free_energy(*model_of(case), case["horizon"], **counts)
    # This version takes C as it is, without normalising it: a constant in every step.
    constant = case["horizon"] * math.log(np.exp(case["C"][0]).sum())
    np.testing.assert_allclose(constant - found.efe, case["with_gain"], atol=1e-10)
    gain = np.array(case["with_gain"]) - case["without"]
    np.testing.assert_allclose(found.parameter_gain, gain, atol=1e-10)
    assert found.parameter_gain.min() > 0
