"""Random modules that are valid by construction: typed expressions, calls of WASI and hzc, memories and tables."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from hanzo_compute.adapters.sandbox import hostcalls
from tests.support.wasi_script import WASI, hzc_params

I32, I64, F32, F64 = 0x7F, 0x7E, 0x7D, 0x7C
KINDS = (I32, I64, F32, F64)
_NAMED = {"i32": I32, "i64": I64}
VOID = 0x40

# Opcodes of the core specification, §5.4: (result, operand) of unary and of binary operators.
UNARY = {
    I32: [(op, I32) for op in (0x45, 0x67, 0x68, 0x69, 0xC0, 0xC1)]
    + [(0x50, I64), (0xA7, I64), (0xA8, F32), (0xA9, F32), (0xAA, F64), (0xAB, F64), (0xBC, F32)],
    I64: [(op, I64) for op in (0x79, 0x7A, 0x7B, 0xC2, 0xC3, 0xC4)]
    + [(0xAC, I32), (0xAD, I32), (0xAE, F32), (0xAF, F32), (0xB0, F64), (0xB1, F64), (0xBD, F64)],
    F32: [(op, F32) for op in range(0x8B, 0x92)] + [(0xB2, I32), (0xB3, I32), (0xB4, I64), (0xB6, F64), (0xBE, I32)],
    F64: [(op, F64) for op in range(0x99, 0xA0)] + [(0xB7, I32), (0xB8, I32), (0xB9, I64), (0xBB, F32), (0xBF, I64)],
}
BINARY = {
    I32: [(op, I32) for op in (*range(0x46, 0x50), *range(0x6A, 0x79))]
    + [(op, I64) for op in range(0x51, 0x5B)]
    + [(op, F32) for op in range(0x5B, 0x61)]
    + [(op, F64) for op in range(0x61, 0x67)],
    I64: [(op, I64) for op in range(0x7C, 0x8B)],
    F32: [(op, F32) for op in range(0x92, 0x99)],
    F64: [(op, F64) for op in range(0xA0, 0xA7)],
}
LOADS = {
    I32: (0x28, 0x2C, 0x2D, 0x2E, 0x2F),
    I64: (0x29, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35),
    F32: (0x2A,),
    F64: (0x2B,),
}
STORES = {I32: (0x36, 0x3A, 0x3B), I64: (0x37, 0x3C, 0x3D, 0x3E), F32: (0x38,), F64: (0x39,)}
EDGES = (0, 1, -1, 2, 7, 8, 255, 65535, 65536, 2**31 - 1, -(2**31), 131072, 1000, 3, 4)
FLOATS = (0.0, -0.0, 1.0, -1.5, float("inf"), float("-inf"), float("nan"), 1e38, 5e-324, 2.0**31, -(2.0**63))


def leb(value: int) -> bytes:
    """Unsigned LEB128."""
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def sleb(value: int) -> bytes:
    """Signed LEB128."""
    made = bytearray()
    while not -64 <= value < 64:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value & 0x7F])


def section(number: int, content: bytes) -> bytes:
    """One section."""
    return bytes([number]) + leb(len(content)) + content


def vector(items: list[bytes]) -> bytes:
    """A count and the items."""
    return leb(len(items)) + b"".join(items)


def name(text: str) -> bytes:
    """A name."""
    return vector([bytes([byte]) for byte in text.encode()])


class Module:
    """A module in the making."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.types: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.functions: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        """Types of functions, those that are imported first."""
        self.globals = [dice.choice(KINDS) for _ in range(dice.randrange(5))]
        self.tables = dice.randrange(1, 3)
        self.passive = dice.random() < 0.5
        self.budget = 0
        self.locals: list[int] = []
        self.labels = 0
        self.result: tuple[int, ...] = ()

    def type(self, kind: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        """The number of a type."""
        if kind not in self.types:
            self.types.append(kind)
        return self.types.index(kind)

    # Code

    def const(self, kind: int) -> bytes:
        """A constant, mostly one at an edge."""
        dice = self.dice
        if kind == I32:
            return b"\x41" + sleb(dice.choice(EDGES) if dice.random() < 0.8 else dice.randrange(-(2**31), 2**31))
        if kind == I64:
            return b"\x42" + sleb(dice.choice((*EDGES, -(2**63), 2**63 - 1)))
        number = dice.choice(FLOATS)
        return b"\x44" + struct.pack("<d", number) if kind == F64 else b"\x43" + struct.pack("<f", min(number, 3e38))

    def value(self, kind: int, depth: int) -> bytes:
        """An expression that leaves one value of a kind."""
        dice = self.dice
        self.budget -= 1
        if depth <= 0 or self.budget <= 0:
            return self.const(kind)
        ways: list[Callable[[], bytes]] = [
            lambda: self.const(kind),
            lambda: self._unary(kind, depth),
            lambda: self._binary(kind, depth),
            lambda: self._load(kind, depth),
            lambda: self._choice(kind, depth),
            lambda: b"\x02" + bytes([kind]) + self._inside(lambda: self.value(kind, depth - 1)) + b"\x0b",
        ]
        own = [n for n, each in enumerate(self.locals) if each == kind]
        if own:
            ways += [lambda: b"\x20" + leb(dice.choice(own))] * 3
            ways.append(lambda: self.value(kind, depth - 1) + b"\x22" + leb(dice.choice(own)))
        known = [n for n, each in enumerate(self.globals) if each == kind]
        if known:
            ways.append(lambda: b"\x23" + leb(dice.choice(known)))
        callable_ = [n for n, (_, results) in enumerate(self.functions) if results == (kind,)]
        if callable_:
            ways += [lambda: self._call(dice.choice(callable_), depth)] * 4
        if kind == I32:
            ways += [
                lambda: b"\x3f\0",
                lambda: self.const(I32) + b"\x40\0",
                lambda: b"\xfc\x10" + leb(dice.randrange(self.tables)),
                lambda: b"\xd0\x70" + self.const(I32) + b"\xfc\x0f" + leb(dice.randrange(self.tables)),
                lambda: self.small() + b"\x25" + leb(dice.randrange(self.tables)) + b"\xd1",
                lambda: self.value(dice.choice((F32,)), depth - 1) + b"\xfc" + leb(dice.randrange(2)),
            ]
        return dice.choice(ways)()

    def _inside(self, make: Callable[[], bytes]) -> bytes:
        self.labels += 1
        made = make()
        self.labels -= 1
        return made

    def _unary(self, kind: int, depth: int) -> bytes:
        op, operand = self.dice.choice(UNARY[kind])
        return self.value(operand, depth - 1) + bytes([op])

    def _binary(self, kind: int, depth: int) -> bytes:
        op, operand = self.dice.choice(BINARY[kind])
        return self.value(operand, depth - 1) + self.value(operand, depth - 1) + bytes([op])

    def _address(self) -> bytes:
        wild = self.dice.random() < 0.02
        return b"\0" + leb(self.dice.choice((65535, 2**31, 2**32 - 1) if wild else (0, 1, 8)))

    def _place(self, depth: int) -> bytes:
        """An address, mostly one in memory."""
        found = self.value(I32, depth)
        return found if self.dice.random() < 0.03 else found + b"\x41" + sleb(0xFFF0) + b"\x71"

    def small(self) -> bytes:
        """A number that is small, mostly."""
        return b"\x41" + sleb(self.dice.randrange(4)) if self.dice.random() < 0.9 else self.const(I32)

    def _load(self, kind: int, depth: int) -> bytes:
        return self._place(depth - 1) + bytes([self.dice.choice(LOADS[kind])]) + self._address()

    def _choice(self, kind: int, depth: int) -> bytes:
        if self.dice.random() < 0.5:
            return self.value(kind, depth - 1) + self.value(kind, depth - 1) + self.value(I32, depth - 1) + b"\x1b"
        condition = self.value(I32, depth - 1)
        one = self._inside(lambda: self.value(kind, depth - 1))
        other = self._inside(lambda: self.value(kind, depth - 1))
        return condition + b"\x04" + bytes([kind]) + one + b"\x05" + other + b"\x0b"

    def _call(self, target: int, depth: int) -> bytes:
        params, _ = self.functions[target]
        given = b"".join(self.value(each, depth - 2) for each in params)
        if self.dice.random() < 0.15:
            number = leb(self.type(self.functions[target])) + leb(self.dice.randrange(self.tables))
            return given + self.small() + b"\x11" + number
        return given + b"\x10" + leb(target)

    def statement(self, depth: int) -> bytes:
        """Code that leaves nothing."""
        dice = self.dice
        self.budget -= 1
        kind = dice.choice(KINDS)
        ways: list[Callable[[], bytes]] = [
            lambda: self.value(kind, depth) + b"\x1a",
            lambda: self._place(depth) + self.value(kind, depth) + bytes([dice.choice(STORES[kind])]) + self._address(),
            lambda: b"\x02\x40" + self._inside(lambda: self.statements(depth - 1)) + b"\x0b",
            lambda: self._loop(depth),
            lambda: self._if(depth),
            lambda: self._branch(depth),
            lambda: self.small() + self.small() + self.small() + b"\xfc\x0b\0",
            lambda: self.small() + self.small() + self.small() + b"\xfc\x0a\0\0",
            lambda: self.small() + b"\xd0\x70\x26" + leb(dice.randrange(self.tables)),
        ]
        if self.passive:
            ways += [
                lambda: self.small() + self.small() + self.small() + b"\xfc\x08\0\0",
                lambda: b"\xfc\x09\0",
                lambda: self.small() + self.small() + self.small() + b"\xfc\x0c\0\0",
            ]
        nothing = [n for n, (_, results) in enumerate(self.functions) if not results]
        if nothing and dice.random() < 0.3:
            ways.append(lambda: self._call(dice.choice(nothing), depth))
        if self.locals:
            at = dice.randrange(len(self.locals))
            ways.append(lambda: self.value(self.locals[at], depth) + b"\x21" + leb(at))
        if self.globals:
            which = dice.randrange(len(self.globals))
            ways.append(lambda: self.value(self.globals[which], depth) + b"\x24" + leb(which))
        if dice.random() < 0.02:
            ways.append(lambda: b"\0")
        return dice.choice(ways)()

    def statements(self, depth: int) -> bytes:
        """Several statements."""
        if depth <= 0 or self.budget <= 0:
            return b"\x01"
        return b"".join(self.statement(depth - 1) for _ in range(self.dice.randrange(1, 4)))

    def _loop(self, depth: int) -> bytes:
        """Mostly one that ends: a loop without end costs its whole time."""
        body = self._inside(lambda: self.statements(depth - 1))
        counters = [n for n, kind in enumerate(self.locals) if kind == I32]
        if self.dice.random() < 0.02:
            again = b"\x0c\0"
        elif counters:
            counter = leb(self.dice.choice(counters))
            again = b"\x20" + counter + b"\x41\x01\x6b\x22" + counter + b"\x41\x0f\x71\x0d\0"
        else:
            again = b""
        return b"\x03\x40" + body + again + b"\x0b"

    def _if(self, depth: int) -> bytes:
        condition = self.value(I32, depth - 1)
        one, other = (self._inside(lambda: self.statements(depth - 1)) for _ in range(2))
        return condition + b"\x04\x40" + one + b"\x05" + other + b"\x0b"

    def _branch(self, depth: int) -> bytes:
        """Out of a block of its own, so that what it jumps over leaves nothing."""
        condition = self.value(I32, depth - 1)
        if self.dice.random() < 0.3:
            table = vector([leb(self.dice.randrange(2)) for _ in range(self.dice.randrange(4))])
            return b"\x02\x40\x02\x40" + condition + b"\x0e" + table + b"\0" + b"\x0b\x0b"
        return b"\x02\x40" + condition + b"\x0d\0" + self._inside(lambda: self.statements(depth - 1)) + b"\x0b"

    def body(self, params: tuple[int, ...], results: tuple[int, ...]) -> bytes:
        """A function's code."""
        own = [self.dice.choice(KINDS) for _ in range(self.dice.randrange(6))]
        self.locals = [*params, *own]
        self.budget = self.dice.randrange(20, 200)
        code = self.statements(4) + b"".join(self.value(kind, 4) for kind in results) + b"\x0b"
        made = vector([leb(1) + bytes([kind]) for kind in own]) + code
        return leb(len(made)) + made


