"""GaussianHMM against hmmlearn 0.3 and against the sum over all paths."""

import inspect
from itertools import permutations

import hmmlearn.hmm
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hllm.errors import FitFailed, InvalidInput, NotFitted
from hllm.hmm import GaussianHMM
from tests.unit.hllm.hmm_cases import enumerate_paths, gaussian_sequence, set_gaussian

KINDS = ("spherical", "diag", "full", "tied")


def pair(kind, states, X, seed, **settings):
    settings = {"n_components": states, "covariance_type": kind, "init_params": "", "tol": -np.inf, **settings}
    return [
        set_gaussian(cls(**settings), np.random.default_rng(seed), X, kind)
        for cls in (hmmlearn.hmm.GaussianHMM, GaussianHMM)
    ]


def same(theirs, ours, X, lengths=None, *, kind):
    for name in ("startprob_", "transmat_", "means_", "_covars_"):
        wanted = getattr(theirs, name)
        if kind == "spherical" and name == "_covars_" and wanted.ndim == 2:
            wanted = wanted[:, 0]
        np.testing.assert_allclose(getattr(ours, name), wanted, atol=1e-10, rtol=1e-10, err_msg=name)
    assert ours.score(X, lengths) == pytest.approx(theirs.score(X, lengths), rel=1e-12)
    np.testing.assert_allclose(ours.predict_proba(X, lengths), theirs.predict_proba(X, lengths), atol=1e-10)
    (ours_log, ours_path), (log, path) = ours.decode(X, lengths), theirs.decode(X, lengths)
    np.testing.assert_array_equal(ours_path, path)
    assert ours_log == pytest.approx(log, rel=1e-12)
    ours_map, theirs_map = ours.decode(X, lengths, "map"), theirs.decode(X, lengths, "map")
    assert ours_map[0] == pytest.approx(theirs_map[0], rel=1e-10)
    np.testing.assert_array_equal(ours_map[1], theirs_map[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("states", "features"), [(1, 1), (2, 1), (3, 2), (4, 4)])
def test_fit_score_posteriors_and_paths_are_hmmlearns(kind, states, features):
    X, _ = gaussian_sequence(np.random.default_rng(states), 400, states, features)
    theirs, ours = pair(kind, states, X, 1, n_iter=8)
    theirs.fit(X)
    ours.fit(X)
    np.testing.assert_allclose(ours.monitor_.history, theirs.monitor_.history, rtol=1e-12)
    same(theirs, ours, X, kind=kind)
    assert ours.bic(X) == pytest.approx(theirs.bic(X), rel=1e-12)
    assert ours.aic(X) == pytest.approx(theirs.aic(X), rel=1e-12)
    if kind != "spherical":  # hmmlearn's covars_ has K * D matrices there
        np.testing.assert_allclose(ours.covars_, theirs.covars_, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_many_sequences_and_priors_are_hmmlearns(kind):
    X, _ = gaussian_sequence(np.random.default_rng(5), 300, 3, 2)
    lengths = [120, 1, 2, 77, 100]
    theirs, ours = pair(
        kind, 3, X, 2, n_iter=6, startprob_prior=1.5, transmat_prior=np.eye(3) + 1.2,
        means_prior=4.0, means_weight=2.0, covars_prior=0.5, covars_weight=4.0,
    )  # fmt: skip
    theirs.fit(X, lengths)
    ours.fit(X, lengths)
    same(theirs, ours, X, lengths, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letters", ["st", "m", "mc", "t"])
def test_only_the_parameters_that_are_asked_for_are_learnt(kind, letters):
    X, _ = gaussian_sequence(np.random.default_rng(6), 200, 2, 2)
    theirs, ours = pair(kind, 2, X, 3, n_iter=3, params=letters)
    theirs.fit(X)
    ours.fit(X)
    same(theirs, ours, X, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_sum_over_all_paths(kind):
    rng = np.random.default_rng(7)
    X = rng.normal(size=(7, 2))
    model = set_gaussian(GaussianHMM(3, kind), rng, X, kind)
    emission = np.stack(
        [multivariate_normal(m, c).pdf(X) for m, c in zip(model.means_, model.covars_, strict=True)], axis=1
    )
    total, posteriors, path, best = enumerate_paths(emission, model.startprob_, model.transmat_)
    log_likelihood, ours = model.score_samples(X)
    assert log_likelihood == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_allclose(ours, posteriors, atol=1e-12)
    log_best, ours_path = model.decode(X)
    assert log_best == pytest.approx(np.log(best), rel=1e-12)
    np.testing.assert_array_equal(ours_path, path)


@pytest.mark.parametrize("kind", ["diag", "full"])
def test_missing_rows_weigh_nothing(kind):
    """A missing row's emission is 1 in every state, so enumeration can leave it out."""
    rng = np.random.default_rng(8)
    X = rng.normal(size=(7, 2))
    X[[0, 3, 4]] = np.nan
    model = set_gaussian(GaussianHMM(2, kind), rng, rng.normal(size=(30, 2)), kind)
    emission = np.ones((7, 2))
    for t in (1, 2, 5, 6):
        emission[t] = [multivariate_normal(m, c).pdf(X[t]) for m, c in zip(model.means_, model.covars_, strict=True)]
    total, posteriors, path, _ = enumerate_paths(emission, model.startprob_, model.transmat_)
    assert model.score(X) == pytest.approx(np.log(total), rel=1e-12)
    np.testing.assert_allclose(model.predict_proba(X), posteriors, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), path)
    masked = np.ma.masked_invalid(X)
    assert model.score(masked) == model.score(X)
    # Weight by hand: one M-step from these posteriors.
    present = np.array([1, 2, 5, 6])
    weights = posteriors[present]
    means = weights.T @ X[present] / weights.sum(axis=0)[:, None]
    model.set_params(n_iter=1, init_params="", allow_collapse=True).fit(X)
    np.testing.assert_allclose(model.means_, means, rtol=1e-10)


def test_the_likelihood_never_falls_without_priors():
    X, _ = gaussian_sequence(np.random.default_rng(9), 200, 3, 2, spread=1.0)
    model = GaussianHMM(3, "full", covars_prior=0, covars_weight=0, n_iter=30, tol=-1, random_state=0).fit(X)
    assert (np.diff(model.monitor_.history) > -1e-9).all()
    assert model.monitor_.iter == 30


def test_the_best_of_several_starts_stays():
    rng = np.random.default_rng(10)
    path = np.repeat(rng.integers(0, 4, 30), 8)
    X = np.array([[0.0, 0.0], [7.0, 0.0], [0.0, 7.0], [7.0, 7.0]])[path] + rng.normal(size=(240, 2))
    model = GaussianHMM(4, n_iter=20, n_restarts=8, random_state=1).fit(X)
    found = [float(text.split()[1]) for text in model.restarts_ if text.startswith("log-likelihood")]
    assert len(model.restarts_) == 8
    assert model.monitor_.history[-1] == pytest.approx(max(found), rel=1e-5)
    found = model.predict(X)
    agreement = max((found == np.array(order)[path]).mean() for order in permutations(range(4)))
    assert agreement > 0.97


def test_collapse_is_told_and_leaves_the_model_as_it_was():
    X = np.repeat([[0.0], [1.0]], 20, axis=0)
    ml = {"covars_prior": 0, "covars_weight": 0, "covariance_type": "full", "n_iter": 50}
    model = GaussianHMM(2, random_state=0, n_restarts=3, **ml)
    with pytest.raises(FitFailed, match="singular"):
        model.fit(X)
    assert len(model.restarts_) == 3
    assert not hasattr(model, "means_")
    same_start = GaussianHMM(2, init_params="", n_iter=3)
    same_start.startprob_, same_start.transmat_ = [0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]]
    same_start.means_, same_start.covars_ = np.zeros((2, 1)), np.ones((2, 1))
    with pytest.raises(FitFailed, match="equal"):
        same_start.fit(X)
    np.testing.assert_array_equal(same_start.means_, np.zeros((2, 1)))
    same_start.set_params(allow_collapse=True).fit(X)
    np.testing.assert_allclose(same_start.means_, 0.5)


def test_stickiness_adds_transitions_to_oneself():
    X, _ = gaussian_sequence(np.random.default_rng(11), 300, 2, 1)
    loose, ours = pair("diag", 2, X, 3, n_iter=1, transmat_prior=1 + 25 * np.eye(2))
    loose.fit(X)
    ours.set_params(transmat_prior=1.0, stickiness=25.0).fit(X)
    np.testing.assert_allclose(ours.transmat_, loose.transmat_, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_states_far_apart_and_narrow_keep_their_digits(kind):
    """Means 1e6 apart with deviations of 1e-3: an expanded square would lose all digits."""
    rng = np.random.default_rng(12)
    path = np.repeat([0, 1, 0, 1], 50)
    X = path[:, None] * [1e6, 0.0] + 1e-3 * rng.normal(size=(200, 2))
    model = GaussianHMM(2, kind, covars_prior=0, covars_weight=0, random_state=0, n_iter=20).fit(X)
    wanted = [np.cov(X[path == k].T, bias=True) for k in (0, 1)]
    order = np.argsort(model.means_[:, 0])
    np.testing.assert_allclose(model.means_[order], [X[path == k].mean(axis=0) for k in (0, 1)], rtol=1e-12, atol=1e-9)
    if kind == "full":
        np.testing.assert_allclose(model.covars_[order], wanted, rtol=1e-6, atol=1e-12)
    log_density = np.stack(
        [multivariate_normal(m, c).logpdf(X) for m, c in zip(model.means_, model.covars_, strict=True)]
    ).max(axis=0)
    chain = np.log(model.startprob_.max()) + sum(
        np.log(model.transmat_[i, j]) for i, j in zip(order[path[:-1]], order[path[1:]], strict=True)
    )
    assert model.score(X) == pytest.approx(log_density.sum() + chain, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_models_moments(kind):
    rng = np.random.default_rng(13)
    model = set_gaussian(GaussianHMM(2, kind), rng, rng.normal(size=(40, 2)) @ [[1.0, 0.6], [0.0, 1.0]], kind)
    X, states = model.sample(20_000, random_state=1)
    again, _ = model.sample(20_000, random_state=1)
    np.testing.assert_array_equal(X, again)
    for state in (0, 1):
        chosen = X[states == state]
        np.testing.assert_allclose(chosen.mean(axis=0), model.means_[state], atol=0.05)
        np.testing.assert_allclose(np.cov(chosen.T), model.covars_[state], atol=0.06)
        np.testing.assert_allclose(
            np.bincount(states[1:][states[:-1] == state], minlength=2) / (states[:-1] == state).sum(),
            model.transmat_[state],
            atol=0.02,
        )
    assert model.sample(3, currstate=1)[1][0] == 1


def test_permuted_states_are_the_same_model():
    rng = np.random.default_rng(14)
    X, _ = gaussian_sequence(rng, 200, 3, 2)
    model = set_gaussian(GaussianHMM(3, init_params=""), rng, X, "diag")
    order = [2, 0, 1]
    other = GaussianHMM(3, init_params="")
    other.startprob_, other.transmat_ = model.startprob_[order], model.transmat_[np.ix_(order, order)]
    other.means_, other.covars_ = model.means_[order], model._covars_[order]
    assert other.score(X) == pytest.approx(model.score(X), rel=1e-13)
    model.fit(X)
    other.fit(X)
    np.testing.assert_allclose(other.means_, model.means_[order], rtol=1e-10)
    np.testing.assert_array_equal(np.array(order)[other.predict(X)], model.predict(X))


def test_the_unit_of_the_data_does_not_matter():
    X, _ = gaussian_sequence(np.random.default_rng(15), 300, 2, 2)
    ml = {"covars_prior": 0, "covars_weight": 1, "min_covar": 0, "random_state": 0}
    model = GaussianHMM(2, **ml).fit(X)
    for factor in (1e-8, 1e9):
        scaled = GaussianHMM(2, **ml).fit(X * factor)
        np.testing.assert_allclose(scaled.means_, model.means_ * factor, rtol=1e-8)
        np.testing.assert_array_equal(scaled.predict(X * factor), model.predict(X))
        assert scaled.score(X * factor) == pytest.approx(model.score(X) - X.size * np.log(factor), rel=1e-9)


@pytest.mark.parametrize(
    ("X", "told"),
    [
        ([1.0, 2.0, 3.0], "reshape"),
        (np.empty((0, 2)), "no observations"),
        ([[1.0, np.nan], [0.0, 0.0]], "row 0 .* part"),
        ([[1.0, 0.0], [np.inf, 0.0]], r"X\[1, 0\] is infinite"),
        ([[1e200, 0.0], [1e200, 0.0]], "overflow"),
        ([["a", "b"]], "numbers"),
        ([[1j]], "complex"),
        ([[1.0], [1.0, 2.0]], "numbers"),
        ([[1.0], [2.0]], None),
        (np.ones((20, 2)), None),
        ([[np.nan, np.nan]], "missing"),
    ],
)
def test_bad_observations_are_refused(X, told):
    with pytest.raises((InvalidInput, FitFailed), match=told):
        GaussianHMM(2).fit(X)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_components": 0}, "n_components"),
        ({"covariance_type": "round"}, "covariance_type"),
        ({"params": "stx"}, "letters"),
        ({"implementation": "fast"}, "implementation"),
        ({"n_iter": 0}, "n_iter"),
        ({"n_restarts": 0}, "n_restarts"),
        ({"stickiness": -1}, "stickiness"),
        ({"transmat_prior": -1}, "transmat_prior"),
        ({"covars_weight": np.nan}, "covars_weight"),
        ({"random_state": "x"}, "random_state"),
        ({"random_state": -1}, "seed"),
    ],
)
def test_bad_settings_are_refused(settings, told):
    with pytest.raises(InvalidInput, match=told):
        GaussianHMM(**settings).fit(np.arange(12.0).reshape(6, 2))


@pytest.mark.parametrize("lengths", [[3], [3, 4], [6, 0], [[6]], [1.5, 4.5], []])
def test_bad_lengths_are_refused(lengths):
    with pytest.raises(InvalidInput, match="lengths"):
        GaussianHMM(1).fit(np.arange(12.0).reshape(6, 2), lengths)


def test_bad_parameters_are_refused_where_they_are_used():
    model = GaussianHMM(2)
    with pytest.raises(NotFitted, match="startprob"):
        model.score([[0.0]])
    with pytest.raises(NotFitted, match="covars_"):
        _ = model.covars_
    for bad in ([[1.0]], [[1.0], [0.0]], [[1.0], [np.nan]]):
        with pytest.raises(InvalidInput, match="covars_"):
            model.covars_ = bad
    full = GaussianHMM(1, "full")
    for bad in ([[[1.0, 0.5], [0.4, 1.0]]], [[[1.0, 2.0], [2.0, 1.0]]]):
        with pytest.raises(InvalidInput, match=r"symmetric|positive"):
            full.covars_ = bad
    model.startprob_, model.transmat_, model.covars_ = [1.0, 0.0], np.eye(2), [[1.0], [1.0]]
    model.means_ = [[0.0], [np.nan]]
    with pytest.raises(InvalidInput, match="means_"):
        model.score([[0.0]])
    model.means_ = [[0.0], [1.0]]
    with pytest.raises(InvalidInput, match="features"):
        model.score([[0.0, 0.0]])
    with pytest.raises(InvalidInput, match="algorithm"):
        model.decode([[0.0]], algorithm="best")
    with pytest.raises(InvalidInput, match="n_samples"):
        model.sample(0)
    with pytest.raises(InvalidInput, match="currstate"):
        model.sample(1, currstate=2)
    with pytest.raises(InvalidInput, match="setting"):
        model.set_params(colour=1)


def test_the_constructor_takes_hmmlearns_arguments_in_their_order():
    theirs = list(inspect.signature(hmmlearn.hmm.GaussianHMM.__init__).parameters.values())
    ours = list(inspect.signature(GaussianHMM.__init__).parameters.values())
    assert [(p.name, p.default) for p in ours[: len(theirs)]] == [(p.name, p.default) for p in theirs]
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in ours[len(theirs) :])


def test_iterations_are_told_when_asked_for(capsys):
    X, _ = gaussian_sequence(np.random.default_rng(0), 50, 2, 1)
    model = GaussianHMM(2, verbose=True, n_iter=3, random_state=0, implementation="scaling").fit(X)
    told = capsys.readouterr().err.splitlines()
    assert [float(line.split()[1]) for line in told] == pytest.approx(model.monitor_.history)
    law = model.get_stationary_distribution()
    np.testing.assert_allclose(law @ model.transmat_, law, atol=1e-12)


def test_extreme_units_and_outliers_give_finite_answers():
    X = np.random.default_rng(0).normal(size=(200, 1))
    for factor in (1e-140, 1e140):
        model = GaussianHMM(2, min_covar=0, covars_prior=0, n_restarts=3, random_state=1).fit(X * factor)
        assert np.isfinite(model.score(X * factor))
    far = np.concatenate([X, [[1e8]]])
    model = GaussianHMM(2, random_state=1).fit(far)
    assert np.isfinite(model.predict_proba(far)).all()
    assert model.means_.max() == pytest.approx(1e8)


def test_settings_are_read_and_told():
    model = GaussianHMM(3, covariance_type="full", random_state=4)
    assert repr(model) == "GaussianHMM(n_components=3, covariance_type='full', random_state=4)"
    assert GaussianHMM(**model.get_params()).get_params() == model.get_params()
