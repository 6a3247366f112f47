"""Symplectic integrators of order 2, 4 and 6 for separable Hamiltonians.

Each is a symmetric composition of kick-drift-kick steps (Störmer-Verlet), so it preserves phase-space volume, is
reversible, and keeps the energy error bounded for as long as the step resolves the motion. Explicit Euler has none of
this: on a unit oscillator its energy grows by 1 + dt² each step.

Sources: Yoshida, "Construction of higher order symplectic integrators", Phys. Lett. A 150 (1990) 262; coefficients to
26 digits in Hairer, Lubich, Wanner, "Geometric Numerical Integration", 2nd ed., V.3.2, equations (3.11).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from hllm._check import Array, array, count, number, spread
from hllm.errors import InvalidInput

Force = Callable[[Array], Array]
"""-∂V/∂q: maps q to an array of its shape. It must not change q, and may return the same array each time."""

_CBRT2 = 2.0 ** (1.0 / 3.0)
ORDER2 = (1.0,)
ORDER4 = (1.0 / (2.0 - _CBRT2), -_CBRT2 / (2.0 - _CBRT2), 1.0 / (2.0 - _CBRT2))
_W1, _W2, _W3 = 0.78451361047755726381949763, 0.23557321335935813368479318, -1.17767998417887100694641568
ORDER6 = (_W1, _W2, _W3, 1.0 - 2.0 * (_W1 + _W2 + _W3), _W3, _W2, _W1)


class Integrator(Protocol):
    """What ``leapfrog``, ``yoshida4`` and ``yoshida6`` have in common."""

    def __call__(
        self, q: Any, p: Any, force: Force, dt: float, *, steps: int = 1, mass: Any = 1.0
    ) -> tuple[Array, Array]: ...


def leapfrog(q: Any, p: Any, force: Force, dt: float, *, steps: int = 1, mass: Any = 1.0) -> tuple[Array, Array]:
    """``steps`` steps of Störmer-Verlet (order 2); one force a step.

    ``q``, ``p``: shape S. ``mass``: positive, stretches to S. ``dt``: in the time unit of p/m; negative runs backwards.
    Returns new arrays of shape S. Raises InvalidInput for bad arguments, a force of another shape, and a trajectory
    that leaves the finite numbers.
    """
    return _compose(ORDER2, q, p, force, dt, steps, mass)


def yoshida4(q: Any, p: Any, force: Force, dt: float, *, steps: int = 1, mass: Any = 1.0) -> tuple[Array, Array]:
    """As ``leapfrog``, of order 4 with three forces a step."""
    return _compose(ORDER4, q, p, force, dt, steps, mass)


def yoshida6(q: Any, p: Any, force: Force, dt: float, *, steps: int = 1, mass: Any = 1.0) -> tuple[Array, Array]:
    """As ``leapfrog``, of order 6 with seven forces a step (Yoshida's solution A)."""
    return _compose(ORDER6, q, p, force, dt, steps, mass)


def _compose(
    weights: tuple[float, ...], q: Any, p: Any, force: Force, dt: float, steps: int, mass: Any
) -> tuple[Array, Array]:
    q, p, inverse = phase(q, p, mass)
    dt, steps = number("dt", dt), count("steps", steps)
    if steps == 0:
        return q, p
    # The last kick of a step and the first of the next use the same force: they are one.
    halves = [0.5 * dt * weight for weight in weights]
    drifts = [weight * dt * inverse for weight in weights]
    last = [a + b for a, b in zip(halves, (*halves[1:], 0.0), strict=True)]
    inner = (*last[:-1], halves[-1] + halves[0])
    work = np.empty_like(q)
    with np.errstate(all="ignore"):  # a step that is too large overflows; finite() below says so
        p += halves[0] * pull(force, q)
        for step in range(steps):
            for drift, kick in zip(drifts, inner if step < steps - 1 else last, strict=True):
                q += np.multiply(drift, p, out=work)
                p += np.multiply(kick, force(q), out=work)
    return finite(q, p)


def phase(q: Any, p: Any, mass: Any) -> tuple[Array, Array, Array]:
    """Fresh copies of q and p, and 1/m."""
    q, p = array("q", q), array("p", p)
    if q.shape != p.shape:
        raise InvalidInput(f"q has shape {q.shape} and p has {p.shape}; they must be equal")
    mass = array("mass", mass)
    if (mass <= 0).any():
        raise InvalidInput(f"mass has a value of {mass.min()}; masses are more than 0")
    spread("mass", mass, q.shape)
    return q.copy(), p.copy(), 1.0 / mass


def pull(force: Force, q: Array) -> Array:
    """The force at q, whose shape is checked."""
    result = force(q)
    if np.shape(result) != q.shape:
        raise InvalidInput(f"force returned shape {np.shape(result)} for q of shape {q.shape}; they must be equal")
    return result


def finite(q: Array, p: Array) -> tuple[Array, Array]:
    """The pair, unless a value is not finite."""
    if not (np.isfinite(q).all() and np.isfinite(p).all()):
        raise InvalidInput("the trajectory left the finite numbers: use a smaller dt, or a potential that confines")
    return q, p
