"""Expected free energy of all policies to a horizon, by a tree of their common beginnings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hllm.errors import InvalidInput
from hllm.free_energy import checks
from hllm.free_energy.checks import TINY, Array, Arrays
from hllm.free_energy.dirichlet import parameter_gain
from hllm.free_energy.plans import ExpectedFreeEnergy

MAX_POLICIES = 1 << 20
"""How many policies are enumerated, if nothing else is said."""
MAX_TABLE = 1 << 23
"""How many entries a table of joint outcomes by joint states and joint actions may have."""
_SLICE = 1 << 20
"""Numbers per intermediate array: larger levels of the tree are gone through in slices."""


def expected_free_energy(
    A: Arrays,
    B: Arrays,
    C: Arrays,
    qs: Arrays,
    horizon: int = 1,
    *,
    pA: Arrays | None = None,
    pB: Arrays | None = None,
    max_policies: int = MAX_POLICIES,
) -> ExpectedFreeEnergy:
    """The expected free energy of every sequence of ``horizon`` actions: see :class:`Planner`, for one belief.

    Args:
        A: Likelihoods, each (O_m, S_1, …, S_F).
        B: Transitions, each (S_f, S_f, U_f): column s of action u is the distribution of the next state.
        C: Log preferences in nats, each (O_m,) or, by step, (O_m, H); a constant added changes nothing.
        qs: Beliefs about the present, each (S_f,).
        horizon: Steps to look ahead, from 1.
        pA: Dirichlet counts of A, same shapes: adds what outcomes are expected to tell about A, exactly.
        pB: Dirichlet counts of B: the same for transitions.
        max_policies: The most to enumerate.

    Raises:
        InvalidInput: Shapes do not fit, a distribution is not one, a value is not finite, or there are too many
            policies.
    """
    return Planner(A, B, C, horizon, pA=pA, pB=pB, max_policies=max_policies).evaluate(qs)


class Planner:
    """A model that is planned with again and again, checked and made ready once.

    Policies that begin alike share that beginning: level t of the tree has Uᵗ nodes, each a predicted state, and each
    level comes from the one before by a matrix product. Factors move independently, so a product of their beliefs
    predicts exactly. Transitions and likelihoods together make one table, from a state to the outcomes after each
    action: so the last level, by far the largest, is never predicted. All terms but the entropy of the outcomes are
    linear in the state, and rows of the same table.

    The arguments are those of :func:`expected_free_energy`.
    """

    def __init__(
        self,
        A: Arrays,
        B: Arrays,
        C: Arrays,
        horizon: int = 1,
        *,
        pA: Arrays | None = None,
        pB: Arrays | None = None,
        max_policies: int = MAX_POLICIES,
    ) -> None:
        B = checks.distributions(B, "B", "factor")
        states = tuple(map(len, B))
        checks.transitions(B, "B", states)
        self._states = states
        self.horizon = checks.whole(horizon, "horizon", 1, 1 << 16)
        self.controls = tuple(each.shape[2] for each in B)
        _bound(self.controls, self.horizon, max_policies)
        A = checks.likelihoods(checks.distributions(A, "A", "modality"), "A", states)
        sizes = [len(each) for each in A]
        outcomes, joint, actions = math.prod(sizes), math.prod(states), math.prod(self.controls)
        if outcomes * joint * actions > MAX_TABLE:
            raise InvalidInput(
                f"{outcomes} joint outcomes of {joint} joint states after {actions} joint actions are more than a "
                f"table of {MAX_TABLE} entries holds: use fewer modalities, factors or values"
            )
        preferences = _log_preferences(C, sizes, self.horizon)
        # By joint state: each joint outcome, expected log preferences, entropy of the outcomes, gain about A.
        table = A[0]
        for each in A[1:]:
            table = (table[:, None] * each).reshape(-1, joint)
        wanted: Any = sum(each.T @ likelihood for each, likelihood in zip(preferences, A, strict=True))
        unclear: Any = -sum(np.einsum("os,os->s", each, np.log(np.maximum(each, TINY))) for each in A)
        rows = [table, wanted, unclear[None]]
        if pA is not None or pB is not None:
            rows.append(np.zeros((1, joint)) if pA is None else _gain_of_looking(pA, sizes, states)[None])
        self._table = _after_actions(np.concatenate(rows), B, states)
        if pB is not None:
            self._table[-1] += _gain_of_moving(pB, self.controls, states)
        self._outcomes, self._utilities = outcomes, len(wanted)
        self._steps = [each.transpose(1, 2, 0).reshape(len(each), -1) for each in B]

    def evaluate(self, qs: Arrays) -> ExpectedFreeEnergy:
        """The expected free energy of every policy from the beliefs ``qs``, each (S_f,). Raises InvalidInput."""
        beliefs = checks.beliefs(qs, "qs")
        if tuple(map(len, beliefs)) != self._states:
            raise InvalidInput(f"qs has states {[*map(len, beliefs)]} by factor, and B has {[*self._states]}")
        local = _evaluate(_predict(beliefs, self._steps, self.controls, self.horizon), self._table, self._outcomes)
        actions = self._table.shape[2]
        terms, start = np.zeros((len(local) - self._utilities + 1, 1)), 0
        for t in range(self.horizon):
            part = slice(start, start := start + terms.shape[1])
            step = local[:, part]
            if self._utilities > 1:
                step = np.concatenate([step[t : t + 1], step[self._utilities :]])
            terms = step.reshape(len(terms), -1) + np.repeat(terms, actions, axis=1)
        utility, ambiguity, entropy = terms[0], terms[1], terms[-1]
        gain = terms[2] if len(terms) == 4 else np.zeros(len(utility))
        risk = -entropy - utility
        return ExpectedFreeEnergy(
            controls=self.controls,
            horizon=self.horizon,
            utility=utility,
            risk=risk,
            ambiguity=ambiguity,
            state_gain=entropy - ambiguity,
            parameter_gain=gain,
            efe=risk + ambiguity - gain,
        )


def _bound(controls: tuple[int, ...], horizon: int, max_policies: int) -> None:
    joint = math.prod(controls)
    limit = checks.whole(max_policies, "max_policies", 1, 1 << 40)
    # By logarithms first: the power itself may be astronomical.
    if horizon * math.log2(joint) > 64 or joint**horizon > limit:
        raise InvalidInput(
            f"{joint} joint actions over {horizon} steps are more than {limit} policies: "
            "use a shorter horizon or fewer actions"
        )


def _log_preferences(C: Arrays, sizes: list[int], horizon: int) -> list[Array]:
    """ln softmax(C), each (O_m, 1); or each (O_m, H), if any of them is given by step."""
    found = checks.arrays(C, "C", "modality")
    if len(found) != len(sizes):
        raise InvalidInput(f"C has {len(found)} modalities, and A has {len(sizes)}")
    for index, (value, size) in enumerate(zip(found, sizes, strict=True)):
        if value.shape not in ((size,), (size, horizon)):
            raise InvalidInput(
                f"C[{index}] has shape {value.shape}: ({size},) or ({size}, {horizon}) fits A and horizon"
            )
        shifted = value - value.max(axis=0)
        logs = shifted - np.log(np.exp(shifted).sum(axis=0))
        found[index] = logs if logs.ndim == 2 else logs[:, None]
    steps = max(each.shape[1] for each in found)
    return [each if each.shape[1] == steps else np.repeat(each, steps, axis=1) for each in found]


def _gain_of_looking(counts: Arrays, sizes: list[int], states: tuple[int, ...]) -> Array:
    """What the outcomes of each joint state are expected to tell about A."""
    found = checks.likelihoods(checks.counts(counts, "pA", "modality"), "pA", states)
    if [len(each) for each in found] != sizes:
        raise InvalidInput("pA has other numbers of outcomes than A")
    return sum((parameter_gain(each) for each in found), np.zeros(math.prod(states)))


def _gain_of_moving(counts: Arrays, controls: tuple[int, ...], states: tuple[int, ...]) -> Array:
    """What each joint action in each joint state is expected to tell about B, (S, U)."""
    found = checks.counts(counts, "pB", "factor")
    checks.transitions(found, "pB", states)
    if tuple(each.shape[2] for each in found) != controls:
        raise InvalidInput("pB has other numbers of actions than B")
    total = np.zeros(states + controls)
    for factor, each in enumerate(found):
        shape = [1] * total.ndim
        shape[factor], shape[len(states) + factor] = states[factor], controls[factor]
        total += parameter_gain(each).reshape(shape)
    return total.reshape(math.prod(states), -1)


def _after_actions(rows: Array, B: list[Array], states: tuple[int, ...]) -> Array:
    """Rows by next joint state, (R, S), by present joint state and joint action: (R, S, U)."""
    table = rows.reshape(-1, *states)
    for each in B:  # takes the first factor that is left, and puts its state and action at the end
        table = np.tensordot(table, each, axes=([1], [0]))
    count = len(states)
    table = table.transpose(0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2))
    return np.ascontiguousarray(table).reshape(len(rows), math.prod(states), -1)


def _predict(beliefs: list[Array], steps: list[Array], controls: tuple[int, ...], horizon: int) -> list[Array]:
    """The beliefs of each factor at all nodes of the tree but those of the last level, level by level: (N, S_f)."""
    joint = math.prod(controls)
    sizes = [joint**t for t in range(horizon)]
    found = []
    for factor, (belief, step) in enumerate(zip(beliefs, steps, strict=True)):
        nodes = np.empty((sum(sizes), len(belief)))
        nodes[0] = belief
        start = 0
        # The actions of other factors change nothing here: they are axes of their own, along which all is equal.
        others = [1] * len(controls)
        others[factor] = controls[factor]
        for size in sizes[:-1]:
            moved = (nodes[start : start + size] @ step).reshape(size, *others, -1)
            start += size
            nodes[start : start + size * joint].reshape(size, *controls, -1)[...] = moved
        found.append(nodes)
    return found


def _evaluate(nodes: list[Array], table: Array, outcomes: int) -> Array:
    """What each action at each of N nodes leads to, (R - O + 1, N, U): the table's linear rows, and the entropy."""
    rows, states, actions = table.shape
    count = len(nodes[0])
    found = np.empty((rows - outcomes + 1, count, actions))
    size = max(1, _SLICE // (rows * max(states, actions)))
    for start in range(0, count, size):
        part = slice(start, start + size)
        joint: Any = nodes[0][part]
        for other in nodes[1:]:
            joint = (joint[:, :, None] * other[part][:, None, :]).reshape(len(joint), -1)
        after = joint @ table
        found[:-1, part] = after[outcomes:]
        chances = after[:outcomes]
        logs = np.log(chances if chances.min() > 0 else np.maximum(chances, TINY))
        np.negative(np.einsum("onu,onu->nu", chances, logs), out=found[-1, part])
    return found
