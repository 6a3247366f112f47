"""A package: a program of several files as one ZIP archive, and the rules by which it becomes a folder.

An archive comes from a stranger, and ZIP says most things twice. So it is read strictly: what its directory and its
entries say must agree, nothing overlaps, and everything that can be counted is counted before anything is
unpacked. See APPNOTE.TXT 6.3.10 for the format.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hanzo_compute.model import bounds

MAIN: Final = {"python": "main.py", "javascript": "main.js"}
"""The file that a program of a language begins with, unless it names another."""
WHEELS: Final = "wheels/"
SITE: Final = "site/"
"""Where the wheels of a package are unpacked."""
RESERVED: Final = frozenset({"hzc.py", "hzc.js", "hzc.call"})
"""Files by which a function reaches the platform."""
SEARCHED: Final = "/in:/in/site"
"""Where Python looks for modules, besides the folder of the file that it begins with."""

_END: Final = struct.Struct("<4s4H2LH")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_DEFLATED: Final = 8
_FLAGS: Final = 0x080E
"""Flags that an entry may have: how hard it was compressed, sizes after the data, a name in UTF-8."""
_LATER: Final = 0x8
_FILE: Final = 0o100000
_FOLDER: Final = 0o040000
_WHEEL: Final = re.compile(r"[^-/]+-[^-/]+(-\d[^-/]*)?-(?P<python>[^-/]+)-(?P<abi>[^-/]+)-(?P<platform>[^-/]+)\.whl")
_LESS: Final = "leave some out, or give data as the input"
_DATA: Final = re.compile(r"[^/]+\.data/(?P<kind>[^/]+)/(?P<rest>.+)")


class InvalidPackage(Exception):
    """The bytes are no package that is accepted; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive: where its data begins, and what it must become."""

    name: str
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


@dataclass(slots=True)
class _Room:
    """What may still be unpacked: a package and the wheels in it share it."""

    entries: int = bounds.PACKAGE_ENTRIES_MAX
    size: int = bounds.PACKAGE_SIZE_MAX


def path_problem(path: str) -> str | None:
    """What is wrong with the name of a file in a package, if anything is."""
    parts = path.split("/")
    if not path or path.startswith("/"):
        return "is no relative path"
    if ".." in parts or "." in parts or "" in parts:
        return "has a part that is empty, . or .."
    if "\\" in path or any(ord(char) < 32 or ord(char) == 127 for char in path):
        return "has a backslash or a control character"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "has a lone surrogate"
    if max(sizes) > 255 or sum(sizes) > bounds.PACKAGE_PATH_MAX or len(parts) > bounds.PACKAGE_DEPTH_MAX:
        return f"is too long: 255 bytes a part, {bounds.PACKAGE_PATH_MAX} in all, {bounds.PACKAGE_DEPTH_MAX} parts"
    return None


def unpack(data: bytes, language: str, entry: str) -> Iterator[tuple[str, bytes]]:
    """The files of a package as the program sees them below ``/in``, one after the other.

    For Python, wheels in ``wheels/`` come as what they hold, below ``site/``. Folders without files are left out.
    Whoever keeps the files keeps none of them if it raises.

    Raises:
        InvalidPackage: the archive breaks a rule, or has no file ``entry``.
    """
    room, seen = _Room(), _Tree()
    found = _entries(data, room)
    if not any(each.name == entry for each in found):
        raise InvalidPackage(f"it has no file {entry!r}, which it should begin with: name another as entry")
    for each in found:
        content = _content(data, each)
        if language == "python" and each.name.startswith(WHEELS) and each.name.endswith(".whl"):
            for name, unpacked in _wheel(each.name, content, room):
                if seen.add(name, unpacked):
                    yield name, unpacked
            continue
        if each.name in RESERVED:
            raise InvalidPackage(f"{each.name} is the platform's: give it another name")
        if seen.add(each.name, content):
            yield each.name, content


def check(data: bytes, language: str, entry: str) -> None:
    """Raises InvalidPackage unless it can be unpacked."""
    for _ in unpack(data, language, entry):
        pass


def environment(language: str, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a package's program: where Python looks for modules first, then what the program says."""
    if language != "python":
        return dict(env)
    own = env.get("PYTHONPATH")
    return {**env, "PYTHONPATH": f"{SEARCHED}:{own}" if own else SEARCHED}


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files: the same files give the same bytes.

    Raises:
        InvalidPackage: they are over a bound.
    """
    if len(files) > bounds.PACKAGE_ENTRIES_MAX:
        raise InvalidPackage(f"it has {len(files)} files, over {bounds.PACKAGE_ENTRIES_MAX}: leave some out")
    if sum(map(len, files.values())) > bounds.PACKAGE_SIZE_MAX:
        raise InvalidPackage(f"its files have over {bounds.PACKAGE_SIZE_MAX} bytes together: {_LESS}")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name in sorted(files):
            problem = path_problem(name)
            if problem is not None:
                raise InvalidPackage(f"the name {name!r} {problem}: rename it")
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (_FILE | 0o644) << 16
            archive.writestr(info, files[name], zipfile.ZIP_DEFLATED, 9)
    if made.tell() > bounds.BLOB_MAX:
        raise InvalidPackage(f"it is packed {made.tell()} bytes, over {bounds.BLOB_MAX}: {_LESS}")
    return made.getvalue()


class _Tree:
    """Names that were given, so that none is given twice and none is both a file and a folder."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._folders: set[str] = set()

    def add(self, name: str, content: bytes) -> bool:
        """Whether the file is a new one; wheels may share a file, if it is the same in both."""
        problem = path_problem(name)
        if problem is not None:  # below site/ it is longer than it was
            raise InvalidPackage(f"the name {name[:80]!r} {problem}: rename it")
        parts = name.split("/")
        above = {"/".join(parts[:depth]) for depth in range(1, len(parts))}
        if name in self._folders or not above.isdisjoint(self._files):
            raise InvalidPackage(f"{name!r} is a file and a folder: rename one")
        if name in self._files:
            if self._files[name] != hash(content) or not name.startswith(SITE):
                raise InvalidPackage(f"{name!r} is there twice, with other bytes: keep one of them")
            return False
        self._files[name] = hash(content)
        self._folders |= above
        return True


