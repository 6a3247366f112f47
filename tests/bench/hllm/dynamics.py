"""Price dynamics and features beside what people would use instead.

Method. CPU time of this process, one thread for linear algebra, both sides in one process and in turns; a cell is the
median of the rounds with the least and the greatest, a ratio is theirs to ours, round by round (above 1: ours is
faster). *Energy*: pendulums from rest at different angles; for each bound of max |H - H0| (looked at 20 times) each of
our integrators takes its largest step that keeps it, and scipy's DOP853 its loosest tolerance, over powers of the
roots of 2 and 10; the one of ours with the fewest forces is shown. DOP853 has all pendulums in one call. *Thermostat*:
BAOAB in a double well, beside the same in a Python loop over floats. *Text*: docstrings of six packages of the standard
library, hashed into 2^15 columns without normalising, as scikit-learn's HashingVectorizer does with
alternate_sign=False. *Heads*: the same counts for both; half of the docstrings is learnt, the other half told.

What it does not show. Speed on other machines; adaptive steps of ours (there are none); scipy's other methods;
classification of requests: the labels are the packages that the docstrings come from.
"""

from __future__ import annotations

import ast
import math
import os
import random
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB

from hllm.features import HashingEncoder, LogisticHead, NaiveBayesHead
from hllm.hamiltonian import baoab, energy, leapfrog, yoshida4, yoshida6
from hllm.market import MarketParameters, MarketState, forecast, quote, step
from tests.bench.hllm.peers import ONE_THREAD
from tests.bench.report import Report, Spread, ratios, spread

PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")
LOOKS = 20


def force(q: Any) -> Any:
    """A pendulum's."""
    return -np.sin(q)


def potential(q: Any) -> Any:
    """A pendulum's."""
    return -np.cos(q)


def cpu(work: Callable[[], Any], least: float = 0.02) -> float:
    """CPU seconds of one call, over as many calls as take ``least`` seconds."""
    calls, begun = 0, time.process_time()
    while True:
        work()
        calls += 1
        if (passed := time.process_time() - begun) >= least:
            return passed / calls


