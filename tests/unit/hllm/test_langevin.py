"""BAOAB and ports: stationary variances, exact decay, the free particle, and the balance of energy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hllm.errors import InvalidInput
from hllm.hamiltonian import baoab, energy, leapfrog, observed_order, port


def zero(q):
    return np.zeros_like(q)


@pytest.mark.parametrize("dt", [0.1, 0.4, 0.8])
def test_stationary_variances_of_the_harmonic_oscillator(dt):
    # Leimkuhler & Matthews 2013: var q = Θ/k for every dt, var p = mΘ(1 - k dt²/4m). 40,000 pools: 0.7 % is one SE.
    stiffness, mass, heat, pools = 2.0, 1.5, 0.3, 40_000
    rng = np.random.default_rng(11)
    q, p = rng.normal(0, math.sqrt(heat / stiffness), pools), rng.normal(0, math.sqrt(mass * heat), pools)
    q, p = baoab(
        q, p, lambda q: -stiffness * q, dt, friction=1.0, temperature=heat, rng=rng, mass=mass, steps=round(12 / dt)
    )
    assert np.var(q) == pytest.approx(heat / stiffness, rel=0.03)
    assert np.var(p) / mass == pytest.approx(heat * (1 - stiffness * dt * dt / (4 * mass)), rel=0.03)


def moments(step, stiffness, mass, heat, friction):
    """The stationary covariance of (q, p) under a linear map, which is read off from the integrator itself."""

    class Fixed:
        """A generator that gives what it was told."""

        def __init__(self, value):
            self.value = value

        def standard_normal(self, shape):
            return np.full(shape, self.value)

    def move(q, p, xi):
        return np.array(
            baoab(q, p, lambda q: -stiffness * q, step, friction=friction, temperature=heat, rng=Fixed(xi), mass=mass)
        )

    transfer, noise = np.stack([move(1.0, 0.0, 0.0), move(0.0, 1.0, 0.0)], axis=1), move(0.0, 0.0, 1.0)
    eye = np.eye(4) - np.kron(transfer, transfer)
    return np.linalg.solve(eye, np.outer(noise, noise).ravel()).reshape(2, 2)


@settings(max_examples=30, deadline=None)
@given(
    stiffness=st.floats(0.1, 5),
    mass=st.floats(0.2, 5),
    heat=st.floats(0.01, 3),
    friction=st.floats(0.1, 5),
    share=st.floats(0.05, 0.9),
)
def test_stationary_variances_are_exact(stiffness, mass, heat, friction, share):
    # The same law, without sampling: the discrete Lyapunov equation of one step.
    step = share * 2 / math.sqrt(stiffness / mass)
    covariance = moments(step, stiffness, mass, heat, friction)
    assert covariance[0, 0] == pytest.approx(heat / stiffness, rel=1e-8)
    assert covariance[1, 1] == pytest.approx(mass * heat * (1 - stiffness * step**2 / (4 * mass)), rel=1e-8)
    assert covariance[0, 1] == pytest.approx(0, abs=1e-8 * heat * math.sqrt(mass / stiffness))


def test_double_well_has_boltzmanns_moments():
    # ⟨q²⟩ under exp(-V/Θ), by quadrature; SE about 0.4 %, plus O(dt²).
    heat, pools, rng = 0.5, 40_000, np.random.default_rng(5)
    grid = np.linspace(-6, 6, 20_001)
    weight = np.exp(-(0.25 * grid**4 - 0.5 * grid**2) / heat)
    exact = (grid**2 * weight).sum() / weight.sum()
    q = rng.choice([-1.0, 1.0], pools)
    q, _ = baoab(q, np.zeros(pools), lambda q: q - q**3, 0.1, friction=1.0, temperature=heat, rng=rng, steps=150)
    assert np.mean(q**2) == pytest.approx(exact, rel=0.02)
    assert abs(np.mean(q)) < 0.03


@settings(max_examples=30, deadline=None)
@given(friction=st.floats(0, 3), dt=st.floats(0.01, 1), steps=st.integers(1, 20), p=st.floats(-5, 5))
def test_momentum_decays_exactly_without_force_or_noise(friction, dt, steps, p):
    _, after = baoab(0.0, p, zero, dt, friction=friction, temperature=0.0, steps=steps)
    assert after == pytest.approx(p * math.exp(-friction * dt * steps), rel=1e-12, abs=1e-15)


def test_the_thermostat_is_an_exact_ornstein_uhlenbeck_process():
    # Free particle from rest: var p = mΘ(1 - e^{-2ηt}) whatever the step.
    rng, mass, heat, friction, dt, steps = np.random.default_rng(8), 2.0, 0.7, 0.4, 0.5, 3
    _, p = baoab(
        np.zeros(60_000),
        np.zeros(60_000),
        zero,
        dt,
        friction=friction,
        temperature=heat,
        rng=rng,
        mass=mass,
        steps=steps,
    )
    assert np.var(p) == pytest.approx(mass * heat * (1 - math.exp(-2 * friction * dt * steps)), rel=0.025)


def test_without_friction_it_is_leapfrog():
    q, p = np.array([0.3, -1.0]), np.array([0.1, 0.9])
    ours = baoab(q, p, lambda q: -np.sin(q), 0.2, friction=0.0, temperature=1.0, steps=30)
    np.testing.assert_allclose(ours, leapfrog(q, p, lambda q: -np.sin(q), 0.2, steps=30), rtol=1e-12)


def test_one_seed_gives_one_path():
    runs = [
        baoab([0.1], [0.0], np.negative, 0.1, friction=1, temperature=1, rng=np.random.default_rng(4), steps=9)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])


def test_the_energy_balance_closes_with_the_square_of_the_step():
    q0, p0, span = 0.4, 0.7, 6.0
    steps, gaps = [60, 90, 120, 180], []
    for n in steps:
        q, p, balance = port(q0, p0, lambda q: -np.sin(q), span / n, damping=0.3, drive=0.5, steps=n)
        change = energy(q, p, lambda q: -np.cos(q)) - energy(q0, p0, lambda q: -np.cos(q))
        gaps.append(abs(float(change - balance.supplied + balance.dissipated)))
    assert observed_order([span / n for n in steps], gaps) == pytest.approx(2, abs=0.2)
    assert gaps[-1] < 1e-4


@settings(max_examples=30, deadline=None)
@given(
    q=st.floats(-2, 2), p=st.floats(-2, 2), drive=st.floats(-1, 1), damping=st.floats(0, 2), steps=st.integers(1, 200)
)
def test_motion_is_passive(q, p, drive, damping, steps):
    # No more energy is stored than the input supplies, but for the bounded error of the step (10 dt²).
    dt = 0.02
    after_q, after_p, balance = port(q, p, lambda q: -q - q**3, dt, damping=damping, drive=drive, steps=steps)

    def potential(q):
        return q * q / 2 + q**4 / 4

    grown = energy(after_q, after_p, potential) - energy(q, p, potential)
    assert grown <= balance.supplied + 10 * dt * dt
    assert balance.dissipated >= 0
    assert balance.supplied == pytest.approx(drive * (after_q - q), abs=1e-9)


def test_without_an_input_damping_only_takes():
    q, p, balance = port([1.0, 2.0], [0.0, 0.0], np.negative, 0.05, damping=0.5, steps=2000)
    np.testing.assert_allclose([q, p], 0, atol=1e-9)
    np.testing.assert_allclose(balance.dissipated, [0.5, 2.0], rtol=1e-3)
    np.testing.assert_array_equal(balance.supplied, 0)


def test_a_constant_input_moves_the_rest_point():
    q, p, _ = port(0.0, 0.0, lambda q: -4.0 * q, 0.05, damping=1.0, drive=2.0, steps=2000)
    assert q == pytest.approx(0.5, abs=1e-9)
    assert p == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"friction": -1.0}, "friction has a value of -1.0"),
        ({"temperature": -1.0}, "temperature has a value of -1.0"),
        ({"rng": None}, "give rng"),
        ({"dt": 0.0}, "dt is 0.0"),
        ({"dt": -0.1}, "dt is -0.1"),
        ({"drive": [1.0, 2.0]}, "drive has shape"),
        ({"drive": math.nan}, "drive has 1 of 1"),
        ({"q": [math.nan]}, "q has 1 of 1"),
        ({"steps": -1}, "steps is -1"),
        ({"dt": 9.0, "steps": 400}, "left the finite numbers"),
    ],
)
def test_bad_input_is_refused(change, message):
    given = {"q": [1.0], "p": [0.0], "dt": 0.1, "friction": 1.0, "temperature": 1.0, "rng": np.random.default_rng(0)}
    given |= change
    with pytest.raises(InvalidInput, match=message):
        baoab(given.pop("q"), given.pop("p"), np.negative, given.pop("dt"), **given)
