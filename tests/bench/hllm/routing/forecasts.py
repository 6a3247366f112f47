"""What a job will pay when it begins, told from what a caller of the router sees: posted prices, beliefs about the
regime, excess demand. The market's parameters are moment estimates from the warm-up, per seed and backend:

- reference and centres: least squares of log prices on the beliefs and the excess demand, whose coefficient times the
  stiffness is the sensitivity;
- stiffness and friction: of a grid, those whose autocorrelation is nearest to that of the residuals at lags 1 to 40,
  times a share of signal (the rest of the variance is noise of single prices); temperature = stiffness · variance;
- price and momentum now: the best linear estimate from the last six prices under these moments.

The peer is a linear regression of the settled price on the same, fitted to the same warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hllm.market import Forecast, MarketParameters, MarketState, forecast

LAGS, PAST = 40, 6


@dataclass(frozen=True)
class Fit:
    """A backend's market, and how its state is told from the last prices."""

    reference: float
    parameters: MarketParameters
    slope: float  # of the log price's level in the excess demand
    noise: float  # variance of single log prices
    price: np.ndarray  # (PAST,) weights of the last prices, newest first
    momentum: np.ndarray  # (PAST,)


def correlation(stiffness, friction, lag):
    """(rho, its derivative) of a damped oscillator in heat, at ``lag`` >= 0; arguments broadcast."""
    half = friction / 2
    root = np.sqrt(np.asarray(half * half - stiffness, dtype=complex))
    root = np.where(np.abs(root) < 1e-6, 1e-6, root)
    grow, turn = np.cosh(root * lag), np.sinh(root * lag) / root
    decay = np.exp(-half * lag)
    return (decay * (grow + half * turn)).real, (-decay * stiffness * turn).real


def fit(prices, beliefs, excess):
    """The moment estimates from posted prices (T,), beliefs (T, K) and excess demand (T,)."""
    y = np.log(prices)
    mean = y.mean()
    x = np.column_stack([beliefs, excess])
    # One pseudo-observation at the mean for each column: a regime that was never seen has no centre of its own.
    found = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (y - mean))
    rest = y - mean - x @ found
    variance = float(rest @ rest) / len(rest)
    lag = np.arange(1, LAGS + 1)
    seen = np.array([float(rest[h:] @ rest[:-h]) for h in lag]) / len(rest) / variance
    share = min(max(float(3 * seen[0] - 3 * seen[1] + seen[2]), 0.05), 1.0)
    friction, frequency = np.meshgrid(np.geomspace(0.02, 4, 40), np.geomspace(0.02, 1, 40), indexing="ij")
    curves, _ = correlation((frequency**2)[..., None], friction[..., None], lag)
    best = ((share * curves - seen) ** 2 / lag).sum(-1).argmin()
    stiffness, eta = float(frequency.flat[best] ** 2), float(friction.flat[best])
    signal = variance * share
    parameters = MarketParameters(
        stiffness=(stiffness,) * beliefs.shape[1],
        centre=tuple(found[:-1]),
        quartic=(0.0,) * beliefs.shape[1],
        friction=eta,
        temperature=stiffness * signal,
        sensitivity=stiffness * found[-1],
    )
    at = np.arange(PAST)
    rho, change = correlation(stiffness, eta, at)
    cov = signal * rho[np.abs(at[:, None] - at)] + max(variance - signal, 1e-6 * variance) * np.eye(PAST)
    return Fit(
        float(np.exp(mean)),
        parameters,
        float(found[-1]),
        variance - signal,
        np.linalg.solve(cov, signal * rho),
        np.linalg.solve(cov, signal * change),
    )


def market(found, prices, beliefs, excess, wait):
    """The forecast, ``wait`` steps ahead, from each step of a path: the steps are the pools of one call.

    ``prices`` begins PAST - 1 steps before ``beliefs`` (T, K) and ``excess`` (T,).
    """
    steps = len(beliefs)
    q = np.log(prices / found.reference)
    past = np.stack([q[PAST - 1 - j : PAST - 1 - j + steps] for j in range(PAST)], axis=1)
    level = beliefs @ np.array(found.parameters.centre) + found.slope * excess
    apart = past - level[:, None]
    one = np.ones(steps)
    names = tuple(map(str, range(steps)))
    state = MarketState(
        names, found.reference * one, one, level + apart @ found.price, apart @ found.momentum
    )  # fmt: skip
    ahead = forecast(state, found.parameters, wait, regimes=beliefs, demand=excess)
    return Forecast(names, state.reference, ahead.log_mean, ahead.log_variance + found.noise)


def regression(prices, beliefs, excess, wait):
    """Coefficients of the settled price on 1, the last two prices, the beliefs but one, and the excess demand."""
    x = design(prices, beliefs[1:], excess[1:])[:-wait]
    y = prices[1 + wait :]
    return np.linalg.solve(x.T @ x + 1e-9 * len(x) * np.eye(x.shape[1]), x.T @ y)


def design(prices, beliefs, excess):
    """(T, 3 + K) features; ``prices`` begins one step before the others."""
    return np.column_stack([np.ones(len(beliefs)), prices[1:], prices[:-1], beliefs[:, 1:], excess])


def views(price, excess, warm_beliefs, beliefs, waits):
    """What is told of the settled prices of (warm + T + tail, R, 3) posted ones, each (T, R, 3): E[P] by ``forecast``
    and by ``regression``; and ``exceeds``, P(P > cap) by the market, where the cap is 1.25 times the warm-up's mean,
    with those caps (R, 3)."""
    warm, steps = len(warm_beliefs), len(beliefs)
    shape = (steps, *price.shape[1:])
    out = {k: np.empty(shape) for k in ("forecast", "regression", "exceeds")}
    caps = 1.25 * price[:warm].mean(0)
    now = slice(warm, warm + steps)
    for r in range(shape[1]):
        for b, wait in enumerate(waits):
            p, e, seen = price[:, r, b], excess[:, r, b], warm_beliefs[:, r]
            ahead = market(
                fit(p[:warm], seen, e[:warm]), p[warm - PAST + 1 : warm + steps], beliefs[:, r], e[now], wait
            )
            out["forecast"][:, r, b] = ahead.mean
            out["exceeds"][:, r, b] = ahead.exceeds(caps[r, b])
            weights = regression(p[:warm], seen, e[:warm], wait)
            out["regression"][:, r, b] = design(p[warm - 1 : warm + steps], beliefs[:, r], e[now]) @ weights
    return out, caps
