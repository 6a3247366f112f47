"""Forecasts against closed forms and Monte Carlo; quotes against Avellaneda and Stoikov."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm, solve_continuous_lyapunov

from hllm.errors import InvalidInput
from hllm.market import (
    MarketParameters,
    MarketState,
    forecast,
    optimal_spread,
    quote,
    reservation_price,
    step,
)


def exact(q, p, k, parameters, drive, horizon):
    """Mean and variance of q of a damped, driven, hot oscillator: the matrix exponential and Lyapunov's equation."""
    m, eta = parameters.mass, parameters.friction
    a = np.array([[0.0, 1 / m], [-k, -eta]])
    rest = np.array([drive / k, 0.0])
    transfer = expm(a * horizon)
    stationary = solve_continuous_lyapunov(a, -np.diag([0.0, 2 * eta * m * parameters.temperature]))
    covariance = stationary - transfer @ stationary @ transfer.T
    return (rest + transfer @ (np.array([q, p]) - rest))[0], covariance[0, 0]


@settings(max_examples=20, deadline=None)
@given(
    q=st.floats(-1, 1),
    p=st.floats(-0.2, 0.2),
    k=st.floats(0.02, 1),
    friction=st.floats(0.01, 1),
    heat=st.floats(1e-5, 0.05),
    horizon=st.floats(0.5, 60),
    excess=st.floats(-3, 3),
)
def test_in_a_quadratic_well_the_forecast_is_exact(q, p, k, friction, heat, horizon, excess):
    parameters = MarketParameters((k,), mass=1.5, friction=friction, temperature=heat)
    state = MarketState(("a",), [2.0], [3.0], [q], [p])
    ahead = forecast(state, parameters, horizon, demand=excess)
    mean, variance = exact(q, p, k, parameters, parameters.sensitivity * excess / 3.0, horizon)
    assert ahead.log_mean[0] == pytest.approx(mean, rel=1e-7, abs=1e-9)
    assert ahead.log_variance[0] == pytest.approx(variance, rel=1e-7)


MIXED = MarketParameters(
    stiffness=(0.04, 0.02), centre=(0.0, 0.4), quartic=(0.05, 0.3), friction=0.3, temperature=0.002
)


@pytest.mark.parametrize("horizon", [2.0, 10.0, 60.0])
def test_the_forecast_agrees_with_monte_carlo(horizon):
    # 20,000 paths of the same start: an SE of 0.7 % of a deviation, and 1 % of the variance.
    paths, weights, q, p = 20_000, [0.7, 0.3], 0.25, -0.01
    names = tuple(map(str, range(paths)))
    state = MarketState(names, np.full(paths, 2.0), np.ones(paths), np.full(paths, q), np.full(paths, p))
    end = step(state, MIXED, horizon, regimes=weights, demand=0.5, rng=np.random.default_rng(21)).prices
    one = MarketState(("a",), [2.0], [1.0], [q], [p])
    ahead = forecast(one, MIXED, horizon, regimes=weights, demand=0.5)
    deviation = math.sqrt(ahead.variance[0])
    assert ahead.mean[0] == pytest.approx(end.mean(), abs=0.05 * deviation)
    assert ahead.variance[0] == pytest.approx(end.var(), rel=0.08)
    for cap in np.quantile(end, [0.05, 0.3, 0.5, 0.7, 0.95]):
        assert ahead.exceeds(cap)[0] == pytest.approx((end > cap).mean(), abs=0.03)


def test_a_double_well_is_forecast_within_its_well():
    # Barrier k²/4λ = 0.0083, eight times the temperature: within 20 s few paths cross.
    parameters = MarketParameters((-0.1,), quartic=(0.3,), friction=0.3, temperature=0.001)
    well, paths = math.sqrt(0.1 / 0.3), 10_000
    names = tuple(map(str, range(paths)))
    state = MarketState(names, np.ones(paths), np.ones(paths), np.full(paths, well), np.zeros(paths))
    end = step(state, parameters, 20.0, rng=np.random.default_rng(3)).q
    ahead = forecast(MarketState(("a",), [1.0], [1.0], [well], [0.0]), parameters, 20.0)
    assert np.mean(end > 0) > 0.99
    assert ahead.log_mean[0] == pytest.approx(np.median(end), abs=0.03)


def test_without_noise_the_forecast_is_the_step():
    parameters = MarketParameters((-0.04,), quartic=(0.3,), temperature=0.0)
    state = MarketState(("a", "b"), [2.0, 1.0], [1.0, 1.0], [0.5, -0.1], [0.0, 0.05])
    ahead, after = forecast(state, parameters, 12.0), step(state, parameters, 12.0)
    np.testing.assert_allclose(ahead.mean, after.prices, rtol=5e-3)
    np.testing.assert_allclose(ahead.log_variance, 0, atol=1e-15)
    np.testing.assert_array_equal(ahead.exceeds(ahead.mean * [0.99, 1.01]), [1.0, 0.0])
    np.testing.assert_allclose(ahead.quantile(0.01), ahead.mean)


def test_a_forecast_is_log_normal():
    state = MarketState.new({"a": 2.0, "b": 5.0})
    ahead = forecast(state, MarketParameters(), 20.0)
    for level in (0.01, 0.5, 0.975):
        np.testing.assert_allclose(ahead.exceeds(ahead.quantile(level)), 1 - level, rtol=1e-9)
    draws = state.reference * np.exp(
        ahead.log_mean + np.sqrt(ahead.log_variance) * np.random.default_rng(0).standard_normal((200_000, 2))
    )
    np.testing.assert_allclose(ahead.mean, draws.mean(axis=0), rtol=2e-3)
    np.testing.assert_allclose(ahead.variance, draws.var(axis=0), rtol=0.02)