def _wheel(name: str, data: bytes, room: _Room) -> Iterator[tuple[str, bytes]]:
    """What a wheel installs, below ``site/``; its scripts and data are left out."""
    tags = _WHEEL.fullmatch(name.removeprefix(WHEELS))
    if tags is None:
        raise InvalidPackage(
            f"{name}: not named as a wheel, NAME-VERSION-py3-none-any.whl, or not directly in {WHEELS}"
        )
    if (tags["abi"], tags["platform"]) != ("none", "any"):
        raise InvalidPackage(
            f"{name}: it is built for {tags['platform']}, and only pure Python (…-none-any.whl) runs here: "
            "use a release or another project that has such a wheel"
        )
    if not any(tag.startswith("py3") for tag in tags["python"].split(".")):
        raise InvalidPackage(f"{name}: it is for {tags['python']}, not Python 3: use a newer release")
    try:
        for each in _entries(data, room):
            spread = _DATA.fullmatch(each.name)
            if spread is not None and spread["kind"] not in ("purelib", "platlib"):
                continue
            yield SITE + (each.name if spread is None else spread["rest"]), _content(data, each)
    except InvalidPackage as error:
        raise InvalidPackage(f"{name}: {error}") from None


def _entries(data: bytes, room: _Room) -> list[Entry]:
    """The files that an archive's directory names, each checked against what stands before its data."""
    if len(data) > bounds.PACKAGE_SIZE_MAX:
        raise InvalidPackage(f"it has {len(data)} bytes, over {bounds.PACKAGE_SIZE_MAX}")
    end, count, first = _end(data)
    room.entries -= count
    if room.entries < 0:
        raise InvalidPackage(f"it has over {bounds.PACKAGE_ENTRIES_MAX} entries together with its wheels")
    found: list[Entry] = []
    taken: list[tuple[int, int, str]] = []
    names: set[str] = set()
    at = first
    for _ in range(count):
        at, name, entry, begin = _directory_entry(data, at, end)
        if name.removesuffix("/") in names:
            raise InvalidPackage(f"{name!r} is there twice")
        names.add(name.removesuffix("/"))
        taken.append((begin, entry.start + entry.packed, name))
        room.size -= entry.size
        if room.size < 0:
            raise InvalidPackage(f"it unpacks to over {bounds.PACKAGE_SIZE_MAX} bytes together with its wheels")
        if entry.size > max(bounds.PACKAGE_RATIO_FREE, entry.packed * bounds.PACKAGE_RATIO_MAX):
            raise InvalidPackage(f"{name!r} unpacks to over {bounds.PACKAGE_RATIO_MAX} times its size: leave it out")
        if not name.endswith("/"):
            found.append(entry)
    if at != end:
        raise InvalidPackage("its directory does not end where it should: pack it anew")
    _apart(taken, first)
    return found


def _apart(taken: list[tuple[int, int, str]], first: int) -> None:
    """Refuse entries that share bytes: a small archive could unpack to much."""
    taken.sort()
    for (_, until, name), following in zip(taken, [*taken[1:], (first, first, "")], strict=True):
        if until > following[0]:
            raise InvalidPackage(f"{name!r} overlaps what follows it: pack it anew")


