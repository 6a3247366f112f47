"""What a job will pay that has to wait: the price when it begins, not the one posted when it is routed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hllm._check import Array, spread
from hllm.errors import InvalidInput

from .forecasting import forecast
from .parameters import MarketParameters
from .state import MarketState


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedPrices:
    """Arrays of shape (pools,), in the order of ``pools``."""

    pools: tuple[str, ...]
    mean: Array
    """E[P] in credits when the job begins: what a router's ``Candidate`` takes as its price."""
    exceeds: Array | None
    """P(P > cap) when the job begins; None if no caps were given."""


def expected_prices(
    state: MarketState,
    parameters: MarketParameters,
    waits: Any,
    *,
    caps: Any = None,
    regimes: Any = None,
    demand: Any = 0.0,
    supply: Any = 0.0,
    inventory: Any = 0.0,
) -> ExpectedPrices:
    """The prices that jobs pay which begin ``waits`` seconds from now in each pool, and P(price > cap).

    ``waits`` ≥ 0 and ``caps`` > 0 (credits): shape (pools,) or one number; where the wait is 0 the price is the one
    that is. The rest as ``forecast``'s, which is called once for each different wait: round them if there are many.
    Raises InvalidInput.
    """
    size = (len(state.pools),)
    wait = spread("waits", waits, size)
    if (wait < 0).any():
        raise InvalidInput(f"waits has a value of {wait.min()}; it must be 0 or more")
    cap = None if caps is None else spread("caps", caps, size)
    if cap is not None and (cap <= 0).any():
        raise InvalidInput(f"caps has a value of {cap.min()}; it must be more than 0")
    mean = state.prices
    exceeds = None if cap is None else (mean > cap).astype(np.float64)
    for horizon in np.unique(wait[wait > 0]).tolist():
        ahead = forecast(state, parameters, horizon, regimes=regimes, demand=demand, supply=supply, inventory=inventory)
        rows = wait == horizon
        mean[rows] = ahead.mean[rows]
        if exceeds is not None and cap is not None:
            exceeds[rows] = ahead.exceeds(cap)[rows]
    return ExpectedPrices(state.pools, mean, exceeds)
