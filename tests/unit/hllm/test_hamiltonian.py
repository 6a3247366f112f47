"""Symplectic integrators: order, reversibility, energy, volume; against closed forms and explicit Euler."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import HllmError, InvalidInput
from hllm.hamiltonian import energy, energy_error, leapfrog, observed_order, reversal_error, yoshida4, yoshida6
from hllm.hamiltonian.symplectic import ORDER4, ORDER6

INTEGRATORS = {leapfrog: 2, yoshida4: 4, yoshida6: 6}


def pendulum_force(q):
    return -np.sin(q)


def pendulum(q):
    return -np.cos(q)


def henon_heiles_force(q):
    x, y = q[..., 0], q[..., 1]
    return np.stack([-x - 2 * x * y, -y - x * x + y * y], axis=-1)


def henon_heiles(q):
    x, y = q[..., 0], q[..., 1]
    return 0.5 * (x * x + y * y) + x * x * y - y**3 / 3


def kepler_force(q):
    return -q / np.linalg.norm(q, axis=-1, keepdims=True) ** 3


def kepler(q):
    return -1 / np.linalg.norm(q, axis=-1)


ECCENTRICITY = 0.5
SYSTEMS = {
    "pendulum": (pendulum_force, pendulum, [1.2], [0.0], 10.0, (20, 40)),
    "henon-heiles": (henon_heiles_force, henon_heiles, [0.1, 0.2], [0.35, -0.1], 10.0, (20, 40)),
    "kepler": (
        kepler_force,
        kepler,
        [1 - ECCENTRICITY, 0.0],
        [0.0, math.sqrt((1 + ECCENTRICITY) / (1 - ECCENTRICITY))],
        2 * math.pi,
        (100, 200),
    ),
}
# The steps must be small enough for the leading term, and large enough to stand above rounding.
FINER = {2: 4, 4: 2, 6: 1}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda f: f.__name__)
def test_energy_error_falls_with_the_promised_order(integrator, system):
    force, potential, q, p, span, counts = SYSTEMS[system]
    order = INTEGRATORS[integrator]
    low, high = (count * FINER[order] for count in counts)
    steps = [round(n) for n in np.geomspace(low, high, 4)]
    dts = [span / n for n in steps]
    errors = [
        float(np.max(energy_error(integrator, q, p, force, potential, dt, n))) for dt, n in zip(dts, steps, strict=True)
    ]
    assert observed_order(dts, errors) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda f: f.__name__)
def test_position_error_falls_with_the_promised_order(integrator):
    # The harmonic oscillator's motion is known: q = cos t, p = -sin t.
    order, span = INTEGRATORS[integrator], 3.0
    steps = [8 * FINER[order] * k for k in (2, 3, 4, 5)]
    errors = []
    for n in steps:
        q, p = integrator(1.0, 0.0, np.negative, span / n, steps=n)
        errors.append(math.hypot(float(q) - math.cos(span), float(p) + math.sin(span)))
    assert observed_order([span / n for n in steps], errors) == pytest.approx(order, abs=0.2)


def test_kepler_returns_to_its_start_after_a_period():
    _, _, q, p, period, _ = SYSTEMS["kepler"]
    there, speed = yoshida6(q, p, kepler_force, period / 2000, steps=2000)
    np.testing.assert_allclose(there, q, atol=1e-9)
    np.testing.assert_allclose(speed, p, atol=1e-9)


@pytest.mark.parametrize("weights", [ORDER4, ORDER6], ids=["4", "6"])
def test_the_weights_meet_the_order_conditions(weights):
    # Hairer, Lubich, Wanner, II.4 and V.3: the sums of odd powers below the order are those of one step, or zero.
    assert sum(weights) == pytest.approx(1, abs=1e-15)
    assert sum(w**3 for w in weights) == pytest.approx(0, abs=1e-14)
    assert weights == pytest.approx(weights[::-1], abs=1e-15)
    if len(weights) == 7:
        assert sum(w**5 for w in weights) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda f: f.__name__)
def test_motion_is_reversible(integrator, system):
    force, _, q, p, _, _ = SYSTEMS[system]
    assert reversal_error(integrator, q, p, force, 0.01, 500) < 1e-12


@settings(max_examples=40, deadline=None)
@given(
    q=st.lists(st.floats(-3, 3), min_size=1, max_size=5),
    p=st.floats(-2, 2),
    dt=st.floats(1e-3, 0.2),
    steps=st.integers(0, 60),
)
def test_negative_steps_undo_positive_ones(q, p, dt, steps):
    start = np.full(len(q), p)
    for integrator in INTEGRATORS:
        there = integrator(q, start, pendulum_force, dt, steps=steps)
        back = integrator(*there, pendulum_force, -dt, steps=steps)
        np.testing.assert_allclose(back[0], q, atol=1e-9)
        np.testing.assert_allclose(back[1], start, atol=1e-9)


def test_energy_stays_bounded_where_explicit_euler_grows():
    dt, steps = 0.01, 1000
    q, p = 1.0, 0.0
    for _ in range(steps):
        q, p = q + dt * p, p - dt * q
    assert (q * q + p * p) - 1 == pytest.approx((1 + dt * dt) ** steps - 1, rel=1e-9)  # 10.5 %
    ours = energy_error(leapfrog, 1.0, 0.0, np.negative, lambda q: 0.5 * q * q, dt, steps)
    # Leapfrog conserves p²/2 + q²/2·(1 - dt²/4), so H moves by at most dt²/8 of q².
    assert ours <= dt * dt / 8 * (1 + 1e-9)
    late = energy_error(leapfrog, 1.0, 0.0, np.negative, lambda q: 0.5 * q * q, dt, 4 * steps)
    assert late == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda f: f.__name__)
def test_phase_space_volume_is_kept(integrator):
    # The Jacobian of the map, by central differences, has determinant one.
    h, q, p = 1e-5, 0.8, -0.4
    columns = []
    for dq, dp in ((h, 0), (0, h)):
        plus = integrator(q + dq, p + dp, pendulum_force, 0.2, steps=7)
        minus = integrator(q - dq, p - dp, pendulum_force, 0.2, steps=7)
        columns.append((np.array(plus) - np.array(minus)) / (2 * h))
    assert np.linalg.det(np.array(columns)) == pytest.approx(1, abs=1e-8)


def test_pools_are_independent_and_inputs_are_kept():
    rng = np.random.default_rng(3)
    q, p, mass = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.uniform(0.5, 2, size=(4, 3))
    kept = q.copy(), p.copy()
    together = yoshida4(q, p, pendulum_force, 0.1, steps=9, mass=mass)
    np.testing.assert_array_equal(q, kept[0])
    np.testing.assert_array_equal(p, kept[1])
    for index in np.ndindex(4, 3):
        alone = yoshida4(q[index], p[index], pendulum_force, 0.1, steps=9, mass=mass[index])
        np.testing.assert_allclose([together[0][index], together[1][index]], alone, rtol=1e-13)


def test_a_force_may_reuse_its_array():
    memory = np.empty(2)

    def force(q):
        return np.negative(q, out=memory)

    np.testing.assert_array_equal(
        leapfrog([1.0, 2.0], [0.0, 0.5], force, 0.1, steps=5),
        leapfrog([1.0, 2.0], [0.0, 0.5], np.negative, 0.1, steps=5),
    )


def test_energy_takes_systems_of_one_or_more_degrees():
    q, p = np.array([[1.0, 2.0], [0.0, 0.5]]), np.array([[0.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(energy(q, p, lambda q: q * q / 2, mass=2.0), q * q / 2 + p * p / 4)
    np.testing.assert_allclose(energy(q, p, henon_heiles), henon_heiles(q) + (p * p).sum(axis=-1) / 2)
    with pytest.raises(InvalidInput, match="potential returned shape"):
        energy(q, p, lambda q: np.zeros(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": [math.nan]}, "q has 1 of 1 values that are NaN"),
        ({"p": [math.inf]}, "p has 1 of 1"),
        ({"p": [1.0, 2.0]}, "must be equal"),
        ({"q": ["a"]}, "no array of numbers"),
        ({"dt": math.nan}, "dt is nan"),
        ({"dt": "x"}, "dt is 'x'"),
        ({"steps": -1}, "steps is -1"),
        ({"steps": 1.5}, "whole number"),
        ({"steps": True}, "whole number"),
        ({"mass": 0.0}, "mass has a value of 0.0"),
        ({"mass": [1.0, 2.0]}, "does not stretch"),
        ({"force": lambda q: np.zeros(3)}, "force returned shape"),
        ({"force": lambda q: q**3, "dt": 10.0, "steps": 50}, "left the finite numbers"),
        ({"force": lambda q: q * math.nan}, "left the finite numbers"),
    ],
)
@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda f: f.__name__)
def test_bad_input_is_refused(integrator, change, message):
    given = {"q": [1.0], "p": [0.0], "force": np.negative, "dt": 0.1, "steps": 1, "mass": 1.0} | change
    with pytest.raises(InvalidInput, match=message) as caught:
        integrator(given["q"], given["p"], given["force"], given["dt"], steps=given["steps"], mass=given["mass"])
    assert isinstance(caught.value, HllmError)


@pytest.mark.parametrize(
    ("dts", "errors"),
    [([0.1], [0.1]), ([0.1, 0.2], [0.1]), ([0.1, 0.1], [1, 2]), ([0.1, 0.2], [0, 1]), ([0.1, -1], [1, 1])],
)
def test_an_order_needs_two_steps_with_errors(dts, errors):
    with pytest.raises(InvalidInput):
        observed_order(dts, errors)
