"""What the router has learnt, as an immutable value with a JSON form.

Two hidden factors: the workload's domain d and the infrastructure's regime z, each a Markov chain with a filtered
belief. Two outcomes with Dirichlet counts: quality, P(ok | d, model), and service, P(SLO met | z, backend). Beside
each of them stand finer tables, which hold what a factored model cannot say: quality by (model, backend), service by
(backend, domain) and by (backend, level of load). How far a finer table is believed is learnt (see ``router``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm.errors import InvalidInput
from hllm.router_rows import Reads, Rows, pair_name
from hllm.routes import number

Array = NDArray[np.float64]

FORMAT = "hllm.router/1"
MODES = ("sampled", "expected")
LEAST_PRIOR = 0.1
"""Below it the two gamma variates of a Dirichlet sample may both underflow to 0."""
ROWS_KEPT = 16
"""Sets of routes whose rows a state keeps."""
MOST_COUNTED = 1e15
"""A cell holds no more: beyond it one more observation changes nothing."""
LARGEST = 1e100
"""Of settings, credits, loads and telemetry: products of two of them must not overflow."""
UNITS = 1e10
"""Telemetry is standardised: means and deviations are within this factor of 1."""
LOAD_LEVELS = 4
"""Levels of load: nothing waits, fewer than 4 wait, fewer than 16, more."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How the router weighs, explores and forgets.

    ``gamma`` turns credits into nats; ``curiosity`` weighs the information terms. ``forgetting`` is what is kept of a
    count per feedback in its own domain or regime (1: all). ``half_life`` (seconds) forgets by the feedback's time.
    ``quality_prior`` and ``service_prior`` are the pseudo-counts (good, bad) of a cell without data. ``backoff`` is how
    many pseudo-counts of its parent a cell of a finer table starts with, and 0 leaves the finer tables out.
    ``scores_kept`` is what is kept per feedback of the evidence for each table. ``credible`` is the width, in standard
    deviations, within which two routes count as equal and the less loaded one is taken.
    """

    mode: str = "sampled"
    gamma: float = 24.0
    curiosity: float = 1.0
    forgetting: float = 0.999
    half_life: float | None = None
    quality_prior: tuple[float, float] = (1.0, 1.0)
    service_prior: tuple[float, float] = (1.0, 1.0)
    backoff: float = 4.0
    scores_kept: float = 0.999
    credible: float = 3.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInput(f"mode is {self.mode!r}: give one of {', '.join(MODES)}")
        for name in ("gamma", "curiosity", "backoff", "credible"):
            if not 0 <= number(getattr(self, name), name) <= LARGEST:
                raise InvalidInput(f"{name} is {getattr(self, name)!r}: give a number from 0 to {LARGEST:g}")
        if 0 < self.backoff < 2 * LEAST_PRIOR:
            raise InvalidInput(f"backoff is {self.backoff!r}: give 0, or at least {2 * LEAST_PRIOR}")
        for name in ("forgetting", "scores_kept"):
            if not 0 < number(getattr(self, name), name) <= 1:
                raise InvalidInput(f"{name} is {getattr(self, name)!r}: give a number in (0, 1]")
        if self.half_life is not None and number(self.half_life, "half_life") <= 0:
            raise InvalidInput(f"half_life is {self.half_life!r}: give seconds above 0, or None")
        for name in ("quality_prior", "service_prior"):
            pair = getattr(self, name)
            if not (
                isinstance(pair, tuple)
                and len(pair) == 2
                and all(LEAST_PRIOR <= number(x, name) <= MOST_COUNTED for x in pair)
            ):
                raise InvalidInput(
                    f"{name} is {pair!r}: give two pseudo-counts (good, bad) from {LEAST_PRIOR} to {MOST_COUNTED:g}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """Gaussian telemetry per regime: ``mean`` (K, m) and ``covariance`` (K, m, m), standardised units."""

    mean: Array
    covariance: Array
    whiten: Array = field(init=False)
    log_norm: Array = field(init=False)

    def __post_init__(self) -> None:
        try:
            factor = np.linalg.cholesky(self.covariance)
        except np.linalg.LinAlgError:
            raise InvalidInput(
                "a telemetry covariance is not positive definite: refit with a floor (min_covar)"
            ) from None
        scale = np.diagonal(factor, axis1=-2, axis2=-1)
        if not (np.abs(self.mean).max() <= UNITS and np.abs(factor).max() <= UNITS and scale.min() >= 1 / UNITS):
            raise InvalidInput(f"telemetry is not standardised: a mean or deviation is beyond a factor of {UNITS:g}")
        object.__setattr__(self, "whiten", np.linalg.inv(factor))
        logs = np.log(scale).sum(-1)
        object.__setattr__(self, "log_norm", -logs - 0.5 * self.mean.shape[1] * np.log(2 * np.pi))

    def log_likelihood(self, x: Array) -> Array:
        """(K,) log densities in nats of one observation (m,)."""
        y = np.matmul(self.whiten, (x - self.mean)[:, :, None])[:, :, 0]
        return np.asarray(self.log_norm - 0.5 * (y * y).sum(-1))


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Counts (N, ..., 2) of (good, bad), by name. A name that is missing has ``prior`` in each of its cells."""

    names: tuple[str, ...]
    counts: Array
    prior: tuple[float, float]
    index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {n: i for i, n in enumerate(self.names)})

    @classmethod
    def empty(cls, shape: Sequence[int], prior: tuple[float, float]) -> Table:
        """A table without rows, whose rows have ``shape`` cells."""
        return cls((), np.zeros((0, *shape, 2)), prior)

    def rows(self, names: Sequence[str]) -> Array:
        """A copy of the counts of these names, (n, ..., 2); the prior where a name is missing."""
        index = self.index
        at = [index.get(n, -1) for n in names]
        if not self.names:
            return np.broadcast_to(self.prior, (len(at), *self.counts.shape[1:])).copy()
        out = self.counts[at]
        if min(at, default=0) < 0:
            out[np.array(at) < 0] = self.prior
        return out

    def widened(self, names: Sequence[str]) -> Table:
        """A writable copy that has these names as well."""
        new = tuple(dict.fromkeys(n for n in names if n not in self.index))
        rows = np.broadcast_to(self.prior, (len(new), *self.counts.shape[1:]))
        return Table(self.names + new, np.concatenate([self.counts, rows]), self.prior)

    def only(self, names: Sequence[str]) -> Table:
        """The table with no other names than these."""
        wanted = set(names)
        keep = [n for n in self.names if n in wanted]
        return Table(tuple(keep), self.counts[[self.index[n] for n in keep]], self.prior)


