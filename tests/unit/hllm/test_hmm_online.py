"""The online filter: P(s_t | y_1..t) one observation at a time, against enumeration and hmmlearn's forward pass."""

import numpy as np
import pytest

from hllm.errors import InvalidInput
from hllm.hmm import GaussianHMM, OnlineFilter, filter_update
from tests.unit.hllm.hmm_cases import enumerate_paths, gaussian_sequence, random_chain, set_gaussian


@pytest.mark.parametrize("states", [1, 2, 4])
def test_posteriors_and_evidence_are_those_of_the_sum_over_all_paths(states):
    rng = np.random.default_rng(states)
    start, transmat = random_chain(rng, states)
    emission = rng.random((6, states))
    online = OnlineFilter(start, transmat)
    for t in range(6):
        posterior = online.update(np.log(emission[t]))
        total, posteriors, _, _ = enumerate_paths(emission[: t + 1], start, transmat)
        np.testing.assert_allclose(posterior, posteriors[-1], rtol=1e-12)
        assert online.log_likelihood == pytest.approx(np.log(total), rel=1e-12)
    assert online.observations == 6


def test_it_multiplies_by_the_transpose_of_the_transition_matrix():
    online = OnlineFilter([1.0, 0.0], [[0.1, 0.9], [0.6, 0.4]])
    np.testing.assert_array_equal(online.predict(), [1.0, 0.0])
    np.testing.assert_allclose(online.predict(2), [0.1, 0.9])
    online.update([0.0, 0.0])
    np.testing.assert_allclose(online.predict(), [0.1, 0.9])
    np.testing.assert_allclose(online.predict(2), [0.1 * 0.1 + 0.9 * 0.6, 0.1 * 0.9 + 0.9 * 0.4])


def test_a_bound_filter_sees_the_past_only_and_ends_as_the_smoother_does():
    rng = np.random.default_rng(0)
    X, _ = gaussian_sequence(rng, 300, 3, 2)
    model = set_gaussian(GaussianHMM(3, "full"), rng, X, "full")
    online = model.online()
    filtered = np.array([online.step(x) for x in X])
    np.testing.assert_allclose(filtered[-1], model.predict_proba(X)[-1], atol=1e-12)
    np.testing.assert_allclose(filtered[99], model.predict_proba(X[:100])[-1], atol=1e-12)
    assert online.log_likelihood == pytest.approx(model.score(X), rel=1e-12)
    changed = X.copy()
    changed[200:] += 50
    online.reset()
    np.testing.assert_array_equal(filtered[:200], [online.step(x) for x in changed[:200]])


def test_a_missing_observation_is_a_step_of_the_chain_alone():
    rng = np.random.default_rng(1)
    X, _ = gaussian_sequence(rng, 5, 2, 2)
    online = set_gaussian(GaussianHMM(2), rng, X, "diag").online()
    online.step(X[0])
    predicted = online.predict()
    np.testing.assert_allclose(online.step([np.nan, np.nan]), predicted, rtol=1e-15)


def test_extreme_likelihoods_neither_underflow_nor_warn():
    posterior, evidence = filter_update(np.array([0.5, 0.5]), np.array([-1e5, -1e5 - 2]))
    np.testing.assert_allclose(posterior, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])
    assert evidence == pytest.approx(-1e5 + np.log(0.5 + 0.5 * np.exp(-2)))
    # What explains the observation best by far cannot be: the other state takes all.
    posterior, evidence = filter_update(np.array([0.0, 1.0]), np.array([0.0, -5000.0]))
    np.testing.assert_array_equal(posterior, [0.0, 1.0])
    assert evidence == pytest.approx(-5000.0)


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf], [0.0], [[0.0, 0.0]], [0.0, -np.inf]])
def test_a_bad_likelihood_is_refused_and_leaves_the_filter_as_it_was(bad):
    online = OnlineFilter([0.0, 1.0], [[0.5, 0.5], [0.0, 1.0]])
    online.update([0.0, 0.0])
    with pytest.raises(InvalidInput):
        online.update(bad)
    assert online.observations == 1
    np.testing.assert_array_equal(online.posterior, [0.0, 1.0])


@pytest.mark.parametrize(
    ("start", "transmat", "told"),
    [
        ([0.5, 0.6], np.eye(2), "sum to 1"),
        ([0.5, 0.5], np.eye(3), "shape"),
        ([1.5, -0.5], np.eye(2), "not negative"),
        ([0.5, 0.5], [[0.7, 0.0], [0.0, 1.0]], "sum to 1"),
        (0.5, np.eye(2), "shape"),
        ([np.nan, 1.0], np.eye(2), "finite"),
    ],
)
def test_bad_chains_are_refused(start, transmat, told):
    with pytest.raises(InvalidInput, match=told):
        OnlineFilter(start, transmat)


@pytest.mark.parametrize("x", [[1.0], [np.nan, 1.0], [np.inf, 0.0]])
def test_a_bound_filter_refuses_bad_observations(x):
    rng = np.random.default_rng(2)
    online = set_gaussian(GaussianHMM(2), rng, rng.normal(size=(9, 2)), "diag").online()
    with pytest.raises(InvalidInput, match="observation"):
        online.step(x)


def test_step_needs_a_model_and_predict_a_future():
    online = OnlineFilter([1.0], [[1.0]])
    with pytest.raises(InvalidInput, match="emission"):
        online.step([0.0])
    with pytest.raises(InvalidInput, match="steps"):
        online.predict(0)
