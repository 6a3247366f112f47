"""all-MiniLM-L6 in numpy: the WordPiece tokenizer and the forward pass, for serving without a framework.

Sources: Devlin et al., "BERT" (arXiv 1810.04805) for the layers; Wu et al., "Google's Neural Machine Translation
System" (arXiv 1609.08144), §4.1, for WordPiece; names of weights as in the model's safetensors file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from math import sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Weights = Mapping[str, NDArray]

HEADS = 12
EPSILON = 1e-12
WORD_MAX = 100
"""Characters; longer words are unknown."""


class WordPiece:
    """Text to the numbers of its pieces, lower case and without accents, between [CLS] and [SEP]."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self._numbers = {piece: number for number, piece in enumerate(vocabulary)}
        self._known: dict[str, list[int]] = {}

    def __call__(self, text: str, most: int = 32) -> list[int]:
        """At most ``most`` numbers; what is longer is cut."""
        pieces = [number for word in _words(text) for number in self._pieces(word)]
        return [self._numbers["[CLS]"], *pieces[: most - 2], self._numbers["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found = self._known.get(word)
        if found is None:
            found = self._known[word] = self._split(word)
        return found

    def _split(self, word: str) -> list[int]:
        """The longest piece that the word begins with, and so on; a word that does not come out even is unknown."""
        unknown = [self._numbers["[UNK]"]]
        if len(word) > WORD_MAX:
            return unknown
        found: list[int] = []
        start = 0
        while start < len(word):
            for end in range(len(word), start, -1):
                number = self._numbers.get(("##" if start else "") + word[start:end])
                if number is not None:
                    found.append(number)
                    start = end
                    break
            else:
                return unknown
        return found


def _words(text: str) -> list[str]:
    spaced = []
    for char in unicodedata.normalize("NFD", text.lower()):
        kind = unicodedata.category(char)
        if kind == "Mn" or (kind[0] == "C" and char not in "\t\n\r") or char == "\ufffd":
            continue
        alone = kind[0] == "P" or (char.isascii() and char.isprintable() and not char.isalnum()) or _is_ideograph(char)
        spaced.append(f" {char} " if alone and char != " " else char)
    return "".join(spaced).split()


def _is_ideograph(char: str) -> bool:
    return unicodedata.name(char, "").startswith("CJK ")


def embed(weights: Weights, texts: Sequence[Sequence[int]]) -> Floats:
    """Embeddings (n, 384) of tokenized texts: the mean of the last layer over each text's pieces."""
    longest = max(map(len, texts))
    numbers = np.zeros((len(texts), longest), np.int64)
    mask = np.zeros((len(texts), longest), np.float32)
    for row, text in enumerate(texts):
        numbers[row, : len(text)], mask[row, : len(text)] = text, 1
    x = (
        weights["embeddings.word_embeddings.weight"][numbers]
        + weights["embeddings.position_embeddings.weight"][:longest]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    x = _normalized(x, weights, "embeddings.LayerNorm")
    hidden = np.where(mask[:, None, None, :] > 0, np.float32(0), np.float32(-1e9))
    layer = 0
    while (name := f"encoder.layer.{layer}") + ".output.dense.weight" in weights:
        x = _layer(x, hidden, weights, name)
        layer += 1
    found: Floats = (x * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return found


def _layer(x: Floats, hidden: Floats, weights: Weights, name: str) -> Floats:
    rows, length, width = x.shape
    q, k, v = (
        _linear(x, weights, f"{name}.attention.self.{part}").reshape(rows, length, HEADS, -1).transpose(0, 2, 1, 3)
        for part in ("query", "key", "value")
    )
    scores = q @ k.transpose(0, 1, 3, 2) / np.float32(sqrt(width / HEADS)) + hidden
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed = (scores @ v).transpose(0, 2, 1, 3).reshape(rows, length, width)
    x = _normalized(
        x + _linear(mixed, weights, f"{name}.attention.output.dense"), weights, f"{name}.attention.output.LayerNorm"
    )
    inner = _gelu(_linear(x, weights, f"{name}.intermediate.dense"))
    return _normalized(x + _linear(inner, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm")


def _linear(x: Floats, weights: Weights, name: str) -> Floats:
    found: Floats = x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return found


def _normalized(x: Floats, weights: Weights, name: str) -> Floats:
    x = x - x.mean(axis=-1, keepdims=True)
    x /= np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(x: Floats) -> Floats:
    """x·Φ(x), with the error function by Abramowitz and Stegun 7.1.26 (error at most 1.5e-7)."""
    z = np.abs(x) * np.float32(1 / sqrt(2))
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(factor)) * t
    tail *= np.exp(-z * z)  # 1 - erf(z)
    return x * np.where(x >= 0, 1 - np.float32(0.5) * tail, np.float32(0.5) * tail)
