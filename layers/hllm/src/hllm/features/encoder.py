"""Text to features by hashing n-grams, with one result on every platform and every version of Python.

A word is a run of letters, digits, underscores and characters beyond ASCII (Unicode's punctuation and spaces apart);
text is lower-cased first. The hash of a span is a polynomial of its UTF-8 bytes modulo 2^64 (each byte replaced by a
fixed random number, the base a fixed odd number), so all spans' hashes are differences of one cumulative sum;
splitmix64 then mixes the bits, and the upper ones choose the column. It guards against chance, not against an
adversary who seeks collisions.

Sources: Weinberger et al., "Feature hashing for large scale multitask learning", ICML 2009; Karp, Rabin, IBM J. Res.
Dev. 31 (1987) 249; Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hllm._check import Array, count
from hllm.errors import InvalidInput

from .rows import Integers, Rows

Words = NDArray[np.uint64]

_BASE, _SEED = 0x9E3779B97F4A7C55, 0x243F6A8885A308D3
_WORD_KIND, _CHAR_KIND = 0x13198A2E03707344, 0xA4093822299F31D0
_SPACES = dict.fromkeys([*range(0x80, 0xAA), *range(0xAB, 0xB5), *range(0xB6, 0xBA), *range(0xBB, 0xC0)], " ")
_SPACES |= dict.fromkeys([0xD7, 0xF7, *range(0x2000, 0x2070), *range(0x3000, 0x3005), *range(0x3008, 0x3021)], " ")


class Encoder(Protocol):
    """Whatever turns texts into features: ``HashingEncoder``, or a model of yours."""

    def __call__(self, texts: Sequence[str]) -> Rows | Array:
        """``Rows``, or an array of shape (texts, F) with the same F for any texts."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """JSON that identifies the encoder: a classifier that is loaded must be given an equal one."""
        ...


def _mixed(values: Words) -> Words:
    """splitmix64's finaliser, of each value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)))


_BYTES = _mixed(np.arange(1, 257, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(_SEED))
"""A random number for each byte."""
_IN_WORD = np.array([chr(b).isalnum() or b == 95 if b < 128 else True for b in range(256)])


class HashingEncoder:
    """Counts of word n-grams, and if wished character n-grams, in ``n_features`` columns.

    ``words``, ``chars``: the least and greatest n, or None; character n-grams are of bytes in and at the borders of
    words, and do not span words. ``n_features``: a power of two, up to 2^24. ``binary`` counts each n-gram once for a
    text. Raises InvalidInput.
    """

    def __init__(
        self,
        n_features: int = 2**15,
        *,
        words: tuple[int, int] | None = (1, 2),
        chars: tuple[int, int] | None = None,
        binary: bool = False,
    ) -> None:
        self.n_features = count("n_features", n_features, least=2)
        if self.n_features & (self.n_features - 1) or self.n_features > 2**24:
            raise InvalidInput(f"n_features is {n_features}; a power of two up to 2^24 is expected")
        self.words, self.chars, self.binary = _sizes("words", words), _sizes("chars", chars), bool(binary)
        if self.words is None and self.chars is None:
            raise InvalidInput("words and chars are both None, so there is nothing to count; give one of them")
        self._shift = np.uint64(64 - (self.n_features.bit_length() - 1))

    def __call__(self, texts: Sequence[str]) -> Rows:
        """The counts of each text. A text without a word has an empty row. Raises InvalidInput if one is no str."""
        if isinstance(texts, str):
            raise InvalidInput("texts is one str; give a sequence of them")
        data = [_bytes(text) for text in texts]
        # Spaces around each text, so that no word spans two.
        joined = np.frombuffer(b" ".join([b"", *data, b""]), dtype=np.uint8)
        lengths = np.array([1, *(len(text) + 1 for text in data)])
        owner_at = np.repeat(np.array([0, *range(len(data))]), lengths)
        in_word = _IN_WORD[joined]
        grams: list[tuple[Words, Integers]] = []
        if self.words is not None:
            border = np.flatnonzero(in_word[1:] != in_word[:-1]) + 1
            first, last = border[0::2], border[1::2]
            words = _Spans(joined).hashes(first, last, _WORD_KIND)
            grams += _word_grams(words, owner_at[first], self.words)
        if self.chars is not None:
            grams += _char_grams(joined, in_word, owner_at, self.chars)
        hashes = np.concatenate([h for h, _ in grams]) if grams else np.zeros(0, dtype=np.uint64)
        owner = np.concatenate([o for _, o in grams]) if grams else np.zeros(0, dtype=np.int64)
        key = owner * self.n_features + (hashes >> self._shift).astype(np.int64)
        key.sort()
        new = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
        values = np.diff(new, append=len(key))
        key = key[new]
        starts = np.searchsorted(key, np.arange(len(data) + 1) * self.n_features)
        column = key & (self.n_features - 1)
        return Rows(starts, column, np.ones(len(key)) if self.binary else values.astype(np.float64), self.n_features)

    def to_dict(self) -> dict[str, Any]:
        """The settings, as JSON."""
        return {
            "kind": "hllm.features.hashing/1",
            "n_features": self.n_features,
            "words": list(self.words) if self.words else None,
            "chars": list(self.chars) if self.chars else None,
            "binary": self.binary,
        }

    @classmethod
    def from_dict(cls, value: Any) -> HashingEncoder:
        """The encoder of ``to_dict``. Raises InvalidInput for anything else."""
        wanted = {"kind", "n_features", "words", "chars", "binary"}
        if not isinstance(value, Mapping) or set(value) != wanted or value["kind"] != "hllm.features.hashing/1":
            raise InvalidInput(f"this is no hllm.features.hashing/1: an object with {sorted(wanted)} is expected")
        words, chars = (tuple(v) if isinstance(v, list) else v for v in (value["words"], value["chars"]))
        return cls(value["n_features"], words=words, chars=chars, binary=value["binary"])


def _sizes(name: str, value: Any) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) != 2:
        raise InvalidInput(f"{name} is {value!r}; the least and the greatest n are expected, as in (1, 2)")
    least, most = count(f"{name}[0]", value[0], least=1), count(f"{name}[1]", value[1], least=1)
    if least > most or most > 16:
        raise InvalidInput(f"{name} is {value!r}; ascending sizes up to 16 are expected")
    return least, most


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise InvalidInput(f"a text is {type(text).__name__}; str is expected")
    if not text.isascii():
        text = text.translate(_SPACES)
    # A lone surrogate is no text, but some APIs let it through: it counts as the bytes it would have.
    return text.lower().encode("utf-8", "surrogatepass")