def generate(dice: random.Random) -> bytes:
    """A random module."""
    made = Module(dice)
    reactor = dice.random() < 0.4
    imports = []
    for each in dice.sample(sorted(WASI), dice.choice((0, 0, 1, 3, 8, 20))):
        kind = (tuple(_NAMED[part] for part in WASI[each].split()), () if each == "proc_exit" else (I32,))
        imports.append(name("wasi_snapshot_preview1") + name(each) + b"\0" + leb(made.type(kind)))
        made.functions.append(kind)
    for each in dice.sample(sorted(hostcalls.FUNCTIONS), dice.choice((0, 0, 2, 6))):
        kind = (
            tuple(_NAMED[part] for part in hzc_params(each).split()),
            (_NAMED[hostcalls.FUNCTIONS[each].result],),
        )
        imports.append(name("hzc") + name(each) + b"\0" + leb(made.type(kind)))
        made.functions.append(kind)
    first = len(made.functions)
    own: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((), ())]
    if reactor:
        own += [((I32,), (I32,)), ((I32, I32), (I64,))]
    for _ in range(dice.randrange(5)):
        params = tuple(dice.choice(KINDS) for _ in range(dice.randrange(4)))
        own.append((params, dice.choice([(), (I32,), (I64,), (F32,), (F64,)])))
    made.functions += own
    codes = [made.body(*kind) for kind in own]
    exports = [name("_start" if not reactor else "_initialize") + b"\0" + leb(first)]
    if reactor:
        exports += [name("alloc") + b"\0" + leb(first + 1), name("handle") + b"\0" + leb(first + 2)]
        if dice.random() < 0.6:  # one that does what it should
            give = b"\0\x41\x80\x08\x0b"
            codes[1] = leb(len(give)) + give
    if dice.random() < 0.9 or reactor:
        exports.append(name("memory") + b"\x02\0")
    elif dice.random() < 0.5:
        exports.append(name("memory") + dice.choice([b"\0" + leb(first), b"\x01\0"]))
    functions = vector([leb(made.type(kind)) for kind in own])
    unusual = [b"\1\1\2", b"\0\0", b"\1\2\x10", b"\0" + leb(65536), b"\0" + leb(70)]
    limits = dice.choice([b"\0\1"] * 9 + unusual)
    tables = vector([b"\x70" + dice.choice([b"\0\x08"] * 9 + [b"\1\4\x10", b"\0\0"]) for _ in range(made.tables)])
    consts = vector([bytes([kind, 1]) + made.const(kind) + b"\x0b" for kind in made.globals])
    segments = [b"\1" + leb(4) + b"data"] if made.passive else []
    segments += [b"\0" + made.small() + b"\x0b" + leb(8) + dice.randbytes(8) for _ in range(dice.randrange(2))]
    indices = vector([leb(dice.randrange(len(made.functions))) for _ in range(dice.randrange(1, 5))])
    elements = [b"\1\0" + indices] if made.passive else []
    elements += [b"\0\x41" + sleb(dice.choice((0, 0, 0, 0, 1, 100))) + b"\x0b" + indices] if dice.random() < 0.5 else []
    parts = [
        section(
            1,
            vector(
                [b"\x60" + vector([bytes([p]) for p in ps]) + vector([bytes([r]) for r in rs]) for ps, rs in made.types]
            ),
        ),
        section(2, vector(imports)),
        section(3, functions),
        section(4, tables),
        section(5, vector([limits])),
        section(6, consts),
        section(7, vector(exports)),
        section(8, leb(first)) if dice.random() < 0.15 else b"",
        section(9, vector(elements)),
        section(12, leb(len(segments))) if segments else b"",
        section(10, vector(codes)),
        section(11, vector(segments)) if segments else b"",
    ]
    return b"\0asm\1\0\0\0" + b"".join(parts)
