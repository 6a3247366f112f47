"""Choice among models: information criteria, and the likelihood of what was held out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hllm.errors import FitFailed, InvalidInput
from hllm.hmm.base import BaseHMM, Lengths
from hllm.hmm.validation import observations, sequence_lengths

CRITERIA = ("bic", "aic", "held_out")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model that was tried. ``value``: lower is better; infinite where the fit failed, and ``trouble`` says why."""

    model: BaseHMM
    value: float
    trouble: str = ""


def held_out(model: BaseHMM, X: ArrayLike, lengths: Lengths = None, *, share: float = 0.25) -> float:
    """ln P(what was held out) per sample, in nats, of a copy of the model that is fitted to the rest.

    Of several sequences the last are held out, about ``share`` of them and at least one. Of one sequence the last rows
    are: ln P(later | earlier) = ln P(all) - ln P(earlier), so that what came before tells the state.
    Raises InvalidInput, FitFailed.
    """
    if not 0 < share < 1:
        raise InvalidInput(f"share must lie between 0 and 1, got {share}")
    rows = observations(X)
    sizes = sequence_lengths(lengths, len(rows))
    trial = copy.copy(model)
    if len(sizes) > 1:
        kept = min(max(round(len(sizes) * (1 - share)), 1), len(sizes) - 1)
        cut = int(sizes[:kept].sum())
        trial.fit(rows[:cut], sizes[:kept])
        return trial.score(rows[cut:], sizes[kept:]) / (len(rows) - cut)
    cut = round(len(rows) * (1 - share))
    if not 0 < cut < len(rows):
        raise InvalidInput(f"{len(rows)} rows are too few to hold out {share:g} of them")
    trial.fit(rows[:cut])
    return (trial.score(rows) - trial.score(rows[:cut])) / (len(rows) - cut)


def select(
    models: Iterable[BaseHMM],
    X: ArrayLike,
    lengths: Lengths = None,
    *,
    criterion: str = "bic",
    share: float = 0.25,
) -> list[Candidate]:
    """Fits each of the models to X and orders them, the best first. The models that are given are fitted in place.

    ``criterion``: ``bic`` or ``aic`` of the fit to all rows, or ``held_out``, minus ``held_out()`` per sample.
    Raises InvalidInput, and FitFailed if none could be fitted.
    """
    if criterion not in CRITERIA:
        raise InvalidInput(f"criterion must be one of {CRITERIA}, got {criterion!r}")
    found = []
    for model in models:
        try:
            outside = held_out(model, X, lengths, share=share) if criterion == "held_out" else 0.0
            model.fit(X, lengths)
            inside = {"bic": model.bic, "aic": model.aic}.get(criterion)
            found.append(Candidate(model, -outside if inside is None else inside(X, lengths)))
        except FitFailed as error:
            found.append(Candidate(model, np.inf, str(error)))
    if not found:
        raise InvalidInput("no models are given")
    found.sort(key=lambda each: each.value)
    if found[0].trouble:
        raise FitFailed("none of the models could be fitted: " + "; ".join(each.trouble for each in found))
    return found
