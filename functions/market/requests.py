"""Bodies of requests about plans."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from hanzo_compute.model import bounds
from hanzo_compute.routing.problem import PlanProblem

Name = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Nats = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-bounds.PLAN_NATS_MAX, le=bounds.PLAN_NATS_MAX)]
Table = list[Any]
States = Annotated[dict[Name, Number], Field(min_length=1, max_length=bounds.PLAN_NAMES_MAX)]
Actions = Annotated[dict[Name, Table], Field(min_length=1, max_length=bounds.PLAN_NAMES_MAX)]
Outcomes = Annotated[dict[Name, Table], Field(min_length=1, max_length=bounds.PLAN_NAMES_MAX)]
Preferences = Annotated[dict[Name, Nats], Field(max_length=bounds.PLAN_NAMES_MAX)]
PARTS = bounds.PLAN_PARTS_MAX


class PlanRequest(BaseModel):
    """What is believed, what is wanted, what can be done, and how far to look ahead."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beliefs: dict[Name, States] = Field(
        min_length=1, max_length=PARTS, description="By factor: the probability of each of its states."
    )
    options: dict[Name, Actions] = Field(
        min_length=1,
        max_length=PARTS,
        description="By factor: actions with P(next state | state), an array of rows by next state, columns by state.",
    )
    outcomes: dict[Name, Outcomes] = Field(
        min_length=1,
        max_length=PARTS,
        description="By what is observed: each outcome's probability by state, nested by the factors of `beliefs`.",
    )
    goal: dict[Name, Preferences] = Field(
        default_factory=dict,
        max_length=PARTS,
        description="Preferences of outcomes in nats: by how much, not how likely.",
    )
    observed: dict[Name, Name] = Field(
        default_factory=dict, max_length=PARTS, description="Outcomes just seen: beliefs are updated by them first."
    )
    horizon: int = Field(default=1, ge=1, le=bounds.PLAN_HORIZON_MAX, strict=True, description="Steps to look ahead.")
    gamma: float = Field(
        default=16.0,
        ge=0,
        le=bounds.PLAN_NATS_MAX,
        strict=True,
        description="Precision of the probabilities in the trace.",
    )

    def problem(self) -> PlanProblem:
        """The same, for the router."""
        return PlanProblem(
            beliefs=self.beliefs,
            options=self.options,
            outcomes=self.outcomes,
            goal=self.goal,
            horizon=self.horizon,
            gamma=self.gamma,
            observed=self.observed,
        )
