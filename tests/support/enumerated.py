"""Expected free energy by its definition: every policy, every step, every joint state and outcome, in plain loops.

``epsilon`` is what pymdp 0.0.7.1 adds to a probability before its logarithm (``spm_MDP_G``, exp(-16)); it also leaves
out joint states that are no more probable than that.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Terms:
    utility: float = 0.0
    risk: float = 0.0
    ambiguity: float = 0.0
    state_gain: float = 0.0


def policies(controls: list[int], horizon: int) -> list[tuple[tuple[int, ...], ...]]:
    steps = list(itertools.product(*map(range, controls)))
    return list(itertools.product(steps, repeat=horizon))


def evaluate(A: Any, B: Any, C: Any, qs: Any, policy: Any, epsilon: float = 0.0) -> Terms:
    total = Terms()
    beliefs = [np.asarray(each, dtype=float) for each in qs]
    for t, step in enumerate(policy):
        beliefs = [
            np.array([sum(B[f][s, r, u] * belief[r] for r in range(len(belief))) for s in range(len(belief))])
            for f, (belief, u) in enumerate(zip(beliefs, step, strict=True))
        ]
        joint: dict[tuple[int, ...], float] = {}
        for states in itertools.product(*(range(len(each)) for each in beliefs)):
            weight = math.prod(each[s] for each, s in zip(beliefs, states, strict=True))
            if weight <= epsilon:
                continue
            for outcomes in itertools.product(*(range(len(each)) for each in A)):
                chance = math.prod(float(A[m][(o, *states)]) for m, o in enumerate(outcomes))
                if chance > 0:
                    joint[outcomes] = joint.get(outcomes, 0.0) + weight * chance
                    total.ambiguity -= weight * chance * math.log(chance + epsilon)
        entropy = -sum(p * math.log(p) for p in joint.values())
        utility = sum(p * _preference(C, outcomes, t) for outcomes, p in joint.items())
        total.utility += utility
        total.risk += -entropy - utility
        total.state_gain += entropy
    total.state_gain -= total.ambiguity
    return total


def _preference(C: Any, outcomes: tuple[int, ...], t: int) -> float:
    found = 0.0
    for preferences, outcome in zip(C, outcomes, strict=True):
        column = np.asarray(preferences if np.ndim(preferences) == 1 else np.asarray(preferences)[:, t], dtype=float)
        found += column[outcome] - math.log(sum(math.exp(x) for x in column))
    return found
