"""CategoricalHMM: the occasionally dishonest casino, hmmlearn, the sum over all paths."""

import inspect
from pathlib import Path

import hmmlearn.hmm
import numpy as np
import pytest

from hllm.errors import FitFailed, InvalidInput, NotFitted
from hllm.hmm import CategoricalHMM
from tests.unit.hllm.hmm_cases import enumerate_paths, random_chain

CASINO = Path(__file__).parents[2] / "vectors" / "hllm" / "casino.txt"


def pair(states, symbols, seed, **settings):
    models = []
    for cls in (hmmlearn.hmm.CategoricalHMM, CategoricalHMM):
        rng = np.random.default_rng(seed)
        model = cls(states, **{"init_params": "", "tol": -np.inf, **settings})
        model.startprob_, model.transmat_ = random_chain(rng, states)
        model.emissionprob_ = rng.dirichlet(np.ones(symbols), size=states)
        models.append(model)
    return models


def test_the_occasionally_dishonest_casino():
    """Durbin, Eddy, Krogh, Mitchison, "Biological Sequence Analysis", 1998, figure 3.5: 300 rolls of two dice."""
    rolls = np.array([int(digit) - 1 for digit in CASINO.read_text().replace("\n", "")])[:, None]
    assert len(rolls) == 300
    theirs, ours = pair(2, 6, 0)
    for model in (theirs, ours):
        model.startprob_, model.transmat_ = np.array([0.5, 0.5]), np.array([[0.95, 0.05], [0.1, 0.9]])
        model.emissionprob_ = np.array([[1 / 6] * 6, [0.1] * 5 + [0.5]])
    log_likelihood, posteriors = ours.score_samples(rolls)
    assert log_likelihood == pytest.approx(-516.927712279, abs=1e-9)
    best, path = ours.decode(rolls)
    assert best == pytest.approx(-539.494002646, abs=1e-9)
    np.testing.assert_allclose(posteriors, theirs.predict_proba(rolls), atol=1e-12)
    np.testing.assert_array_equal(path, theirs.predict(rolls))
    online = ours.online()
    for roll in rolls:
        online.step(roll)
    assert online.log_likelihood == pytest.approx(log_likelihood, rel=1e-13)
    # The stretch of sixes near the end of the first row was thrown with the loaded die.
    assert posteriors[48:66, 1].min() > 0.5


@pytest.mark.parametrize(("states", "symbols"), [(1, 3), (2, 2), (4, 7)])
def test_fit_score_posteriors_and_paths_are_hmmlearns(states, symbols):
    rng = np.random.default_rng(states)
    X = rng.integers(0, symbols, size=(500, 1)) // rng.integers(1, 3, size=(500, 1))
    X[0] = symbols - 1
    lengths = [200, 1, 299]
    theirs, ours = pair(states, symbols, 1, n_iter=10, emissionprob_prior=1.3, transmat_prior=1.1)
    theirs.fit(X, lengths)
    ours.fit(X, lengths)
    np.testing.assert_allclose(ours.monitor_.history, theirs.monitor_.history, rtol=1e-12)
    for name in ("startprob_", "transmat_", "emissionprob_"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-10)
    np.testing.assert_allclose(ours.predict_proba(X, lengths), theirs.predict_proba(X, lengths), atol=1e-10)
    np.testing.assert_array_equal(ours.predict(X, lengths), theirs.predict(X, lengths))
    assert ours.bic(X) == pytest.approx(theirs.bic(X), rel=1e-12)


def test_the_sum_over_all_paths_with_missing_rolls():
    _, model = pair(3, 4, 2)
    X = np.array([[0.0], [np.nan], [3.0], [1.0], [np.nan], [2.0], [2.0]])
    emission = np.ones((7, 3))
    for t in (0, 2, 3, 5, 6):
        emission[t] = model.emissionprob_[:, int(X[t, 0])]
    total, posteriors, path, best = enumerate_paths(emission, model.startprob_, model.transmat_)
    found, ours = model.score_samples(X)
    assert found == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_allclose(ours, posteriors, atol=1e-12)
    log_best, ours_path = model.decode(X)
    assert log_best == pytest.approx(np.log(best), rel=1e-12)
    np.testing.assert_array_equal(ours_path, path)
    masked = np.ma.MaskedArray(np.nan_to_num(X).astype(int), mask=np.isnan(X))
    assert model.score(masked) == found
    online = model.online()
    filtered = [online.step(x) for x in X]
    np.testing.assert_allclose(filtered[-1], posteriors[-1], atol=1e-12)


def test_symbols_that_no_state_emits_are_told():
    model = CategoricalHMM(2)
    model.startprob_, model.transmat_ = [0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]]
    model.emissionprob_ = [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]
    assert np.isfinite(model.score([[0], [1]]))
    for ask in (model.score, model.predict, model.predict_proba):
        with pytest.raises(InvalidInput, match="probability 0"):
            ask([[0], [2]])
    with pytest.raises(FitFailed, match="probability 0"):
        model.set_params(init_params="").fit([[0], [2]])


def test_samples_follow_the_tables():
    _, model = pair(2, 3, 4)
    X, states = model.sample(30_000, random_state=0)
    assert X.shape == (30_000, 1)
    for state in (0, 1):
        shares = np.bincount(X[states == state, 0], minlength=3) / (states == state).sum()
        np.testing.assert_allclose(shares, model.emissionprob_[state], atol=0.02)


def test_the_constructor_takes_hmmlearns_arguments():
    theirs = inspect.signature(hmmlearn.hmm.CategoricalHMM.__init__).parameters
    ours = inspect.signature(CategoricalHMM.__init__).parameters
    assert {name: ours[name].default for name in theirs} == {name: p.default for name, p in theirs.items()}


def test_restarts_find_the_dice():
    _, truth = pair(2, 6, 0)
    truth.transmat_ = [[0.95, 0.05], [0.1, 0.9]]
    truth.emissionprob_ = [[1 / 6] * 6, [0.02] * 5 + [0.9]]
    X, _ = truth.sample(2000, random_state=3)
    model = CategoricalHMM(2, n_restarts=6, n_iter=60, random_state=0).fit(X)
    loaded = int(model.emissionprob_[:, 5].argmax())
    assert model.emissionprob_[loaded, 5] == pytest.approx(0.9, abs=0.05)
    assert model.score(X) >= truth.score(X) - 1e-6


@pytest.mark.parametrize(
    ("X", "told"),
    [
        ([[0.5]], "whole"),
        ([[-1]], "whole"),
        ([[0, 1]], "shape"),
        ([0, 1], "reshape"),
        ([[9]], "largest"),
        ([[np.nan]], "missing"),
    ],
)
def test_bad_symbols_are_refused(X, told):
    with pytest.raises(InvalidInput, match=told):
        CategoricalHMM(1, n_features=3).fit(X)


def test_bad_tables_and_symbols_online_are_refused():
    with pytest.raises(NotFitted):
        CategoricalHMM(2).predict([[0]])
    with pytest.raises(InvalidInput, match="emissionprob_prior"):
        CategoricalHMM(1, emissionprob_prior=-1).fit([[0]])
    _, model = pair(2, 3, 0)
    for bad in (3, -1, 0.5, [[1, 2]]):
        with pytest.raises(InvalidInput, match="symbol"):
            model.online().step(bad)
    model.emissionprob_ = [[0.5, 0.6], [0.5, 0.5]]
    with pytest.raises(InvalidInput, match="sum to 1"):
        model.score([[0]])
