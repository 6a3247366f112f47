"""One step of the market: BAOAB, in as many parts as the potential asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hllm._check import number
from hllm.hamiltonian import baoab

from .field import Field, substeps
from .forecasting import port_input
from .parameters import MarketParameters
from .state import MarketState

_RESOLUTION = 0.25
"""Step times rate; the splitting is unstable from 2."""


def step(
    state: MarketState,
    parameters: MarketParameters,
    dt: float,
    *,
    regimes: Any = None,
    demand: Any = 0.0,
    supply: Any = 0.0,
    inventory: Any = 0.0,
    rng: np.random.Generator | None = None,
) -> MarketState:
    """The market ``dt`` > 0 seconds later.

    ``regimes``: beliefs of shape (K,) or (pools, K); may be left out if there is one regime. ``demand``, ``supply``,
    ``inventory``: in units of capacity, shape (pools,) or one number; constant during the step. ``rng`` is needed if
    friction and temperature are positive; one seed gives one path.

    The step is one of BAOAB, or several equal ones where the potential is too steep for one. Raises InvalidInput for
    bad arguments, and if ``dt`` needs more than 10,000 steps.
    """
    dt = number("dt", dt, above=0.0)
    field = Field.of(parameters, parameters.beliefs(regimes, len(state.pools)))
    drive = port_input(state, parameters, demand, supply, inventory, regimes=regimes)
    steps = substeps(state, parameters, field, drive, dt, _RESOLUTION)
    q, p = baoab(
        state.q,
        state.p,
        field.force,
        dt / steps,
        friction=parameters.friction,
        temperature=parameters.temperature,
        rng=rng,
        mass=parameters.mass,
        drive=drive,
        steps=steps,
    )
    return replace(state, q=q, p=p)