def test_the_spread_is_that_of_the_papers_tables():
    # Avellaneda & Stoikov 2008, §3.3: deviation 2, k = 1.5, T = 1; tables 1 and 2 give a mean spread of 1.49 at
    # risk aversion 0.1 and 1.35 at 0.01. The mean of the variance that is left, 4(T-t), over the day is 2.
    assert optimal_spread(0.1, 2.0, 1.5) == pytest.approx(1.49, abs=0.005)
    assert optimal_spread(0.01, 2.0, 1.5) == pytest.approx(1.35, abs=0.005)


@settings(max_examples=100, deadline=None)
@given(
    mid=st.floats(-100, 100),
    held=st.floats(-50, 50),
    gamma=st.floats(1e-3, 5),
    variance=st.floats(0, 10),
    k=st.floats(0.1, 9),
)
def test_quotes_are_indifference_prices_plus_the_fill_margin(mid, held, gamma, variance, k):
    # Their derivation: r^a = s + (1 - 2q)·g·σ²τ/2 and r^b = s + (-1 - 2q)·g·σ²τ/2 are the exponential-utility
    # indifference prices of one unit, r their mean; the optimal distance to each adds ln(1 + g/k)/g.
    ask = mid + (1 - 2 * held) * gamma * variance / 2
    bid = mid + (-1 - 2 * held) * gamma * variance / 2
    assert reservation_price(mid, held, gamma, variance) == pytest.approx((ask + bid) / 2, abs=1e-9)
    margin = math.log(1 + gamma / k) / gamma
    assert optimal_spread(gamma, variance, k) == pytest.approx(ask + margin - (bid - margin), rel=1e-9, abs=1e-9)


def test_without_risk_aversion_the_spread_has_its_limit():
    assert optimal_spread(0.0, 3.0, 4.0) == 0.5
    assert optimal_spread(1e-14, 3.0, 4.0) == pytest.approx(0.5, rel=1e-12)
    np.testing.assert_allclose(optimal_spread(1e-7, np.array([0.0, 1.0]), 4.0), 0.5, rtol=1e-6)


def test_quotes_follow_the_closed_form_in_log_prices():
    state = MarketState(("a", "b"), [2.0, 0.5], [4.0, 2.0], [0.1, -0.2], [0.0, 0.01])
    parameters = MarketParameters(risk_aversion=2.0, fill_decay=40.0)
    variance = forecast(state, parameters, parameters.horizon, demand=1.0).log_variance
    for i, made in enumerate(quote(state, parameters, demand=1.0, inventory=[1.0, -1.0])):
        held = (1 / 4, -1 / 2)[i]
        assert made.pool == state.pools[i]
        assert made.mid == state.prices[i]
        assert math.log(made.reservation / made.mid) == pytest.approx(-held * 2.0 * variance[i], rel=1e-9)
        assert math.log(made.ask / made.bid) == pytest.approx(2.0 * variance[i] + math.log(1 + 2 / 40), rel=1e-9)
        assert 0 < made.bid < made.reservation < made.ask
        assert 0 <= made.confidence <= 1


def test_confidence_and_interval_agree_with_monte_carlo():
    paths = 20_000
    parameters = MarketParameters(stiffness=(0.09,), temperature=2e-4, fill_decay=20.0, horizon=8.0)
    names = tuple(map(str, range(paths)))
    state = MarketState(names, np.full(paths, 2.0), np.ones(paths), np.zeros(paths), np.zeros(paths))
    end = step(state, parameters, 8.0, rng=np.random.default_rng(5)).prices
    (made,) = quote(MarketState.new({"a": 2.0}), parameters, level=0.9)
    assert made.confidence == pytest.approx(np.mean((end >= made.bid) & (end <= made.ask)), abs=0.02)
    assert np.mean((end >= made.low) & (end <= made.high)) == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s, m: forecast(s, m, 0.0), "horizon is 0.0"),
        (lambda s, m: forecast(s, m, math.nan), "horizon is nan"),
        (lambda s, m: forecast(s, m, 5.0, regimes=[0.5, 0.5]), "regimes has shape"),
        (lambda s, m: forecast(s, m, 5.0).exceeds(0.0), "cap has a value of 0.0"),
        (lambda s, m: forecast(s, m, 5.0).exceeds([1.0, 2.0, 3.0]), "cap has shape"),
        (lambda s, m: forecast(s, m, 5.0).quantile(1.0), "level is 1.0"),
        (lambda s, m: forecast(s, MarketParameters(temperature=500.0), 99.0), "can be a price"),
        (lambda s, m: quote(s, m, level=0.0), "level is 0.0"),
        (lambda s, m: quote(s, m, inventory=1e9), "no price"),
        (lambda s, m: reservation_price(math.nan, 0, 1, 1), "mid is nan"),
        (lambda s, m: reservation_price(1, 0, -1, 1), "risk_aversion is -1"),
        (lambda s, m: reservation_price(1, 0, 1, -1), "variance is -1"),
        (lambda s, m: optimal_spread(1, 1, 0), "fill_decay is 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call(MarketState.new({"a": 1.0, "b": 2.0}), MarketParameters())
