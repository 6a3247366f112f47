"""AutoregressiveHMM: Hamilton's table of 1989, and the sum over all paths."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from hllm.errors import FitFailed, InvalidInput, NotFitted
from hllm.hmm import AutoregressiveHMM
from hllm.hmm.stationary import maximise, stationary

GNP = Path(__file__).parents[2] / "vectors" / "hllm" / "hamilton1989.csv"


def enumerated(model, y):
    """ln P(y | its first values) and P(s_t | y), (T, K), by summing over all paths of states."""
    states, order = model.n_components, model.order
    total, posteriors = 0.0, np.zeros((len(y), states))
    for path in product(range(states), repeat=len(y)):
        weight = model.startprob_[path[0]]
        for t in range(1, len(y)):
            weight *= model.transmat_[path[t - 1], path[t]]
        for t in range(order, len(y)):
            mean = model.means_[path[t]] + sum(
                model.ar_[path[t], i] * (y[t - 1 - i] - model.means_[path[t - 1 - i]]) for i in range(order)
            )
            weight *= norm.pdf(y[t], mean, np.sqrt(model.variances_[path[t]]))
        total += weight
        posteriors[np.arange(len(y)), path] += weight
    return np.log(total), posteriors / total


def example(states=2, order=2, seed=0, **settings):
    rng = np.random.default_rng(seed)
    model = AutoregressiveHMM(states, order, **settings)
    transmat = rng.dirichlet(np.ones(states), size=states) + 4 * np.eye(states)
    model.transmat_ = transmat / transmat.sum(axis=1, keepdims=True)
    model.startprob_ = rng.dirichlet(np.ones(states))
    model.means_ = 4.0 * rng.permutation(states) + 10
    model.ar_ = np.tile(0.3 * rng.normal(size=order), (states, 1))
    model.variances_ = np.full(states, 0.7)
    if model.switching_ar:
        model.ar_ = 0.3 * rng.normal(size=(states, order))
    if model.switching_variance:
        model.variances_ = rng.uniform(0.3, 2, size=states)
    return model


def test_hamiltons_table():
    """The estimates that Hamilton 1989 prints for US GNP, MS-AR(4), here to the digits of Kim and Nelson's reprint."""
    y = np.loadtxt(GNP)[:, None]
    assert y.shape == (135, 1)
    model = AutoregressiveHMM(2, 4, n_iter=500, tol=1e-8).fit(y)
    assert model.score(y) == pytest.approx(-181.263, abs=5e-4)
    np.testing.assert_allclose(model.transmat_[:, 0], [0.7547, 0.0959], atol=5e-4)
    np.testing.assert_allclose(model.means_, [-0.3588, 1.1635], atol=5e-4)
    np.testing.assert_allclose(model.ar_, np.tile([0.0135, -0.0575, -0.2470, -0.2129], (2, 1)), atol=5e-4)
    np.testing.assert_allclose(model.variances_, 0.5914, atol=5e-4)
    assert (np.diff(model.monitor_.history) > -1e-9).all()
    online = model.online()
    filtered = np.array([online.step(x) for x in y])
    assert online.log_likelihood == pytest.approx(model.score(y), rel=1e-12)
    np.testing.assert_allclose(filtered[-1], model.predict_proba(y)[-1], atol=1e-12)
    assert online.observations == 135


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"order": 1, "states": 3},
        {"switching_ar": True, "switching_variance": True},
        {"order": 3, "stationary_start": False},
    ],
)
def test_the_sum_over_all_paths(settings):
    model = example(**settings)
    y = model.sample(6 if model.n_components > 2 else 8, random_state=1)[0]
    if model.stationary_start:
        model.startprob_ = stationary(model.transmat_)
    wanted, posteriors = enumerated(model, y[:, 0])
    found, ours = model.score_samples(y)
    assert found == pytest.approx(wanted, rel=1e-11)
    np.testing.assert_allclose(ours, posteriors, atol=1e-11)
    # Two sequences are independent.
    assert model.score(np.concatenate([y, y[:5]]), [len(y), 5]) == pytest.approx(found + model.score(y[:5]), rel=1e-12)
    both = model.predict_proba(np.concatenate([y[:5], y]), [5, len(y)])
    np.testing.assert_allclose(both[5:], posteriors, atol=1e-11)
    paths = model.predict(np.concatenate([y[:5], y]), [5, len(y)])
    np.testing.assert_array_equal(paths[5:], model.predict(y))
    assert paths.shape == (5 + len(y),)


