"""The Merkle tree against its definition, published vectors, and a second implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, InvalidProof, verify_consistency, verify_inclusion
from pymerkle.proof import MerkleProof

from hanzo_compute.transparency import merkle
from hanzo_compute.transparency.merkle import BulkRoot, Frontier, ProofError
from tests.support.trees import root_of

REFERENCE = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
"""Leaves of the test vectors of the Certificate Transparency reference implementation, and the roots over them."""
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest() for number in range(count)]


class Nodes:
    """Complete subtrees of a list of leaves, by definition; counts what is asked for."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self.data = data
        self.calls = 0

    def __call__(self, level: int, index: int) -> bytes:
        self.calls += 1
        start, end = index << level, (index + 1) << level
        assert end <= len(self.data), "only complete subtrees are asked for"
        return root_of(self.data[start:end])


def grown(data: Sequence[bytes]) -> Frontier:
    tree = Frontier()
    for each in data:
        tree.append(merkle.leaf_hash(each))
    return tree


@pytest.mark.parametrize("size", range(1, 9))
def test_published_roots(size: int) -> None:
    data = [bytes.fromhex(text) for text in REFERENCE[:size]]
    assert grown(data).root().hex() == ROOTS[size - 1] == root_of(data).hex()


def test_the_empty_tree() -> None:
    assert Frontier().root() == merkle.EMPTY_ROOT == BulkRoot().root() == hashlib.sha256().digest()


def test_the_example_of_rfc_9162() -> None:
    # Section 2.1.5: seven leaves d0..d6 with hashes a..j of pairs, and k, l, m above, named as in its figure.
    d = leaves(7)
    a, b, c, dd, e, f, j = (merkle.leaf_hash(each) for each in d)
    g, h, i = merkle.node_hash(a, b), merkle.node_hash(c, dd), merkle.node_hash(e, f)
    k, last = merkle.node_hash(g, h), merkle.node_hash(i, j)
    nodes = Nodes(d)
    assert merkle.inclusion_proof(0, 7, nodes) == [b, h, last]
    assert merkle.inclusion_proof(3, 7, nodes) == [c, g, last]
    assert merkle.inclusion_proof(4, 7, nodes) == [f, j, k]
    assert merkle.inclusion_proof(6, 7, nodes) == [i, k]
    assert merkle.consistency_proof(3, 7, nodes) == [c, dd, g, last]
    assert merkle.consistency_proof(4, 7, nodes) == [last]
    assert merkle.consistency_proof(6, 7, nodes) == [i, j, k]
    assert root_of(d) == merkle.node_hash(k, last)


@cache
def peer(size: int) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for each in leaves(size):
        tree.append_entry(each)
    return tree


@pytest.mark.parametrize("size", [*range(1, 40), 63, 64, 65, 127, 128, 129, 1000])
def test_a_second_implementation_agrees(size: int) -> None:
    data, tree = leaves(size), peer(size)
    assert grown(data).root() == tree.get_root() == root_of(data)
    nodes, random = Nodes(data), Random(size)
    for index in range(size) if size < 70 else random.sample(range(size), 20):
        ours = merkle.inclusion_proof(index, size, nodes)
        theirs = tree.prove_inclusion(index + 1, size)
        assert merkle.root_from_inclusion(index, size, merkle.leaf_hash(data[index]), ours) == tree.get_root()
        assert sorted(ours) == sorted(_others(theirs, merkle.leaf_hash(data[index])))
        verify_inclusion(merkle.leaf_hash(data[index]), tree.get_root(), theirs)
    for old in range(1, size + 1) if size < 70 else random.sample(range(1, size), 20):
        ours = merkle.consistency_proof(old, size, nodes)
        merkle.verify_consistency(old, size, tree.get_root(old), tree.get_root(), ours)
        verify_consistency(tree.get_root(old), tree.get_root(), tree.prove_consistency(old, size))


def _others(proof: MerkleProof, leaf: bytes) -> list[bytes]:
    """The hashes of a path without the leaf that it begins with."""
    path = list(proof.path)
    path.remove(leaf)
    return path


def test_the_peer_can_say_no() -> None:
    tree = peer(5)
    with pytest.raises(InvalidProof):
        verify_inclusion(bytes(32), tree.get_root(), tree.prove_inclusion(2, 5))


