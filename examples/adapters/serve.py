"""Serves requests of three domains with one encoder and a BitDelta for each domain: numpy and hllm, no framework.

Reads the folder that train.py and `hzc adapter compress` have filled; see README.md. A request is a text; the domain it
is of is not told, and stays the same for a while. A naive-Bayes model of word pieces says how likely a text is in each
domain, a hidden Markov filter turns that into beliefs, and AdapterChoice decides which adapter is merged.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import encoder
import numpy as np
from numpy.typing import NDArray

from hllm.bitdelta import AdapterChoice, Adapters, Delta, report, safetensors

STAY, REQUESTS = 0.97, 720
"""Chance that the next request is of the same domain; requests that are served."""
TEMPER, DWELL = 0.5, 1
"""Weight of a text's evidence, of 0.25, 0.5, 1 and 1.5, and observations before a change, of 1 and 2: these found most
domains of training texts that were held out."""

Tokens = list[list[int]]
Weights = dict[str, NDArray[Any]]


class Domains:
    """Beliefs over domains: naive Bayes over word pieces, and a filter that knows that domains stay."""

    def __init__(self, tokens: dict[str, Tokens], pieces: int) -> None:
        counts = np.ones((len(tokens), pieces))
        for row, texts in enumerate(tokens.values()):
            np.add.at(counts[row], [piece for text in texts for piece in text], 1)
        self._log = np.log(counts / counts.sum(axis=1, keepdims=True))
        domains = len(tokens)
        self._moves = np.full((domains, domains), (1 - STAY) / (domains - 1))
        np.fill_diagonal(self._moves, STAY)
        self.beliefs = np.full(domains, 1 / domains)

    def evidence(self, text: Sequence[int]) -> NDArray[np.float64]:
        """Log-likelihood of a text in each domain, in nats; words are not independent, so it is tempered."""
        found: NDArray[np.float64] = TEMPER * self._log[:, text].sum(axis=1)
        return found

    def update(self, text: Sequence[int]) -> NDArray[np.float64]:
        """The beliefs after this text."""
        evidence = self.evidence(text)
        q = (self._moves.T @ self.beliefs) * np.exp(evidence - evidence.max())
        self.beliefs = q / q.sum()
        return self.beliefs


def logits(weights: Weights, head: tuple[NDArray[Any], NDArray[Any]], tokens: Tokens) -> NDArray[np.float32]:
    """Scores of the classes, (n, classes)."""
    vectors = [encoder.embed(weights, tokens[start : start + 32]) for start in range(0, len(tokens), 32)]
    found: NDArray[np.float32] = np.concatenate(vectors) @ head[0].T + head[1]
    return found


def head_in(weights: Weights, prefix: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
    """The head of a model."""
    return weights[f"{prefix}head.weight"], weights[f"{prefix}head.bias"]


def stream(labels: dict[str, list[int]], seed: int = 0) -> list[tuple[str, int]]:
    """Requests (domain, number of its test text): domains stay, texts are drawn."""
    rng = np.random.default_rng(seed)
    names = list(labels)
    domain = names[0]
    found = []
    for _ in range(REQUESTS):
        if rng.random() > STAY:
            domain = str(rng.choice([name for name in names if name != domain]))
        found.append((domain, int(rng.integers(len(labels[domain])))))
    return found


def main(folder: Path) -> None:
    """Report accuracy by model, then serve."""
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    tokenize = encoder.WordPiece(vocabulary)
    tokens = {name: [tokenize(text) for text, _ in data["test"]] for name, data in texts.items()}
    labels = {name: [label for _, label in data["test"]] for name, data in texts.items()}
    base = safetensors.arrays(safetensors.File(folder / "base.safetensors"))
    heads = safetensors.arrays(safetensors.File(folder / "heads.safetensors"))
    adapters = Adapters(base, {name: Delta.load(folder / f"{name}.delta") for name in texts})

    right: dict[str, list[bool]] = {"base": [], "fine-tuned": [], "BitDelta": []}
    answers: dict[str, NDArray[np.bool_]] = {}
    print(f"{'':>10} {'base':>8} {'tuned':>8} {'BitDelta':>8}  agree    n  classes")
    for name in texts:
        tuned = safetensors.arrays(safetensors.File(folder / f"{name}.safetensors"))
        merged = adapters.weights(name)
        found = {
            "base": logits(base, head_in(heads, f"{name}."), tokens[name]).argmax(axis=1),
            "fine-tuned": logits(tuned, head_in(tuned), tokens[name]).argmax(axis=1),
            "BitDelta": logits(merged, head_in(merged), tokens[name]).argmax(axis=1),
        }
        hits = {model: each == labels[name] for model, each in found.items()}
        answers[name] = hits["BitDelta"]
        for model, each in hits.items():
            right[model] += each.tolist()
        agree = float((found["fine-tuned"] == found["BitDelta"]).mean())
        shares = " ".join(f"{each.mean():8.3f}" for each in hits.values())
        print(f"{name:>10} {shares} {agree:6.3f} {len(labels[name]):4} {len(texts[name]['classes']):4}", flush=True)
    shares = " ".join(f"{np.mean(each):8.3f}" for each in right.values())
    print(f"{'all':>10} {shares} {'':6} {len(right['base']):4}")
    gap = np.array(right["BitDelta"], float) - np.array(right["fine-tuned"], float)
    print(
        f"BitDelta - fine-tuned: {gap.mean():+.3f} ± {gap.std(ddof=1) / np.sqrt(len(gap)):.3f} (standard error, paired)"
    )

    sizes = [report(each) for each in adapters.deltas.values()]
    whole = sum((folder / f"{name}.safetensors").stat().st_size for name in texts)
    files = sum((folder / f"{name}.delta").stat().st_size for name in texts)
    print(
        f"{len(sizes)} fine-tunes: {whole / 1e6:.1f} MB as files, {files / 1e6:.1f} MB as deltas "
        f"({whole / files:.0f}x); error {np.mean([each.relative_error for each in sizes]):.3f} of the change's size"
    )
    train = {name: [tokenize(text) for text, _ in data["train"]] for name, data in texts.items()}
    serve(adapters, train, tokens, labels, answers, len(vocabulary))


def serve(
    adapters: Adapters,
    train: dict[str, Tokens],
    tokens: dict[str, Tokens],
    labels: dict[str, list[int]],
    answers: dict[str, NDArray[np.bool_]],
    pieces: int,
) -> None:
    """Serve a stream in which the domain is not told; an answer of another domain's adapter is a wrong one."""
    names = list(train)
    requests = stream(labels)
    domains = Domains(train, pieces)
    choice = AdapterChoice(names, dwell=DWELL)
    hits = merges = 0
    merging = 0.0
    served = ""
    for domain, number in requests:
        adapter = choice.update(domains.update(tokens[domain][number]))
        start = time.process_time()
        weights = adapters.weights(adapter)
        if adapter != served:
            merges += 1
            merging += time.process_time() - start
            served = adapter
        label = logits(weights, head_in(weights), [tokens[domain][number]]).argmax()
        hits += bool(adapter == domain and label == labels[domain][number])
    print(
        f"served {len(requests)} requests, domain not told: {hits / len(requests):.3f} right, {merges} merges "
        f"of {merging / merges * 1e3:.0f} ms"
    )

    # What the choice costs or gains, by the same answers: each rule names an adapter for each request.
    def scored(rule: Callable[[str, Sequence[int]], str]) -> tuple[float, float, int]:
        named = [rule(domain, tokens[domain][number]) for domain, number in requests]
        pairs = list(zip(requests, named, strict=True))
        found = [name == domain and bool(answers[domain][number]) for (domain, number), name in pairs]
        changes = sum(one != two for one, two in pairwise(named))
        return float(np.mean(found)), float(np.mean([name == domain for (domain, _), name in pairs])), changes

    filtered = Domains(train, pieces)
    again, lagged = Domains(train, pieces), AdapterChoice(names, dwell=DWELL)
    rules: dict[str, Callable[[str, Sequence[int]], str]] = {
        "the domain is told": lambda domain, _: domain,
        "filter and hysteresis": lambda _, text: lagged.update(again.update(text)),
        "filter alone": lambda _, text: names[int(filtered.update(text).argmax())],
        "each text alone": lambda _, text: names[int(domains.evidence(text).argmax())],
    }
    for name, rule in rules.items():
        accuracy, found, changes = scored(rule)
        print(f"  {name}: {accuracy:.3f} right, {found:.3f} served with their domain's adapter, {changes} changes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: serve.py FOLDER")
    main(Path(sys.argv[1]))
