"""Nodes of a large tree from tiles, in the shape of C2SP tlog-tiles: 256 hashes of one level in each.

Level 0 is not stored: it is made of entry bundles, which hold 256 leaves each. Tiles are levels 8, 16, … of the tree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hanzo_compute.transparency.merkle import HASH, combine, leaf_hash

HEIGHT: Final = 8
BUNDLE: Final = 1 << HEIGHT
"""Hashes in a tile, leaves in an entry bundle."""


class TileNodes:
    """The ``node`` of :mod:`~hanzo_compute.transparency.merkle`; what was read is kept for the life of the object.

    ``read_bundle(number)`` gives leaves of 32 bytes one after the other, ``read_tile(level, number)`` (level from 1)
    hashes likewise; the last of a level may hold less than 256.
    """

    def __init__(self, read_bundle: Callable[[int], bytes], read_tile: Callable[[int, int], bytes]) -> None:
        self._read_bundle = read_bundle
        self._read_tile = read_tile
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, level: int, index: int) -> bytes:
        """The hash of a complete subtree.

        Raises:
            ValueError: what was read does not reach as far, or is no tile.
        """
        tile, depth = divmod(level, HEIGHT)
        first = index << depth
        number, within = divmod(first, BUNDLE)
        hashed = self._tile(tile, number)[within : within + (1 << depth)]
        if len(hashed) != 1 << depth:
            raise ValueError(f"tile {number} of level {tile} does not reach to hash {within + (1 << depth) - 1}")
        while len(hashed) > 1:
            hashed = combine(hashed)
        return hashed[0]

    def _tile(self, level: int, number: int) -> list[bytes]:
        found = self._tiles.get((level, number))
        if found is None:
            data = self._read_tile(level, number) if level else self._read_bundle(number)
            if len(data) % HASH or len(data) > HASH * BUNDLE:
                raise ValueError(f"tile {number} of level {level} has {len(data)} bytes: not up to 256 times 32")
            parts = [data[at : at + HASH] for at in range(0, len(data), HASH)]
            found = self._tiles[level, number] = parts if level else [leaf_hash(part) for part in parts]
        return found