@given(st.integers(1, 3000), st.data())
def test_proofs_of_any_size(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    nodes = Constant()
    root = nodes.root(size)
    path = merkle.inclusion_proof(index, size, nodes)
    assert merkle.root_from_inclusion(index, size, nodes(0, index), path) == root
    assert len(path) <= size.bit_length()
    old = data.draw(st.integers(1, size))
    proof = merkle.consistency_proof(old, size, nodes)
    merkle.verify_consistency(old, size, nodes.root(old), root, proof)


class Constant:
    """A tree of one leaf many times: a node of a level is the same everywhere."""

    def __init__(self) -> None:
        self.levels = [merkle.leaf_hash(bytes(32))]

    def __call__(self, level: int, index: int) -> bytes:
        while len(self.levels) <= level:
            self.levels.append(merkle.node_hash(self.levels[-1], self.levels[-1]))
        return self.levels[level]

    def root(self, size: int) -> bytes:
        return Frontier(size, [self(level, 0) for level in range(60, -1, -1) if size >> level & 1]).root()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 11])
def test_every_flipped_bit_of_a_proof_is_noticed(size: int) -> None:
    data, nodes = leaves(size), Nodes(leaves(size))
    root = root_of(data)
    for index in range(size):
        leaf, path = merkle.leaf_hash(data[index]), merkle.inclusion_proof(index, size, nodes)
        for at in range(len(path)):
            for bit in range(256):
                assert merkle.root_from_inclusion(index, size, leaf, _flipped(path, at, bit)) != root
        for wrong in range(size):
            if wrong != index:
                assert _root_or_none(wrong, size, leaf, path) != root
        for change in (path[:-1], [*path, bytes(32)], path[1:]):
            if change != path:
                assert _root_or_none(index, size, leaf, change) != root
    for old in range(1, size):
        proof = merkle.consistency_proof(old, size, nodes)
        for at in range(len(proof)):
            for bit in (0, 100, 255):
                _refused(old, size, data, _flipped(proof, at, bit))
        for change in (proof[:-1], [*proof, bytes(32)], []):
            _refused(old, size, data, change)
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, size, bytes(32), root, proof)
        with pytest.raises(ProofError):
            merkle.verify_consistency(old, size, root_of(data[:old]), bytes(32), proof)


def _flipped(path: Sequence[bytes], at: int, bit: int) -> list[bytes]:
    changed = bytearray(path[at])
    changed[bit // 8] ^= 1 << bit % 8
    return [*path[:at], bytes(changed), *path[at + 1 :]]


def _root_or_none(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    try:
        return merkle.root_from_inclusion(index, size, leaf, path)
    except ProofError:
        return None


def _refused(old: int, size: int, data: Sequence[bytes], proof: Sequence[bytes]) -> None:
    with pytest.raises(ProofError):
        merkle.verify_consistency(old, size, root_of(data[:old]), root_of(data), proof)


def test_bounds() -> None:
    nodes = Nodes(leaves(4))
    for index, size in ((-1, 4), (4, 4), (0, 0)):
        with pytest.raises(ValueError, match="no leaf"):
            merkle.inclusion_proof(index, size, nodes)
        with pytest.raises(ProofError, match="no leaf"):
            merkle.root_from_inclusion(index, size, bytes(32), [])
    for old, new in ((0, 4), (5, 4), (-1, 4)):
        with pytest.raises(ValueError, match="extends"):
            merkle.consistency_proof(old, new, nodes)
        with pytest.raises(ProofError, match="extends"):
            merkle.verify_consistency(old, new, bytes(32), bytes(32), [])
    with pytest.raises(ProofError, match="32 bytes"):
        merkle.root_from_inclusion(0, 2, bytes(32), [bytes(31)])
    with pytest.raises(ProofError, match="one root"):
        merkle.verify_consistency(2, 2, bytes(32), b"\1" * 32, [])
    merkle.verify_consistency(2, 2, bytes(32), bytes(32), [])
    with pytest.raises(ValueError, match="peaks"):
        Frontier(3, [bytes(32)])
    with pytest.raises(ValueError, match="no subtree"):
        Frontier(1, [bytes(32)]).append(bytes(32), level=1)


@pytest.mark.parametrize("size", [0, 1, 31, 4095, 4096, 4097, 9000])
@pytest.mark.parametrize("chunk", [1, 32, 33, 1000, 1 << 20])
def test_bulk_roots_are_those_of_the_tree(size: int, chunk: int) -> None:
    if chunk < 32 and size > 100:
        chunk = 777
    data = b"".join(leaves(size))
    bulk = BulkRoot()
    for start in range(0, len(data), chunk):
        bulk.update(memoryview(data)[start : start + chunk])
    assert (bulk.size, bulk.root()) == (size, grown(leaves(size)).root())
    bulk.update(b"x")
    with pytest.raises(ValueError, match="not whole"):
        bulk.root()


def test_completed_nodes_are_told() -> None:
    data, tree = leaves(300), Frontier()
    told = [node for each in data for node in tree.append(merkle.leaf_hash(each))]
    assert {(level, index) for level, index, _ in told} == {
        (level, index) for level in range(9) for index in range(300 >> level)
    }
    nodes = Nodes(data)
    assert all(hashed == nodes(level, index) for level, index, hashed in told)
