"""Packages for tests, and archives that no honest tool makes."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping

GREET = "greet-1.0-py3-none-any.whl"


def zipped(files: Mapping[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive as an ordinary tool makes it."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)  # without the time of day: the same each time
    return made.getvalue()


def wheel(name: str = "greet", says: str = "hello") -> bytes:
    """A pure-Python wheel with one package, by hand."""
    info = f"{name}-1.0.dist-info"
    return zipped(
        {
            f"{name}/__init__.py": f"from {name}.words import SAYS\n",
            f"{name}/words.py": f"SAYS = {says!r}\n",
            f"{name}-1.0.data/purelib/{name}_more.py": "MORE = True\n",
            f"{name}-1.0.data/scripts/{name}": "#!python\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": "",
        }
    )


def python_package(**more: bytes | str) -> bytes:
    """A program of two files and a wheel: it answers with its input, greeted."""
    main = "import sys\nfrom app.core import answer\nprint(answer(sys.stdin.read()))\n"
    core = "import greet, greet_more\n\ndef answer(who):\n    return f'{greet.SAYS} {who}'\n"
    return zipped({"main.py": main, "app/core.py": core, f"wheels/{GREET}": wheel(), **more})


def javascript_package() -> bytes:
    """A program of three files that import one another by relative paths."""
    return zipped(
        {
            "main.js": 'import { twice } from "./lib/twice.js";\nconsole.log(twice(21));\n',
            "lib/twice.js": 'import { two } from "./two.js";\nexport const twice = (x) => x * two;\n',
            "lib/two.js": "export const two = 2;\n",
        }
    )


def raw_entry(
    name: bytes,
    data: bytes,
    *,
    offset: int,
    size: int | None = None,
    packed: int | None = None,
    crc: int | None = None,
    method: int = 8,
    flags: int = 0,
    attributes: int = 0o100644 << 16,
    local_name: bytes | None = None,
) -> tuple[bytes, bytes]:
    """A local entry and its line of the directory, which says what it is told to say."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(data) + squeeze.flush() if method == 8 else data
    crc = zlib.crc32(data) if crc is None else crc
    size = len(data) if size is None else size
    packed = len(body) if packed is None else packed
    shown = name if local_name is None else local_name
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 33, crc, packed, size, len(shown), 0)
    central = struct.pack(
        "<4s6H3L5H2L",
        *(b"PK\1\2", 0x314, 20, flags, method, 0, 33, crc, packed, size),
        *(len(name), 0, 0, 0, 0, attributes, offset),
    )
    return local + shown + body, central + name


def archive(body: bytes, directory: bytes, count: int, *, comment: bytes = b"", first: int | None = None) -> bytes:
    """Entries and their directory, with the end that a reader begins with."""
    at = len(body) if first is None else first
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), at, len(comment))
    return body + directory + end + comment
