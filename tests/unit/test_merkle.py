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
from pymerkle.proof import ConsistencyProof

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


@cache
def bulk_root(data: bytes | memoryview, width: int = 32) -> bytes:
    bulk = BulkRoot(width)
    bulk.update(data)
    return bulk.root()


def leaves(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % number).digest() for number in range(count)]


class Nodes:
    """Complete subtrees of a list of leaves; counts what is asked for."""

    def __init__(self, data: Sequence[bytes]) -> None:
        self.data = data
        self.calls = 0
        self._known: dict[tuple[int, int], bytes] = {}

    def __call__(self, level: int, index: int) -> bytes:
        self.calls += 1
        assert (index + 1) << level <= len(self.data), "only complete subtrees are asked for"
        return self.of(level, index)

    def of(self, level: int, index: int) -> bytes:
        found = self._known.get((level, index))
        if found is None:
            below = (self.of(level - 1, 2 * index), self.of(level - 1, 2 * index + 1)) if level else ()
            data = b"\1" + b"".join(below) if level else b"\0" + self.data[index]
            found = self._known[level, index] = hashlib.sha256(data).digest()
        return found

    def root(self, size: int) -> bytes:
        return root_from(self.of, size)


def root_from(node: merkle.Node, size: int) -> bytes:
    """The root over the first leaves, of which the complete subtrees are known."""
    levels = [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]
    return Frontier(size, [node(level, (size >> level) - 1) for level in levels]).root()


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


MANY = 5000


@cache
def peer() -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    tree.append_entries(leaves(MANY))
    return tree


@cache
def many() -> Nodes:
    return Nodes(leaves(MANY))


def agree_on_inclusion(index: int, size: int) -> None:
    nodes, leaf, theirs = many(), many().of(0, index), peer().prove_inclusion(index + 1, size)
    root = peer().get_root(size)
    ours = merkle.inclusion_proof(index, size, nodes)
    assert theirs.path == [leaf, *ours]
    assert merkle.root_from_inclusion(index, size, leaf, theirs.path[1:]) == root
    theirs.path = [leaf, *ours]
    verify_inclusion(leaf, nodes.root(size), theirs, index=index + 1, size=size)


def agree_on_consistency(old: int, new: int) -> None:
    nodes, theirs = many(), peer().prove_consistency(old, new)
    ours = merkle.consistency_proof(old, new, nodes)
    assert ours == in_the_form_of_the_rfc(theirs)
    merkle.verify_consistency(old, new, peer().get_root(old), peer().get_root(new), ours)
    verify_consistency(nodes.root(old), nodes.root(new), theirs, prior_size=old, later_size=new)


def in_the_form_of_the_rfc(theirs: ConsistencyProof) -> list[bytes]:
    """The peer opens the subtree right of the old tree down to its first leaf, and leaves no node out."""
    old, path = theirs.prior_size, theirs.path
    if old == theirs.size:
        return []
    first = theirs.subset.index(1)
    right = path[0]
    for each in path[1:first]:
        right = merkle.node_hash(right, each)
    own = [] if old & (old - 1) == 0 else [path[first]]
    return [*own, right, *path[first + 1 :]]


@pytest.mark.parametrize("size", range(1, 71))
def test_a_second_implementation_agrees(size: int) -> None:
    assert grown(leaves(size)).root() == many().root(size) == peer().get_root(size) == root_of(leaves(size))
    for index in range(size):
        agree_on_inclusion(index, size)
    for old in range(1, size + 1):
        agree_on_consistency(old, size)


@pytest.mark.parametrize("seed", range(10))
def test_a_second_implementation_agrees_on_larger_trees(seed: int) -> None:
    random = Random(seed)
    size = random.randint(71, MANY)
    assert grown(leaves(size)).root() == many().root(size) == peer().get_root(size)
    for _ in range(20):
        agree_on_inclusion(random.randrange(size), size)
        agree_on_consistency(random.randint(1, size), size)


def test_the_peer_can_say_no() -> None:
    leaf, theirs = many().of(0, 1), peer().prove_inclusion(2, 5)
    with pytest.raises(InvalidProof):
        verify_inclusion(bytes(32), peer().get_root(5), theirs)
    theirs.path = [leaf, *merkle.inclusion_proof(2, 5, many())]
    with pytest.raises(InvalidProof):
        verify_inclusion(leaf, peer().get_root(5), theirs)
    with pytest.raises(InvalidProof):
        verify_consistency(peer().get_root(4), peer().get_root(5), peer().prove_consistency(3, 5))


@given(st.integers(1, MANY), st.data())
def test_proofs_hold_and_ask_for_few_nodes(size: int, data: st.DataObject) -> None:
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    nodes = many()
    before = nodes.calls
    path = merkle.inclusion_proof(index, size, nodes)
    proof = merkle.consistency_proof(old, size, nodes)
    assert nodes.calls - before <= 4 * size.bit_length()
    assert len(path) <= size.bit_length() >= len(proof) - 1
    assert merkle.root_from_inclusion(index, size, nodes.of(0, index), path) == nodes.root(size)
    merkle.verify_consistency(old, size, nodes.root(old), nodes.root(size), proof)
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert _root_or_none(other, size, nodes.of(0, index), path) != nodes.root(size)
        assert _root_or_none(index, size, nodes.of(0, other), path) != nodes.root(size)


