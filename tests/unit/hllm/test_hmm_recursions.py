"""The recursions over blocks, against hmmlearn's, on chains that mix, that never mix, and that cannot go back."""

import hmmlearn._hmmc
import numpy as np
import pytest

from hllm.hmm import GaussianHMM, blocks, logspace, viterbi
from hllm.hmm.layout import Layout


def chain(rng, states, manner):
    transmat = rng.dirichlet(np.ones(states), size=states)
    transmat += {"mixing": 0.5, "sticky": 1e4, "left-right": 1.0, "identity": 0.0, "sparse": 0.0}[manner] * np.eye(
        states
    )
    if manner == "left-right":
        transmat = np.triu(transmat)
    elif manner == "identity":
        transmat = np.eye(states)
    elif manner == "sparse":
        transmat = np.maximum(transmat - 0.3, 0) + 0.01 * np.roll(np.eye(states), 1, axis=1)
    return rng.dirichlet(np.ones(states)), transmat / transmat.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("manner", ["mixing", "sticky", "left-right", "identity", "sparse"])
@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
def test_blocks_are_exact(manner, noise):
    rng = np.random.default_rng([ord(manner[0]), int(noise * 100)])
    scaled = 0
    for states in (1, 2, 3, 5):
        lengths = rng.integers(1, 200, size=rng.integers(1, 5))
        start, transmat = chain(rng, states, manner)
        natural = noise * rng.normal(size=(lengths.sum(), states))
        layout = Layout(lengths)
        emission = np.empty((layout.steps, states, layout.blocks))
        layout.spread(natural, emission)
        np.testing.assert_array_equal(layout.collect(emission), natural)
        parts = np.split(natural, lengths.cumsum()[:-1])
        with np.errstate(divide="ignore"):
            paths = [hmmlearn._hmmc.viterbi(start, transmat, part) for part in parts]
            wanted = sum(hmmlearn._hmmc.forward_log(start, transmat, part)[0] for part in parts)
        value, path = viterbi.best_path(emission, layout, start, transmat)
        np.testing.assert_array_equal(path, np.concatenate([each for _, each in paths]))
        assert value == pytest.approx(sum(each for each, _ in paths), rel=1e-12)
        slow = [logspace.smooth(part, start, transmat) for part in parts]
        assert sum(each[0] for each in slow) == pytest.approx(wanted, rel=1e-12)
        relative = emission.copy()
        top = blocks.relative(relative)
        likelihood = blocks.evidence(relative, layout, start, transmat)
        found = blocks.smooth(relative, layout, start, transmat)
        if likelihood is not None:
            assert likelihood + top.sum() == pytest.approx(wanted, rel=1e-12)
        if found is not None:
            scaled += 1
            assert found[0] + top.sum() == pytest.approx(wanted, rel=1e-12)
            np.testing.assert_allclose(layout.collect(found[1]), np.concatenate([each[1] for each in slow]), atol=1e-10)
            np.testing.assert_allclose(found[2], sum(each[2] for each in slow), atol=1e-9)
    assert scaled >= 1


def test_a_long_sequence_is_the_same_in_any_number_of_blocks():
    rng = np.random.default_rng(0)
    start, transmat = chain(rng, 3, "mixing")
    natural = rng.normal(size=(20_000, 3))
    layout = Layout(np.array([20_000]))
    assert layout.blocks > 500
    emission = np.empty((layout.steps, 3, layout.blocks))
    layout.spread(natural, emission)
    log, lattice, _ = hmmlearn._hmmc.forward_scaling(start, transmat, np.exp(natural))
    np.testing.assert_array_equal(
        viterbi.best_path(emission, layout, start, transmat)[1], hmmlearn._hmmc.viterbi(start, transmat, natural)[1]
    )
    top = blocks.relative(emission)
    found = blocks.smooth(emission, layout, start, transmat)
    assert found[0] + top.sum() == pytest.approx(log, rel=1e-12)
    np.testing.assert_allclose(layout.collect(found[1])[-1], lattice[-1], atol=1e-12)
    np.testing.assert_allclose(found[2].sum(), 19_999, rtol=1e-12)


def test_where_doubles_do_not_suffice_logarithms_do():
    """State 0 cannot be left, and the data are 1e5 deviations from it: the scaled forward pass would be all zeros."""
    model = GaussianHMM(2)
    model.startprob_, model.transmat_ = [1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]]
    model.means_, model.covars_ = [[0.0], [1e5]], [[1.0], [1.0]]
    X = np.full((40, 1), 1e5)
    assert model.score(X) == pytest.approx(40 * (-0.5 * 1e10 - 0.5 * np.log(2 * np.pi)), rel=1e-14)
    np.testing.assert_array_equal(model.predict_proba(X), np.tile([1.0, 0.0], (40, 1)))
    np.testing.assert_array_equal(model.predict(X), 0)


def test_sequences_may_be_swapped_and_equal_ones_count_twice():
    rng = np.random.default_rng(1)
    model = GaussianHMM(2)
    model.startprob_, model.transmat_ = chain(rng, 2, "mixing")
    model.means_, model.covars_ = [[0.0], [1.0]], [[1.0], [2.0]]
    one, other = rng.normal(size=(70, 1)), rng.normal(size=(33, 1))
    both = model.score(np.concatenate([one, other]), [70, 33])
    assert both == pytest.approx(model.score(one) + model.score(other), rel=1e-13)
    assert both == pytest.approx(model.score(np.concatenate([other, one]), [33, 70]), rel=1e-13)
    twice = GaussianHMM(2, init_params="", n_iter=1)
    twice.startprob_, twice.transmat_, twice.means_, twice._covars_ = (
        model.startprob_, model.transmat_, model.means_, model._covars_,
    )  # fmt: skip
    twice.set_params(covars_prior=0.0).fit(np.concatenate([one, one]), [70, 70])
    model.set_params(init_params="", n_iter=1, covars_prior=0.0).fit(one)
    np.testing.assert_allclose(twice.means_, model.means_, rtol=1e-12)
    np.testing.assert_allclose(twice.transmat_, model.transmat_, rtol=1e-12)


def test_posteriors_of_observations_far_away_are_probabilities():
    random = np.random.default_rng(0)
    emission = random.random((50, 2)) - 1e15
    _, posteriors, _ = logspace.smooth(emission, np.array([0.0, 1.0]), np.array([[0.8, 0.2], [1.0, 0.0]]))
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, atol=1e-12)
