"""Price dynamics: one step against plain Python, stationary laws, ports, anchors and the state's JSON."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.market import MarketParameters, MarketState, forecast, port_input, spot_price, step

THREE = MarketParameters(
    stiffness=(0.04, -0.02, 0.1),
    centre=(0.0, 0.2, 0.5),
    quartic=(0.0, 0.3, 0.05),
    mass=1.3,
    friction=0.3,
    temperature=0.001,
)


def by_hand(q, p, parameters, weights, dt, drive, xi):
    """One BAOAB step as the definition writes it: the force is summed over regimes, one pool, plain floats."""

    def force(q):
        total = 0.0
        for w, k, mu, quartic in zip(weights, parameters.stiffness, parameters.centre, parameters.quartic, strict=True):
            total -= w * (k * (q - mu) + quartic * (q - mu) ** 3)
        return total

    m, eta, heat = parameters.mass, parameters.friction, parameters.temperature
    p += 0.5 * dt * (force(q) + drive)
    q += 0.5 * dt * p / m
    p = math.exp(-eta * dt) * p + math.sqrt(m * heat * (1 - math.exp(-2 * eta * dt))) * xi
    q += 0.5 * dt * p / m
    p += 0.5 * dt * (force(q) + drive)
    return q, p


def test_a_short_step_is_one_of_baoab():
    state = MarketState(("a", "b"), [2.0, 0.5], [4.0, 10.0], [0.1, -0.3], [0.02, 0.0])
    beliefs = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    after = step(
        state, THREE, 0.15, regimes=beliefs, demand=[6.0, 1.0], supply=[2.0, 3.0], rng=np.random.default_rng(7)
    )
    xi = np.random.default_rng(7).standard_normal(2)
    for i, drive in enumerate((0.02 * 4 / 4, 0.02 * -2 / 10)):
        q, p = by_hand(float(state.q[i]), float(state.p[i]), THREE, beliefs[i], 0.15, drive, float(xi[i]))
        assert after.q[i] == pytest.approx(q, rel=1e-13)
        assert after.p[i] == pytest.approx(p, rel=1e-13)
    np.testing.assert_allclose(after.prices, state.reference * np.exp(after.q))


def test_a_long_step_is_several_short_ones():
    state = MarketState(("a",), [1.0], [1.0], [0.5], [0.0])
    parameters = MarketParameters(stiffness=(0.25,), temperature=0.0, friction=0.1)  # rate 0.5: 0.5 s is one step
    once = step(state, parameters, 10.0)
    for _ in range(20):
        state = step(state, parameters, 0.5)
    np.testing.assert_allclose(once.q, state.q, rtol=1e-12)
    np.testing.assert_allclose(once.p, state.p, rtol=1e-12)


def test_prices_settle_to_boltzmanns_law():
    # A double well in a mixture, by quadrature; 20,000 pools, an SE of 1 %.
    pools, weights = 20_000, np.array([0.3, 0.6, 0.1])
    names = tuple(map(str, range(pools)))
    state = MarketState(names, np.ones(pools), np.ones(pools), np.zeros(pools), np.zeros(pools))
    hot = MarketParameters(
        stiffness=THREE.stiffness, centre=THREE.centre, quartic=THREE.quartic, friction=0.4, temperature=0.01
    )
    state = step(state, hot, 150.0, regimes=weights, rng=np.random.default_rng(2))
    grid = np.linspace(-4, 4, 20_001)
    potential = sum(
        w * (k * (grid - mu) ** 2 / 2 + quartic * (grid - mu) ** 4 / 4)
        for w, k, mu, quartic in zip(weights, hot.stiffness, hot.centre, hot.quartic, strict=True)
    )
    law = np.exp(-potential / hot.temperature)
    law /= law.sum()
    mean = (law * grid).sum()
    assert np.mean(state.q) == pytest.approx(mean, abs=0.02)
    assert np.var(state.q) == pytest.approx((law * (grid - mean) ** 2).sum(), rel=0.05)


def test_without_noise_and_friction_energy_is_kept():
    state = MarketState(("a",), [1.0], [1.0], [0.8], [0.0])
    parameters = MarketParameters(stiffness=(-0.04,), quartic=(0.2,), friction=0.0, temperature=0.0)

    def energy(state):
        q, p = float(state.q[0]), float(state.p[0])
        return p * p / 2 - 0.02 * q * q + 0.05 * q**4

    start = energy(state)
    for _ in range(50):
        state = step(state, parameters, 7.0)
        assert energy(state) == pytest.approx(start, rel=0.01)


def test_demand_above_supply_lifts_the_price_to_the_rest_point():
    state = MarketState.new({"a": 3.0}, capacity=5.0)
    parameters = MarketParameters(stiffness=(0.04,), temperature=0.0, sensitivity=0.02)
    after = step(state, parameters, 400.0, demand=7.0, supply=2.0)
    assert after.q[0] == pytest.approx(0.02 / 0.04, rel=1e-6)  # u/k
    assert after.prices[0] == pytest.approx(3.0 * math.exp(0.5), rel=1e-6)


def test_inventory_is_a_port_that_presses_the_price():
    state = MarketState.new({"a": 1.0, "b": 1.0}, capacity=[2.0, 4.0])
    parameters = MarketParameters(risk_aversion=3.0)
    variance = forecast(state, parameters, parameters.horizon).log_variance
    force = port_input(state, parameters, inventory=[1.0, -2.0])
    np.testing.assert_allclose(force, [-3.0 * variance[0] * 0.5, 3.0 * variance[1] * 0.5], rtol=1e-12)
    cold = MarketParameters(risk_aversion=3.0, temperature=0.0)
    np.testing.assert_allclose(port_input(state, cold, inventory=1.0), 0.0, atol=1e-15)  # no risk, no skew
    sold = step(state, parameters, 5.0, inventory=[1.0, -2.0], rng=np.random.default_rng(1))
    idle = step(state, parameters, 5.0, rng=np.random.default_rng(1))
    assert sold.q[0] < idle.q[0]
    assert sold.q[1] > idle.q[1]


def test_far_prices_come_back_without_overflow():
    # Ten thousand times the reference, on a steep quartic: the step is divided as far as it must be.
    state = MarketState.new({"a": 10_000.0, "b": 1.0}, reference=1.0)
    parameters = MarketParameters(stiffness=(-0.04,), quartic=(0.3,), friction=0.5, temperature=1e-4)
    after = step(state, parameters, 60.0, rng=np.random.default_rng(0))
    assert np.abs(after.q).max() < 1.0


@settings(max_examples=30, deadline=None)
@given(
    q=st.floats(-8, 8),
    p=st.floats(-5, 5),
    stiffness=st.floats(-1, 1),
    quartic=st.floats(1e-3, 2),  # less holds a price within no bounds that there are
    dt=st.floats(0.01, 20),
    excess=st.floats(-10, 10),
)
def test_a_step_is_never_unstable(q, p, stiffness, quartic, dt, excess):
    # A cold system stores at most what it had, and what the input gave, which is u·Δq.
    parameters = MarketParameters((stiffness,), (0.0,), (quartic,), temperature=0.0)
    state = MarketState(("a",), [1.0], [1.0], [q], [p])
    after = step(state, parameters, dt, demand=excess)
    drive = parameters.sensitivity * excess

    def total(q, p):
        return p * p / 2 + stiffness * q * q / 2 + quartic * q**4 / 4 - drive * q

    floor = -(stiffness**2) / (4 * quartic) - 10 * abs(drive) - 1e-3
    start, end = total(q, p), total(float(after.q[0]), float(after.p[0]))
    assert end <= start + 0.05 * (start - floor)


def test_amm_reserves_anchor_the_price():
    price = spot_price(400.0, 1000.0)
    assert price == 2.5
    state = MarketState(("a", "b"), [2.0, 1.0], [1.0, 1.0], [0.3, 0.1], [0.02, 0.01])
    after = state.anchor({"a": price})
    np.testing.assert_allclose(after.prices, [2.5, math.exp(0.1)])
    np.testing.assert_array_equal(after.p, state.p)
    # A trade of Δ credits along x·y = const moves the marginal price as the product says.
    bought = 400.0 - 400.0 * 1000.0 / 1100.0
    assert spot_price(400.0 - bought, 1100.0) == pytest.approx(2.5 * 1.1**2)


def test_a_new_reference_leaves_prices_alone():
    state = MarketState(("a", "b"), [2.0, 1.0], [1.0, 1.0], [0.3, 0.1], [0.02, 0.01])
    after = state.rebase({"b": 4.0})
    np.testing.assert_allclose(after.prices, state.prices, rtol=1e-15)
    assert after.reference.tolist() == [2.0, 4.0]


finite, positive = st.floats(-20, 20), st.floats(1e-9, 1e9)


@settings(max_examples=25, deadline=None)
@given(rows=st.dictionaries(st.text(min_size=1, max_size=5), st.tuples(positive, positive, finite, finite), max_size=4))
def test_json_gives_the_state_back(rows):
    columns = list(zip(*rows.values(), strict=True)) or [(), (), (), ()]
    state = MarketState(tuple(rows), *columns)
    again = MarketState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state
    for name in ("reference", "capacity", "q", "p"):
        assert getattr(again, name).tobytes() == getattr(state, name).tobytes()


def test_pools_do_not_touch_each_other():
    state = MarketState(("a", "b", "c"), [2.0, 1.0, 4.0], [1.0, 2.0, 3.0], [0.3, 0.1, -0.2], [0.02, 0.01, 0.0])
    parameters = MarketParameters(temperature=0.0)
    together = step(state, parameters, 3.0, demand=[1.0, 0.0, 2.0])
    for i, name in enumerate(state.pools):
        alone = MarketState((name,), *([getattr(state, f)[i]] for f in ("reference", "capacity", "q", "p")))
        after = step(alone, parameters, 3.0, demand=[[1.0, 0.0, 2.0][i]])
        np.testing.assert_allclose([after.q[0], after.p[0]], [together.q[i], together.p[i]], rtol=1e-14)


def test_a_state_is_immutable():
    state = MarketState.new({"a": 1.0})
    with pytest.raises(ValueError, match="read-only"):
        state.q[0] = 5.0
    with pytest.raises(AttributeError):
        state.q = np.zeros(1)
    assert state != "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stiffness": (0.0,)}, "does not confine"),
        ({"stiffness": (-1.0,)}, "does not confine"),
        ({"quartic": (-1.0,)}, "does not confine"),
        ({"stiffness": (1.0, 1.0)}, r"of \[1, 2\] regimes"),
        ({"stiffness": ()}, "one number for each regime"),
        ({"centre": (math.nan,)}, "centre has 1 of 1"),
        ({"centre": (101.0,)}, "beyond"),
        ({"stiffness": (1e101,)}, "beyond"),
        ({"mass": 0.0}, "mass is 0.0"),
        ({"friction": -1.0}, "friction is -1.0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"sensitivity": "x"}, "sensitivity is 'x'"),
        ({"horizon": 0.0}, "horizon is 0.0"),
        ({"fill_decay": 0.0}, "fill_decay is 0.0"),
    ],
)
def test_bad_parameters_are_refused(change, message):
    with pytest.raises(InvalidInput, match=message):
        MarketParameters(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": 0.0}, "dt is 0.0"),
        ({"dt": math.nan}, "dt is nan"),
        ({"dt": 1e9}, "more than 10000"),
        ({"regimes": None}, "give beliefs"),
        ({"regimes": [0.5, 0.5]}, "regimes has shape"),
        ({"regimes": [0.5, 0.4, 0.0]}, "no distribution"),
        ({"regimes": [1.5, -0.5, 0.0]}, "no distribution"),
        ({"regimes": [math.nan, 0.5, 0.5]}, "regimes has 1 of 3"),
        ({"demand": [1.0, 2.0, 3.0]}, "demand has shape"),
        ({"supply": math.inf}, "supply has 1 of 1"),
        ({"inventory": [math.nan, 0.0]}, "inventory has 1 of 2"),
        ({"rng": None}, "give rng"),
    ],
)
def test_bad_steps_are_refused(change, message):
    state = MarketState.new({"a": 1.0, "b": 2.0})
    arguments = {"dt": 1.0, "regimes": [0.5, 0.25, 0.25], "rng": np.random.default_rng(0)} | change
    with pytest.raises(InvalidInput, match=message):
        step(state, THREE, arguments.pop("dt"), **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MarketState.new({"a": 0.0}), "price of 'a' is 0.0"),
        (lambda: MarketState.new({"a": 1.0}, capacity=0.0), "capacity has a value"),
        (lambda: MarketState.new({"a": 1.0}, capacity=[1.0, 2.0]), "does not stretch"),
        (lambda: MarketState.new({"a": 1.0}, reference=-1.0), "reference has a value"),
        (lambda: MarketState.new({"": 1.0}), "a name of its own"),
        (lambda: MarketState(("a", "a"), [1, 1], [1, 1], [0, 0], [0, 0]), "a name of its own"),
        (lambda: MarketState(("a",), [1], [1], [math.nan], [0]), "q has 1 of 1"),
        (lambda: MarketState(("a",), [1], [1], [700.0], [0]), "no price"),
        (lambda: MarketState(("a",), [10**400], [1], [0], [0]), "reference is no array"),
        (lambda: MarketState(("a",), [1e300], [1], [100.0], [0]), "another unit"),
        (lambda: MarketState(("a",), [1], [1], [0, 0], [0]), "q has shape"),
        (lambda: MarketState.new({"a": 1.0}).anchor({"b": 1.0}), "no pools"),
        (lambda: MarketState.new({"a": 1.0}).anchor({"a": -1.0}), "price of 'a' is -1.0"),
        (lambda: MarketState.new({"a": 1.0}).rebase({"a": math.inf}), "price of 'a' is inf"),
        (lambda: MarketState.from_dict([]), "is no hllm.market.state/1"),
        (lambda: MarketState.from_dict(MarketState.new({"a": 1.0}).to_dict() | {"kind": "x"}), "is no"),
        (lambda: MarketState.from_dict(MarketState.new({"a": 1.0}).to_dict() | {"more": 1}), "is no"),
        (lambda: MarketState.from_dict(MarketState.new({"a": 1.0}).to_dict() | {"pools": "a"}), "no list"),
        (lambda: MarketState.from_dict(MarketState.new({"a": 1.0}).to_dict() | {"q": ["x"]}), "no array"),
        (lambda: spot_price(0.0, 1.0), "resource_reserve is 0.0"),
        (lambda: spot_price(1e-300, 1e300), "no finite price"),
    ],
)
def test_bad_states_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()
