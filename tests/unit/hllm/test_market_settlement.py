"""What a job will pay that has to wait: Monte Carlo of the market's own steps, and the cases without chance."""

import numpy as np
import pytest

from hllm.errors import InvalidInput
from hllm.market import MarketParameters, MarketState, expected_prices, step

PARAMETERS = MarketParameters(stiffness=(0.04, 0.04), centre=(0.0, 0.5), quartic=(0.0, 0.0), temperature=0.002)
REGIMES = [0.3, 0.7]
STATE = MarketState(("a", "b", "c"), [1.0, 2.0, 4.0], [1.0, 1.0, 2.0], [0.4, -0.2, 0.0], [0.05, 0.0, -0.02])


def test_each_pool_pays_the_price_after_its_own_wait():
    waits, caps, demand = [5.0, 0.0, 12.0], [1.9, 2.0, 4.5], [1.0, 0.0, -1.0]
    found = expected_prices(STATE, PARAMETERS, waits, caps=caps, regimes=REGIMES, demand=demand)
    assert found.pools == STATE.pools
    copies = 20_000
    names = tuple(map(str, range(3 * copies)))
    many = MarketState(names, *(np.repeat(getattr(STATE, x), copies) for x in ("reference", "capacity", "q", "p")))
    rng = np.random.default_rng(0)
    at = {0.0: many.prices}
    for t in range(1, 49):
        many = step(many, PARAMETERS, 0.25, regimes=REGIMES, demand=np.repeat(demand, copies), rng=rng)
        at[t / 4] = many.prices
    for i, wait in enumerate(waits):
        price = at[wait][i * copies : (i + 1) * copies]
        assert found.mean[i] == pytest.approx(price.mean(), rel=0.005)
        assert found.exceeds[i] == pytest.approx((price > caps[i]).mean(), abs=0.015)
    assert 0.1 < found.exceeds[0] < 0.9


def test_without_a_wait_the_price_is_the_one_that_is():
    found = expected_prices(STATE, PARAMETERS, 0, caps=STATE.prices * [1.01, 0.99, 1.0], regimes=REGIMES)
    assert found.mean.tolist() == STATE.prices.tolist()
    assert found.exceeds.tolist() == [0.0, 1.0, 0.0]
    assert expected_prices(STATE, PARAMETERS, 0, regimes=REGIMES).exceeds is None


def test_in_the_long_run_the_price_is_that_of_the_regime():
    cold = MarketParameters(temperature=0.0, centre=(0.5,), friction=0.4)
    assert expected_prices(STATE, cold, 1000).mean == pytest.approx(STATE.reference * np.exp(0.5), rel=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"waits": -1.0}, "waits"),
        ({"waits": [1.0, 2.0]}, "waits"),
        ({"waits": float("nan")}, "waits"),
        ({"caps": 0.0}, "caps"),
        ({"caps": [1.0, 2.0]}, "caps"),
        ({"regimes": None}, "regimes"),
    ],
)
def test_bad_input_is_refused(change, message):
    args = {"waits": 1.0, "caps": 1.0, "regimes": REGIMES} | change
    with pytest.raises(InvalidInput, match=message):
        expected_prices(STATE, PARAMETERS, args.pop("waits"), **args)
