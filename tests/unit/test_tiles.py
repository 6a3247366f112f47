"""Tiles: the same nodes as the tree, and few reads however long the log is."""

from __future__ import annotations

import hashlib
from collections import Counter
from random import Random

import pytest

from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.merkle import Frontier
from hanzo_compute.transparency.tiles import BUNDLE, TileNodes


class Stored:
    """A log that was filled leaf by leaf, kept as bundles and tiles."""

    def __init__(self, size: int) -> None:
        self.leaves = [hashlib.sha256(b"%d" % n).digest() for n in range(size)]
        self.tiles: dict[tuple[int, int], bytes] = {}
        self.reads: Counter[tuple[int, int]] = Counter()
        tree = Frontier()
        for number, leaf in enumerate(self.leaves):
            self._add(0, number, leaf)
            for level, index, hashed in tree.append(merkle.leaf_hash(leaf)):
                if level and level % 8 == 0:
                    self._add(level // 8, index, hashed)
        self.root = tree.root()

    def _add(self, level: int, index: int, data: bytes) -> None:
        place = level, index // BUNDLE
        self.tiles[place] = self.tiles.get(place, b"") + data

    def read(self, level: int, number: int) -> bytes:
        self.reads[level, number] += 1
        return self.tiles.get((level, number), b"")

    def nodes(self) -> TileNodes:
        return TileNodes(lambda number: self.read(0, number), self.read)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000, 66_000])
def test_proofs_from_tiles_hold(size: int) -> None:
    log, random = Stored(size), Random(size)
    for index in {0, size - 1, size // 2, *random.sample(range(size), min(size, 10))}:
        path = merkle.inclusion_proof(index, size, log.nodes())
        assert merkle.root_from_inclusion(index, size, merkle.leaf_hash(log.leaves[index]), path) == log.root
    for old in {1, size, max(1, size - 1), max(1, size // 2)}:
        tree = Frontier()
        for leaf in log.leaves[:old]:
            tree.append(merkle.leaf_hash(leaf))
        proof = merkle.consistency_proof(old, size, log.nodes())
        merkle.verify_consistency(old, size, tree.root(), log.root, proof)


class Endless:
    """Tiles of a log of one leaf ten million times."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.reads: list[tuple[int, int]] = []
        self.levels = [merkle.leaf_hash(bytes(32))]
        for _ in range(40):
            self.levels.append(merkle.node_hash(self.levels[-1], self.levels[-1]))

    def read(self, level: int, number: int) -> bytes:
        self.reads.append((level, number))
        count = min(BUNDLE, (self.size >> 8 * level) - number * BUNDLE)
        return (self.levels[8 * level] if level else bytes(32)) * count

    def root(self, size: int) -> bytes:
        return Frontier(size, [self.levels[level] for level in range(40, -1, -1) if size >> level & 1]).root()


@pytest.mark.parametrize("size", [10_000_000, 2**24 - 1, 16_777_217])
def test_a_proof_of_a_log_of_ten_million_leaves_costs_a_few_reads(size: int) -> None:
    log, random = Endless(size), Random(size)
    for index in (0, size - 1, *random.sample(range(size), 5)):
        log.reads.clear()
        path = merkle.inclusion_proof(index, size, TileNodes(lambda number: log.read(0, number), log.read))
        assert merkle.root_from_inclusion(index, size, log.levels[0], path) == log.root(size)
        assert len(log.reads) == len(set(log.reads)) <= 8
        log.reads.clear()
        old = index + 1
        proof = merkle.consistency_proof(old, size, TileNodes(lambda number: log.read(0, number), log.read))
        merkle.verify_consistency(old, size, log.root(old), log.root(size), proof)
        assert len(log.reads) <= 8


def test_what_was_read_is_kept() -> None:
    log = Stored(70_000)
    nodes = log.nodes()
    for index in (0, 5, 255, 0):
        merkle.inclusion_proof(index, 70_000, nodes)
    merkle.consistency_proof(69_000, 70_000, nodes)
    assert set(log.reads.values()) == {1}


def test_what_is_no_tile_is_an_error() -> None:
    for size in (1, 31, 33, 32 * 256 + 1, 32 * 257):
        nodes = TileNodes(lambda number, size=size: bytes(size), lambda level, number, size=size: bytes(size))  # type: ignore[misc]
        for level in (0, 8, 17):
            with pytest.raises(ValueError, match=f"{size} bytes"):
                nodes(level, 0)


def test_a_tile_that_is_too_short_is_an_error() -> None:
    nodes = TileNodes(lambda number: bytes(32 * 3), lambda level, number: b"")
    assert nodes(1, 0) == merkle.node_hash(merkle.leaf_hash(bytes(32)), merkle.leaf_hash(bytes(32)))
    for level, index in ((1, 1), (2, 0), (8, 0)):
        with pytest.raises(ValueError, match="does not reach"):
            nodes(level, index)
