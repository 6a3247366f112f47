"""The baselines, each vectorised over runs. They see posted prices, so they estimate the part of utility without price.

A baseline "with posteriors" keeps its statistics per most probable (domain, regime), or has the beliefs as features;
without, it has no context (LinUCB: the classifier's output and the raw telemetry). Constants are arrays, one per run.
"""

from __future__ import annotations

import numpy as np

from tests.bench.hllm.routing.worlds import ARMS, BACKEND_OF, MISS, VALUE

CELLS = 18


class Agent:
    """A baseline of R runs: subclasses give `index`, (R, 6), of which the largest is taken."""

    def __init__(self, seeds, per_seed, seed, beliefs=None):
        self.runs = len(seeds) * per_seed
        self.of = np.repeat(np.arange(len(seeds)), per_seed)
        self.row = np.arange(self.runs)
        self.rng = np.random.default_rng([seed, 11])
        self.beliefs = beliefs
        self.cells = 1 if beliefs is None else CELLS

    def cell(self, t):
        if self.beliefs is None:
            return np.zeros(self.runs, dtype=int)
        c = self.beliefs.domain[t].argmax(1) * 3 + self.beliefs.regime[t].argmax(1)
        return c[self.of]

    def choose(self, t, price, load):
        x = self.index(t, price, load)
        return (x + 1e-9 * self.rng.random(x.shape)).argmax(1)

    def learn(self, t, arm, ok, met, load):
        pass


class LeastLoaded(Agent):
    """The arm whose backend has the least load, ties in turn."""

    def index(self, t, price, load):
        return -load[:, BACKEND_OF] - 1e-6 * ((np.arange(ARMS) - t) % ARMS)


class Cheapest(Agent):
    def index(self, t, price, load):
        return -price


class Counting(Agent):
    """Mean of value·ok - miss·missed per (cell, arm), with the counts of both outcomes."""

    keep = 1.0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.n = np.zeros((self.runs, self.cells, ARMS))
        self.total = np.zeros_like(self.n)

    def mean(self, c):
        n = self.n[self.row, c]
        return n, self.total[self.row, c] / np.maximum(n, 1e-9)

    def learn(self, t, arm, ok, met, load):
        c = self.cell(t)
        if np.ndim(self.keep) or self.keep < 1:
            self.n[self.row, c] *= self.keep
            self.total[self.row, c] *= self.keep
        self.n[self.row, c, arm] += 1
        self.total[self.row, c, arm] += VALUE * ok - MISS * ~met


class UCB1(Counting):
    """Auer et al. 2002, on a range of value + miss, width c."""

    def __init__(self, *args, c, **kwargs):
        super().__init__(*args, **kwargs)
        self.c = c[:, None]

    def index(self, t, price, load):
        n, mean = self.mean(self.cell(t))
        wide = self.c * np.sqrt(2 * np.log(np.maximum(n.sum(1, keepdims=True), 1)) / np.maximum(n, 1e-9))
        return np.where(n < 1e-6, 1e6, mean + (VALUE + MISS) * wide) - price


class DUCB(UCB1):
    """Garivier and Moulines 2011: UCB with counts discounted by `keep` per step of their cell."""

    def __init__(self, *args, keep, **kwargs):
        super().__init__(*args, **kwargs)
        self.keep = keep[:, None]


class EpsilonGreedy(Counting):
    """Explores with probability min(1, scale / steps of the cell)."""

    def __init__(self, *args, scale, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def index(self, t, price, load):
        n, mean = self.mean(self.cell(t))
        explore = self.rng.random(self.runs) < self.scale / np.maximum(n.sum(1), 1)
        greedy = np.where(n < 1e-6, 1e6, mean) - price
        return np.where(explore[:, None], self.rng.random((self.runs, ARMS)), greedy)


class NearBest(Counting):
    """With posteriors: of the arms within `slack` of the cell's best estimate, the least loaded or the cheapest."""

    def __init__(self, *args, slack, by, **kwargs):
        super().__init__(*args, **kwargs)
        self.slack, self.by = slack[:, None], by

    def index(self, t, price, load):
        n, mean = self.mean(self.cell(t))
        if self.by == "price":  # by price already: near in quality and service alone
            near = np.where(n < 3, 1e6, mean)
            wish = -price
        else:
            near = np.where(n < 3, 1e6, mean - price)
            wish = -load[:, BACKEND_OF] + 1e-3 * (mean - price)
        return np.where(near >= near.max(1, keepdims=True) - self.slack, wish, -1e9)


class Thompson(Agent):
    """Beta-Bernoulli Thompson sampling of both outcomes per (cell, arm), prior counts `prior` each, samples' spread
    scaled by 1 / sqrt(`sharp`)."""

    def __init__(self, *args, prior, sharp, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = np.ones((self.runs, self.cells, ARMS, 2, 2)) * prior[:, None, None, None, None]
        self.sharp = sharp[:, None, None, None]

    def index(self, t, price, load):
        a = self.counts[self.row, self.cell(t)] * self.sharp
        g = self.rng.standard_gamma(np.maximum(a, 0.05))
        p = g[..., 0] / g.sum(-1)
        return VALUE * p[..., 0] - MISS * (1 - p[..., 1]) - price

    def learn(self, t, arm, ok, met, load):
        c = self.cell(t)
        self.counts[self.row, c, arm, 0, 1 - ok.astype(int)] += 1
        self.counts[self.row, c, arm, 1, 1 - met.astype(int)] += 1


class LinUCB(Agent):
    """Li et al. 2010, disjoint, ridge 1. Features: beliefs ("both" side by side, "crossed" their outer product), or
    without posteriors 1, the classifier's output and the telemetry; the arm's load where load feeds back."""

    def __init__(self, *args, alpha, crossed, world, **kwargs):
        super().__init__(*args, **kwargs)
        self.alpha, self.crossed, self.world = alpha[:, None], crossed, world
        size = self.features(0, np.zeros((self.runs, 3))).shape[-1]
        self.inverse = np.broadcast_to(np.eye(size), (self.runs, ARMS, size, size)).copy()
        self.b = np.zeros((self.runs, ARMS, size))

    def features(self, t, load):
        w = self.world
        if self.beliefs is None:
            e = np.exp(w.evidence[t])
            x = np.concatenate([np.ones((len(e), 1)), e, w.telemetry[t]], 1)
        else:
            d, z = self.beliefs.domain[t], self.beliefs.regime[t]
            both = np.concatenate([d, z], 1)
            x = (d[:, :, None] * z[:, None, :]).reshape(len(d), -1) if self.crossed else both
        x = np.broadcast_to(x[self.of][:, None], (self.runs, ARMS, x.shape[1]))
        if w.feedback:
            x = np.concatenate([x, 0.2 * load[:, BACKEND_OF, None]], -1)
        return x

    def index(self, t, price, load):
        x = self.features(t, load)
        ax = np.matmul(self.inverse, x[..., None])[..., 0]
        mean = (self.b * ax).sum(-1)
        return mean + self.alpha * np.sqrt((x * ax).sum(-1)) - price

    def learn(self, t, arm, ok, met, load):
        x = self.features(t, load)[self.row, arm]
        inv = self.inverse[self.row, arm]
        ax = np.matmul(inv, x[:, :, None])[:, :, 0]
        scale = 1 + (x * ax).sum(1)
        self.inverse[self.row, arm] = inv - ax[:, :, None] * ax[:, None, :] / scale[:, None, None]
        self.b[self.row, arm] += x * (VALUE * ok - MISS * ~met)[:, None]