@dataclass(frozen=True, slots=True, eq=False)
class RouterState:
    """Everything that was learnt; a few kB. Made by ``new``, ``with_*``, ``Router.advance`` and ``Router.learn``.

    ``domain_transition`` (D, D) and ``regime_transition`` (K, K) are row-stochastic; ``domain_belief`` (D,) and
    ``regime_belief`` (K,) are filtered; ``quality_score`` and ``service_score`` are log evidence (nats) per table.
    """

    settings: RouterSettings
    domains: tuple[str, ...]
    regimes: tuple[str, ...]
    domain_transition: Array
    regime_transition: Array
    domain_belief: Array
    regime_belief: Array
    emission: Emission | None
    quality: Table
    quality_pairs: Table
    service: Table
    service_domains: Table
    service_loads: Table
    quality_score: Array
    service_score: Array
    version: int = 0
    at: float | None = None
    _rows: dict[Reads, Rows] = field(init=False, repr=False, default_factory=dict)

    @classmethod
    def new(
        cls,
        settings: RouterSettings | None = None,
        *,
        domains: Sequence[str] = ("any",),
        regimes: Sequence[str] = ("normal",),
    ) -> RouterState:
        """A state without data: uniform beliefs, chains that stay with probability 0.95, no telemetry emission."""
        settings = settings or RouterSettings()
        d, k = _labels(domains, "domains"), _labels(regimes, "regimes")
        nothing = (0.0, 0.0)
        return cls(
            settings=settings,
            domains=d,
            regimes=k,
            domain_transition=_sticky(len(d)),
            regime_transition=_sticky(len(k)),
            domain_belief=np.full(len(d), 1 / len(d)),
            regime_belief=np.full(len(k), 1 / len(k)),
            emission=None,
            quality=Table.empty((len(d),), settings.quality_prior),
            quality_pairs=Table.empty((len(d),), nothing),
            service=Table.empty((len(k),), settings.service_prior),
            service_domains=Table.empty((len(k), len(d)), nothing),
            service_loads=Table.empty((len(k), LOAD_LEVELS), nothing),
            quality_score=np.zeros(2),
            service_score=np.zeros(3),
        )

    def with_domains(self, transition: Any, belief: Any = None) -> RouterState:
        """The state with a learnt (D, D) transition of the domains and, when given, a (D,) belief."""
        n = len(self.domains)
        t = _stochastic(transition, (n, n), "the transition of the domains")
        b = self.domain_belief if belief is None else _stochastic(belief, (n,), "the belief over domains")
        return self._with(domain_transition=t, domain_belief=b)

    def with_regimes(self, transition: Any, mean: Any, covariance: Any, belief: Any = None) -> RouterState:
        """The state with learnt regimes: transition (K, K), telemetry mean (K, m) and covariance (K, m, m), as they are
        in ``GaussianHMM``'s ``transmat_``, ``means_`` and ``covars_``; belief (K,), for example ``startprob_``."""
        k = len(self.regimes)
        t = _stochastic(transition, (k, k), "the transition of the regimes")
        b = self.regime_belief if belief is None else _stochastic(belief, (k,), "the belief over regimes")
        return self._with(regime_transition=t, regime_belief=b, emission=_emission(mean, covariance, k))

    def with_settings(self, settings: RouterSettings) -> RouterState:
        """The state with other settings; what was counted stays."""
        return self._with(
            settings=settings,
            quality=Table(self.quality.names, self.quality.counts, settings.quality_prior),
            service=Table(self.service.names, self.service.counts, settings.service_prior),
        )

    def only(self, models: Sequence[str], backends: Sequence[str]) -> RouterState:
        """The part of the state that a decision between these models and backends reads."""
        models, backends = list(dict.fromkeys(models)), list(dict.fromkeys(backends))
        pairs = [pair_name(m, b) for m in models for b in backends]
        return self._with(
            quality=self.quality.only(models),
            quality_pairs=self.quality_pairs.only(pairs),
            service=self.service.only(backends),
            service_domains=self.service_domains.only(backends),
            service_loads=self.service_loads.only(backends),
        )

    def rows(self, reads: Reads) -> Rows:
        """What routes of these (model, backend) read; kept, as routes recur while a state is in use."""
        found = self._rows.get(reads)
        if found is None:
            if len(self._rows) >= ROWS_KEPT:
                self._rows.clear()
            found = self._rows[reads] = Rows(self, reads)
        return found

    def part(self, reads: Reads) -> tuple[str, str]:
        """The canonical JSON of the part that routes of these (model, backend) read, and its SHA-256 (hex)."""
        rows = self.rows(reads)
        if rows.rendered is None:
            text = self.only([model for model, _ in reads], [backend for _, backend in reads])._canonical()
            rows.rendered = text, sha256(text.encode()).hexdigest()
        return rows.rendered

    def _with(self, **changes: Any) -> RouterState:
        return replace(self, **changes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RouterState) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.version, self.domains, self.regimes))

    def digest(self) -> str:
        """The SHA-256 (hex) of the state's canonical JSON."""
        return sha256(self._canonical().encode()).hexdigest()

    def _canonical(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON; ``from_dict`` gives it back bit for bit."""
        e = self.emission
        return {
            "format": FORMAT,
            "settings": {
                f.name: list(v) if isinstance(v := getattr(self.settings, f.name), tuple) else v
                for f in fields(self.settings)
            },
            "domains": list(self.domains),
            "regimes": list(self.regimes),
            "domain_transition": self.domain_transition.tolist(),
            "regime_transition": self.regime_transition.tolist(),
            "domain_belief": self.domain_belief.tolist(),
            "regime_belief": self.regime_belief.tolist(),
            "emission": None if e is None else {"mean": e.mean.tolist(), "covariance": e.covariance.tolist()},
            **{t: dict(zip(getattr(self, t).names, getattr(self, t).counts.tolist(), strict=True)) for t in TABLES},
            "quality_score": self.quality_score.tolist(),
            "service_score": self.service_score.tolist(),
            "version": self.version,
            "at": self.at,
        }

    @classmethod
    def from_dict(cls, d: Any) -> RouterState:
        """The state that ``to_dict`` gave. Raises InvalidInput when it is not one."""
        if not isinstance(d, Mapping) or d.get("format") != FORMAT:
            raise InvalidInput(f"this is no router state: give a JSON object with format {FORMAT!r}")
        given = d.get("settings")
        if not isinstance(given, Mapping) or not set(given) <= {f.name for f in fields(RouterSettings)}:
            raise InvalidInput("settings: give an object with the names of RouterSettings")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        settings = RouterSettings(**values)
        state = cls.new(settings, domains=_list(d, "domains"), regimes=_list(d, "regimes"))
        n, k = len(state.domains), len(state.regimes)
        changes: dict[str, Any] = {
            "domain_transition": _stochastic(d.get("domain_transition"), (n, n), "domain_transition"),
            "regime_transition": _stochastic(d.get("regime_transition"), (k, k), "regime_transition"),
            "domain_belief": _stochastic(d.get("domain_belief"), (n,), "domain_belief"),
            "regime_belief": _stochastic(d.get("regime_belief"), (k,), "regime_belief"),
        }
        if (e := d.get("emission")) is not None:
            if not isinstance(e, Mapping):
                raise InvalidInput("emission: give an object with mean and covariance, or null")
            changes["emission"] = _emission(e.get("mean"), e.get("covariance"), k)
        for name in TABLES:
            changes[name] = _table(d.get(name), getattr(state, name), name)
        for name, size in (("quality_score", 2), ("service_score", 3)):
            changes[name] = _array(d.get(name), (size,), name)
        version, at = d.get("version"), d.get("at")
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise InvalidInput(f"version is {version!r}: give an integer of at least 0")
        return state._with(version=version, at=None if at is None else number(at, "at"), **changes)


TABLES = ("quality", "quality_pairs", "service", "service_domains", "service_loads")


def load_level(load: float) -> int:
    """The level of a load, 0 to ``LOAD_LEVELS`` - 1."""
    return 0 if load < 1 else 1 if load < 4 else 2 if load < 16 else 3


def _sticky(n: int) -> Array:
    return np.ones((1, 1)) if n == 1 else np.where(np.eye(n) > 0, 0.95, 0.05 / (n - 1))


def _labels(names: Any, what: str) -> tuple[str, ...]:
    labels = tuple(names) if isinstance(names, (list, tuple)) else ()
    if not labels or not all(isinstance(n, str) and n for n in labels) or len(set(labels)) != len(labels):
        raise InvalidInput(f"{what} is {names!r}: give a sequence of at least one name, all different")
    return labels


def _list(d: Mapping[str, Any], key: str) -> list[Any]:
    x = d.get(key)
    if not isinstance(x, list):
        raise InvalidInput(f"{key} is {x!r}: give a list of names")
    return x


def _array(x: Any, shape: tuple[int, ...], name: str) -> Array:
    try:
        a = np.array(x, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"{name} is no array of numbers: give shape {shape}") from None
    if a.shape != shape or not np.isfinite(a).all():
        raise InvalidInput(f"{name} has shape {a.shape}, or a number that is not finite: give shape {shape}, finite")
    return a


def _stochastic(x: Any, shape: tuple[int, ...], name: str) -> Array:
    a = _array(x, shape, name)
    if (a < 0).any() or (np.abs(a.sum(-1) - 1) > 1e-6).any():
        raise InvalidInput(f"{name} has rows that are no probabilities: give rows that are at least 0 and sum to 1")
    return a


def _emission(mean: Any, covariance: Any, k: int) -> Emission:
    try:
        m = np.shape(mean)[1]
    except (IndexError, ValueError):
        raise InvalidInput(f"the telemetry's means are no matrix: give shape ({k}, m)") from None
    return Emission(_array(mean, (k, m), "telemetry means"), _array(covariance, (k, m, m), "telemetry covariances"))


def _table(x: Any, like: Table, name: str) -> Table:
    if not isinstance(x, Mapping) or not all(isinstance(key, str) for key in x):
        raise InvalidInput(f"{name} is of type {type(x).__name__}: give an object of counts by name")
    if not x:
        return like
    counts = _array(list(x.values()), (len(x), *like.counts.shape[1:]), name)
    least = 0.99 * LEAST_PRIOR if like.prior[0] > 0 else 0.0  # decay may round below the prior
    if (counts < least).any() or (counts > MOST_COUNTED).any():
        raise InvalidInput(f"{name} has counts out of range: give counts from {least} to {MOST_COUNTED:g}")
    return Table(tuple(x), counts, like.prior)