@pytest.mark.parametrize(
    "settings", [{"order": 1}, {"switching_ar": True}, {"switching_variance": True, "stationary_start": False}]
)
def test_what_made_the_data_is_found_again(settings):
    truth = example(seed=3, **settings)
    y, states = truth.sample(1500, random_state=2)
    fresh = {name: value for name, value in settings.items() if name != "order"}
    model = AutoregressiveHMM(2, truth.order, n_iter=60, n_restarts=2, random_state=0, **fresh).fit(y)
    assert model.score(y) > truth.score(y)
    assert (np.diff(model.monitor_.history) > -1e-7).all()
    order = np.argsort(model.means_)[np.argsort(np.argsort(truth.means_))]
    np.testing.assert_allclose(model.means_[order], truth.means_, atol=0.3)
    np.testing.assert_allclose(model.ar_[order], truth.ar_, atol=0.12)
    np.testing.assert_allclose(model.variances_[order], truth.variances_, rtol=0.25)
    assert (order[states] == model.predict(y)).mean() > 0.95


def test_the_scale_and_origin_of_the_series_do_not_matter():
    y, _ = example(seed=5).sample(200, random_state=0)
    model = AutoregressiveHMM(2, 2, n_iter=15).fit(y)
    other = AutoregressiveHMM(2, 2, n_iter=15).fit(1e6 + 1e3 * y)
    np.testing.assert_allclose(other.means_, 1e6 + 1e3 * model.means_, rtol=1e-9)
    np.testing.assert_allclose(other.ar_, model.ar_, atol=1e-6)
    np.testing.assert_allclose(other.predict_proba(1e6 + 1e3 * y), model.predict_proba(y), atol=1e-6)


def test_the_stationary_law_and_its_pull_on_the_transitions():
    transmat = np.array([[0.9, 0.1], [0.4, 0.6]])
    np.testing.assert_allclose(stationary(transmat), [0.8, 0.2])
    counts, first = np.array([[40.0, 6.0], [5.0, 20.0]]), np.array([0.1, 0.9])
    grid = np.linspace(0.01, 0.6, 200)
    best = max(
        (
            counts[0, 0] * np.log(1 - a) + counts[0, 1] * np.log(a) + counts[1, 0] * np.log(b)
            + counts[1, 1] * np.log(1 - b) + first[0] * np.log(b / (a + b)) + first[1] * np.log(a / (a + b)), a, b,
        )
        for a in grid for b in grid
    )  # fmt: skip
    found = maximise(transmat, counts, first)
    np.testing.assert_allclose([found[0, 1], found[1, 0]], best[1:], atol=2e-3)
    with pytest.raises(InvalidInput, match="never reach"):
        stationary(np.eye(2))


def test_bad_input_is_refused():
    y = np.arange(20.0)[:, None] % 7
    with pytest.raises(InvalidInput, match="missing"):
        AutoregressiveHMM().fit(np.where(y == 3, np.nan, y))
    with pytest.raises(InvalidInput, match="longer than order"):
        AutoregressiveHMM(2, 4).fit(y, [16, 4])
    with pytest.raises(InvalidInput, match="order"):
        AutoregressiveHMM(2, 0).fit(y)
    with pytest.raises(InvalidInput, match="at most"):
        AutoregressiveHMM(4, 8).fit(y)
    with pytest.raises(InvalidInput, match="features"):
        AutoregressiveHMM().fit(np.ones((9, 2)))
    with pytest.raises(NotFitted):
        AutoregressiveHMM().score(y)
    with pytest.raises(FitFailed, match=r"singular|holds"):
        AutoregressiveHMM(2, 1).fit(np.ones((30, 1)))
    model = example()
    with pytest.raises(InvalidInput, match="observation"):
        model.online().step(np.nan)
    with pytest.raises(InvalidInput, match="step"):
        model.online().update([0.0, 0.0])
    model.variances_ = [1.0, 0.0]
    with pytest.raises(InvalidInput, match="positive"):
        model.score(y)
    model = example()
    model.ar_ = np.full((2, 2), 5.0)
    with pytest.raises(InvalidInput, match="explode"):
        model.sample(400)
