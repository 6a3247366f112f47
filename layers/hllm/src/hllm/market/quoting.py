"""Quotes: what to bid and ask around a price when inventory is a risk.

Source: Avellaneda, Stoikov, "High-frequency trading in a limit order book", Quantitative Finance 8 (2008) 217,
equations (29) and (30): r = s - q·g·σ²·(T-t) and δ_a + δ_b = g·σ²·(T-t) + (2/g)·ln(1 + g/k).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm._check import Array, number, spread
from hllm.errors import InvalidInput

from .forecasting import Forecast, forecast
from .parameters import MarketParameters
from .state import MarketState


def reservation_price(mid: Any, inventory: Any, risk_aversion: float, variance: Any) -> Any:
    """r = mid - inventory·g·variance: the price at which the holder does not care to trade.

    ``variance`` is that of the mid price over the time that is left, σ²(T-t), 0 or more. The arguments are numbers or
    arrays of one shape, and so is the result. Raises InvalidInput if one is not finite, or g or a variance negative.
    """
    mid, inventory, variance = _numbers(mid=mid, inventory=inventory, variance=variance)
    return mid - inventory * number("risk_aversion", risk_aversion, least=0.0) * variance


def optimal_spread(risk_aversion: float, variance: Any, fill_decay: float) -> Any:
    """Ask minus bid: g·variance + (2/g)·ln(1 + g/k), and its limit 2/k at g = 0.

    ``fill_decay`` k > 0: orders arrive as A·exp(-k·distance). Raises InvalidInput as ``reservation_price``.
    """
    (variance,) = _numbers(variance=variance)
    gamma, k = number("risk_aversion", risk_aversion, least=0.0), number("fill_decay", fill_decay, above=0.0)
    ratio = gamma / k
    # ln(1 + x)/x, by its series where x is lost beside 1.
    share = math.log1p(ratio) / ratio if ratio > 1e-12 else 1 - ratio / 2
    return gamma * variance + 2 / k * share


def _numbers(**given: Any) -> list[Any]:
    result = []
    for name, value in given.items():
        values = np.asarray(value, dtype=np.float64)
        if not np.isfinite(values).all() or (name == "variance" and (values < 0).any()):
            raise InvalidInput(f"{name} is {value}; finite numbers are expected, and no variance is negative")
        result.append(values if values.ndim else float(values))
    return result


@dataclass(frozen=True, slots=True)
class Quote:
    """What a pool bids and asks, in credits, and how far that can be trusted over the horizon."""

    pool: str
    mid: float
    """The price now."""
    reservation: float
    """The mid, skewed by inventory."""
    bid: float
    ask: float
    low: float
    high: float
    """The central interval that holds the price at the horizon with the level's probability."""
    confidence: float
    """P(bid ≤ price ≤ ask) at the horizon: near 1 the quote outlasts it, near 0 it must be made anew before."""


def quote(
    state: MarketState,
    parameters: MarketParameters,
    *,
    regimes: Any = None,
    demand: Any = 0.0,
    supply: Any = 0.0,
    inventory: Any = 0.0,
    level: float = 0.95,
) -> tuple[Quote, ...]:
    """A quote for each pool, by Avellaneda and Stoikov's formulas in the log price, so that prices stay positive.

    σ²τ is the forecast's variance of q at the horizon, inventory is in units of the capacity. Inventory moves the
    quotes alone here; as a port of ``step`` it moves the price: use one of the two. ``level``: 0 < level < 1.
    Other arguments and errors as ``step``'s.
    """
    level = number("level", level, above=0.0)
    if level >= 1:
        raise InvalidInput(f"level is {level}; it must be less than 1")
    ahead = forecast(state, parameters, parameters.horizon, regimes=regimes, demand=demand, supply=supply)
    held = spread("inventory", inventory, state.q.shape) / state.capacity
    gamma = parameters.risk_aversion
    middle = reservation_price(state.q, held, gamma, ahead.log_variance)
    half = 0.5 * optimal_spread(gamma, ahead.log_variance, parameters.fill_decay)
    bid, reservation, ask = (_priced(state, q) for q in (middle - half, middle, middle + half))
    low, high = ahead.quantile((1 - level) / 2), ahead.quantile((1 + level) / 2)
    inside = _within(ahead, bid, ask)
    columns = (state.prices, reservation, bid, ask, low, high, inside)
    return tuple(
        Quote(pool, *map(float, row)) for pool, row in zip(state.pools, np.stack(columns, axis=1), strict=True)
    )


def _within(ahead: Forecast, low: Array, high: Array) -> Array:
    return np.clip(ahead.exceeds(low) - ahead.exceeds(high), 0.0, 1.0)


def _priced(state: MarketState, q: Array) -> Array:
    if (np.abs(q) > 200).any():
        raise InvalidInput(
            f"inventory skews a log price to {q[np.argmax(np.abs(q))]:.3g}, which is no price: "
            "lower risk_aversion, or give inventory in the unit of capacity"
        )
    return np.asarray(state.reference * np.exp(q))
