"""Price dynamics of compute pools: log prices as Hamiltonian coordinates in a potential that the regime sets.

For each pool q = ln(P/P_ref) and p = m·dq/dt move by H = p²/2m + V(q; z), where
V = k_z(q - μ_z)²/2 + λ_z(q - μ_z)⁴/4 is averaged over the beliefs about the regime z. Demand above supply pushes the
price as the input of a port, friction and temperature make it a Langevin process, and the price of an automated
market maker anchors it. ``step`` moves the prices, ``forecast`` tells their distribution later,
``expected_prices`` what a job pays that has to wait, ``quote`` what to ask.
"""

from .dynamics import step
from .forecasting import Forecast, forecast, port_input
from .parameters import MarketParameters
from .quoting import Quote, optimal_spread, quote, reservation_price
from .settlement import ExpectedPrices, expected_prices
from .state import MarketState, spot_price

__all__ = [
    "ExpectedPrices",
    "Forecast",
    "MarketParameters",
    "MarketState",
    "Quote",
    "expected_prices",
    "forecast",
    "optimal_spread",
    "port_input",
    "quote",
    "reservation_price",
    "spot_price",
    "step",
]
