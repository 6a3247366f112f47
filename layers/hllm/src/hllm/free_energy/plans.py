"""The expected free energy of every policy, and what follows from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hllm.errors import InvalidInput
from hllm.free_energy import checks
from hllm.free_energy.checks import Array


@dataclass(frozen=True, eq=False)
class ExpectedFreeEnergy:
    """Terms in nats, each of shape (P,), summed over the horizon: P policies in lexicographic order.

    ``efe`` = risk + ambiguity - parameter_gain = -utility - state_gain - parameter_gain: lower is better. A policy is a
    sequence of ``horizon`` joint actions, one action per factor.
    """

    controls: tuple[int, ...]
    """How many actions each factor has."""
    horizon: int
    utility: Array
    """E[ln p̃(o)], the expected log preference, with the preferences normalised."""
    risk: Array
    """KL[q(o) || p̃(o)] of the outcomes of all modalities together."""
    ambiguity: Array
    """E_q(s) H[P(o | s)]."""
    state_gain: Array
    """I(s; o): what the outcomes are expected to tell about the states."""
    parameter_gain: Array
    """What outcomes and transitions are expected to tell about A and B; 0 where no counts were given."""
    efe: Array

    def __len__(self) -> int:
        """How many policies there are."""
        return len(self.efe)

    @property
    def best(self) -> int:
        """The index of the policy with the lowest ``efe``; of equal ones the first."""
        return int(self.efe.argmin())

    @property
    def plan(self) -> NDArray[np.intp]:
        """The best policy, shape (H, F)."""
        return self.policy(self.best)

    @property
    def action(self) -> tuple[int, ...]:
        """The first step of the best policy: an action per factor."""
        return tuple(map(int, self.plan[0]))

    def policy(self, index: int) -> NDArray[np.intp]:
        """A policy as actions of shape (H, F)."""
        index = checks.whole(index, "the index of a policy", 0, len(self) - 1)
        found: NDArray[np.intp] = self._actions(np.array([index]))[0]
        return found

    @property
    def policies(self) -> NDArray[np.intp]:
        """All policies, shape (P, H, F)."""
        return self._actions(np.arange(len(self)))

    def _actions(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        digits = np.unravel_index(indices, self.controls * self.horizon)
        return np.stack(digits, axis=1).reshape(len(indices), self.horizon, len(self.controls))

    def posterior(self, gamma: float = 16.0, E: Any = None) -> Array:
        """q(π) = softmax(-gamma·efe + ln E), shape (P,).

        Args:
            gamma: The precision, from 0.
            E: The prior over policies, shape (P,); uniform, if not given. A policy with prior 0 gets 0.
        """
        logits = -checks.number(gamma, "gamma", 0) * self.efe
        if E is not None:
            (prior,) = checks.distributions([E], "E", "model")
            if prior.shape != logits.shape:
                raise InvalidInput(f"E has shape {prior.shape}: {logits.shape} has one entry for each policy")
            logits = np.where(prior > 0, logits + np.log(np.maximum(prior, checks.TINY)), -np.inf)
        weights: Array = np.exp(logits - logits.max())
        found: Array = weights / weights.sum()
        return found

    def first_actions(self, posterior: Array) -> Array:
        """The posterior of the first joint action, shape (U_1, …, U_F)."""
        if np.shape(posterior) != self.efe.shape:
            raise InvalidInput(f"the posterior has shape {np.shape(posterior)}: {self.efe.shape} fits the policies")
        joint = math.prod(self.controls)
        found: Array = np.asarray(posterior, dtype=np.float64).reshape(joint, -1).sum(axis=1).reshape(self.controls)
        return found
