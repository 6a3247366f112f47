"""What a WASM binary declares, read from its sections without compiling it (WebAssembly core specification 2.0, §5).

Compiling is where a small file can cost much: so everything that can be counted is counted before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MAGIC: Final = b"\0asm"
CORE: Final = b"\x01\x00\x00\x00"
COMPONENT: Final = b"\x0d\x00\x01\x00"

MODULE_MAX: Final = 64 << 20
"""Bytes of a module."""
FUNCTIONS_MAX: Final = 50_000
FUNCTION_BYTES_MAX: Final = 2 << 20
"""Code of one function, bytes."""
LOCALS_MAX: Final = 10_000
"""Locals of one function."""
LOCALS_TOTAL_MAX: Final = 2_000_000
LOCAL_GROUPS_MAX: Final = 500_000
"""Declarations of locals of one type, in all functions. An empty one is valid, and takes time to read."""
SECTIONS_MAX: Final = 10_000
"""Sections, custom ones included."""
TYPES_MAX: Final = 10_000
IMPORTS_MAX: Final = 1_000
EXPORTS_MAX: Final = 10_000
GLOBALS_MAX: Final = 20_000
TABLES_MAX: Final = 4
TABLE_ELEMENTS_MAX: Final = 1_000_000
SEGMENTS_MAX: Final = 100_000
PAGE: Final = 65536

KINDS: Final = ("func", "table", "memory", "global", "tag")


class InvalidModule(Exception):
    """The bytes are no module that is accepted; the message says why."""


class Import(NamedTuple):
    """One import: ``kind`` is func, table, memory, global or tag."""

    module: str
    name: str
    kind: str


@dataclass(slots=True)
class ModuleFacts:
    """What a module declares."""

    size: int
    component: bool = False
    """A component (the component model): only this is known of it."""
    imports: list[Import] = field(default_factory=list)
    exports: dict[str, str] = field(default_factory=dict)
    """Kind of each export by its name."""
    functions: int = 0
    locals: int = 0
    data_bytes: int = 0
    memories: list[tuple[int, int | None]] = field(default_factory=list)
    """Least and most pages of each own memory."""
    tables: list[tuple[int, int | None]] = field(default_factory=list)
    start: bool = False
    """It runs code when it is instantiated."""

    @property
    def import_modules(self) -> frozenset[str]:
        """The modules that it imports from."""
        return frozenset(each.module for each in self.imports)


def inspect(data: bytes) -> ModuleFacts:
    """Read and bound what a module declares.

    Raises:
        InvalidModule: it is no WASM binary, is damaged, or is over a bound.
    """
    if data[:4] != MAGIC:
        raise InvalidModule("it does not begin with the four bytes of a WASM module: \\0asm")
    if len(data) > MODULE_MAX:
        raise InvalidModule(f"it has {len(data)} bytes, over the bound of {MODULE_MAX}")
    if data[4:8] == COMPONENT:
        return ModuleFacts(len(data), component=True)
    if data[4:8] != CORE:
        raise InvalidModule("it is of another version of WASM than 1")
    facts = ModuleFacts(len(data))
    seen: set[int] = set()
    try:
        for count, (section, begin, end) in enumerate(sections(data), 1):
            if count > SECTIONS_MAX:
                raise InvalidModule(f"it has over {SECTIONS_MAX} sections")
            if section and section in seen:
                raise InvalidModule(f"it has section {section} twice")
            seen.add(section)
            read = _SECTIONS.get(section)
            if read is not None:
                read(_Reader(data, begin, end), facts)
    except IndexError:
        raise InvalidModule("it ends in the middle of a section") from None
    except UnicodeDecodeError:
        raise InvalidModule("a name in it is not UTF-8") from None
    return facts


def sections(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The sections of a core module (§5.5.2): the id of each, and where its contents begin and end.

    Raises:
        InvalidModule: one goes on behind the end.
        IndexError: the binary ends in the head of one.
    """
    reader = _Reader(data, 8, len(data))
    while reader.at < reader.end:
        section = reader.byte()
        size = reader.u32()
        end = reader.at + size
        if end > reader.end:
            raise InvalidModule("it ends in the middle of a section")
        yield section, reader.at, end
        reader.at = end