@given(st.integers(1, 2**63 - 1), st.data())
def test_proofs_of_any_size(size: int, data: st.DataObject) -> None:
    # One leaf many times: a node of a level is the same everywhere, so that this shows the shape of proofs only.
    levels = [merkle.leaf_hash(bytes(32))]
    for _ in range(63):
        levels.append(merkle.node_hash(levels[-1], levels[-1]))

    def node(level: int, index: int) -> bytes:
        assert (index + 1) << level <= size
        return levels[level]

    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root = root_from(node, size)
    assert merkle.root_from_inclusion(index, size, levels[0], merkle.inclusion_proof(index, size, node)) == root
    merkle.verify_consistency(old, size, root_from(node, old), root, merkle.consistency_proof(old, size, node))


SIZES = [1, 2, 3, 5, 7, 8, 11]


@pytest.mark.parametrize("size", SIZES)
def test_every_change_of_an_inclusion_proof_is_noticed(size: int) -> None:
    nodes = many()
    root = nodes.root(size)
    for index in range(size):
        leaf, path = nodes.of(0, index), merkle.inclusion_proof(index, size, nodes)
        for at in range(len(path)):
            for bit in range(256):
                assert merkle.root_from_inclusion(index, size, leaf, _flipped(path, at, bit)) != root
        for wrong in set(range(size + 3)) - {index}:
            assert _root_or_none(wrong, size, leaf, path) != root
        for wrong in set(range(1, 20)) - {size}:  # a size comes with its root
            assert _root_or_none(index, wrong, leaf, path) != nodes.root(wrong)
        with pytest.raises(ProofError, match="too long"):
            merkle.root_from_inclusion(index, size, leaf, [*path, bytes(32)])
        if path:
            assert _root_or_none(index, size, leaf, path[1:]) != root
            with pytest.raises(ProofError, match="too short"):
                merkle.root_from_inclusion(index, size, leaf, path[:-1])


@pytest.mark.parametrize("size", SIZES)
def test_every_change_of_a_consistency_proof_is_noticed(size: int) -> None:
    nodes = many()
    root = nodes.root(size)
    for old in range(1, size):
        proof, first = merkle.consistency_proof(old, size, nodes), nodes.root(old)
        for at in range(len(proof)):
            for bit in range(256):
                with pytest.raises(ProofError, match="does not lead"):
                    merkle.verify_consistency(old, size, first, root, _flipped(proof, at, bit))
        for change, told in ((proof[:-1], "empty|short"), ([*proof, bytes(32)], "long"), ([], "empty")):
            with pytest.raises(ProofError, match=told):
                merkle.verify_consistency(old, size, first, root, change)
        for wrong in set(range(1, 20)) - {old}:
            with pytest.raises(ProofError):
                merkle.verify_consistency(wrong, size, nodes.root(wrong), root, proof)
        for wrong in set(range(1, 20)) - {size}:
            with pytest.raises(ProofError):
                merkle.verify_consistency(old, wrong, first, nodes.root(wrong), proof)
        for roots in ((bytes(32), root), (first, bytes(32)), (root, first)):
            with pytest.raises(ProofError, match="does not lead"):
                merkle.verify_consistency(old, size, *roots, proof)


def _flipped(path: Sequence[bytes], at: int, bit: int) -> list[bytes]:
    changed = bytearray(path[at])
    changed[bit // 8] ^= 1 << bit % 8
    return [*path[:at], bytes(changed), *path[at + 1 :]]


def _root_or_none(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    try:
        return merkle.root_from_inclusion(index, size, leaf, path)
    except ProofError:
        return None


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
    with pytest.raises(ProofError, match="no proof"):
        merkle.verify_consistency(2, 2, bytes(32), bytes(32), [bytes(32)])
    for roots in ((bytes(31), bytes(32)), (bytes(32), b"")):
        with pytest.raises(ProofError, match="32 bytes"):
            merkle.verify_consistency(1, 2, *roots, [bytes(32)])
    merkle.verify_consistency(2, 2, bytes(32), bytes(32), [])
    for count, peaks in ((3, [bytes(32)]), (1, [bytes(31)]), (-1, [bytes(32)]), (0, [bytes(32)])):
        with pytest.raises(ValueError, match="peaks"):
            Frontier(count, peaks)
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
    assert bulk_root(data) == bulk_root(memoryview(data)) == bulk.root()
    bulk.update(b"x")
    with pytest.raises(ValueError, match="not whole"):
        bulk.root()


@given(st.integers(1, 5), st.lists(st.binary(max_size=40)))
def test_bulk_roots_of_other_widths(width: int, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    bulk = BulkRoot(width)
    for chunk in chunks:
        bulk.update(chunk)
    assert bulk.size == len(data) // width
    if len(data) % width:
        with pytest.raises(ValueError, match="not whole"):
            bulk.root()
    else:
        expected = root_of([data[at : at + width] for at in range(0, len(data), width)])
        assert bulk.root() == bulk_root(data, width) == expected


def test_leaves_have_a_width() -> None:
    for width in (0, -1):
        with pytest.raises(ValueError, match="wide"):
            BulkRoot(width)


@given(st.integers(0, 600), st.integers(0, 300))
def test_a_tree_that_was_stored_grows_on(size: int, more: int) -> None:
    stored = grown(leaves(MANY)[:size])
    tree = Frontier(stored.size, stored.peaks)
    for leaf in leaves(MANY)[size : size + more]:
        tree.append(merkle.leaf_hash(leaf))
    assert tree.root() == (many().root(size + more) if size + more else merkle.EMPTY_ROOT)
    assert (stored.size, len(stored.peaks)) == (size, size.bit_count())


def test_completed_nodes_are_told() -> None:
    data, tree = leaves(300), Frontier()
    told = [node for each in data for node in tree.append(merkle.leaf_hash(each))]
    assert {(level, index) for level, index, _ in told} == {
        (level, index) for level in range(9) for index in range(300 >> level)
    }
    nodes = Nodes(data)
    assert all(hashed == nodes(level, index) for level, index, hashed in told)
