"""The price term's experiment: what is settled when, moment estimates of known processes, forecasts, and a tiny run."""

import numpy as np
import pytest
from scipy.linalg import expm

from tests.bench.hllm.routing import curiosity, entrants, forecasts, price_term, prices, worlds


def test_a_job_pays_the_price_at_which_it_begins():
    price = np.arange(3.0 * (prices.TAIL + 2)).reshape(-1, 3)
    assert prices.settled(price, (20, 10, 0)).tolist() == [[60.0, 31.0, 2.0], [63.0, 34.0, 5.0]]
    posted, known = np.full((1, 1, 6), 0.2), np.array([[[0.5, 0.1, 0.5, 0.5, 0.5, 0.5]]])
    zero, one = np.zeros((1, 1)), np.ones((1, 1, 6))
    world = worlds.World("one", zero, one, one, posted, one, one, zero, zero, one, one, settled=known)

    class First:
        def choose(self, t, price, load):
            assert price.tolist() == posted[0].tolist()
            return np.array([0])

        def learn(self, *seen):
            pass

    out = worlds.run(world, First())
    assert out["paid"] == pytest.approx([0.5])
    assert out["regret"] == pytest.approx([0.4])


@pytest.mark.parametrize(("stiffness", "friction"), [(0.02, 0.15), (0.01, 0.2), (0.04, 1.0)])
def test_the_correlation_is_that_of_the_linear_system(stiffness, friction):
    drift = np.array([[0.0, 1.0], [-stiffness, -friction]])
    for lag in (0, 1, 7, 30):
        law = expm(lag * drift)
        assert forecasts.correlation(stiffness, friction, lag) == pytest.approx((law[0, 0], law[1, 0]), abs=1e-5)


def test_moments_find_the_market_that_made_the_prices(monkeypatch):
    monkeypatch.setattr(prices, "SENSITIVITY", 0.0)
    rng = np.random.default_rng(3)
    price, excess = prices.walk("market", rng, np.zeros(30_000, dtype=int))
    found = forecasts.fit(price[:, 1], np.ones((len(price), 1)), excess[:, 1])
    assert found.reference == pytest.approx(prices.BASE[1], rel=0.1)
    p = found.parameters
    assert p.stiffness[0] == pytest.approx(prices.STIFFNESS, rel=0.25)
    assert p.friction == pytest.approx(prices.FRICTION, rel=0.25)
    assert p.temperature == pytest.approx(prices.TEMPERATURE, rel=0.25)
    assert p.sensitivity == pytest.approx(0.0, abs=0.002)
    assert found.noise < 0.02 * p.temperature / p.stiffness[0]
    assert np.abs(found.price - np.eye(forecasts.PAST)[0]).max() < 0.05  # without noise the last price is the price


def test_moments_find_what_excess_demand_does():
    price, excess = prices.walk("market", np.random.default_rng(3), np.zeros(30_000, dtype=int))
    found = forecasts.fit(price[:, 1], np.ones((len(price), 1)), excess[:, 1])
    assert found.parameters.sensitivity == pytest.approx(prices.SENSITIVITY, rel=0.35)


def test_moments_find_the_noise_of_single_prices():
    rng = np.random.default_rng(4)
    price, excess = prices.walk("market", rng, np.zeros(30_000, dtype=int))
    noisy = price[:, 0] * np.exp(0.1 * rng.standard_normal(len(price)))
    assert forecasts.fit(noisy, np.ones((len(price), 1)), excess[:, 0]).noise == pytest.approx(0.01, rel=0.15)


def test_a_forecast_begins_with_the_last_price_that_is_posted():
    rng = np.random.default_rng(5)
    price, excess = prices.walk("market", rng, np.zeros(4000, dtype=int))
    p, e, seen = price[:, 2], excess[:, 2], np.ones((4000, 1))
    found = forecasts.fit(p[:3000], seen[:3000], e[:3000])
    now = slice(3000, 3990)
    args = p[3000 - forecasts.PAST + 1 : 3990], seen[now], e[now]
    assert forecasts.market(found, *args, 1e-6).mean == pytest.approx(p[now], rel=0.02)
    paid = p[3004:3994]
    error, posted = forecasts.market(found, *args, 4).mean - paid, p[now] - paid
    assert (error**2).mean() < 0.5 * (posted**2).mean()


def test_the_regression_is_exact_where_prices_are_linear():
    rng = np.random.default_rng(6)
    excess, seen = rng.standard_normal(400), np.ones((400, 1))
    price = np.empty(400)
    price[0] = 1.0
    for t in range(399):
        price[t + 1] = 0.3 + 0.7 * price[t] + 0.2 * excess[t]
    weights = forecasts.regression(price, seen, excess, 1)
    told = forecasts.design(price[:399], seen[1:399], excess[1:399]) @ weights
    assert told == pytest.approx(price[2:], abs=1e-4)


@pytest.mark.parametrize("name", ["surges", "dear market"])
def test_the_experiment_plays(name, monkeypatch):
    monkeypatch.setattr(worlds, "WARM", 400)
    monkeypatch.setattr(price_term, "PEERS", ("linucb+",))
    settings = {a: dict.fromkeys(("posted", "forecast"), entrants.grid(a)[0]) for a in ("hllm", "linucb+")}
    results, (errors, brier) = price_term.play(name, "long", settings, [1, 2], 2, steps=40)
    assert set(results) == {(a, p) for a in settings for p in price_term.PRICES}
    for out in results.values():
        assert out["regret"].shape == (2,)
        assert (out["regret"] > 0).all()
    assert errors["posted"] == 1
    assert all(0 <= x <= 1 for x in brier)


def test_the_information_term_is_asked_about_with_both_settings(monkeypatch):
    monkeypatch.setattr(worlds, "WARM", 300)
    without, ours = curiosity.play("easy", entrants.DEFAULT, [1, 2], 200, 2)
    assert without.shape == ours.shape == (2,)
    assert (without != ours).any()