class _Reader:
    """A place in the bytes."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def byte(self) -> int:
        if self.at >= self.end:
            raise IndexError
        found = self.data[self.at]
        self.at += 1
        return found

    def leb(self, bits: int) -> int:
        """An unsigned LEB128 integer (§5.2.2)."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits + 6:
                raise InvalidModule("a number in it is too long")
        if value >> bits:
            raise InvalidModule("a number in it is too large")
        return value

    def u32(self) -> int:
        return self.leb(32)

    def count(self, most: int, what: str) -> int:
        found = self.u32()
        if found > most:
            raise InvalidModule(f"it has {found} {what}, over the bound of {most}")
        return found

    def name(self) -> str:
        size = self.u32()
        if self.at + size > self.end:
            raise IndexError
        found = self.data[self.at : self.at + size].decode()
        self.at += size
        return found

    def limits(self) -> tuple[int, int | None]:
        """§5.3.7, and its extensions for shared and 64-bit memories."""
        flags = self.byte()
        if flags & 0x02:
            raise InvalidModule("it has a shared memory: threads are not offered")
        if flags & 0x04:
            raise InvalidModule("it has a 64-bit memory or table, which is not offered")
        if flags & ~0x01:
            raise InvalidModule("it has a memory or table of an unknown kind")
        least = self.u32()
        return least, self.u32() if flags & 1 else None

    def value_type(self) -> None:
        if self.byte() in (0x63, 0x64):  # a typed reference is followed by what it refers to
            self.leb(33)

    def table_type(self) -> tuple[int, int | None]:
        self.value_type()
        least, most = self.limits()
        if least > TABLE_ELEMENTS_MAX:
            raise InvalidModule(f"it has a table of {least} elements, over the bound of {TABLE_ELEMENTS_MAX}")
        return least, most


def _imports(reader: _Reader, facts: ModuleFacts) -> None:
    for _ in range(reader.count(IMPORTS_MAX, "imports")):
        module, name, kind = reader.name(), reader.name(), reader.byte()
        if kind == 0:
            reader.u32()
        elif kind == 1:
            reader.table_type()
        elif kind == 2:
            reader.limits()
        elif kind == 3:
            reader.value_type()
            reader.byte()
        elif kind == 4:
            reader.byte()
            reader.u32()
        else:
            raise InvalidModule("it imports something of an unknown kind")
        facts.imports.append(Import(module, name, KINDS[kind]))


def _functions(reader: _Reader, facts: ModuleFacts) -> None:
    facts.functions = reader.count(FUNCTIONS_MAX, "functions")


def _types(reader: _Reader, facts: ModuleFacts) -> None:
    reader.count(TYPES_MAX, "types")


def _tables(reader: _Reader, facts: ModuleFacts) -> None:
    for _ in range(reader.count(TABLES_MAX, "tables")):
        if reader.data[reader.at] == 0x40:
            raise InvalidModule("it has a table with an initialiser, which is not offered")
        facts.tables.append(reader.table_type())


def _memories(reader: _Reader, facts: ModuleFacts) -> None:
    for _ in range(reader.count(1, "memories")):
        facts.memories.append(reader.limits())


def _globals(reader: _Reader, facts: ModuleFacts) -> None:
    reader.count(GLOBALS_MAX, "globals")


def _exports(reader: _Reader, facts: ModuleFacts) -> None:
    for _ in range(reader.count(EXPORTS_MAX, "exports")):
        name, kind = reader.name(), reader.byte()
        reader.u32()
        if kind >= len(KINDS):
            raise InvalidModule("it exports something of an unknown kind")
        facts.exports[name] = KINDS[kind]


def _start(reader: _Reader, facts: ModuleFacts) -> None:
    facts.start = True


def _elements(reader: _Reader, facts: ModuleFacts) -> None:
    reader.count(SEGMENTS_MAX, "element segments")


def _code(reader: _Reader, facts: ModuleFacts) -> None:
    total = groups = 0
    for number in range(reader.count(FUNCTIONS_MAX, "functions")):
        size = reader.u32()
        if size > FUNCTION_BYTES_MAX:
            raise InvalidModule(f"function {number} has {size} bytes of code, over the bound of {FUNCTION_BYTES_MAX}")
        end = reader.at + size
        if end > reader.end:
            raise IndexError
        if size and reader.data[reader.at]:  # most functions have no locals: nothing to read
            body = _Reader(reader.data, reader.at, end)
            own, declared = 0, body.u32()
            groups += declared
            if groups > LOCAL_GROUPS_MAX:
                raise InvalidModule(f"its functions declare locals over {LOCAL_GROUPS_MAX} times")
            for _ in range(declared):
                own += body.u32()
                if own > LOCALS_MAX:
                    raise InvalidModule(f"function {number} has over {LOCALS_MAX} locals")
                body.value_type()
            total += own
            if total > LOCALS_TOTAL_MAX:
                raise InvalidModule(f"its functions have over {LOCALS_TOTAL_MAX} locals together")
        reader.at = end
    facts.locals = total


def _data(reader: _Reader, facts: ModuleFacts) -> None:
    reader.count(SEGMENTS_MAX, "data segments")
    facts.data_bytes = reader.end - reader.at


_SECTIONS: Final = {
    1: _types,
    2: _imports,
    3: _functions,
    4: _tables,
    5: _memories,
    6: _globals,
    7: _exports,
    8: _start,
    9: _elements,
    10: _code,
    11: _data,
}
