"""Damped, driven and thermostatted motion: the BAOAB splitting of Langevin dynamics, and its port-Hamiltonian limit.

    dq = p/m dt,    dp = (-∂V/∂q + u - ηp) dt + √(2ηmΘ) dW

B kicks by force and input, A drifts, O solves friction and noise exactly. Source: Leimkuhler, Matthews, "Rational
construction of stochastic numerical methods for molecular sampling", AMRX 2013, 34. At u = 0 the stationary law is
exp(-H/Θ) up to O(dt²), and for a harmonic potential the positions' is exact: var q = Θ/k, var p = mΘ(1 - k·dt²/4m).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm._check import Array, array, count, number, spread
from hllm.errors import InvalidInput

from .symplectic import Force, finite, phase, pull


def baoab(  # noqa: PLR0913 the terms of the equation
    q: Any,
    p: Any,
    force: Force,
    dt: float,
    *,
    friction: Any,
    temperature: Any,
    rng: np.random.Generator | None = None,
    mass: Any = 1.0,
    drive: Any = 0.0,
    steps: int = 1,
) -> tuple[Array, Array]:
    """``steps`` steps of BAOAB.

    ``q``, ``p``: shape S. ``friction`` η (1/time, ≥ 0), ``temperature`` Θ (energy, ≥ 0), ``mass`` (> 0) and ``drive``
    u (force, constant during the call) stretch to S. ``dt`` > 0. ``rng`` is needed when friction and temperature are
    both positive somewhere; without either, the step is ``leapfrog``'s. Returns new arrays of shape S.
    Raises InvalidInput for bad arguments and for a trajectory that leaves the finite numbers.
    """
    bath = {"friction": friction, "temperature": temperature, "rng": rng}
    q, p, _ = _run(q, p, force, dt, **bath, mass=mass, drive=drive, steps=steps, balance=False)
    return q, p


@dataclass(frozen=True, slots=True)
class Balance:
    """Energy that passed the ports of each system, of the shape of q.

    In exact motion the stored energy grows by ``supplied - dissipated``; in steps of dt this holds up to O(dt²).
    """

    supplied: Array
    """Work of the input, ∫ u·q̇ dt; negative where the system drives its surroundings."""
    dissipated: Array
    """Energy lost to damping; never negative."""


def port(
    q: Any, p: Any, force: Force, dt: float, *, damping: Any = 0.0, drive: Any = 0.0, mass: Any = 1.0, steps: int = 1
) -> tuple[Array, Array, Balance]:
    """Port-Hamiltonian motion: BAOAB without noise, with account of the energy.

    ``damping`` (1/time, ≥ 0) and ``drive`` (force) stretch to the shape of q. With forces that act on each element
    alone the system is passive: ΔH ≤ ``supplied`` up to O(dt²). Raises as ``baoab``.
    Source: van der Schaft, Jeltsema, "Port-Hamiltonian Systems Theory" (2014), §2.
    """
    return _run(q, p, force, dt, friction=damping, mass=mass, drive=drive, steps=steps, balance=True)


def _run(  # noqa: PLR0913 the terms of the equation
    q: Any,
    p: Any,
    force: Force,
    dt: float,
    *,
    friction: Any,
    temperature: Any = 0.0,
    rng: np.random.Generator | None = None,
    mass: Any,
    drive: Any,
    steps: int,
    balance: bool,
) -> tuple[Array, Array, Balance]:
    q, p, inverse = phase(q, p, mass)
    dt, steps = number("dt", dt, above=0.0), count("steps", steps)
    friction, temperature, drive = array("friction", friction), array("temperature", temperature), array("drive", drive)
    for name, value in (("friction", friction), ("temperature", temperature), ("drive", drive)):
        spread(name, value, q.shape)
        if name != "drive" and (value < 0).any():
            raise InvalidInput(f"{name} has a value of {value.min()}; it is never negative")
    decay = np.exp(-friction * dt)
    noise = np.sqrt(-np.expm1(-2.0 * friction * dt) * temperature / inverse)
    noisy = bool((noise > 0).any())
    if noisy and rng is None:
        raise InvalidInput("friction and temperature are positive, so there is noise: give rng, a numpy Generator")
    supplied, dissipated = np.zeros_like(q), np.zeros_like(q)
    half, drift = 0.5 * dt, 0.5 * dt * inverse
    kick, work, before = np.empty_like(q), np.empty_like(q), np.empty_like(q)
    pushed = bool((drive != 0).any())

    with np.errstate(all="ignore"):  # a step that is too large overflows; finite() below says so
        np.multiply(half, pull(force, q), out=kick)
        for _ in range(steps):
            p += kick
            if pushed:
                p += half * drive
            if balance:
                np.copyto(before, q)
            q += np.multiply(drift, p, out=work)
            if balance:
                dissipated += 0.5 * inverse * (1.0 - decay * decay) * p * p
            p *= decay
            if noisy and rng is not None:
                p += np.multiply(noise, rng.standard_normal(q.shape), out=work)
            q += np.multiply(drift, p, out=work)
            if balance:
                supplied += drive * (q - before)
            np.multiply(half, force(q), out=kick)
            p += kick
            if pushed:
                p += half * drive
    q, p = finite(q, p)
    return q, p, Balance(supplied, dissipated)
