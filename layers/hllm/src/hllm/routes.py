"""What a routing decision is about: candidate routes, the request, and the feedback on an earlier request.

Plain values with a JSON form. The numbers are checked where they are used: ``hllm.router`` says which is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from hllm.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Candidate:
    """One route that could take the request.

    ``backend`` decides the service, P(SLO met | regime, backend); ``model`` decides the quality, P(ok | domain, model).
    ``price`` is in credits for this request, ``tier`` the privacy tier that the route proves (0 to 4), ``limits`` the
    largest request that it can hold by resource (a missing name is unlimited), ``load`` the requests placed there and
    not yet begun, ``excluded`` the reason why the caller has excluded it.
    """

    name: str
    backend: str
    model: str = ""
    adapter: str = ""
    provider: str = ""
    price: float = 0.0
    tier: int = 0
    capabilities: frozenset[str] = frozenset()
    limits: Mapping[str, float] = field(default_factory=dict)
    load: float = 0.0
    excluded: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The candidate as JSON."""
        return {
            "name": self.name,
            "backend": self.backend,
            "model": self.model,
            "adapter": self.adapter,
            "provider": self.provider,
            "price": float(self.price),
            "tier": int(self.tier),
            "capabilities": sorted(self.capabilities),
            "limits": {k: float(self.limits[k]) for k in sorted(self.limits)},
            "load": float(self.load),
            "excluded": self.excluded,
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Candidate:
        """The candidate that ``to_dict`` gave. Raises InvalidInput when it is not one."""
        d = _mapping(d, "candidate")
        return cls(
            name=_text(d, "name"),
            backend=_text(d, "backend"),
            model=_text(d, "model"),
            adapter=_text(d, "adapter"),
            provider=_text(d, "provider"),
            price=number(d.get("price", 0.0), "price"),
            tier=int(number(d.get("tier", 0), "tier")),
            capabilities=_names(d, "capabilities"),
            limits=_numbers(d, "limits"),
            load=number(d.get("load", 0.0), "load"),
            excluded=_text(d, "excluded"),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be placed, what is wanted and what was seen of it.

    ``value`` is what a good outcome is worth and ``miss_cost`` what a missed SLO costs, in credits. ``domain_evidence``
    is the log-likelihood (nats) of the request's text under each domain, ``telemetry`` one standardised observation of
    the infrastructure.
    """

    tier: int = 0
    capabilities: frozenset[str] = frozenset()
    resources: Mapping[str, float] = field(default_factory=dict)
    price_cap: float | None = None
    value: float = 1.0
    miss_cost: float = 0.5
    domain_evidence: Sequence[float] | None = None
    telemetry: Sequence[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The request as JSON."""
        return {
            "tier": int(self.tier),
            "capabilities": sorted(self.capabilities),
            "resources": {k: float(self.resources[k]) for k in sorted(self.resources)},
            "price_cap": None if self.price_cap is None else float(self.price_cap),
            "value": float(self.value),
            "miss_cost": float(self.miss_cost),
            "domain_evidence": None if self.domain_evidence is None else [float(x) for x in self.domain_evidence],
            "telemetry": None if self.telemetry is None else [float(x) for x in self.telemetry],
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Request:
        """The request that ``to_dict`` gave. Raises InvalidInput when it is not one."""
        d = _mapping(d, "request")
        cap = d.get("price_cap")
        return cls(
            tier=int(number(d.get("tier", 0), "tier")),
            capabilities=_names(d, "capabilities"),
            resources=_numbers(d, "resources"),
            price_cap=None if cap is None else number(cap, "price_cap"),
            value=number(d.get("value", 1.0), "value"),
            miss_cost=number(d.get("miss_cost", 0.5), "miss_cost"),
            domain_evidence=_vector(d, "domain_evidence"),
            telemetry=_vector(d, "telemetry"),
        )


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of one routed request.

    ``ok`` says whether the outcome was good, ``met`` whether the SLO was met (None: not known). ``domain`` and
    ``regime`` are the beliefs at decision time (None: today's), ``at`` is in seconds and only for forgetting by time,
    ``load`` is the chosen candidate's load at decision time.
    """

    candidate_model: str
    backend: str
    ok: bool
    met: bool | None = None
    domain: Sequence[float] | None = None
    regime: Sequence[float] | None = None
    at: float | None = None
    load: float | None = None


def number(x: Any, name: str) -> float:
    """A finite number. Raises InvalidInput that names it."""
    if isinstance(x, bool) or not isinstance(x, (int, float, Real)):  # Real: numpy's scalars
        raise InvalidInput(f"{name} is {x!r}: give a finite number")
    try:
        value = float(x)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise InvalidInput(f"{name} is {x!r}: give a finite number")
    return value


def _mapping(d: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(d, Mapping):
        raise InvalidInput(f"{name} is of type {type(d).__name__}: give a JSON object")
    return d


def _text(d: Mapping[str, Any], key: str) -> str:
    x = d.get(key, "")
    if not isinstance(x, str):
        raise InvalidInput(f"{key} is {x!r}: give a string")
    return x


def _names(d: Mapping[str, Any], key: str) -> frozenset[str]:
    x = d.get(key, [])
    if not isinstance(x, (list, tuple, set, frozenset)) or not all(isinstance(i, str) for i in x):
        raise InvalidInput(f"{key} is {x!r}: give a list of strings")
    return frozenset(x)


def _numbers(d: Mapping[str, Any], key: str) -> dict[str, float]:
    x = _mapping(d.get(key, {}), key)
    return {str(k): number(v, f"{key}[{k!r}]") for k, v in x.items()}


def _vector(d: Mapping[str, Any], key: str) -> tuple[float, ...] | None:
    x = d.get(key)
    if x is None:
        return None
    if not isinstance(x, (list, tuple)):
        raise InvalidInput(f"{key} is {x!r}: give a list of numbers")
    return tuple(number(v, f"{key}[{i}]") for i, v in enumerate(x))
