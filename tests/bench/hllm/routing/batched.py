"""The router of hllm, vectorised over runs, for the experiment only: the same formulas, arrays with a leading axis.

`tests/unit/hllm/test_routing_bench.py` holds it to hllm.router: in the mode `expected` the same choices and counts;
`python -m tests.bench.hllm.routing check` plays the shipped router itself.
"""

from __future__ import annotations

import numpy as np

from hllm.free_energy.dirichlet import parameter_gain
from tests.bench.hllm.routing.worlds import ARMS, BACKEND_OF, MISS, MODEL_OF, VALUE


def entropy(p):
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -p * np.log(p) - (1 - p) * np.log1p(-p)


class Hllm:
    """R runs of the router; `settings` has one RouterSettings per run of a seed."""

    def __init__(self, seeds, settings, seed, beliefs, *, information=True):
        per_seed = len(settings)
        self.runs = n = len(seeds) * per_seed
        self.of = np.repeat(np.arange(len(seeds)), per_seed)
        self.row, self.beliefs = np.arange(n), beliefs
        self.rng = np.random.default_rng([seed, 13])

        def per_run(name):
            return np.tile(np.array([getattr(s, name) for s in settings]), len(seeds))

        self.mode = settings[0].mode
        assert all(s.mode == self.mode for s in settings)
        self.gamma, self.curiosity, self.credible = per_run("gamma"), per_run("curiosity"), per_run("credible")
        if not information:
            self.curiosity = self.curiosity * 0
        self.forgetting, self.kept = per_run("forgetting"), per_run("scores_kept")
        self.backoff = per_run("backoff")
        self.fine = self.backoff > 0
        self.strength = np.where(self.fine, self.backoff, 1.0)
        self.prior = settings[0].quality_prior, settings[0].service_prior
        self.quality = np.zeros((n, 2, 6, 2)) + self.prior[0]
        self.pairs = np.zeros((n, ARMS, 6, 2))
        self.service = np.zeros((n, 3, 3, 2)) + self.prior[1]
        self.by_domain = np.zeros((n, 3, 3, 6, 2))
        self.by_load = np.zeros((n, 3, 3, 4, 2))
        self.scores = np.zeros((n, 2)), np.zeros((n, 3))
        self.anything = False

    def cells(self, counts):
        if self.mode == "expected":
            return counts[..., 0] / counts.sum(-1), parameter_gain(np.moveaxis(counts, -1, 0))
        g = self.rng.standard_gamma(counts)
        return g[..., 0] / g.sum(-1), None

    def pseudo(self, p, rows):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        k = self.strength[rows].reshape(-1, *[1] * p.ndim)
        return k * np.stack([p, 1 - p], -1)

    def shares(self, score):
        w = np.exp(score - score.max(1, keepdims=True))
        w /= w.sum(1, keepdims=True)
        w = np.where(self.fine[:, None], w, np.eye(w.shape[1])[0])
        if self.mode == "expected":
            return w
        pick = self.rng.random((self.runs, 1))
        first = (pick < w.cumsum(1)).argmax(1)
        return np.eye(w.shape[1])[first]

    def choose(self, t, price, load):
        d, z = self.beliefs.domain[t][self.of], self.beliefs.regime[t][self.of]
        load_arm = load[:, BACKEND_OF]
        if not self.anything:
            return np.lexsort((np.broadcast_to(np.arange(ARMS), price.shape), price, load_arm), axis=1)[:, 0]
        wq, ws = self.shares(self.scores[0]), self.shares(self.scores[1])
        n = self.runs
        ok, ambiguity_q, gain_q = quality = np.zeros((3, n, ARMS))
        met, ambiguity_s, gain_s = service = np.zeros((3, n, ARMS))
        p, g = self.cells(self.quality)
        self.add(quality, wq[:, 0], slice(None), p, g, d, MODEL_OF)
        if len(r := np.flatnonzero(wq[:, 1])):
            q, g2 = self.cells(self.pairs[r] + self.pseudo(p[r][:, MODEL_OF], r))
            self.add(quality, wq[:, 1], r, q, g2, d, np.arange(ARMS))
        p, g = self.cells(self.service)
        self.add(service, ws[:, 0], slice(None), p, g, z, BACKEND_OF)
        if len(r := np.flatnonzero(ws[:, 1])):
            q, g2 = self.cells(self.by_domain[r] + self.pseudo(p[r][..., None], r))
            joint = (z[:, :, None] * d[:, None, :]).reshape(n, 18)
            flat = (len(r), 3, 18)
            g2 = None if g2 is None else g2.reshape(flat)
            self.add(service, ws[:, 1], r, q.reshape(flat), g2, joint, BACKEND_OF)
        if len(r := np.flatnonzero(ws[:, 2])):
            level = np.searchsorted([1, 4, 16], load[r], side="right")
            q, g2 = self.cells(self.by_load[r[:, None], np.arange(3), :, level] + self.pseudo(p[r], r))
            self.add(service, ws[:, 2], r, q, g2, z, BACKEND_OF)
        utility = VALUE * ok - MISS * (1 - met) - price
        information = np.maximum(entropy(ok) + entropy(met) - ambiguity_q - ambiguity_s, 0)
        score = self.gamma[:, None] * utility + self.curiosity[:, None] * (information + gain_q + gain_s)
        best = np.lexsort((np.broadcast_to(np.arange(ARMS), price.shape), load_arm, -score), axis=1)[:, 0]
        if load.any():
            best = self.lighter(best, score, price, load_arm, d, z)
        return best

    def lighter(self, best, score, price, load, d, z):
        def moment(a, q):
            n = a.sum(-1)
            mean = a[..., 0] / n
            return np.einsum("rns,rs->rn", mean, q), np.einsum("rns,rs->rn", mean * (1 - mean) / (n + 1), q * q)

        ok, ok_var = (x[:, MODEL_OF] for x in moment(self.quality, d))
        met, met_var = (x[:, BACKEND_OF] for x in moment(self.service, z))
        utility = VALUE * ok - MISS * (1 - met) - price
        at = self.row, best
        variance = VALUE**2 * (MODEL_OF[best][:, None] != MODEL_OF) * (ok_var + ok_var[at][:, None])
        variance = variance + MISS**2 * (BACKEND_OF[best][:, None] != BACKEND_OF) * (met_var + met_var[at][:, None])
        near = utility[at][:, None] - utility <= self.credible[:, None] * np.sqrt(variance)
        wish = np.where(near, load, np.inf)
        i = np.lexsort((np.broadcast_to(np.arange(ARMS), price.shape), -score, wish), axis=1)[:, 0]
        return np.where(load[self.row, i] < load[at], i, best)

    @staticmethod
    def add(total, weight, rows, p, gain, q, leaf):
        """Adds an expert's P(good), ambiguity and gain to those rows of `total` (3, R, 6)."""
        w, q = weight[rows][:, None], q[rows][:, :, None]
        for i, x in enumerate((p, entropy(p), gain)):
            if x is not None:
                total[i, rows] += w * np.matmul(x, q)[:, leaf, 0]

    def learn(self, t, arm, ok, met, load):
        self.anything = True
        row, b = self.row, BACKEND_OF[arm]
        d, z = self.beliefs.domain[t][self.of], self.beliefs.regime[t][self.of]
        k1 = self.strength[:, None]
        o = 1 - ok.astype(int)
        cell = self.quality[row, MODEL_OF[arm]]
        fine = self.pairs[row, arm]
        mean = cell / cell.sum(-1, keepdims=True)
        mean = mean[row, :, o]
        finer = (fine[row, :, o] + k1 * mean) / (fine.sum(-1) + k1)
        each = np.stack([mean, finer], 1)
        score = self.kept[:, None] * self.scores[0] + np.log(np.einsum("res,rs->re", each, d))
        d = self.posterior(d, each, score)
        l_ = 1 - met.astype(int)
        cell, crossed = self.service[row, b], self.by_domain[row, b]
        level = np.searchsorted([1, 4, 16], load[row, b], side="right")
        loaded = self.by_load[row, b, :, level]
        mean = (cell / cell.sum(-1, keepdims=True))[row, :, l_]
        k2 = k1[:, :, None]
        across = (crossed[row, :, :, l_] + k2 * mean[:, :, None]) / (crossed.sum(-1) + k2)
        across = np.matmul(across, d[:, :, None])[:, :, 0]
        at_load = (loaded[row, :, l_] + k1 * mean) / (loaded.sum(-1) + k1)
        each = np.stack([mean, across, at_load], 1)
        score_s = self.kept[:, None] * self.scores[1] + np.log(np.einsum("res,rs->re", each, z))
        z = self.posterior(z, each, score_s)
        self.scores = score, score_s
        both = z[:, :, None] * d[:, None, :]
        if (self.forgetting < 1).any():
            f = self.forgetting
            kept = (f[:, None] ** d)[:, None, :, None]
            self.quality = self.prior[0] + (self.quality - self.prior[0]) * kept
            self.pairs *= kept
            kept = f[:, None] ** z
            self.service = self.prior[1] + (self.service - self.prior[1]) * kept[:, None, :, None]
            self.by_load *= kept[:, None, :, None, None]
            self.by_domain *= (f[:, None, None] ** both)[:, None, :, :, None]
        self.quality[row, MODEL_OF[arm], :, o] += d
        self.pairs[row, arm, :, o] += d
        self.service[row, b, :, l_] += z
        self.by_domain[row, b, :, :, l_] += both
        self.by_load[row, b, :, level, l_] += z

    def posterior(self, q, each, score):
        w = np.exp(score - score.max(1, keepdims=True))
        w /= w.sum(1, keepdims=True)
        w = np.where(self.fine[:, None], w, np.eye(w.shape[1])[0])
        q = q * np.einsum("re,res->rs", w, each)
        return q / q.sum(1, keepdims=True)


class Unfactored(Hllm):
    """The ablation: the same beliefs and sampling, but counts of both outcomes per (domain, regime, route)."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counts = np.ones((self.runs, ARMS, 18, 2, 2))

    def joint(self, t):
        d, z = self.beliefs.domain[t][self.of], self.beliefs.regime[t][self.of]
        return (d[:, :, None] * z[:, None, :]).reshape(self.runs, 18)

    def choose(self, t, price, load):
        p, _ = self.cells(self.counts)
        mean = np.einsum("racn,rc->ran", p, self.joint(t))
        return (VALUE * mean[..., 0] - MISS * (1 - mean[..., 1]) - price).argmax(1)

    def learn(self, t, arm, ok, met, load):
        q = self.joint(t)
        for i, seen in enumerate((ok, met)):
            o = 1 - seen.astype(int)
            cell = self.counts[self.row, arm, :, i]
            post = q * cell[self.row, :, o] / cell.sum(-1)
            post /= post.sum(1, keepdims=True)
            if (self.forgetting < 1).any():
                kept = (self.forgetting[:, None] ** post)[:, None, :, None]
                self.counts[:, :, :, i] = 1 + (self.counts[:, :, :, i] - 1) * kept
            self.counts[self.row, arm, :, i, o] += post