def in_turns(works: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """CPU seconds of each, for each round."""
    for work in works:
        work()
    rows = [[cpu(work) for work in works] for _ in range(rounds)]
    return [list(column) for column in zip(*rows, strict=True)]


def drift(states: Sequence[tuple[Any, Any]]) -> float:
    """The greatest energy error of any pendulum at any look."""
    start = energy(*states[0], potential)
    return max(float(np.abs(energy(q, p, potential) - start).max()) for q, p in states[1:])


def ours(integrator: Any, q: Any, span: float, steps: int) -> list[tuple[Any, Any]]:
    """States at the looks; ``steps`` is for one look."""
    states = [(q, np.zeros_like(q))]
    for _ in range(LOOKS):
        states.append(integrator(*states[-1], force, span / LOOKS / steps, steps=steps))
    return states


def theirs(q: Any, span: float, tolerance: float) -> list[tuple[Any, Any]]:
    """States at the looks, by DOP853."""
    n = len(q)

    def flow(_: float, y: Any) -> Any:
        return np.concatenate([y[n:], -np.sin(y[:n])])

    times = np.linspace(0, span, LOOKS + 1)
    found = solve_ivp(
        flow, (0, span), np.concatenate([q, np.zeros(n)]), "DOP853", t_eval=times, rtol=tolerance, atol=tolerance
    )
    return [(y[:n], y[n:]) for y in found.y.T]


def largest_step(q: Any, span: float, bound: float) -> tuple[Any, int]:
    """The integrator that keeps the bound with the fewest forces, and its steps for one look."""
    best: tuple[float, Any, int] = (math.inf, None, 0)
    for integrator, forces in ((yoshida6, 7), (yoshida4, 3), (leapfrog, 1)):
        for k in range(60):
            steps = max(1, round(span / LOOKS * 2 ** (k / 2 - 1)))
            if steps * forces >= best[0]:
                break
            if drift(ours(integrator, q, span, steps)) <= bound:
                best = steps * forces, integrator, steps
                break
    return best[1:]


def loosest(q: Any, span: float, bound: float) -> float:
    """DOP853's tolerance that keeps the bound."""
    return next(t for t in (10 ** (-k / 2) for k in range(4, 28)) if drift(theirs(q, span, t)) <= bound)


def energies(cases: Sequence[tuple[int, float, float]], rounds: int) -> Report:
    """Time to a bound of the energy error."""
    report = Report(
        "Pendulums to one bound of the energy error",
        ("pendulums, time, bound", "ours", "steps/s of one pendulum, ours", "ours, ms", "DOP853, ms", "ratio"),
    )
    for count, span, bound in cases:
        q = np.linspace(0.2, 2.5, count)
        integrator, steps = largest_step(q, span, bound)
        tolerance = loosest(q, span, bound)
        works = partial(ours, integrator, q, span, steps), partial(theirs, q, span, tolerance)
        mine, other = in_turns(works, rounds)
        rate = [count * steps * LOOKS / seconds for seconds in mine]
        report.rows.append(
            (
                f"{count:,}, {span:g}, {bound:g}",
                integrator.__name__,
                spread(rate),
                ms(mine),
                ms(other),
                ratios(other, mine),
            )
        )
    return report


def ms(seconds: Sequence[float]) -> Spread:
    """In milliseconds."""
    return spread([1e3 * each for each in seconds])


def loop(pools: int, steps: int) -> None:
    """BAOAB in a double well, in plain Python."""
    dt, friction, heat = 0.1, 1.0, 0.5
    decay, noise, gauss = math.exp(-friction * dt), math.sqrt(heat * (1 - math.exp(-2 * friction * dt))), random.gauss
    for _ in range(pools):
        q, p = 1.0, 0.0
        for _ in range(steps):
            p += 0.5 * dt * (q - q * q * q)
            q += 0.5 * dt * p
            p = decay * p + noise * gauss(0.0, 1.0)
            q += 0.5 * dt * p
            p += 0.5 * dt * (q - q * q * q)


def thermostat(cases: Sequence[tuple[int, int]], rounds: int) -> Report:
    """Pool-steps in a second."""
    report = Report("BAOAB, pool-steps a second", ("pools", "ours", "Python loop", "ratio"))
    rng = np.random.default_rng(0)
    for pools, steps in cases:
        q, p = np.ones(pools), np.zeros(pools)

        def work(q: Any = q, p: Any = p, steps: int = steps) -> None:
            baoab(q, p, lambda q: q - q * q * q, 0.1, friction=1.0, temperature=0.5, rng=rng, steps=steps)

        some = min(pools, 100)
        mine, other = in_turns([work, lambda n=some, s=steps: loop(n, s)], rounds)
        fast, slow = [pools * steps / s for s in mine], [some * steps / s for s in other]
        report.rows.append((f"{pools:,}", spread(fast), spread(slow), ratios(fast, slow)))
    return report


def market(pools: int, rounds: int) -> Report:
    """What the platform calls. No peer."""
    report = Report(f"The market of {pools} pools, µs a call", ("call", "quadratic wells", "double well and another"))
    state = MarketState.new({f"pool-{i}": 1.0 + i / pools for i in range(pools)})
    rng = np.random.default_rng(0)
    plain = MarketParameters()
    mixed = MarketParameters(stiffness=(-0.04, 0.04), centre=(0.0, 0.3), quartic=(0.2, 0.0))
    calls: dict[str, Callable[[MarketParameters, Any], Any]] = {
        "step of 5 s": lambda m, z: step(state, m, 5.0, regimes=z, demand=0.5, rng=rng),
        "forecast over 30 s, P(price > cap)": lambda m, z: forecast(state, m, 30.0, regimes=z).exceeds(1.5),
        "quotes": lambda m, z: quote(state, m, regimes=z, inventory=0.1),
    }
    for name, call in calls.items():
        found = in_turns([lambda c=call: c(plain, None), lambda c=call: c(mixed, [0.5, 0.5])], rounds)
        report.rows.append((name, *(spread([1e6 * s for s in column]) for column in found)))
    return report


def docstrings(packages: Sequence[str] = PACKAGES) -> tuple[list[str], list[str]]:
    """Docstrings of the standard library, and the package each is from."""
    texts, labels = [], []
    for package in packages:
        found = set()
        for path in sorted((Path(sysconfig.get_path("stdlib")) / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    found.add(ast.get_docstring(node) or "")
        chosen = sorted(text for text in found if len(text) >= 40)
        texts += chosen
        labels += [package] * len(chosen)
    order = np.random.default_rng(0).permutation(len(texts))
    return [texts[i] for i in order], [labels[i] for i in order]


def encoders(texts: list[str], batches: Sequence[int], rounds: int) -> Report:
    """Microseconds a text."""
    report = Report("Text to counts, µs a text", ("n-grams, texts in a call", "ours", "HashingVectorizer", "ratio"))
    kinds: dict[str, tuple[HashingEncoder, HashingVectorizer]] = {
        "words 1-2": (HashingEncoder(), vectorizer(ngram_range=(1, 2))),
        "characters 3-5": (
            HashingEncoder(words=None, chars=(3, 5)),
            vectorizer(ngram_range=(3, 5), analyzer="char_wb"),
        ),
    }
    for name, (encoder, peer) in kinds.items():
        for size in batches:
            some = texts[:size]
            mine, other = in_turns([lambda e=encoder, t=some: e(t), lambda v=peer, t=some: v.transform(t)], rounds)
            per = [spread([1e6 * s / len(some) for s in column]) for column in (mine, other)]
            report.rows.append((f"{name}, {len(some):,}", *per, ratios(other, mine)))
    return report


def vectorizer(**options: Any) -> HashingVectorizer:
    """scikit-learn's, to count as ours does."""
    return HashingVectorizer(n_features=2**15, norm=None, alternate_sign=False, **options)


def heads(texts: list[str], labels: list[str], rounds: int) -> Report:
    """Milliseconds to learn and to tell, and how good the result is."""
    report = Report(
        f"Heads on {len(texts):,} docstrings of {len(set(labels))} packages, half to learn",
        ("head", "learn, ms", "scikit-learn", "ratio", "tell, ms", "scikit-learn ", "ratio ", "accuracy", "theirs"),
    )
    half = len(texts) // 2
    x = HashingEncoder()(texts)
    learn, told = (HashingEncoder()(part) for part in (texts[:half], texts[half:]))
    sparse = csr_matrix((x.values, x.columns, x.starts), shape=x.shape)
    truth = np.array(labels[half:])
    names = sorted(set(labels))
    losses = []
    for name, head, peer in (
        ("naive Bayes", NaiveBayesHead(0.1), MultinomialNB(alpha=0.1)),
        ("logistic, C = 1", LogisticHead(tol=1e-4), LogisticRegression(tol=1e-4, max_iter=1000)),
    ):
        fits = in_turns(
            [lambda h=head: h.fit(learn, labels[:half]), lambda p=peer: p.fit(sparse[:half], labels[:half])], rounds
        )
        tells = in_turns(
            [lambda h=head: h.log_posterior(told), lambda p=peer: p.predict_log_proba(sparse[half:])], rounds
        )
        accuracy = [float(np.mean(np.array(c.predict(t)) == truth)) for c, t in ((head, told), (peer, sparse[half:]))]
        cells = [[ms(mine), ms(other), ratios(other, mine)] for mine, other in (fits, tells)]
        report.rows.append((name, *cells[0], *cells[1], *(f"{100 * a:.1f} %" for a in accuracy)))
        scores = head.log_likelihood(told)
        columns = np.array([names.index(label) for label in labels[half:]])
        for temper in (1.0, 0.25):
            tempered = temper * scores
            top = tempered.max(axis=1, keepdims=True)
            total = top[:, 0] + np.log(np.exp(tempered - top).sum(axis=1))
            losses.append((f"{name} at {temper:g}", float(np.mean(total - tempered[np.arange(len(columns)), columns]))))
    report.notes.append(
        "Log loss of the tempered likelihoods with a uniform prior, in nats (guessing: "
        f"{math.log(len(names)):.2f}): " + ", ".join(f"{name} {loss:.2f}" for name, loss in losses) + "."
    )
    return report


def reports(*, tiny: bool = False) -> list[Report]:
    """All tables."""
    rounds = 1 if tiny else 3
    texts, labels = docstrings(("importlib", "json", "xml")) if tiny else docstrings()
    spans = [(3, 5.0, 1e-3)] if tiny else [
        (1, 100.0, 1e-4),
        (1, 100.0, 1e-8),
        (1000, 100.0, 1e-4),
        (1000, 100.0, 1e-8),
        (100, 1000.0, 1e-4),
        (100, 1000.0, 1e-8),
    ]  # fmt: skip
    return [
        energies(spans, rounds),
        thermostat([(4, 5)] if tiny else [(1, 1000), (10, 1000), (1000, 200), (100_000, 20)], rounds),
        market(5 if tiny else 50, rounds),
        encoders(texts, (1, 8) if tiny else (1, 32, len(texts)), rounds),
        heads(texts, labels, rounds),
    ]


def main() -> None:
    """Prints the tables."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        command = [sys.executable, "-m", "tests.bench.hllm.dynamics"]
        raise SystemExit(subprocess.run(command, env=os.environ | ONE_THREAD, check=False).returncode)
    for report in reports():
        print(report.markdown(), flush=True)


if __name__ == "__main__":
    main()
