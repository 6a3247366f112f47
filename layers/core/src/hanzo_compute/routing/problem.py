"""A planning problem in names, and the same as the arrays that the engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from hanzo_compute.errors import FieldProblem, InvalidRequest

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

Distribution = Mapping[str, float]
TOLERANCE: Final = 1e-6
"""How far a sum of probabilities may be from 1."""


@dataclass(frozen=True)
class PlanProblem:
    """What to plan: everything by name; the order of names is the order of the arrays' axes."""

    beliefs: Mapping[str, Distribution]
    """For each factor (something that is in one of several states): how probable each state is."""
    options: Mapping[str, Mapping[str, Any]]
    """For each factor that can be acted on: actions, each with P(next state | state), rows by next state."""
    outcomes: Mapping[str, Mapping[str, Any]]
    """For each modality (something that is observed): outcomes, each with its probability in every joint state."""
    goal: Mapping[str, Mapping[str, float]]
    """For each modality: how much an outcome is preferred, in nats; 0, if not given."""
    horizon: int
    gamma: float
    observed: Mapping[str, str] = field(default_factory=dict)
    """What was just observed of some modalities: beliefs are updated by it first."""


@dataclass(frozen=True)
class Model:
    """The arrays of a problem: see ``hllm.free_energy``."""

    likelihoods: list[NDArray[float64]]
    transitions: list[NDArray[float64]]
    preferences: list[NDArray[float64]]
    beliefs: list[NDArray[float64]]
    observation: list[int | None]
    actions: list[list[str]]
    """Names per factor; none for a factor that only takes its course."""


def refused(where: str, why: str, hint: str) -> InvalidRequest:
    """The error for one field."""
    return InvalidRequest(f"{where}: {why}", fields=[FieldProblem(where, why, "invalid", hint)], hint=hint)


def build(problem: PlanProblem) -> Model:
    """The arrays of a problem.

    Raises:
        InvalidRequest: Something has another shape than the beliefs ask for, a name is unknown, or is no distribution.
    """
    import numpy as np

    factors = list(problem.beliefs)
    states = {factor: list(problem.beliefs[factor]) for factor in factors}
    sizes = [len(states[factor]) for factor in factors]
    beliefs = [
        _checked(f"beliefs.{factor}", [*problem.beliefs[factor].values()], [len(states[factor])]) for factor in factors
    ]
    _known("options", problem.options, factors)
    transitions, actions = [], []
    for factor, size in zip(factors, sizes, strict=True):
        offered = problem.options.get(factor, {})
        actions.append(list(offered))
        given = [
            _checked(f"options.{factor}.{action}", table, [size, size], by="a column")
            for action, table in offered.items()
        ]
        transitions.append(np.stack(given, axis=-1) if given else np.eye(size)[:, :, None])
    if not any(actions):
        raise refused("options", "there is nothing to choose from", "give a factor actions, each with its transitions")
    likelihoods = []
    for modality, outcomes in problem.outcomes.items():
        tables = [_table(f"outcomes.{modality}.{outcome}", table, sizes) for outcome, table in outcomes.items()]
        likelihoods.append(_distribution(f"outcomes.{modality}", np.stack(tables), "the outcomes of a state"))
    _known("goal", problem.goal, problem.outcomes)
    preferences = []
    for modality, outcomes in problem.outcomes.items():
        wanted = problem.goal.get(modality, {})
        _known(f"goal.{modality}", wanted, outcomes)
        preferences.append(np.array([float(wanted.get(outcome, 0.0)) for outcome in outcomes]))
    _known("observed", problem.observed, problem.outcomes)
    observation: list[int | None] = []
    for modality, outcomes in problem.outcomes.items():
        seen = problem.observed.get(modality)
        if seen is not None:
            _known(f"observed.{modality}", [seen], outcomes)
        observation.append(None if seen is None else list(outcomes).index(seen))
    return Model(likelihoods, transitions, preferences, beliefs, observation, actions)


def _known(where: str, names: Mapping[str, Any] | Sequence[str], known: Mapping[str, Any] | Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise refused(where, f"there is no {name!r}", f"there are: {', '.join(known)}")


def _checked(where: str, table: Any, shape: list[int], by: str = "it") -> NDArray[float64]:
    return _distribution(where, _table(where, table, shape), by)


def _table(where: str, table: Any, shape: list[int]) -> NDArray[float64]:
    import numpy as np

    _shaped(where, table, shape)
    found: NDArray[float64] = np.array(table, dtype=np.float64)
    return found


def _shaped(where: str, table: Any, shape: list[int]) -> None:
    if not shape:
        if isinstance(table, bool) or not isinstance(table, int | float):
            raise refused(where, "has something that is no number", "give probabilities from 0 to 1")
        if not 0 <= table <= 1 + TOLERANCE:  # compared as it is: a whole number may be too large for a float
            raise refused(where, "has a number that is no probability", "probabilities are from 0 to 1")
        return
    if not isinstance(table, list) or len(table) != shape[0]:
        sizes = " by ".join(map(str, shape))
        raise refused(where, "has another shape than the states of beliefs", f"here: an array of {sizes} numbers")
    for part in table:
        _shaped(where, part, shape[1:])


def _distribution(where: str, table: NDArray[float64], what: str) -> NDArray[float64]:
    sums = table.sum(axis=0)
    off = float(abs(sums - 1).max())
    if off > TOLERANCE:
        raise refused(
            where, f"{what} must add up to 1, and is off by {off:.3g}", "divide the probabilities by their sum"
        )
    found: NDArray[float64] = table / sums
    return found
