"""The most probable path, over blocks that run side by side.

Viterbi 1967; Rabiner 1989, III.B. All blocks begin from a guess; those for which it was wrong run again from what
their predecessor ended with, until the scores are those of before up to a constant, which decides nothing (Maleki,
Musuvathi, Mytkowicz, "Parallelizing dynamic programming through rank convergence", PPoPP 2014). So does the way back.
A chain that never forgets makes this a walk through the blocks: slow, but exact.
"""

from __future__ import annotations

import numpy as np

from hllm.hmm import accelerator, logspace
from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats, Ints

NEVER = -1e250
"""ln 0 that can be added and subtracted: no sum of logarithms of doubles comes near it."""
SAME = 1e-9
"""Nats by which relative scores may differ and be the same."""
EVERY = 4


def best_path(emission: Floats, layout: Layout, startprob: Floats, transmat: Floats) -> tuple[float, Ints]:
    """Sum over sequences of ln P(best path, y) and the paths (samples,); -inf if there is none.

    ``emission`` is ln P(y_t | s_t), (steps, K, blocks). Of equal paths the lowest states win, up to rounding.
    """
    start, transitions = logspace.log(startprob), logspace.log(transmat)
    emission = np.maximum(emission, NEVER)
    floored = np.maximum(transitions, NEVER)
    fast = accelerator.active()
    if fast is not None:
        lattice = accelerator.viterbi(fast, emission, layout, np.maximum(start, NEVER), floored)
    else:
        lattice = _back(_scores(emission, layout, np.maximum(start, NEVER), floored), layout, floored)
    chosen = np.take_along_axis(emission, lattice[:, None, :], axis=1)[:, 0]
    if layout.padding is not None:
        chosen[layout.padding] = 0.0
    path = layout.collect(lattice[:, None, :])[:, 0]
    steps = transitions[path[:-1], path[1:]]
    begins = layout.lengths.cumsum() - layout.lengths
    steps[begins[1:] - 1] = 0.0
    total = float(chosen.sum() + steps.sum() + start[path[begins]].sum())
    return (total if total > NEVER else -np.inf), path


def _relative(scores: Floats) -> Floats:
    out: Floats = scores - scores.max(axis=0)
    return out


def _scores(emission: Floats, layout: Layout, start: Floats, transitions: Floats) -> Floats:
    """ln P(y_1..t, best way to s_t) up to a constant per step and block, (steps, K, blocks)."""
    _, states, blocks = emission.shape
    scores = np.empty(emission.shape)
    guess = np.zeros((states, blocks))
    guess[:, layout.first] = start[:, None]
    _pass(scores, emission, guess, transitions)
    if layout.first.all():
        return scores
    before = _relative(scores[-1])
    entering = np.empty_like(guess)
    entering[:, 1:] = (before[:, None, :-1] + transitions[:, :, None]).max(axis=0)
    entering[:, layout.first] = start[:, None]
    _pass(scores, emission, entering, transitions)
    changed = np.flatnonzero((np.abs(_relative(scores[-1]) - before) > SAME).any(axis=0))
    _correct(scores, emission, layout, transitions, changed)
    return scores


def _pass(scores: Floats, emission: Floats, entering: Floats, transitions: Floats) -> None:
    """All blocks side by side, from scores of their first states."""
    states, blocks = entering.shape
    ways, costs = np.empty((states, states, blocks)), transitions[:, :, None]
    np.add(entering, emission[0], out=scores[0])
    before = scores[0][:, None, :]
    for now, seen in zip(list(scores)[1:], list(emission)[1:], strict=True):
        np.add(before, costs, out=ways)
        np.maximum.reduce(ways, axis=0, out=now)
        np.add(now, seen, out=now)
        before = now[:, None, :]


def _correct(scores: Floats, emission: Floats, layout: Layout, transitions: Floats, changed: Ints) -> None:
    """Runs blocks again that follow a block whose end has changed, until none has."""
    costs, (steps, _, blocks) = transitions[:, :, None], scores.shape
    following = changed[changed < blocks - 1] + 1
    active = following[~layout.first[following]]
    while active.size:
        ends = _relative(scores[-1][:, active - 1])
        current = (ends[:, None, :] + costs).max(axis=0) + emission[0][:, active]
        before = _relative(scores[-1][:, active])
        for step in range(steps):
            if step:
                current = (current[:, None, :] + costs).max(axis=0) + emission[step][:, active]
            old = scores[step][:, active]
            scores[step][:, active] = current
            if step % EVERY == 0:
                # Blocks whose relative scores are those of before need no further steps.
                moved = (np.abs(_relative(current) - _relative(old)) > SAME).any(axis=0)
                if not moved.all():
                    active, current, before = active[moved], current[:, moved], before[:, moved]
                    if not active.size:
                        break
        changed = active[(np.abs(_relative(current) - before) > SAME).any(axis=0)] if active.size else active
        following = changed[changed < blocks - 1] + 1
        active = following[~layout.first[following]]


def _back(scores: Floats, layout: Layout, transitions: Floats) -> Ints:
    """The states of the best paths, (steps, blocks)."""
    steps, _, blocks = scores.shape
    ends: dict[int, list[int]] = {}
    if layout.padding is not None:
        for block in np.flatnonzero(layout.filled < steps):
            ends.setdefault(int(layout.filled[block]) - 1, []).append(int(block))
    path = np.zeros((steps, blocks), dtype=np.int64)
    path[-1] = scores[-1].argmax(axis=0)
    for step in range(steps - 2, -1, -1):
        path[step] = (scores[step] + transitions[:, path[step + 1]]).argmax(axis=0)
        if step in ends:
            path[step, ends[step]] = scores[step][:, ends[step]].argmax(axis=0)
    active = np.flatnonzero(~layout.last)
    while active.size:
        state = (scores[-1][:, active] + transitions[:, path[0, active + 1]]).argmax(axis=0)
        wrong = state != path[-1, active]
        active, state = active[wrong], state[wrong]
        for step in range(steps - 1, -1, -1):
            if step < steps - 1:
                state = (scores[step][:, active] + transitions[:, state]).argmax(axis=0)
            differs = state != path[step, active]
            path[step, active] = state
            if not differs.all():
                active, state = active[differs], state[differs]
                if not active.size:
                    break
        # Only where the first state changed can the block before be wrong.
        active = active[active > 0] - 1
        active = active[~layout.last[active]]
    return path
