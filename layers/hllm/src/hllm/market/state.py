"""The state of a market: for each pool a reference price, a capacity, and where its log price is and moves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hllm._check import Array, array, number
from hllm.errors import InvalidInput

_KIND = "hllm.market.state/1"
_LIMIT = 200.0
"""Of |q|: prices beyond e^±200 of their reference are no prices."""
_LEAST, _MOST = 1e-60, 1e60
"""References; so that neither a price nor its square overflows."""


def spot_price(resource_reserve: float, credit_reserve: float) -> float:
    """Credits for a unit of the resource, at the margin of a constant-product pool (x·y = const): y/x.

    Raises InvalidInput unless both reserves are positive.
    """
    price = number("credit_reserve", credit_reserve, above=0.0) / number(
        "resource_reserve", resource_reserve, above=0.0
    )
    if not 0 < price < math.inf:
        raise InvalidInput(f"the reserves {resource_reserve} and {credit_reserve} have no finite price between them")
    return price


@dataclass(frozen=True, eq=False)
class MarketState:
    """An immutable value; arrays are of shape (pools,), in the order of ``pools``, and read-only."""

    pools: tuple[str, ...]
    """Names, each once."""
    reference: Array
    """P_ref > 0 in credits, where q = 0: a long-run price."""
    capacity: Array
    """What the pool can serve, > 0, in the unit of demand, supply and inventory."""
    q: Array
    """ln(P/P_ref)."""
    p: Array
    """Momentum, mass · dq/dt."""

    def __post_init__(self) -> None:
        names: tuple[object, ...] = tuple(self.pools)
        if not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
            raise InvalidInput(f"pools are {names!r}; each is a name of its own")
        object.__setattr__(self, "pools", names)
        for field in ("reference", "capacity", "q", "p"):
            values = array(field, getattr(self, field), (len(names),)).copy()
            if field in ("reference", "capacity") and (values <= 0).any():
                raise InvalidInput(f"{field} has a value of {values.min()}; it must be more than 0")
            values.setflags(write=False)
            object.__setattr__(self, field, values)
        if (np.abs(self.q) > _LIMIT).any():
            raise InvalidInput(f"q reaches {np.abs(self.q).max()}; a log price beyond {_LIMIT} is no price")
        if ((self.reference < _LEAST) | (self.reference > _MOST)).any():
            raise InvalidInput(f"reference is outside {_LEAST} to {_MOST}; give prices in another unit")

    @classmethod
    def new(cls, prices: Mapping[str, float], *, capacity: Any = 1.0, reference: Any = None) -> MarketState:
        """Pools at rest at these prices. ``reference`` is the prices themselves if it is None. Both stretch."""
        current = np.array([number(f"the price of {name!r}", price, above=0.0) for name, price in prices.items()])
        size = (len(current),)
        try:
            capacity = np.broadcast_to(array("capacity", capacity), size)
            reference = current if reference is None else np.broadcast_to(array("reference", reference), size)
        except ValueError as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(f"capacity or reference does not stretch to {len(current)} pools") from None
        if (reference <= 0).any():
            raise InvalidInput(f"reference has a value of {reference.min()}; it must be more than 0")
        return cls(tuple(prices), reference, capacity, np.log(current) - np.log(reference), np.zeros(size))

    @property
    def prices(self) -> Array:
        """P = P_ref · e^q in credits, always positive."""
        return np.asarray(self.reference * np.exp(self.q))

    def anchor(self, prices: Mapping[str, float]) -> MarketState:
        """The state with the named pools at observed prices, such as ``spot_price`` of their reserves.

        Momenta stay: what trades did to the price is in q, how it moved before is all that p knows.
        """
        q = self.q.copy()
        for index, price in self._rows(prices):
            q[index] = math.log(price) - math.log(self.reference[index])
        return replace(self, q=q)

    def rebase(self, references: Mapping[str, float]) -> MarketState:
        """The state with other reference prices for the named pools, at the same prices."""
        q, reference = self.q.copy(), self.reference.copy()
        for index, price in self._rows(references):
            q[index] += math.log(reference[index]) - math.log(price)
            reference[index] = price
        return replace(self, q=q, reference=reference)

    def _rows(self, prices: Mapping[str, float]) -> list[tuple[int, float]]:
        rows = {name: index for index, name in enumerate(self.pools)}
        missing = [name for name in prices if name not in rows]
        if missing:
            raise InvalidInput(f"there are no pools {missing!r}; there are {list(self.pools)!r}")
        return [(rows[name], number(f"the price of {name!r}", price, above=0.0)) for name, price in prices.items()]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MarketState):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """JSON; ``from_dict`` gives the same floats back."""
        arrays: dict[str, Sequence[float]] = {
            name: getattr(self, name).tolist() for name in ("reference", "capacity", "q", "p")
        }
        return {"kind": _KIND, "pools": list(self.pools), **arrays}

    @classmethod
    def from_dict(cls, value: Any) -> MarketState:
        """The state that ``to_dict`` wrote. Raises InvalidInput for anything else."""
        wanted = {"kind", "pools", "reference", "capacity", "q", "p"}
        if not isinstance(value, Mapping) or set(value) != wanted or value["kind"] != _KIND:
            raise InvalidInput(f"this is no {_KIND}: an object with {sorted(wanted)} is expected")
        if not isinstance(value["pools"], list | tuple):
            raise InvalidInput("pools is no list of names")
        return cls(tuple(value["pools"]), value["reference"], value["capacity"], value["q"], value["p"])
