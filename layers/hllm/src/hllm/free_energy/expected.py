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
MAX_TABLE = 1 << 22
"""How many entries the table of joint outcomes by joint states may have."""
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
    """The expected free energy of every sequence of ``horizon`` actions.

    Policies that begin alike share that beginning: level t of the tree has Uᵗ nodes, each a predicted state, and is
    made from level t - 1 by a matrix product per factor; another one gives its outcomes. Factors move independently, so
    a product of their beliefs predicts exactly. All terms but the entropy of the outcomes are linear in it.

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
        InvalidInput: Shapes do not fit, a distribution is not one, a value is not finite, or there are too
            many policies.
    """
    beliefs = checks.beliefs(qs, "qs")
    states = tuple(map(len, beliefs))
    B = checks.distributions(B, "B", "factor")
    checks.transitions(B, "B", states)
    horizon = checks.whole(horizon, "horizon", 1, 1 << 16)
    controls = tuple(each.shape[2] for each in B)
    _bound(controls, horizon, max_policies)
    A = checks.likelihoods(checks.distributions(A, "A", "modality"), "A", states)
    sizes = [len(each) for each in A]
    outcomes, joint = math.prod(sizes), math.prod(states)
    if outcomes * joint > MAX_TABLE:
        raise InvalidInput(
            f"{outcomes} joint outcomes of {joint} joint states are more than a table of {MAX_TABLE} entries holds: "
            "use fewer modalities, factors or values"
        )
    preferences = _log_preferences(C, sizes, horizon)
    table = A[0]
    for each in A[1:]:
        table = (table[:, None] * each).reshape(-1, joint)
    # Per joint state: expected log preference by step, entropy of the outcomes, expected gain about A.
    utility = np.stack(
        [sum(pref[:, t] @ each for pref, each in zip(preferences, A, strict=True)) for t in range(horizon)]
    )
    ambiguity = -sum(np.einsum("os,os->s", each, np.log(np.maximum(each, TINY))) for each in A)
    gain = np.zeros(joint)
    if pA is not None:
        counted = checks.likelihoods(checks.counts(pA, "pA", "modality"), "pA", states)
        if [len(each) for each in counted] != sizes:
            raise InvalidInput("pA has other numbers of outcomes than A")
        gain = sum((parameter_gain(each) for each in counted), gain)
    moves = None
    if pB is not None:
        counted = checks.counts(pB, "pB", "factor")
        checks.transitions(counted, "pB", states)
        if tuple(each.shape[2] for each in counted) != controls:
            raise InvalidInput("pB has other numbers of actions than B")
        moves = [parameter_gain(each) for each in counted]

    steps = [np.ascontiguousarray(each.transpose(1, 2, 0).reshape(len(each), -1)) for each in B]
    nodes = [each[None] for each in beliefs]
    terms = np.zeros((4, 1))
    for t in range(horizon):
        before = terms
        linear = np.stack([utility[t], ambiguity, gain], axis=1)
        local = np.empty((4, len(nodes[0]) * math.prod(controls)))
        if moves is not None:
            before = terms[:, :, None] + _moved(nodes, moves, controls)
        nodes = _advance(nodes, steps, controls)
        _evaluate(nodes, linear, table.T, local)
        terms = (local.reshape(4, terms.shape[1], -1) + before.reshape(4, terms.shape[1], -1)).reshape(4, -1)
    expected, unclear, learnt, entropy = terms
    risk = -entropy - expected
    return ExpectedFreeEnergy(
        controls=controls,
        horizon=horizon,
        utility=expected,
        risk=risk,
        ambiguity=unclear,
        state_gain=entropy - unclear,
        parameter_gain=learnt,
        efe=risk + unclear - learnt,
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
    """ln softmax(C) by outcome and step, each (O_m, H)."""
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
        found[index] = np.broadcast_to(logs if value.ndim == 2 else logs[:, None], (size, horizon))
    return found


def _advance(nodes: list[Array], steps: list[Array], controls: tuple[int, ...]) -> list[Array]:
    """The beliefs of each factor after every joint action, each (N·U, S_f)."""
    count = len(nodes[0])
    found = []
    for factor, (belief, step) in enumerate(zip(nodes, steps, strict=True)):
        moved = (belief @ step).reshape(count, controls[factor], -1)
        found.append(_spread(moved, factor, controls))
    return found


def _spread(moved: Array, factor: int, controls: tuple[int, ...]) -> Array:
    """(N, U_f, k) as (N·U, k): the actions of the other factors change nothing here."""
    count, _, width = moved.shape
    axes = [1] * len(controls)
    axes[factor] = controls[factor]
    wide = np.broadcast_to(moved.reshape(count, *axes, width), (count, *controls, width))
    return wide.reshape(-1, width)


def _moved(nodes: list[Array], moves: list[Array], controls: tuple[int, ...]) -> Array:
    """What each joint action is expected to tell about B, as an addend of the terms: (4, N, U)."""
    count = len(nodes[0])
    added = np.zeros((4, count, math.prod(controls)))
    for factor, (belief, move) in enumerate(zip(nodes, moves, strict=True)):
        added[2] += _spread((belief @ move)[:, :, None], factor, controls).reshape(count, -1)
    return added


def _evaluate(nodes: list[Array], linear: Array, table: Array, out: Array) -> None:
    """Fill (4, N) with utility, ambiguity, gain about A and entropy of the outcomes of each predicted state."""
    rows = max(1, _SLICE // max(table.shape))
    for start in range(0, out.shape[1], rows):
        part = slice(start, start + rows)
        joint: Any = nodes[0][part]
        for other in nodes[1:]:
            joint = (joint[:, :, None] * other[part][:, None, :]).reshape(len(joint), -1)
        outcomes = joint @ table
        out[:3, part] = (joint @ linear).T
        out[3, part] = -np.einsum("no,no->n", outcomes, np.log(np.maximum(outcomes, TINY)))
