"""What every agent with posteriors is given: beliefs filtered with what was learnt from the same 3,000 warm-up steps.

Unlabelled: the transition of the domains by Baum-Welch on the classifier's evidence, the regimes by GaussianHMM on the
telemetry (three of them, whatever the truth). Fits are kept under .cache, for they take seconds each.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from hllm.hmm import GaussianHMM
from hllm.router import Router, RouterState
from hllm.router_fit import fit_transition
from tests.bench.hllm.peers import ROOT
from tests.bench.hllm.routing.worlds import DOMAINS

REGIMES = 3


@dataclass(frozen=True)
class Beliefs:
    """Filtered beliefs, (T, R, 6) and (T, R, 3), and the state of the router that each seed starts with."""

    domain: np.ndarray
    regime: np.ndarray
    states: list


def _fit(evidence, telemetry):
    key = hashlib.sha256(evidence.tobytes() + telemetry.tobytes()).hexdigest()[:24]
    path = ROOT / ".cache" / "routing" / f"{key}.npz"
    if not path.exists():
        hmm = GaussianHMM(REGIMES, "full", n_iter=60, tol=0.1, n_restarts=8, random_state=0).fit(telemetry)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path, domain=fit_transition(evidence, n_iter=8), regime=hmm.transmat_, mean=hmm.means_, cov=hmm.covars_
        )
    return dict(np.load(path))


def start(evidence, telemetry, settings=None):
    """The router's state after warm-up, beliefs at its end."""
    fit = _fit(evidence, telemetry)
    state = RouterState.new(settings, domains=DOMAINS, regimes=[f"z{i}" for i in range(REGIMES)])
    state = state.with_domains(fit["domain"]).with_regimes(fit["regime"], fit["mean"], fit["cov"])
    for t in range(-50, 0):
        state = Router().advance(state, telemetry=telemetry[t], domain_evidence=evidence[t])
    return state


def beliefs(world):
    """The beliefs of all seeds of a world: the filter of hllm.router, vectorised over seeds."""
    seeds = world.domain.shape[1]
    states = [start(world.warm_evidence[:, r], world.warm_telemetry[:, r]) for r in range(seeds)]
    a = np.stack([s.domain_transition for s in states])
    b = np.stack([s.regime_transition for s in states])
    qd, qz = np.stack([s.domain_belief for s in states]), np.stack([s.regime_belief for s in states])
    like = np.stack([_densities(s.emission, world.telemetry[:, r]) for r, s in enumerate(states)], axis=1)
    domain, regime = np.empty(world.evidence.shape), np.empty(like.shape)
    for t in range(len(domain)):
        qd = _step(qd, a, world.evidence[t])
        qz = _step(qz, b, like[t])
        domain[t], regime[t] = qd, qz
    return Beliefs(domain, regime, states)


def regimes(world, states):
    """The filtered beliefs about the regimes in the warm-up, (W, R, 3), beginning undecided."""
    b = np.stack([s.regime_transition for s in states])
    like = np.stack([_densities(s.emission, world.warm_telemetry[:, r]) for r, s in enumerate(states)], axis=1)
    q, out = np.full(like.shape[1:], 1 / REGIMES), np.empty(like.shape)
    for t in range(len(out)):
        out[t] = q = _step(q, b, like[t])
    return out


def _densities(emission, x):
    """(T, K) log densities of (T, m) observations."""
    y = np.einsum("kij,tkj->tki", emission.whiten, x[:, None] - emission.mean)
    return emission.log_norm - 0.5 * (y * y).sum(-1)


def _step(q, transition, log_likelihood):
    q = np.maximum(np.einsum("ri,rij->rj", q, transition), 1e-12)
    q = np.maximum(q * np.exp(log_likelihood - log_likelihood.max(1, keepdims=True)), 1e-12)
    return q / q.sum(1, keepdims=True)
