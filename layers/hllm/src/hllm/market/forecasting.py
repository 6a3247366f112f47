"""The distribution of each pool's price a while from now, without sampling.

The density of (q, p) is assumed Gaussian. In each step the force is replaced by the line that fits it best under that
density (for a cubic force a polynomial of mean and variance), whose process has a closed form. In a quadratic well
this is the exact law; with a quartic it is an approximation, poor where the law has two humps (a double well that is
looked at for longer than the price stays in one). Source: Särkkä, Solin, "Applied Stochastic Differential Equations"
(2019), §9.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm._check import Array, number, spread
from hllm.errors import InvalidInput

from .field import Field, substeps
from .parameters import MarketParameters
from .state import MarketState

_CURVED, _STRAIGHT = 1.0, 1.5
"""Step times rate. A line is fitted anew this often; where the force is one, the rule's six nodes are what limits."""
_FORCE_MOST = 1e100

# Gauss and Legendre's rule of six nodes on [0, 1] (Abramowitz, Stegun, table 25.4), and the end of the step.
_NODES = np.array([0.238619186083197, 0.661209386466265, 0.932469514203152])
_NODES = np.concatenate([0.5 - 0.5 * _NODES, 0.5 + 0.5 * _NODES, [1.0]])[:, np.newaxis]
_WEIGHTS = np.tile([0.467913934572691, 0.360761573048139, 0.171324492379170], 2) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Log-normal prices at one moment; arrays of shape (pools,), in the order of ``pools``."""

    pools: tuple[str, ...]
    reference: Array
    log_mean: Array
    """Mean of q = ln(P/P_ref)."""
    log_variance: Array
    """Variance of q."""

    @property
    def mean(self) -> Array:
        """E[P] in credits."""
        return np.asarray(self.reference * np.exp(self.log_mean + 0.5 * self.log_variance))

    @property
    def variance(self) -> Array:
        """Var[P] in credits²."""
        return np.asarray(self.mean**2 * np.expm1(self.log_variance))

    def exceeds(self, cap: Any) -> Array:
        """P(price > cap) for each pool; ``cap`` > 0 in credits, shape (pools,) or one number."""
        caps = spread("cap", cap, self.log_mean.shape)
        if (caps <= 0).any():
            raise InvalidInput(f"cap has a value of {caps.min()}; it must be more than 0")
        above = self.log_mean - np.log(caps / self.reference)
        deviation = np.sqrt(self.log_variance)
        # Without variance the price is known, and the quotient is ±infinite or, at the cap itself, not above it.
        score = [x / s if s > 0 else (math.inf if x > 0 else -math.inf) for x, s in zip(above, deviation, strict=True)]
        return np.array([0.5 * math.erfc(-z / math.sqrt(2)) for z in score])

    def quantile(self, level: float) -> Array:
        """The price that is not exceeded with probability ``level``, 0 < level < 1."""
        level = number("level", level, above=0.0)
        if level >= 1:
            raise InvalidInput(f"level is {level}; it must be less than 1")
        from statistics import NormalDist  # ten times as long to import as this module

        shift = NormalDist().inv_cdf(level)
        return np.asarray(self.reference * np.exp(self.log_mean + shift * np.sqrt(self.log_variance)))


def forecast(
    state: MarketState,
    parameters: MarketParameters,
    horizon: float,
    *,
    regimes: Any = None,
    demand: Any = 0.0,
    supply: Any = 0.0,
    inventory: Any = 0.0,
) -> Forecast:
    """The distribution of the prices ``horizon`` > 0 seconds from now, at that moment, if regimes and input stay.

    Arguments and errors as ``step``'s; nothing is drawn, so there is no rng.
    """
    horizon = number("horizon", horizon, above=0.0)
    field = Field.of(parameters, parameters.beliefs(regimes, len(state.pools)))
    drive = port_input(state, parameters, demand, supply, inventory, regimes=regimes)
    steps = substeps(state, parameters, field, drive, horizon, _CURVED if field.curved else _STRAIGHT)
    moments = np.zeros((5, len(state.pools)))
    moments[0], moments[1] = state.q, state.p
    dt = horizon / steps
    with np.errstate(all="ignore"):  # checked below
        for _ in range(steps):
            slope, bias = _line(moments, field, drive)
            if field.curved:  # fitted in the middle of the step, so that the error is of order dt²
                middle = _move(moments, slope, bias, parameters, dt / 2)
                slope, bias = _line(middle, field, drive)
            moments = _move(moments, slope, bias, parameters, dt)
        widest = np.abs(moments[0]) + 10 * np.sqrt(np.abs(moments[2])) + 2 * np.abs(moments[2])
        usable = np.isfinite(moments).all() and bool((widest < 400).all())
    if not usable:
        raise InvalidInput("the forecast left what can be a price: use a shorter horizon or a lower temperature")
    return Forecast(state.pools, state.reference, moments[0], np.maximum(moments[2], 0.0))


def port_input(
    state: MarketState,
    parameters: MarketParameters,
    demand: Any = 0.0,
    supply: Any = 0.0,
    inventory: Any = 0.0,
    *,
    regimes: Any = None,
) -> Array:
    """The force u of demand, supply and inventory on each log price, shape (pools,).

    u = κ(demand - supply)/capacity - g·v·inventory/capacity, where v is the variance of the log price over the
    horizon (σ²τ of a price that diffuses freely). Unsold inventory presses the price, a short position lifts it.
    """
    size = (len(state.pools),)
    excess = spread("demand", demand, size) - spread("supply", supply, size)
    held = spread("inventory", inventory, size)
    variance: Any = 0.0
    if held.any():
        ahead = forecast(state, parameters, parameters.horizon, regimes=regimes, demand=demand, supply=supply)
        variance = ahead.log_variance
    with np.errstate(all="ignore"):
        force = (parameters.sensitivity * excess - parameters.risk_aversion * variance * held) / state.capacity
    if not (np.abs(force) < _FORCE_MOST).all():
        raise InvalidInput(
            f"demand, supply or inventory press with a force of {np.abs(force).max():.3g}: "
            "give them in the unit of capacity"
        )
    return np.asarray(force)


def _line(moments: Array, field: Field, drive: Array) -> tuple[Array, Array]:
    """Slope E[F'] and value at zero of the line through E[F] + u at the mean."""
    q, qq = moments[0], moments[2]
    bend = field.c2 + 3 * field.c3 * q
    slope = field.c1 + (field.c2 + bend) * q + 3 * field.c3 * qq
    return slope, field.force(q) + bend * qq + drive - slope * q


def _move(moments: Array, slope: Array, bias: Array, parameters: MarketParameters, dt: float) -> Array:
    """(mean q, mean p, var q, cov qp, var p) after dt of dq = p/m dt, dp = (bias + slope·q - ηp) dt + √(2ηmΘ) dW.

    The transition matrix f is a closed form; its integrals, and that of the noise, are sums over the rule's nodes,
    which have no singular case.
    """
    q, p, qq, qp, pp = moments
    half, mass, t = parameters.friction / 2, parameters.mass, dt * _NODES
    square = half * half + slope / mass
    # sin(x)/x and sinh(x)/x are one to rounding below 1e-8, so a rate of zero may be any that is less.
    rate = np.maximum(np.sqrt(np.abs(square)), 1e-9 / dt)
    x, slow = t * rate, square > 0
    grow, turn = (np.cosh(x), np.sinh(x)) if slow.all() else (np.cos(x), np.sin(x))
    if slow.any() and not slow.all():
        grow, turn = np.where(slow, np.cosh(x), grow), np.where(slow, np.sinh(x), turn)
    decay = np.exp(-half * t)
    turn *= decay / rate
    grow *= decay
    lag = half * turn
    f11, f12, f22 = grow + lag, turn / mass, grow - lag
    heat = 2 * parameters.friction * mass * parameters.temperature * dt
    a, b, c, d = f11[-1], f12[-1], slope * turn[-1], f22[-1]
    speed, force = p / mass, bias + slope * q - 2 * half * p
    inner, cross, outer = f11[:-1], f12[:-1], f22[:-1]
    return np.stack(
        [
            q + dt * (speed * (_WEIGHTS @ inner) + force * (_WEIGHTS @ cross)),
            p + mass * ((a - 1) * speed + b * force),
            a * a * qq + 2 * a * b * qp + b * b * pp + heat * (_WEIGHTS @ (cross * cross)),
            a * c * qq + (a * d + b * c) * qp + b * d * pp + heat * (_WEIGHTS @ (cross * outer)),
            c * c * qq + 2 * c * d * qp + d * d * pp + heat * (_WEIGHTS @ (outer * outer)),
        ]
    )
