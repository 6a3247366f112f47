"""What a WASM module imports and exports, read from its bytes without compiling it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

MAGIC: Final = b"\0asm\1\0\0\0"
KINDS: Final = ("func", "table", "memory", "global", "tag")
_IMPORTS: Final = 2
_EXPORTS: Final = 7


class InvalidModule(Exception):
    """The bytes are no WASM module; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class ModuleFacts:
    """``imports``: module, name and kind of each; ``exports``: kind by name. Kinds are those of ``KINDS``."""

    imports: list[tuple[str, str, str]] = field(default_factory=list)
    exports: dict[str, str] = field(default_factory=dict)


def inspect(data: bytes) -> ModuleFacts:
    """What a module imports and exports.

    Raises:
        InvalidModule: it is none.
    """
    if data[:4] != MAGIC[:4]:
        raise InvalidModule("it does not begin as a WASM module does")
    if data[:8] != MAGIC:
        raise InvalidModule("it is a component or of another version: core modules of version 1 are run")
    facts = ModuleFacts()
    reader = _Reader(data, len(MAGIC), len(data))
    while reader.at < reader.end:
        section, size = reader.byte(), reader.number()
        body = reader.part(size)
        if section == _IMPORTS:
            for _ in range(body.number()):
                module, name = body.name(), body.name()
                facts.imports.append((module, name, body.imported()))
        elif section == _EXPORTS:
            for _ in range(body.number()):
                name = body.name()
                kind = body.kind()
                body.number()
                if name in facts.exports:
                    raise InvalidModule(f"it exports {name[:80]!r} twice")
                facts.exports[name] = kind
    return facts


@dataclass
class _Reader:
    """A part of a module that is read from front to back."""

    data: bytes
    at: int
    end: int

    def byte(self) -> int:
        if self.at >= self.end:
            raise InvalidModule("it is cut short")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128 of at most 64 bits (limits of 64-bit memories are as long)."""
        found = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
        raise InvalidModule("it has a number that is too long")

    def part(self, size: int) -> _Reader:
        if size > self.end - self.at:
            raise InvalidModule("it is cut short")
        self.at += size
        return _Reader(self.data, self.at - size, self.at)

    def name(self) -> str:
        part = self.part(self.number())
        try:
            return self.data[part.at : part.end].decode()
        except UnicodeDecodeError:
            raise InvalidModule("it has a name that is not UTF-8") from None

    def kind(self) -> str:
        byte = self.byte()
        if byte >= len(KINDS):
            raise InvalidModule(f"it has an import or export of the unknown kind {byte}")
        return KINDS[byte]

    def imported(self) -> str:
        """The kind of an import, its type passed over."""
        kind = self.kind()
        if kind == "func":
            self.number()
        elif kind == "table":
            self._reference()
            self._limits()
        elif kind == "memory":
            self._limits()
        elif kind == "global":
            self._reference()
            self.byte()
        else:
            self.byte()
            self.number()
        return kind

    def _reference(self) -> None:
        if self.byte() in (0x63, 0x64):  # a reference to a type, by its number
            self.number()

    def _limits(self) -> None:
        flags = self.byte()
        self.number()
        if flags & 1:
            self.number()