def _powers(base: int, size: int) -> Words:
    """base^0 … base^(size-1), modulo 2^64."""
    powers = np.full(size, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


_INVERSE_BASE = pow(_BASE, -1, 2**64)
_POWERS, _INVERSE = _powers(_BASE, 4096), _powers(_INVERSE_BASE, 4096)
"""For short texts."""


class _Spans:
    """The hashes of any spans of some bytes. Equal spans have equal hashes, wherever they are."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        # sums[j] - sums[i] is the polynomial of bytes i…j-1, times base^i; an odd base has an inverse.
        self._sums = np.zeros(len(data) + 1, dtype=np.uint64)
        short = len(data) < len(_POWERS)
        powers = _POWERS[: len(data)] if short else _powers(_BASE, len(data))
        self._inverse = _INVERSE if short else _powers(_INVERSE_BASE, len(data) + 1)
        np.cumsum(_BYTES[data] * powers, out=self._sums[1:])

    def hashes(self, first: Integers, last: Integers, kind: int) -> Words:
        """Of bytes first…last-1 for each pair."""
        return _mixed((self._sums[last] - self._sums[first]) * self._inverse[first] + np.uint64(kind))


def _word_grams(words: Words, owner: Integers, sizes: tuple[int, int]) -> Iterator[tuple[Words, Integers]]:
    """The hash and the text of each n-gram of words, for each n."""
    gram = words
    for n in range(1, min(sizes[1], len(words)) + 1):
        if n > 1:  # longer by the next word
            gram = _mixed(gram[:-1] * np.uint64(_BASE) + words[n - 1 :])
        if n >= sizes[0]:
            inside = owner[: len(gram)] == owner[n - 1 :]
            yield gram[inside], owner[: len(gram)][inside]


def _char_grams(
    data: NDArray[np.uint8], in_word: NDArray[np.bool_], owner: Integers, sizes: tuple[int, int]
) -> Iterator[tuple[Words, Integers]]:
    """The hash and the text of each n-gram of bytes in a word with a space at both sides, for each n."""
    spans = _Spans(np.where(in_word, data, np.uint8(32)))
    outside = np.concatenate([[0], np.cumsum(~in_word)])
    for n in range(sizes[0], min(sizes[1], len(data)) + 1):
        first = np.arange(len(data) - n + 1)
        if n == 1:
            first = np.flatnonzero(in_word)
        elif n == 2:
            first = np.flatnonzero(in_word[1:] | in_word[:-1])
        else:  # nothing but letters between the ends
            first = first[outside[first + n - 1] == outside[first + 1]]
        word = first if n == 1 else first + in_word[first + 1]
        yield spans.hashes(first, first + n, _CHAR_KIND), owner[word]
