"""Forward-backward over blocks that run side by side, exact for any chain.

A block's effect on the past is a K x K matrix, M[j, k] = P(its observations, last state j | first state k). The first
pass makes these for all blocks at once; what enters each block then follows from the products of the matrices before
it, and the ordinary recursions (Rabiner 1989, III.A-B) run through all blocks side by side. Where blocks are longer
than the chain's memory, M forgets its right side, and what enters is found in a few rounds over all blocks (the rank
convergence of Maleki, Musuvathi, Mytkowicz, "Parallelizing dynamic programming through rank convergence", PPoPP 2014).

Probabilities are scaled every few steps. Where doubles do not suffice, None tells the caller to take logspace.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats

EVERY = 8
"""Steps between two scalings."""
SAME = 1e-14
"""Relative change of what enters a block that is none."""
LEAST = 1e-200
"""Below this, products with what is left out (under 1e-308) could matter."""
ROUNDS = 12
"""Rounds over all blocks after which one walk through them is cheaper."""


@dataclass(frozen=True, slots=True)
class Between:
    """What enters each block. ``entering`` (K, blocks) is P(s) at the last row before it, where there is one."""

    entering: Floats
    predicted: Floats  # P(s at its first row | what was before), (K, blocks)
    ahead: Floats  # P(what comes after it | s at its last row), scaled, (K, blocks)


def relative(emission: Floats) -> Floats:
    """Makes ln P(x | s) into P(x | s) over the largest of its states, in place; returns ln of the largest, (L, B)."""
    top = emission.max(axis=1)
    np.maximum(top, -1e300, out=top)  # -inf in all states stays 0 in all
    emission -= top[:, None, :]
    np.exp(emission, out=emission)
    return np.asarray(top)


def transfer(emission: Floats, transmat: Floats, columns: Floats) -> tuple[Floats, Floats] | None:
    """M times ``columns`` (K, C) for each block, (K, C, blocks), scaled, and ln of the scales (blocks,)."""
    steps, states, blocks = emission.shape
    turned = np.ascontiguousarray(transmat.T)
    matrices = columns[:, :, None] * emission[0][:, None, :]
    moved = np.empty(matrices.shape)
    flat, wide = matrices.reshape(states, -1), moved.reshape(states, -1)
    scales = np.zeros(blocks)
    seen = emission[:, :, None, :]
    for step in range(1, steps):
        np.dot(turned, flat, out=wide)
        np.multiply(moved, seen[step], out=matrices)
        if step % EVERY == 0 or step == steps - 1:
            top = matrices.max(axis=(0, 1))
            if not top.min() > LEAST:
                return None
            matrices /= top
            scales += np.log(top)
    return matrices, scales


def enter(matrices: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> Floats | None:
    """P(s) at the row before each block, (K, blocks); the startprob of the first blocks is not in it (zeros)."""
    turned = transmat.T
    first = layout.first
    ends = np.einsum("jkb,k->jb", matrices, startprob)
    guess = matrices.sum(axis=1)
    ends[:, ~first] = guess[:, ~first]
    total = ends.sum(axis=0)
    if not total.min() > LEAST:
        return None
    ends /= total
    fixed = ends[:, first].copy()
    for _ in range(ROUNDS):
        incoming = turned @ ends
        renewed = np.empty_like(ends)
        renewed[:, 1:] = np.einsum("jkb,kb->jb", matrices[:, :, 1:], incoming[:, :-1])
        renewed[:, first] = fixed
        total = renewed.sum(axis=0)
        if not total.min() > LEAST:
            return None
        renewed /= total
        settled = bool((np.abs(renewed - ends) <= SAME * renewed).all())
        ends = renewed
        if settled:
            break
    else:
        vector = ends[:, 0]
        for block in range(1, layout.blocks):
            if not first[block]:
                vector = matrices[:, :, block] @ (turned @ vector)
                total = vector.sum()
                if not total > LEAST:
                    return None
                ends[:, block] = vector = vector / total
            else:
                vector = ends[:, block]
    entering: Floats = np.zeros_like(ends)
    entering[:, 1:] = ends[:, :-1]
    entering[:, first] = 0.0
    return entering


def look_ahead(matrices: Floats, layout: Layout, transmat: Floats) -> Floats | None:
    """P(what comes after | s at the block's last row), each block's largest scaled to 1, (K, blocks)."""
    last = layout.last
    behind = np.ones((len(transmat), layout.blocks))
    for _ in range(ROUNDS):
        through = np.einsum("jkb,jb->kb", matrices, behind)
        renewed = np.ones_like(behind)
        renewed[:, :-1] = transmat @ through[:, 1:]
        renewed[:, last] = 1.0
        top = renewed.max(axis=0)
        if not top.min() > LEAST:
            return None
        renewed /= top
        settled = bool((np.abs(renewed - behind) <= SAME * renewed).all())
        behind = renewed
        if settled:
            return behind
    for block in range(layout.blocks - 2, -1, -1):
        if not last[block]:
            vector = transmat @ (behind[:, block + 1] @ matrices[:, :, block + 1])
            top = vector.max()
            if not top > LEAST:
                return None
            behind[:, block] = vector / top
    return np.asarray(behind)


def between(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> Between | None:
    """What enters each block from the past and from the future."""
    states = len(startprob)
    if layout.first.all():
        start = np.tile(startprob[:, None], (1, layout.blocks))
        return Between(np.zeros_like(start), start, np.ones((states, layout.blocks)))
    made = transfer(emission, transmat, np.eye(states))
    if made is None:
        return None
    entering = enter(made[0], layout, startprob, transmat)
    ahead = look_ahead(made[0], layout, transmat)
    if entering is None or ahead is None:
        return None
    predicted = transmat.T @ entering
    predicted[:, layout.first] = startprob[:, None]
    return Between(entering, predicted, ahead)


def evidence(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> float | None:
    """Sum of ln P(y), from relative probabilities: the caller adds the logarithms that were taken off."""
    if layout.first.all():
        made = transfer(emission, transmat, startprob[:, None])
        if made is None:
            return None
        ends = made[0].sum(axis=(0, 1))
        return float(np.log(ends).sum() + made[1].sum()) if ends.min() > LEAST else None
    made = transfer(emission, transmat, np.eye(len(startprob)))
    if made is None:
        return None
    entering = enter(made[0], layout, startprob, transmat)
    if entering is None:
        return None
    predicted = transmat.T @ entering
    predicted[:, layout.first] = startprob[:, None]
    totals = np.einsum("jkb,kb->b", made[0], predicted)
    return float(np.log(totals).sum() + made[1].sum()) if totals.min() > LEAST else None


def smooth(
    emission: Floats, layout: Layout, startprob: Floats, transmat: Floats
) -> tuple[float, Floats, Floats] | None:
    """Sum of ln P(y), posteriors (steps, K, blocks), 0 in padding, and sum of P(s_t, s_t+1 | y), (K, K).

    ``emission`` is relative, and is overwritten.
    """
    edges = between(emission, layout, startprob, transmat)
    if edges is None:
        return None
    steps = layout.steps
    turned = np.ascontiguousarray(transmat.T)
    forward = np.empty(emission.shape)
    np.multiply(edges.predicted, emission[0], out=forward[0])
    scaled: list[tuple[int, Floats]] = []
    logarithm = 0.0
    moved = np.empty_like(edges.predicted)
    now = forward[0]
    for step in range(1, steps):
        np.dot(turned, now, out=moved)
        now = forward[step]
        np.multiply(moved, emission[step], out=now)
        if step % EVERY == 0:
            top = now.max(axis=0)
            if not top.min() > LEAST:
                return None
            now /= top
            scaled.append((step, top))
            logarithm += float(np.log(top).sum())
    ends = forward[-1].sum(axis=0)
    if not ends.min() > LEAST:
        return None
    logarithm += float(np.log(ends).sum())
    behind = np.empty(emission.shape)
    behind[-1] = edges.ahead
    later = emission  # becomes P(y_t.. | s_t)
    now = behind[-1]
    for step in range(steps - 1, 0, -1):
        seen = later[step]
        np.multiply(seen, now, out=seen)
        now = behind[step - 1]
        np.dot(transmat, seen, out=now)
        if step % EVERY == 0:
            now /= now.max(axis=0)
    np.multiply(later[0], behind[0], out=later[0])
    posteriors = np.multiply(forward, behind, out=behind)
    joint = posteriors.sum(axis=1, keepdims=True)
    if not joint.min() > LEAST:
        return None
    posteriors /= joint
    later /= joint
    for step, top in scaled:
        later[step] /= top
    if layout.padding is not None:
        posteriors.transpose(0, 2, 1)[layout.padding] = 0.0
        later.transpose(0, 2, 1)[layout.padding] = 0.0
    pairs = np.matmul(forward[:-1], later[1:].transpose(0, 2, 1)).sum(axis=0)
    pairs += edges.entering @ later[0].T
    return logarithm, posteriors, pairs * transmat
