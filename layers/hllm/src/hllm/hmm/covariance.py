"""Covariances of the four kinds: spherical (K,), diag (K, D), full (K, D, D), tied (D, D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import InvalidInput
from hllm.hmm.validation import LARGEST, Floats

KINDS = ("spherical", "diag", "full", "tied")
SINGULAR = 1e-13
"""The smallest eigenvalue of a correlation matrix that is not that of a plane."""
LOG_2PI = float(np.log(2 * np.pi))


def check_kind(kind: Any) -> None:
    """Raises InvalidInput for a covariance_type that is none."""
    if kind not in KINDS:
        raise InvalidInput(f"covariance_type must be one of {KINDS}, got {kind!r}")


def checked(value: ArrayLike, kind: str, states: int, features: int | None = None) -> Floats:
    """The covariances as float64 of their kind's shape. Raises InvalidInput unless they are positive definite."""
    check_kind(kind)
    array = np.array(value, dtype=np.float64)
    if kind == "spherical" and array.ndim == 2 and (array == array[:, :1]).all():
        array = array[:, 0]  # hmmlearn keeps these as (K, D) after a fit
    given = array.shape
    wide = features if features is not None else (given[-1] if given else 0)
    wanted = {"spherical": (states,), "diag": (states, wide), "full": (states, wide, wide), "tied": (wide, wide)}[kind]
    if given != wanted:
        names = {"spherical": "(K,)", "diag": "(K, D)", "full": "(K, D, D)", "tied": "(D, D)"}[kind]
        raise InvalidInput(f"{kind} covars_ must have shape {names} = {wanted}, got {given}")
    if not np.isfinite(array).all():
        raise InvalidInput("covars_ must be finite")
    if kind in ("spherical", "diag"):
        if (array <= 0).any():
            raise InvalidInput(f"{kind} covars_ are variances: they must be positive")
        return array
    if not np.allclose(array, np.swapaxes(array, -1, -2)):
        raise InvalidInput(f"{kind} covars_ must be symmetric")
    try:
        np.linalg.cholesky(array)
    except np.linalg.LinAlgError as error:
        raise InvalidInput(f"{kind} covars_ must be positive definite") from error
    return array


def full(value: Floats, kind: str, states: int, features: int) -> Floats:
    """As matrices, (K, D, D)."""
    if kind == "full":
        return value
    if kind == "tied":
        return np.broadcast_to(value, (states, features, features)).copy()
    out = np.zeros((states, features, features))
    at = np.arange(features)
    out[:, at, at] = value[:, None] if kind == "spherical" else value
    return out


def spread(total: Floats, kind: str, states: int) -> Floats:
    """The covariance of all data (D, D) as the first of every state. Spherical takes the mean variance."""
    if kind == "tied":
        return total
    if kind == "full":
        return np.tile(total, (states, 1, 1))
    variances = np.diag(total)
    return np.full(states, variances.mean()) if kind == "spherical" else np.tile(variances, (states, 1))


def estimate(
    kind: str, scatter: Floats, counts: Floats, mean_term: Floats, prior: Floats, weight: float
) -> Floats:  # the names are those of the formula
    """MAP covariances from Σw(x-μ)(x-μ)ᵀ; only its diagonal (K, D) for spherical and diag.

    Huang, Acero, Hon, "Spoken Language Processing", 2001, pp. 443-445, with hmmlearn's conventions for the priors.
    """
    total = mean_term + scatter
    if kind in ("spherical", "diag"):
        variances: Floats = (prior + total) / np.maximum(max(weight - 1, 0.0) + counts[:, None], 1e-5)
        return variances.mean(axis=1) if kind == "spherical" else variances
    extra = max(weight - total.shape[-1], 0.0)
    if kind == "tied":
        tied: Floats = (prior + total.sum(axis=0)) / (extra + counts.sum())
        return tied
    matrices: Floats = (prior + total) / np.maximum(extra + counts, 1e-5)[:, None, None]
    return matrices


def singular(value: Floats, kind: str, finest: Floats) -> bool:
    """Whether a state fits a point, or a plane. ``finest``: the least deviations that the data can show, (D,)."""
    if kind in ("spherical", "diag"):
        variances = value[:, None] if kind == "spherical" else value
        return bool((variances <= finest**2).any())
    variances = np.diagonal(value, axis1=-2, axis2=-1)
    if (variances <= finest**2).any():
        return True
    deviations = np.sqrt(variances)
    return bool((np.linalg.eigvalsh(value / deviations[..., :, None] / deviations[..., None, :]) < SINGULAR).any())


def point_density(means: Floats, covars: Floats) -> Callable[[Any], Floats]:
    """ln N(x; μ_k, Σ_k) for one x at a time, by whitening with the inverse Cholesky factors."""
    states, features = means.shape
    roots = np.linalg.cholesky(covars)
    whiten = np.linalg.inv(roots)
    centres = np.einsum("kij,kj->ki", whiten, means)
    stacked = np.ascontiguousarray(whiten.reshape(states * features, features))
    shift = centres.ravel()
    halves = np.kron(np.eye(states), np.full(features, -0.5))
    constant = -0.5 * features * LOG_2PI - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)

    def density(x: Any) -> Floats:
        point = np.asarray(x, dtype=np.float64)
        if point.shape != (features,):
            raise InvalidInput(f"an observation must have shape ({features},), got {point.shape}")
        if not point.dot(point) < LARGEST**2:  # NaN, too
            if np.isnan(point).all():
                return np.zeros(states)
            raise InvalidInput(f"an observation must be finite, or NaN throughout when it is missing; got {point}")
        # A filter's step is a handful of numpy calls: each counts.
        away = stacked.dot(point)
        away -= shift
        away *= away
        out: Floats = halves.dot(away)
        out += constant
        return out

    return density