def _end(data: bytes) -> tuple[int, int, int]:
    """Where the archive's directory ends, how many entries it has, and where it begins."""
    at = data.rfind(b"PK\5\6", max(0, len(data) - _END.size - 0xFFFF))
    if at < 0 or at + _END.size > len(data):
        raise InvalidPackage("it is no ZIP archive, or cut off")
    _, disk, first_disk, here, count, size, first, comment = _END.unpack_from(data, at)
    if at + _END.size + comment != len(data):
        raise InvalidPackage("bytes follow the end of the ZIP archive: pack it anew")
    if disk or first_disk or here != count or count == 0xFFFF or 0xFFFFFFFF in (size, first):
        raise InvalidPackage(f"it is in several parts, or over {bounds.PACKAGE_ENTRIES_MAX} entries (ZIP64)")
    if first + size != at:
        raise InvalidPackage("its directory is not where it says: pack it anew")
    return at, count, first


def _directory_entry(data: bytes, at: int, end: int) -> tuple[int, str, Entry, int]:
    """An entry of the directory at ``at``: where the next is, its name, the file, and where its header is."""
    if at + _CENTRAL.size > end or data[at : at + 4] != b"PK\1\2":
        raise InvalidPackage("its directory is damaged or has fewer entries than it says: pack it anew")
    given = _CENTRAL.unpack_from(data, at)
    _, _, _, flags, method, _, _, crc, packed, size, named, extra, comment, disk, _, attributes, begin = given
    raw = data[at + _CENTRAL.size : at + _CENTRAL.size + named]
    following = at + _CENTRAL.size + named + extra + comment
    if following > end:
        raise InvalidPackage("its directory is cut off: pack it anew")
    name = _name(raw)
    if flags & ~_FLAGS:
        raise InvalidPackage(f"{name!r} is encrypted or patched: pack it without")
    if method not in (0, _DEFLATED):
        raise InvalidPackage(f"{name!r} is compressed by method {method}: use stored or deflate")
    kind = (attributes >> 16) & 0o170000
    if disk or kind not in (0, _FOLDER if name.endswith("/") else _FILE):
        raise InvalidPackage(f"{name!r} is a link or another special file: put a copy of the file there")
    if name.endswith("/") and (size or packed > 2):
        raise InvalidPackage(f"{name!r} is a folder with data: pack it anew")
    if not method and size != packed:
        raise InvalidPackage(f"{name!r} is stored with two sizes: pack it anew")
    start = _start(data, begin, name, raw, (flags, method, crc, packed, size))
    return following, name, Entry(name, start, packed, size, crc, bool(method)), begin


def _start(data: bytes, begin: int, name: str, raw: bytes, said: tuple[int, int, int, int, int]) -> int:
    """Where an entry's data begins, if what stands before it says what the directory does."""
    if data[begin : begin + 4] != b"PK\3\4" or begin + _LOCAL.size > len(data):
        raise InvalidPackage(f"{name!r} is not where the directory says: pack it anew")
    _, _, flags, method, _, _, crc, packed, size, named, extra = _LOCAL.unpack_from(data, begin)
    later = flags & _LATER and not (crc or packed or size)
    same = (crc, packed, size) == said[2:]
    at: int = begin + _LOCAL.size
    if (flags, method) != said[:2] or data[at : at + named] != raw or not (same or later):
        raise InvalidPackage(f"{name!r} is two things, before its data and in the directory: pack it anew")
    return at + int(named) + int(extra)


def _name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise InvalidPackage(f"the name {raw[:80]!r} is not UTF-8: rename it") from None
    problem = path_problem(name.removesuffix("/"))
    if problem is not None:
        raise InvalidPackage(f"the name {name[:80]!r} {problem}: rename it")
    return name


def _content(data: bytes, entry: Entry) -> bytes:
    """An entry unpacked; never more than it says."""
    packed = data[entry.start : entry.start + entry.packed]
    if entry.deflated:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflate.decompress(packed, entry.size + 1)
        except zlib.error as error:
            raise InvalidPackage(f"{entry.name!r} is damaged ({error}): pack it anew") from None
        # An empty file ends only once its last bits are read, which asking for one byte has done.
        whole = inflate.eof and not inflate.unused_data and not inflate.unconsumed_tail
    else:
        content, whole = packed, True
    if not whole or len(content) != entry.size:
        raise InvalidPackage(f"{entry.name!r} does not unpack to the {entry.size} bytes that it says: pack it anew")
    if zlib.crc32(content) != entry.crc:
        raise InvalidPackage(f"{entry.name!r} is damaged (its checksum differs): pack it anew")
    return content
