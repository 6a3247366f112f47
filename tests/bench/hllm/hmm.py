"""``python -m tests.bench.hllm.hmm``: hidden Markov models beside hmmlearn 0.3, one process, one BLAS thread.

Times are CPU time, the best of several interleaved runs; ratios are theirs over ours, so more than 1 is a win.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import hmmlearn.hmm  # noqa: E402
import numpy as np  # noqa: E402

from hllm.hmm import AutoregressiveHMM, FixedLagSmoother, GaussianHMM, accelerator  # noqa: E402

ITERATIONS = 10


@dataclass(frozen=True, slots=True)
class Case:
    """T samples, K states, D features, a covariance type."""

    samples: int
    states: int
    features: int
    kind: str

    def __str__(self) -> str:
        return f"1e{round(np.log10(self.samples))}, {self.states}, {self.features} {self.kind}"


CASES = (
    Case(1_000, 3, 2, "diag"),
    Case(1_000, 4, 4, "full"),
    Case(10_000, 3, 1, "diag"),
    Case(10_000, 4, 4, "full"),
    Case(100_000, 3, 2, "diag"),
    Case(100_000, 4, 4, "full"),
    Case(100_000, 8, 8, "full"),
)


def best_of(rounds: int, runs: Sequence[Callable[[], Any]]) -> list[float]:
    """CPU milliseconds of each, the best of interleaved rounds."""
    least = [float("inf")] * len(runs)
    for _ in range(rounds):
        for at, run in enumerate(runs):
            begun = time.process_time()
            run()
            least[at] = min(least[at], 1e3 * (time.process_time() - begun))
    return least


def series(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Observations of a chain that stays 20 samples, and the means."""
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(case.states, case.features))
    path = np.repeat(rng.integers(0, case.states, -(-case.samples // 20)), 20)[: case.samples]
    return means[path] + rng.normal(size=(case.samples, case.features)), means


def model(cls: Any, case: Case, means: np.ndarray, **settings: Any) -> Any:
    """A model of either library with the same start."""
    made = cls(case.states, case.kind, init_params="", n_iter=ITERATIONS, tol=-np.inf, **settings)
    made.startprob_ = np.full(case.states, 1 / case.states)
    made.transmat_ = np.full((case.states, case.states), 0.1 / case.states) + 0.9 * np.eye(case.states)
    made.means_ = means + 0.1
    shape = {"diag": np.ones_like(means), "full": np.tile(np.eye(case.features), (case.states, 1, 1))}
    made.covars_ = shape[case.kind]
    return made


def compare(case: Case, rounds: int) -> str:
    """A row of the table: ours in milliseconds, and ratios."""
    X, means = series(case)

    def made(cls: Any, **settings: Any) -> Any:
        return model(cls, case, means, **settings)

    theirs, ours = hmmlearn.hmm.GaussianHMM, GaussianHMM
    fit = best_of(
        rounds,
        [
            lambda: made(ours).fit(X),
            lambda: made(theirs).fit(X),
            lambda: made(theirs, implementation="scaling").fit(X),
        ],
    )
    a, b, c = made(ours), made(theirs), made(theirs, implementation="scaling")
    score = best_of(rounds, [lambda: a.score(X), lambda: b.score(X), lambda: c.score(X)])
    decode = best_of(rounds, [lambda: a.decode(X), lambda: b.decode(X)])
    a.fit(X)
    c.fit(X)  # its default adds logarithms of 1e5 and more, and loses the digits that are compared here
    apart = max(np.abs(a.means_ - c.means_).max(), np.abs(a.covars_ - c.covars_).max())
    apart = max(apart, np.abs(a.transmat_ - c.transmat_).max())
    same = "same" if (a.predict(X) == c.predict(X)).all() else "DIFFERENT"
    cells = [
        str(case),
        f"{fit[0] / ITERATIONS:.2f}",
        f"{fit[1] / fit[0]:.1f} / {fit[2] / fit[0]:.1f}",
        f"{score[0]:.2f}",
        f"{score[1] / score[0]:.1f} / {score[2] / score[0]:.1f}",
        f"{decode[0]:.2f}",
        f"{decode[1] / decode[0]:.2f}",
        f"{apart:.0e}",
        same,
    ]
    return "| " + " | ".join(cells) + " |"


def online(rounds: int, steps: int) -> list[str]:
    """Rows of what one observation costs, in microseconds."""
    rows = []
    for states, features in ((2, 2), (4, 4), (8, 8)):
        case = Case(steps, states, features, "diag")
        X, means = series(case)
        bound = model(GaussianHMM, case, means).online()
        logs = np.log(np.random.default_rng(0).random((steps, states)))
        smoother = FixedLagSmoother(model(GaussianHMM, case, means).online(), 10)
        times = best_of(
            rounds,
            [
                lambda bound=bound, X=X: [bound.step(x) for x in X],
                lambda bound=bound, logs=logs: [bound.update(x) for x in logs],
                lambda smoother=smoother, X=X: [smoother.step(x) for x in X],
            ],
        )
        rows.append(f"| {states}, {features} | " + " | ".join(f"{1e3 * each / steps:.1f}" for each in times) + " |")
    return rows


def autoregressive(rounds: int, samples: int) -> str:
    """CPU milliseconds of an iteration of MS-AR(4) with two states (32 states of the recursions)."""
    truth = AutoregressiveHMM(2, 4)
    truth.transmat_, truth.means_ = [[0.75, 0.25], [0.1, 0.9]], [-0.36, 1.16]
    truth.ar_, truth.variances_ = np.tile([0.01, -0.06, -0.25, -0.21], (2, 1)), [0.59, 0.59]
    y = truth.sample(samples, random_state=0)[0]
    fit = lambda: AutoregressiveHMM(2, 4, n_iter=ITERATIONS, tol=-np.inf, allow_collapse=True).fit(y)  # noqa: E731
    return f"| {samples} | {best_of(rounds, [fit])[0] / ITERATIONS:.2f} |"


def main(argv: list[str] | None = None) -> None:
    """Prints the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hllm.hmm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--largest", type=int, default=100_000, help="cases of more samples are left out")
    parser.add_argument("--c", action="store_true", help="with the C form of the recursions, which this builds")
    options = parser.parse_args(argv)
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    if options.c:
        accelerator.build()
    os.environ["HLLM_ACCELERATOR"] = "1" if options.c else "0"
    accelerator.forget()
    out = sys.stdout
    out.write("with the C form\n\n" if accelerator.active() else "numpy\n\n")
    out.write("| T, K, D, covariance | EM iteration, ms | vs default / scaling | score, ms | vs default / scaling ")
    out.write("| Viterbi, ms | vs hmmlearn | parameters apart | paths |\n|---|---|---|---|---|---|---|---|---|\n")
    for case in CASES:
        if case.samples <= options.largest:
            out.write(compare(case, options.rounds * (3 if case.samples < 5_000 < options.largest else 1)) + "\n")
            out.flush()
    steps = min(options.largest, 3_000)
    out.write("\n| K, D | filter step, us | filter update, us | smoother step (lag 10), us |\n|---|---|---|---|\n")
    out.write("\n".join(online(options.rounds, steps)) + "\n")
    out.write("\n| samples of MS-AR(4), K = 2 | EM iteration, ms |\n|---|---|\n")
    out.write("\n".join(autoregressive(options.rounds, each) for each in (135, min(options.largest, 10_000))) + "\n")


if __name__ == "__main__":
    main()
