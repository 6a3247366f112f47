"""The number of states is found again; models come back from disk bit for bit, or are refused."""

import json

import numpy as np
import pytest

from hllm.errors import FitFailed, HllmError, InvalidInput, NotFitted
from hllm.hmm import AutoregressiveHMM, CategoricalHMM, GaussianHMM, from_dict, held_out, load, save, select, to_dict


def three_states(samples, seed=0):
    rng = np.random.default_rng(seed)
    path = np.repeat(rng.integers(0, 3, samples // 10), 10)
    return np.array([0.0, 5.0, 10.0])[path][:, None] + rng.normal(size=(len(path), 1))


@pytest.mark.parametrize("criterion", ["bic", "held_out"])
def test_three_states_are_found_to_be_three(criterion):
    X = three_states(600)
    models = [GaussianHMM(k, n_restarts=3, random_state=0, allow_collapse=True, n_iter=30) for k in (1, 2, 3, 4, 5)]
    ranked = select(models, X, criterion=criterion)
    assert [each.value for each in ranked] == sorted(each.value for each in ranked)
    assert ranked[0].model.n_components in ((3,) if criterion == "bic" else (3, 4))
    assert {each.model.n_components for each in ranked[-2:]} == {1, 2}
    assert all(hasattr(model, "means_") for model in models)


def test_held_out_likelihood_is_that_of_the_later_given_the_earlier():
    """One state: no memory, so it is the density of the later rows under the fit to the earlier."""
    X = np.random.default_rng(1).normal(size=(100, 1))
    found = held_out(GaussianHMM(1, covars_prior=0, covars_weight=1), X, share=0.3)
    mean, variance = X[:70].mean(), X[:70].var()
    assert found == pytest.approx((-0.5 * np.log(2 * np.pi * variance) - 0.5 * (X[70:] - mean) ** 2 / variance).mean())
    several = held_out(GaussianHMM(1, covars_prior=0, covars_weight=1), X, [30, 40, 30], share=0.3)
    assert several == pytest.approx(found, rel=1e-12)


def test_failures_are_told_in_the_ranking():
    X = np.repeat([[0.0], [1.0]], 20, axis=0)
    exact = {"covars_prior": 0, "covars_weight": 1, "random_state": 0}
    ranked = select([GaussianHMM(2, **exact), GaussianHMM(1, **exact)], X)
    assert ranked[0].model.n_components == 1
    assert "singular" in ranked[1].trouble
    with pytest.raises(FitFailed, match="none"):
        select([GaussianHMM(2, **exact)], X)
    with pytest.raises(InvalidInput, match="no models"):
        select([], X)
    with pytest.raises(InvalidInput, match="criterion"):
        select([GaussianHMM(1)], X, criterion="best")
    with pytest.raises(InvalidInput, match="share"):
        held_out(GaussianHMM(1), X, share=1.0)
    with pytest.raises(InvalidInput, match="too few"):
        held_out(GaussianHMM(1), X[:1])


def fitted():
    X = three_states(120, seed=2)
    for kind in ("spherical", "diag", "full", "tied"):
        yield GaussianHMM(2, kind, random_state=0, tol=-np.inf, transmat_prior=np.full((2, 2), 1.5)).fit(X), X
    yield (
        CategoricalHMM(2, random_state=1, n_iter=5, allow_collapse=True).fit(np.round(np.abs(X)).astype(int)),
        np.round(np.abs(X)),
    )
    yield AutoregressiveHMM(2, 1, n_iter=5, random_state=np.random.default_rng(0)).fit(X), X


def test_models_come_back_bit_for_bit(tmp_path):
    for at, (model, X) in enumerate(fitted()):
        path = tmp_path / f"{at}.json"
        save(model, path)
        again = load(path)
        assert type(again) is type(model)
        for name in model.PARAMETERS.values():
            np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
        assert again.score(X) == model.score(X)
        assert to_dict(again) == to_dict(model) == json.loads(path.read_text())
        again.fit(X)
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"{n}.json" for n in range(6)]


def test_what_is_not_a_model_is_refused(tmp_path):
    model, _ = next(fitted())
    good = to_dict(model)
    bad = [
        None, [], {}, good | {"format": "x"}, good | {"class": "Exception"}, good | {"settings": 1},
        good | {"settings": {"colour": 1}}, good | {"parameters": {}},
        good | {"parameters": good["parameters"] | {"startprob_": [0.9, 0.9]}},
        good | {"parameters": good["parameters"] | {"means_": [[0.0], [{"float": "nan"}]]}},
        good | {"parameters": good["parameters"] | {"means_": "x"}},
        good | {"parameters": good["parameters"] | {"_covars_": [-1.0, 1.0]}},
        good | {"settings": good["settings"] | {"n_components": "2"}},
        good | {"class": ["GaussianHMM"]}, good | {"class": {}},
        good | {"settings": good["settings"] | {"min_covar": 10**400}},
        good | {"parameters": good["parameters"] | {"startprob_": [10**400, 0]}},
    ]  # fmt: skip
    for each in bad:
        with pytest.raises(HllmError):
            from_dict(each)
    path = tmp_path / "m.json"
    path.write_text("{")
    with pytest.raises(InvalidInput, match="JSON"):
        load(path)
    path.write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="JSON"):
        load(path)
    path.write_text("{")
    with pytest.raises(NotFitted):
        save(GaussianHMM(1), path)
    assert path.read_text() == "{"
