"""Gaussian log-densities and moments as one matrix product each, over quadratic features of the data.

ln N(x; μ, Σ) is linear in [1, z, z zᵀ] with z the standardised x, and so are the sums of the M-step. Standardising
keeps the expanded square from cancelling; where states are so narrow that it cancels still, the direct form is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hllm.hmm.covariance import LOG_2PI
from hllm.hmm.layout import Layout
from hllm.hmm.validation import Floats

NARROW = 1e6
"""Largest (precision * squared distance), in standardised units, for which the expanded square keeps 10 digits."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Σw (K,) and Σwx (K, D) in the data's units; ``square`` is Σw z zᵀ: (K, D), or (K, pairs) when crossed."""

    counts: Floats
    sums: Floats
    square: Floats


class Quadratic:
    """Observations prepared for Gaussians: features (steps, 1 + D + squares, blocks), zero where missing."""

    def __init__(self, rows: Floats, layout: Layout, *, crossed: bool) -> None:
        self.layout = layout
        self.crossed = crossed
        self.width = width = rows.shape[1]
        self.upper = np.triu_indices(width)
        squares = len(self.upper[0]) if crossed else width
        self.values = np.empty((layout.steps, 1 + width + squares, layout.blocks))
        there, scaled = self.values[:, 0], self.values[:, 1 : 1 + width]
        layout.spread(rows, scaled)
        there[:] = 1.0
        absent = np.isnan(scaled[:, 0])
        self.holes = bool(absent.any())
        if layout.padding is not None:
            absent |= layout.padding
        gaps = self.holes or layout.padding is not None
        if gaps:
            there[absent] = 0.0
            scaled.transpose(0, 2, 1)[absent] = 0.0
        self.count = layout.samples if not self.holes else int(there.sum())
        self.rows = rows
        self.centre, self.scale = np.zeros(width), np.ones(width)
        if self.count:
            self.centre = scaled.sum(axis=(0, 2)) / self.count
            scaled -= self.centre[:, None]
            if gaps:
                scaled *= there[:, None, :]
            deviation = np.sqrt(np.einsum("ldb,ldb->d", scaled, scaled) / self.count)
            # Of a constant feature only rounding is left.
            self.scale = np.where(deviation > 1e-12 * np.abs(self.centre), deviation, 1.0)
            scaled /= self.scale[:, None]
        self.finest = 16 * np.finfo(np.float64).eps * (np.abs(self.centre) + self.scale)
        self.reach = max(1.0, float(scaled.max()), -float(scaled.min()))
        if crossed:
            for at, (one, other) in enumerate(zip(*self.upper, strict=True)):
                np.multiply(scaled[:, one], scaled[:, other], out=self.values[:, 1 + width + at])
        else:
            np.multiply(scaled, scaled, out=self.values[:, 1 + width :])

    @property
    def present(self) -> Floats:
        """The observations that are not missing, (count, features)."""
        return self.rows[~np.isnan(self.rows[:, 0])] if self.holes else self.rows

    def log_density(self, means: Floats, covars: Floats, kind: str) -> Floats:
        """ln N(x; μ_k, Σ_k), shape (steps, K, blocks)."""
        near = (means - self.centre) / self.scale
        if kind in ("spherical", "diag"):
            variances = np.broadcast_to(covars[:, None], means.shape) if kind == "spherical" else covars
            precision = self.scale**2 / variances
            constant = -0.5 * (self.width * LOG_2PI + np.log(variances).sum(axis=1))
            if precision.max() * max(self.reach, float(np.abs(near).max())) ** 2 > NARROW:
                roots = np.zeros((len(means), self.width, self.width))
                at = np.arange(self.width)
                roots[:, at, at] = np.sqrt(precision)
                return self._direct_density(near, roots, constant)
            weights = [(constant - 0.5 * (precision * near**2).sum(axis=1))[:, None], precision * near]
            return self._expanded([*weights, -0.5 * precision])
        root = np.linalg.cholesky(covars / np.outer(self.scale, self.scale))
        if kind == "tied":
            root = np.broadcast_to(root, (len(means), self.width, self.width))
        whiten = np.linalg.inv(root)
        matrices = np.swapaxes(whiten, 1, 2) @ whiten
        half = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1) + np.log(self.scale).sum()
        constant = -0.5 * self.width * LOG_2PI - half
        largest = float(np.diagonal(matrices, axis1=1, axis2=2).max())
        if largest * max(self.reach, float(np.abs(near).max())) ** 2 > NARROW:
            return self._direct_density(near, whiten, constant)
        linear = np.einsum("kij,kj->ki", matrices, near)
        offset = constant - 0.5 * (linear * near).sum(axis=1)
        twice = np.where(self.upper[0] == self.upper[1], -0.5, -1.0)
        squares = matrices[:, self.upper[0], self.upper[1]] * twice
        return self._expanded([offset[:, None], linear, squares])

    def _expanded(self, weights: list[Floats]) -> Floats:
        out: Floats = np.matmul(np.concatenate(weights, axis=1), self.values)
        return out

    def _direct_density(self, near: Floats, whiten: Floats, constant: Floats) -> Floats:
        scaled = self.values[:, 1 : 1 + self.width]
        out = np.empty((self.layout.steps, len(near), self.layout.blocks))
        for state, centre in enumerate(near):
            away = np.matmul(whiten[state], scaled - centre[:, None])
            out[:, state] = constant[state] - 0.5 * np.einsum("ldb,ldb->lb", away, away)
        out *= self.values[:, :1]
        return out

    def moments(self, posteriors: Floats) -> Moments:
        """The sums of the M-step."""
        sums = np.matmul(posteriors, self.values.transpose(0, 2, 1)).sum(axis=0)
        counts, first = sums[:, 0], sums[:, 1 : 1 + self.width]
        return Moments(counts, first * self.scale + counts[:, None] * self.centre, sums[:, 1 + self.width :])

    def scatter(self, posteriors: Floats, moments: Moments, means: Floats) -> Floats:
        """Σw(x-μ)(x-μ)ᵀ, shape (K, D, D), or its diagonal (K, D) unless crossed."""
        near = (means - self.centre) / self.scale
        counts = moments.counts[:, None]
        first = (moments.sums - counts * self.centre) / self.scale
        if not self.crossed:
            spread = moments.square - 2 * near * first + near**2 * counts
            if (spread < 1e-5 * moments.square).any():
                spread = np.diagonal(self._direct_scatter(posteriors, near), axis1=1, axis2=2)
            return spread * self.scale**2
        square = np.empty((len(near), self.width, self.width))
        square[:, self.upper[0], self.upper[1]] = moments.square
        square[:, self.upper[1], self.upper[0]] = moments.square
        cross = np.einsum("ki,kj->kij", first, near)
        spread = square - cross - np.swapaxes(cross, 1, 2) + counts[:, :, None] * np.einsum("ki,kj->kij", near, near)
        diagonal = np.diagonal(spread, axis1=1, axis2=2)
        if (diagonal < 1e-5 * np.diagonal(square, axis1=1, axis2=2)).any():
            spread = self._direct_scatter(posteriors, near)
        return spread * np.outer(self.scale, self.scale)

    def _direct_scatter(self, posteriors: Floats, near: Floats) -> Floats:
        scaled, there = self.values[:, 1 : 1 + self.width], self.values[:, 0]
        out = np.empty((len(near), self.width, self.width))
        for state, centre in enumerate(near):
            away = scaled - centre[:, None]
            weighted = away * (posteriors[:, state] * there)[:, None, :]
            out[state] = np.matmul(weighted, away.transpose(0, 2, 1)).sum(axis=0)
        return out
