"""What tells whether an integrator does what it promises: energy, reversibility and order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hllm._check import Array, array, count
from hllm.errors import InvalidInput

from .symplectic import Force, Integrator, phase


def energy(q: Any, p: Any, potential: Callable[[Array], Array], *, mass: Any = 1.0) -> Array:
    """H(q, p) = p²/2m + V(q).

    If ``potential`` returns the shape of q, each element is a system of its own, and so is the result. If it returns
    the shape of q without its last axis, that axis holds a system's degrees of freedom and is summed over.
    Raises InvalidInput for another shape.
    """
    q, p, inverse = phase(q, p, mass)
    kinetic, stored = 0.5 * inverse * p * p, np.asarray(potential(q), dtype=np.float64)
    if stored.shape == q.shape:
        return np.asarray(kinetic + stored)
    if q.ndim and stored.shape == q.shape[:-1]:
        return np.asarray(kinetic.sum(axis=-1) + stored)
    raise InvalidInput(
        f"potential returned shape {stored.shape} for q of shape {q.shape}; give {q.shape} or without its last axis"
    )


def energy_error(
    integrator: Integrator,
    q: Any,
    p: Any,
    force: Force,
    potential: Callable[[Array], Array],
    dt: float,
    steps: int,
    *,
    mass: Any = 1.0,
) -> Array:
    """Greatest |H - H₀| over ``steps`` steps, for each system; shapes as ``energy``."""
    q, p, _ = phase(q, p, mass)
    start = energy(q, p, potential, mass=mass)
    worst = np.zeros_like(start)
    for _ in range(count("steps", steps, least=1)):
        q, p = integrator(q, p, force, dt, mass=mass)
        np.maximum(worst, np.abs(energy(q, p, potential, mass=mass) - start), out=worst)
    return worst


def reversal_error(
    integrator: Integrator, q: Any, p: Any, force: Force, dt: float, steps: int, *, mass: Any = 1.0
) -> float:
    """Greatest distance from the start after ``steps`` forward, the momenta flipped, and as many steps again.

    Zero in exact arithmetic for a reversible integrator; rounding is what remains.
    """
    start_q, start_p, _ = phase(q, p, mass)
    there_q, there_p = integrator(q, p, force, dt, steps=steps, mass=mass)
    back_q, back_p = integrator(there_q, -there_p, force, dt, steps=steps, mass=mass)
    return float(max(np.abs(back_q - start_q).max(initial=0.0), np.abs(back_p + start_p).max(initial=0.0)))


def observed_order(dts: Sequence[float], errors: Sequence[float]) -> float:
    """The least-squares slope of ln error over ln dt. Raises InvalidInput unless both are positive, two or more."""
    x, y = array("dts", dts), array("errors", errors)
    if x.shape != y.shape or x.ndim != 1 or x.size < 2 or np.unique(x).size < 2:
        raise InvalidInput(
            f"dts has shape {x.shape} and errors {y.shape}; give two or more different steps, an error for each"
        )
    if (x <= 0).any() or (y <= 0).any():
        raise InvalidInput("a step or an error is not positive; the order is the slope of their logarithms")
    x, y = np.log(x), np.log(y)
    x -= x.mean()
    return float(x @ (y - y.mean()) / (x @ x))
