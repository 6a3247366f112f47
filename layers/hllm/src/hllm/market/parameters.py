"""What the dynamics depend on: a potential for each regime, inertia, friction, temperature and gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm._check import Array, array, number
from hllm.errors import InvalidInput

_TOTAL = 1e-6
"""How far beliefs may be from a sum of one; they are normalised."""


@dataclass(frozen=True, slots=True)
class MarketParameters:
    """Parameters that all pools share. Time is in seconds, q = ln(P/P_ref) has no unit, energy is mass/s².

    A regime's potential is quadratic-quartic around its centre, or, with a negative stiffness, a double well with
    minima at ``centre ± √(-stiffness/quartic)``. Raises InvalidInput for values that do not confine the price.
    """

    stiffness: tuple[float, ...] = (0.04,)
    """k_z for each regime (mass/s²). Negative only where the quartic is positive."""
    centre: tuple[float, ...] = (0.0,)
    """μ_z for each regime: the log price that the regime draws to, against the reference."""
    quartic: tuple[float, ...] = (0.0,)
    """λ_z for each regime (mass/s²), 0 or more."""
    mass: float = 1.0
    """Inertia m > 0: how slowly prices answer."""
    friction: float = 0.2
    """η (1/s), 0 or more. With no friction and no temperature the motion is symplectic."""
    temperature: float = 0.0004
    """Θ (energy), 0 or more: the volatility. In a quadratic well var q = Θ/k."""
    sensitivity: float = 0.02
    """κ (mass/s²): the force of an excess demand of the pool's whole capacity."""
    risk_aversion: float = 1.0
    """g, 0 or more, for an inventory in units of the capacity."""
    fill_decay: float = 50.0
    """k > 0: arrivals of takers fall as exp(-k·distance) with the log distance of a quote from the price."""
    horizon: float = 30.0
    """τ > 0 (s): how long inventory is held, and what quotes look ahead."""

    def __post_init__(self) -> None:
        for name in ("stiffness", "centre", "quartic"):
            values = array(name, getattr(self, name))
            if values.ndim != 1 or values.size == 0:
                raise InvalidInput(f"{name} has shape {values.shape}; give one number for each regime")
            object.__setattr__(self, name, tuple(values.tolist()))
        sizes = {len(self.stiffness), len(self.centre), len(self.quartic)}
        if len(sizes) != 1:
            raise InvalidInput(f"stiffness, centre and quartic are of {sorted(sizes)} regimes; give as many of each")
        if max(map(abs, self.centre)) > 100 or max(map(abs, (*self.stiffness, *self.quartic))) > 1e100:
            raise InvalidInput(
                "a centre is beyond ±100, or a stiffness or quartic beyond 1e100; they are of log prices"
            )
        for z, (k, quartic) in enumerate(zip(self.stiffness, self.quartic, strict=True)):
            if quartic < 0 or (quartic == 0 and k <= 0):
                raise InvalidInput(
                    f"regime {z} has stiffness {k} and quartic {quartic}, which does not confine the price; "
                    "give a positive quartic, or a positive stiffness and a quartic of zero"
                )
        for name in ("mass", "fill_decay", "horizon"):
            object.__setattr__(self, name, number(name, getattr(self, name), above=0.0))
        for name in ("friction", "temperature", "risk_aversion"):
            object.__setattr__(self, name, number(name, getattr(self, name), least=0.0))
        object.__setattr__(self, "sensitivity", number("sensitivity", self.sensitivity))

    @property
    def regimes(self) -> int:
        """How many regimes there are."""
        return len(self.stiffness)

    def beliefs(self, regimes: Any, pools: int) -> Array:
        """Beliefs q(z) as an array of shape (K,) or (pools, K) that sums to one along the last axis.

        ``None`` means the only regime. Raises InvalidInput for another shape, a negative value or another sum.
        """
        if regimes is None:
            if self.regimes != 1:
                raise InvalidInput(f"there are {self.regimes} regimes; give beliefs about them")
            return np.ones(1)
        weights = array("regimes", regimes)
        if weights.shape not in ((self.regimes,), (pools, self.regimes)):
            raise InvalidInput(
                f"regimes has shape {weights.shape}; give ({self.regimes},), or ({pools}, {self.regimes}) for each pool"
            )
        total = weights.sum(axis=-1, keepdims=True)
        if (weights < 0).any() or (np.abs(total - 1) > _TOTAL).any():
            raise InvalidInput("regimes has a row that is no distribution: its values are not negative and sum to one")
        return np.asarray(weights / total)
