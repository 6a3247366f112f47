"""The force on the log prices, averaged over beliefs, and how fine a step it asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hllm._check import Array
from hllm.errors import InvalidInput

from .parameters import MarketParameters
from .state import MarketState

_STEPS_MAX = 10_000
_REACH = 200.0
_HOT = 20.0
"""Temperatures of energy that noise may add: e^-20 of the stationary law is beyond."""


@dataclass(frozen=True, slots=True)
class Field:
    """The averaged force F(q) = c0 + c1·q + c2·q² + c3·q³, a cubic whatever the number of regimes.

    Each coefficient is a scalar array, or of shape (pools,).
    """

    c0: Array
    c1: Array
    c2: Array
    c3: Array

    @classmethod
    def of(cls, parameters: MarketParameters, weights: Array) -> Field:
        """The average of -V'(q; z) over beliefs of shape (K,) or (pools, K)."""
        k, mu, quartic = (np.array(x) for x in (parameters.stiffness, parameters.centre, parameters.quartic))
        cubic = [k * mu + quartic * mu**3, -(k + 3 * quartic * mu**2), 3 * quartic * mu, -quartic]
        return cls(*(weights @ coefficient for coefficient in cubic))

    @property
    def curved(self) -> bool:
        """Whether the force is more than a line."""
        return bool(np.any(self.c2) or np.any(self.c3))

    def force(self, q: Array) -> Array:
        """F at q."""
        return np.asarray(((self.c3 * q + self.c2) * q + self.c1) * q + self.c0)

    def potential(self, q: Array) -> Array:
        """-∫₀^q F: the averaged potential, which is zero at q = 0."""
        return np.asarray(-(((self.c3 / 4 * q + self.c2 / 3) * q + self.c1 / 2) * q + self.c0) * q)

    def curvature(self, reach: Array) -> Array:
        """A bound of |F'| where |q| ≤ reach."""
        return np.asarray(np.abs(self.c1) + (2 * np.abs(self.c2) + 3 * np.abs(self.c3) * reach) * reach)


def substeps(
    state: MarketState, parameters: MarketParameters, field: Field, drive: Array, dt: float, resolution: float
) -> int:
    """How many equal steps resolve ``dt``: each is at most ``resolution`` over the fastest rate.

    That is the rate at the steepest place the price can reach. It can reach where V(q) - uq is the energy it has, plus
    what noise may add; Fujiwara's bound on the roots of that quartic (Tohoku Math. J. 10 (1916) 167) says how far.
    """
    leading = -field.c3 / 4
    with np.errstate(all="ignore"):  # a quartic of zero has no bound, and needs none
        energy = 0.5 * state.p**2 / parameters.mass + field.potential(state.q) - drive * state.q
        energy += _HOT * parameters.temperature
        terms = [
            np.abs(field.c2 / 3 / leading),
            np.sqrt(np.abs(field.c1 / 2 / leading)),
            np.cbrt(np.abs((field.c0 + drive) / leading)),
            np.abs(energy / leading / 2) ** 0.25,
        ]
        reach = np.broadcast_to(2 * np.max(np.broadcast_arrays(*terms), axis=0), state.q.shape)
        reach = np.where(leading > 0, np.clip(np.nan_to_num(reach, nan=_REACH), np.abs(state.q), _REACH), 0.0)
    fastest = math.sqrt(float(field.curvature(reach).max(initial=0.0)) / parameters.mass)
    steps = dt * max(fastest, parameters.friction) / resolution
    if not steps <= _STEPS_MAX:
        raise InvalidInput(
            f"{dt} s take {steps:.3g} steps, more than {_STEPS_MAX}, where the fastest rate is {fastest:.3g}/s: "
            "step more often, start nearer to the reference, or lower stiffness, quartic and friction"
        )
    return max(1, math.ceil(steps))
