"""The router of hllm, vectorised over runs, for the experiment only: the same formulas, arrays with a leading axis.

`tests/unit/hllm/test_routing_bench.py` holds it to hllm.router: in the mode `expected` the same choices and counts;
`python -m tests.bench.hllm.routing check` plays the shipped router itself.
"""

from __future__ import annotations

import numpy as np
from hllm.free_energy.dirichlet import parameter_gain
from hllm.router import RouterSettings

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
        self.strength = np.maximum(self.backoff, 1e-6)
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

    def pseudo(self, p):
        p = np.clip(p, 1e-6, 1 - 1e-6)
        k = self.strength.reshape(-1, *[1] * p.ndim)
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
        p, g = self.cells(self.quality)
        quality = [self.mix(p, g, d, MODEL_OF)]
        if self.fine.any():
            q, g2 = self.cells(self.pairs + self.pseudo(p[:, MODEL_OF]))
            quality.append(self.mix(q, g2, d, np.arange(ARMS)))
        p, g = self.cells(self.service)
        service = [self.mix(p, g, z, BACKEND_OF)]
        if self.fine.any():
            q, g2 = self.cells(self.by_domain + self.pseudo(p[..., None]))
            joint = (z[:, :, None] * d[:, None, :]).reshape(self.runs, 18)
            flat = (self.runs, 3, 18)
            service.append(self.mix(q.reshape(flat), None if g2 is None else g2.reshape(flat), joint, BACKEND_OF))
            level = np.searchsorted([1, 4, 16], load, side="right")
            at = self.by_load[self.row[:, None], np.arange(3), :, level]
            q, g2 = self.cells(at + self.pseudo(p))
            service.append(self.mix(q, g2, z, BACKEND_OF))
        ok, ambiguity_q, gain_q = self.blend(quality, wq)
        met, ambiguity_s, gain_s = self.blend(service, ws)
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
        variance = VALUE**2 * (MODEL_OF != MODEL_OF[best][:, None]) * (ok_var + ok_var[at][:, None])
        variance = variance + MISS**2 * (BACKEND_OF != BACKEND_OF[best][:, None]) * (met_var + met_var[at][:, None])
        near = utility[at][:, None] - utility <= self.credible[:, None] * np.sqrt(variance)
        wish = np.where(near, load, np.inf)
        i = np.lexsort((np.broadcast_to(np.arange(ARMS), price.shape), -score, wish), axis=1)[:, 0]
        return np.where(load[self.row, i] < load[at], i, best)

    @staticmethod
    def mix(p, gain, q, leaf):
        q = q[:, :, None]
        parts = [np.matmul(x, q)[:, leaf, 0] for x in (p, entropy(p))]
        return (*parts, 0.0 if gain is None else np.matmul(gain, q)[:, leaf, 0])

    @staticmethod
    def blend(outcomes, weights):
        return [sum(w[:, None] * o[i] for w, o in zip(weights.T, outcomes, strict=False)) for i in range(3)]

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


def defaults(**changes):
    return RouterSettings(**changes)
