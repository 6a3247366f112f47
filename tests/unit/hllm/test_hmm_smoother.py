"""The fixed-lag smoother against the model's posteriors of every prefix."""

import numpy as np
import pytest

from hllm.errors import InvalidInput
from hllm.hmm import AutoregressiveHMM, FixedLagSmoother, GaussianHMM, OnlineFilter
from tests.unit.hllm.hmm_cases import gaussian_sequence, set_gaussian


@pytest.mark.parametrize("lag", [0, 1, 5, 60])
def test_it_tells_what_the_prefix_says_about_the_state_of_before(lag):
    rng = np.random.default_rng(lag)
    X, _ = gaussian_sequence(rng, 40, 3, 2, spread=1.0)
    X[7] = np.nan
    model = set_gaussian(GaussianHMM(3), rng, X[8:], "diag")
    smoother = FixedLagSmoother(model.online(), lag)
    told = [smoother.step(x) for x in X]
    for t in range(40):
        if t < lag:
            assert told[t] is None
        else:
            np.testing.assert_allclose(told[t], model.predict_proba(X[: t + 1])[t - lag], atol=1e-12)
    rest = smoother.drain()
    wanted = model.predict_proba(X)[max(40 - lag, 0) :]
    np.testing.assert_allclose(rest, wanted.reshape(rest.shape), atol=1e-12)
    assert smoother.online.observations == 0
    np.testing.assert_allclose(
        FixedLagSmoother(model.online(), 0).step(X[0]), told[0] if lag == 0 else model.predict_proba(X[:1])[0]
    )


def test_memory_does_not_grow():
    smoother = FixedLagSmoother(OnlineFilter([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]]), 3)
    for _ in range(50):
        smoother.update([0.0, -1.0])
    assert len(smoother._seen) == len(smoother._filtered) == 4


def test_a_state_that_the_filter_excluded_can_come_back():
    """State 1 is e^-700 likely at first, and the only one that explains what follows."""
    smoother = FixedLagSmoother(OnlineFilter([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]]), 1)
    smoother.update([0.0, -700.0])
    np.testing.assert_allclose(smoother.update([-3000.0, 0.0]), [0.0, 1.0])


def test_bad_settings_are_refused():
    online = OnlineFilter([1.0], [[1.0]])
    for lag in (-1, 1.5):
        with pytest.raises(InvalidInput, match="lag"):
            FixedLagSmoother(online, lag)
    with pytest.raises(InvalidInput, match="emission"):
        FixedLagSmoother(online, 1).step([0.0])
    model = AutoregressiveHMM(1, 1)
    model.transmat_, model.means_, model.ar_, model.variances_ = [[1.0]], [0.0], [[0.5]], [1.0]
    with pytest.raises(InvalidInput, match="lags"):
        FixedLagSmoother(model.online(), 1)
