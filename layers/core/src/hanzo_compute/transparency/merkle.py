"""The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1) over SHA-256: roots and proofs.

A *node* is named by its level and index: the complete subtree over the leaves ``index * 2**level`` up to, not
including, ``(index + 1) * 2**level``. All hashes are 32 bytes.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from hashlib import sha256
from struct import iter_unpack
from typing import Final

HASH: Final = 32
EMPTY_ROOT: Final = sha256().digest()
"""The root of a tree without leaves."""

Node = Callable[[int, int], bytes]
"""The hash of a complete subtree, by level and index."""


class ProofError(ValueError):
    """A proof does not prove what it is given for."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf."""
    return sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return sha256(b"\1" + left + right).digest()


class Frontier:
    """The right edge of a tree that grows: the hashes of its largest complete subtrees, from left to right.

    Raises ValueError when ``peaks`` are not as many as a tree of ``size`` leaves has.
    """

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count() or any(len(peak) != HASH for peak in peaks):
            raise ValueError(f"a tree of {size} leaves does not have these {len(peaks)} peaks")
        self.size = size
        self.peaks = list(peaks)

    def append(self, hashed: bytes, level: int = 0) -> list[tuple[int, int, bytes]]:
        """Append a leaf by its hash, or a complete subtree of ``2**level`` leaves where one fits.

        Returns the nodes that are complete now and were not before, as level, index, hash; the first is what was
        given. Raises ValueError: the tree does not end where such a subtree begins.
        """
        if self.size % (1 << level):
            raise ValueError(f"no subtree of level {level} begins at {self.size}")
        index = self.size >> level
        self.size += 1 << level
        completed = [(level, index, hashed)]
        while index & 1:
            hashed = node_hash(self.peaks.pop(), hashed)
            level, index = level + 1, index >> 1
            completed.append((level, index, hashed))
        self.peaks.append(hashed)
        return completed

    def root(self) -> bytes:
        """The root over all leaves."""
        if not self.peaks:
            return EMPTY_ROOT
        found = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            found = node_hash(peak, found)
        return found


class BulkRoot:
    """The root over many leaves of one width in bytes, given one after the other. ``width`` is 1 or more."""

    _LEVEL: Final = 12

    def __init__(self, width: int = HASH) -> None:
        if width < 1:
            raise ValueError(f"no leaf is {width} bytes wide")
        self._width = width
        self._frontier = Frontier()
        self._rest = bytearray()

    @property
    def size(self) -> int:
        """Whole leaves up to now."""
        return self._frontier.size + len(self._rest) // self._width

    def update(self, data: bytes | memoryview) -> None:
        """Add leaves; a part of one waits for its other part."""
        self._rest += data
        step = self._width << self._LEVEL
        whole = len(self._rest) - len(self._rest) % step
        for start in range(0, whole, step):
            self._frontier.append(_subtree(self._rest[start : start + step], self._width), self._LEVEL)
        del self._rest[:whole]

    def root(self) -> bytes:
        """The root over all leaves so far. Raises ValueError: the last one is not whole."""
        if len(self._rest) % self._width:
            raise ValueError("the last leaf is not whole")
        tree = Frontier(self._frontier.size, self._frontier.peaks)
        for start in range(0, len(self._rest), self._width):
            tree.append(leaf_hash(bytes(self._rest[start : start + self._width])))
        return tree.root()


def _subtree(data: bytes | bytearray, width: int) -> bytes:
    """The hash over a number of leaves that is a power of two."""
    hashed = [sha256(b"\0" + leaf).digest() for (leaf,) in iter_unpack(f"{width}s", data)]
    while len(hashed) > 1:
        hashed = combine(hashed)
    return hashed[0]


def combine(hashed: Sequence[bytes]) -> list[bytes]:
    """The hashes of the level above an even number of nodes."""
    return [sha256(b"\1" + left + right).digest() for left, right in zip(hashed[::2], hashed[1::2], strict=True)]


def nodes_over(hashed: Sequence[bytes]) -> Node:
    """All complete subtrees over leaves whose hashes are given."""
    levels = [list(hashed)]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append(combine(below[: len(below) & ~1]))
    return lambda level, index: levels[level][index]


# Proofs are made by the recursive definitions, over complete subtrees.


def _split(count: int) -> int:
    """The largest power of two smaller than ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _range(start: int, end: int, node: Node) -> bytes:
    """The hash over the leaves from ``start`` to ``end``, where a subtree begins at ``start``."""
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(_range(start, middle, node), _range(middle, end, node))


def inclusion_proof(index: int, size: int, node: Node) -> list[bytes]:
    """The path from the leaf ``index`` to the root over ``size`` leaves, the lowest first (RFC 9162 section 2.1.3.1).

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"there is no leaf {index} in a tree of {size}")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(start, middle, node))
            start = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: Node) -> list[bytes]:
    """The nodes that show the tree of ``new`` leaves to begin with that of ``old`` (RFC 9162 section 2.1.4.1).

    Raises:
        ValueError: ``old`` is not between 1 and ``new``.
    """
    if not 0 < old <= new:
        raise ValueError(f"no tree of {new} leaves extends one of {old}")
    start, end, path, whole = 0, new, list[bytes](), True
    while end != old:
        middle = start + _split(end - start)
        if old <= middle:
            path.append(_range(middle, end, node))
            end = middle
        else:
            path.append(_range(start, middle, node))
            start, whole = middle, False
    if not whole:
        path.append(_range(start, end, node))
    return path[::-1]


# Verification is by the algorithms of RFC 9162.


def root_from_inclusion(index: int, size: int, hashed: bytes, proof: Sequence[bytes]) -> bytes:
    """The root that a path leads to from a leaf's hash (RFC 9162 section 2.1.3.2); to be compared with the real one.

    A path does not prove the size: sizes in which the leaf's path has one shape lead to one root. So take the size
    from where the real root is from.

    Raises:
        ProofError: there is no such leaf, or the path has not the length that it must have.
    """
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    _check(hashed, *proof)
    number, last, found = index, size - 1, hashed
    for node in proof:
        if last == 0:
            raise ProofError("the proof is too long")
        if number & 1 or number == last:
            found = node_hash(node, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = node_hash(found, node)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    return found


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """That the tree of ``new`` leaves extends the one of ``old`` (RFC 9162 section 2.1.4.2).

    Raises:
        ProofError: it does not, or the proof does not show it.
    """
    if not 0 < old <= new:
        raise ProofError(f"no tree of {new} leaves extends one of {old}")
    _check(old_root, new_root, *proof)
    if old == new:
        if proof or not hmac.compare_digest(old_root, new_root):
            raise ProofError("two trees of one size have one root, and need no proof")
        return
    if not proof:
        raise ProofError("the proof is empty")
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    number, last = old - 1, new - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    first = second = path[0]
    for node in path[1:]:
        if last == 0:
            raise ProofError("the proof is too long")
        if number & 1 or number == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            second = node_hash(second, node)
        number, last = number >> 1, last >> 1
    if last:
        raise ProofError("the proof is too short")
    if not hmac.compare_digest(first, old_root) or not hmac.compare_digest(second, new_root):
        raise ProofError("the proof does not lead to these two roots")


def _check(*hashes: bytes) -> None:
    if any(len(each) != HASH for each in hashes):
        raise ProofError("a hash is not 32 bytes long")
