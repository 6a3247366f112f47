"""Plans by expected free energy, and why: what was believed, what could be done, and what would have changed it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hanzo_compute.model import bounds
from hanzo_compute.routing.problem import Model, PlanProblem, build, refused

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from hllm.free_energy import Planner

Body = dict[str, Any]
EQUAL = 1e-9
"""Expected free energies that differ by less, in nats, are equal."""


def plan(problem: PlanProblem) -> Body:
    """The next action, the plan that it begins, and the trace of the decision.

    The trace explains itself by the problem: ``candidates`` are the first actions, each with the best plan that begins
    with it, best first; ``counterfactuals`` are the answers to the same question if something were otherwise.

    Raises:
        InvalidRequest: The problem does not fit together, or is larger than the bounds say.
    """
    from hllm.errors import InvalidInput

    _bounded(problem)
    model = build(problem)
    try:
        return _Decision(problem, model).shown()
    except InvalidInput as error:  # all that build leaves: an observation that the model makes impossible
        raise refused("observed", str(error), "look at what the outcomes say about it") from error


def _bounded(problem: PlanProblem) -> None:
    """Refuse what takes too long, before any array is made."""
    actions = math.prod(max(1, len(each)) for each in problem.options.values())
    horizon = problem.horizon
    if horizon * math.log2(actions) > math.log2(bounds.PLAN_POLICIES_MAX) + 1e-9:
        raise refused(
            "horizon",
            f"{actions} joint actions over {horizon} steps are more than {bounds.PLAN_POLICIES_MAX} plans",
            "use a shorter horizon or fewer options",
        )
    sizes = [len(each) for each in problem.beliefs.values()]
    table = actions * math.prod(sizes) * math.prod(len(each) for each in problem.outcomes.values())
    # Beginnings of plans: with one action there are as many as steps, not one.
    nodes = sum(actions**step for step in range(horizon))
    # A plan for each state that could be known instead, two for the other counterfactuals, and the plan itself.
    work = table * nodes * (3 + sum(sizes))
    if table > bounds.PLAN_TABLE_MAX or work > bounds.PLAN_WORK_MAX:
        raise refused(
            "horizon" if table <= bounds.PLAN_TABLE_MAX else "outcomes",
            "there are too many joint states, joint outcomes, joint actions and plans together",
            "use a shorter horizon, or fewer factors, states, options or outcomes",
        )


class _Decision:
    def __init__(self, problem: PlanProblem, model: Model) -> None:
        from hllm.free_energy import infer_states

        self.problem, self.model = problem, model
        self.beliefs = model.beliefs
        if problem.observed:
            self.beliefs = infer_states(model.likelihoods, model.observation, model.beliefs)
        self.factors = list(problem.beliefs)
        self.planner = self._planner(problem.horizon)
        self.found = self.planner.evaluate(self.beliefs)

    def _planner(self, horizon: int) -> Planner:
        from hllm.free_energy import Planner

        return Planner(self.model.likelihoods, self.model.transitions, self.model.preferences, horizon)

    def shown(self) -> Body:
        candidates = self._candidates()
        chosen = candidates[0]
        return {
            "action": chosen["action"],
            "plan": chosen["plan"],
            "trace": {
                "beliefs": self._named(self.beliefs),
                "uncertainty": dict(zip(self.factors, map(_entropy, self.beliefs), strict=True)),
                "horizon": self.problem.horizon,
                "plans": len(self.found),
                "candidates": candidates,
                "omitted": math.prod(self.found.controls) - len(candidates),
                "chosen": chosen["action"],
                "why": _why(candidates),
                "counterfactuals": self._counterfactuals(chosen["action"]),
            },
        }

    def _candidates(self) -> list[Body]:
        """Those that are shown, the best first."""
        import numpy as np

        found = self.found
        chance = found.first_actions(found.posterior(self.problem.gamma)).ravel()
        by_first = found.efe.reshape(len(chance), -1)
        width = by_first.shape[1]
        best = by_first.argmin(axis=1) + width * np.arange(len(chance))
        first = best[np.argsort(found.efe[best], kind="stable")][: bounds.PLAN_CANDIDATES_MAX]
        return [self._candidate(index, float(chance[index // width])) for index in first.tolist()]

    def _candidate(self, index: int, probability: float) -> Body:
        found = self.found
        steps = [self._action(step) for step in found.policy(index).tolist()]
        return {
            "action": steps[0],
            "plan": steps,
            "efe": float(found.efe[index]),
            "utility": float(found.utility[index]),
            "curiosity": float(found.state_gain[index]),
            "risk": float(found.risk[index]),
            "ambiguity": float(found.ambiguity[index]),
            "probability": probability,
        }

    def _action(self, step: list[int]) -> dict[str, str]:
        named = zip(self.factors, self.model.actions, step, strict=True)
        return {factor: actions[index] for factor, actions, index in named if actions}

    def _named(self, beliefs: list[NDArray[float64]]) -> dict[str, dict[str, float]]:
        pairs = zip(self.problem.beliefs.items(), beliefs, strict=True)
        return {factor: dict(zip(states, belief.tolist(), strict=True)) for (factor, states), belief in pairs}

    def _counterfactuals(self, chosen: Mapping[str, str]) -> list[Body]:
        import numpy as np

        answers: list[tuple[Body, list[int]]] = []
        for index, (factor, states) in enumerate(self.problem.beliefs.items()):
            for number, state in enumerate(states):
                if self.beliefs[index][number] == 1:  # that is what was asked
                    continue
                known = [*self.beliefs[:index], np.eye(len(states))[number], *self.beliefs[index + 1 :]]
                then = self.planner.evaluate(known)
                answers.append(({"known": {factor: state}}, list(then.action)))
        without = self.found.policy(int(self.found.utility.argmax()))[0]
        answers.append(({"curiosity": 0}, without.tolist()))
        if self.problem.horizon > 1:
            answers.append(({"horizon": 1}, list(self._planner(1).evaluate(self.beliefs).action)))
        named = [(condition, self._action(step)) for condition, step in answers]
        return [{"if": condition, "action": action, "changes": action != chosen} for condition, action in named]


def _entropy(belief: NDArray[float64]) -> float:
    return float(-sum(p * math.log(p) for p in belief.tolist() if p > 0) + 0.0)


def _why(candidates: list[Body]) -> str:
    chosen = candidates[0]
    said = f"{_words(chosen['action'])} begins the plan with the lowest expected free energy, {chosen['efe']:.4g} nats"
    if len(candidates) == 1:
        return f"{said}; there is no other action"
    second = candidates[1]
    margin = second["efe"] - chosen["efe"]
    if margin < EQUAL:
        return f"{said}; {_words(second['action'])} is as good, and comes later in the options"
    utility, curiosity = (chosen[term] - second[term] for term in ("utility", "curiosity"))
    return (
        f"{said}; {_words(second['action'])} is {margin:.4g} behind: "
        f"{utility:+.4g} by what is preferred, {curiosity:+.4g} by what it tells"
    )


def _words(action: Mapping[str, str]) -> str:
    return ", ".join(f"{factor} = {choice}" for factor, choice in action.items())
