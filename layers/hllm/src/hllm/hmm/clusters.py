"""First means of states: k-means++ seeds and Lloyd's iterations."""

from __future__ import annotations

import numpy as np

from hllm.hmm.validation import Floats

ENOUGH = 4096
"""Points that first means are made from, at most: EM sees all of them afterwards."""


def seeds(points: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Spread points of the data, (count, features). Arthur and Vassilvitskii, "k-means++", SODA 2007."""
    chosen = [points[rng.integers(len(points))]]
    distance = ((points - chosen[0]) ** 2).sum(axis=1)
    while len(chosen) < count:
        total = distance.sum()
        at = rng.choice(len(points), p=distance / total) if total > 0 else rng.integers(len(points))
        chosen.append(points[at])
        distance = np.minimum(distance, ((points - chosen[-1]) ** 2).sum(axis=1))
    return np.array(chosen)


def nearest(points: Floats, centres: Floats) -> tuple[np.ndarray, Floats]:
    """Which centre each point is nearest to, and the squared distance."""
    distances = ((centres**2).sum(axis=1) - 2 * points @ centres.T) + (points**2).sum(axis=1)[:, None]
    labels = distances.argmin(axis=1)
    return labels, distances[np.arange(len(points)), labels]


def kmeans(points: Floats, count: int, rng: np.random.Generator, tries: int = 4, steps: int = 50) -> Floats:
    """Centres (count, features) of the best of several runs; an empty cluster takes the farthest."""
    if len(points) > ENOUGH:
        points = points[rng.choice(len(points), ENOUGH, replace=False)]
    best, least = points[:count], np.inf
    for _ in range(tries):
        centres = seeds(points, count, rng)
        labels, distance = nearest(points, centres)
        for _ in range(steps):
            sums = np.zeros_like(centres)
            np.add.at(sums, labels, points)
            sizes = np.bincount(labels, minlength=count)
            centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], points[distance.argmax()])
            before, (labels, distance) = labels, nearest(points, centres)
            if (labels == before).all():
                break
        if distance.sum() < least:
            best, least = centres, distance.sum()
    return best
