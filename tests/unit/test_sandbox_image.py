"""The memory of a started interpreter, put over that of its snapshot."""

from __future__ import annotations

import ctypes

import pytest

from hanzo_compute.adapters.sandbox.image import PIECE, Image, again

PAGES = 12


def memory(*changed: int) -> bytearray:
    made = bytearray(b"".join(bytes([number]) * PIECE for number in range(PAGES)))
    for at in changed:
        made[at] ^= 0xFF
    return made


def address(data: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


@pytest.mark.parametrize(
    "changed",
    [
        (),
        (0,),
        (PAGES * PIECE - 1,),
        (PIECE - 1, PIECE),
        (1, 5 * PIECE, 6 * PIECE + 7, 7 * PIECE, 9 * PIECE),
        tuple(range(0, PAGES * PIECE, PIECE)),
    ],
)
def test_it_makes_a_snapshots_memory_its_own(changed: tuple[int, ...]) -> None:
    wanted = memory(*changed)
    image = Image(bytearray(wanted))
    for _ in range(3):
        found = memory()
        image.put(address(found))
        assert found == wanted
    assert sum(size for _, _, size in image._runs) == PIECE * len({at // PIECE for at in changed})


def test_what_it_does_not_change_it_does_not_write() -> None:
    image = Image(memory(3 * PIECE))
    base = memory()
    image.put(address(base))
    other = bytearray(b"x" * PAGES * PIECE)
    image.put(address(other))
    assert other[3 * PIECE : 4 * PIECE] == memory(3 * PIECE)[3 * PIECE : 4 * PIECE]
    assert other[: 3 * PIECE] + other[4 * PIECE :] == b"x" * (PAGES - 1) * PIECE


def test_a_flag_is_cleared_where_it_is() -> None:
    found = bytearray(b"\1\0\0\0" * 4)
    assert again(found, 8)
    assert found == b"\1\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0"
    for at in (8, 7, 15, 16, 100):
        assert not again(found, at)
    assert found == b"\1\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0"
