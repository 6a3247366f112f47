"""What a package may be: the rules for its archive, attacked."""

from __future__ import annotations

import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanzo_compute.model import bounds
from hanzo_compute.model.package import InvalidPackage, check, environment, pack, path_problem, unpack
from tests.support.packages import GREET, archive, javascript_package, python_package, raw_entry, wheel, zipped

MAIN = {"main.py": b"print(1)"}
LONG = "/".join(["a" * 200] * 3)
DEEP = "/".join("a" * 33)


def files(data: bytes, language: str = "python", entry: str = "main.py") -> dict[str, bytes]:
    return dict(unpack(data, language, entry))


def refused(data: bytes, match: str, language: str = "python", entry: str = "main.py") -> None:
    with pytest.raises(InvalidPackage, match=match):
        check(data, language, entry)


def one(name: bytes = b"main.py", data: bytes = b"print(1)", **said: Any) -> bytes:
    local, central = raw_entry(name, data, offset=0, **said)
    return archive(local, central, 1)


def test_files_come_as_they_are_and_wheels_as_what_they_hold() -> None:
    found = files(python_package())
    assert set(found) == {
        "main.py",
        "app/core.py",
        "site/greet/__init__.py",
        "site/greet/words.py",
        "site/greet_more.py",
        *(f"site/greet-1.0.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD")),
    }
    assert found["site/greet/words.py"] == b"SAYS = 'hello'\n"
    assert found["site/greet-1.0.dist-info/RECORD"] == b""


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_other_archives_are_files_like_any(method: int) -> None:
    inner = zipped({"x": b"0" * 5_000_000})
    given_ = {"main.js": b"1", "wheels/x-1-py3-none-any.whl": wheel(), "data/inner.zip": inner, "a/b/c": b""}
    assert files(zipped(given_, method), "javascript", "main.js") == given_
    assert files(zipped({**MAIN, "inner.zip": inner}, method))["inner.zip"] == inner


def test_what_honest_tools_write_is_read() -> None:
    assert set(files(javascript_package(), "javascript", "main.js")) == {"main.js", "lib/twice.js", "lib/two.js"}
    assert files(zipped({**MAIN, "folder/": b"", "ünï/çø.py": "1"})) == {**MAIN, "ünï/çø.py": b"1"}
    local, central = raw_entry(b"main.py", b"print(1)", offset=0)
    assert files(archive(local, central, 1, comment=b"f" * 40)) == MAIN  # as git archive
    # A tool that writes to a pipe tells sizes after the data.
    flagged, central = raw_entry(b"main.py", b"print(1)", offset=0, flags=8)
    packed = central[16:28]
    piped = flagged[:14] + bytes(12) + flagged[26:] + b"PK\7\10" + packed
    assert files(archive(piped, central, 1)) == MAIN


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a//b",
        "./a",
        "a/.",
        "a\\..\\b",
        "a\nb",
        "a\x7f",
        "\x1b[2J",
        "a" * 256,
        "..",
        LONG,
        DEEP,
    ],
)
def test_no_name_leads_out_of_the_folder_or_deceives(name: str) -> None:
    assert path_problem(name) is not None
    local, central = raw_entry(name.encode(), b"", offset=0)
    refused(archive(local, central, 1), "rename it")
    with pytest.raises(InvalidPackage, match="rename it"):
        pack({name: b""})


def test_names_are_utf_8_and_whole() -> None:
    refused(one(b"\xff.py"), "not UTF-8")
    refused(one(b"a\0b"), "control character")
    assert path_problem("\ud800") == "has a lone surrogate"
    refused(one(b""), "is no relative path")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"attributes": 0o120777 << 16}, "is a link"),
        ({"attributes": 0o010644 << 16}, "special file"),
        ({"attributes": 0o060644 << 16}, "special file"),
        ({"attributes": 0o040755 << 16}, "special file"),
        ({"flags": 1}, "encrypted"),
        ({"flags": 0x40}, "encrypted"),
        ({"flags": 0x20}, "patched"),
        ({"flags": 0x2000}, "encrypted"),
        ({"method": 12}, "method 12"),
        ({"method": 9}, "method 9"),
        ({"method": 14}, "method 14"),
        ({"local_name": b"other.p"}, "two things"),
        ({"size": 7}, "does not unpack to the 7 bytes"),
        ({"size": 9}, "does not unpack to the 9 bytes"),
        ({"size": 0}, "does not unpack to the 0 bytes"),
        ({"packed": 3}, "damaged|does not unpack"),
        ({"packed": 2000}, "overlaps"),
        ({"packed": 0xFFFFFFFF}, "overlaps"),
        ({"size": 0xFFFFFFFF}, "over 33554432"),
        ({"crc": 5}, "checksum"),
        ({"method": 0, "size": 9}, "two sizes"),
    ],
)
def test_an_entry_is_what_it_says_or_nothing(said: dict[str, Any], match: str) -> None:
    refused(one(**said), match)


def test_a_folder_holds_nothing() -> None:
    refused(one(b"main.py/", b"data", attributes=0o040755 << 16), "folder with data")


def test_bombs() -> None:
    refused(zipped({**MAIN, "zeros": bytes(8 << 20)}), "over 200 times")
    noise = random.Random(1).randbytes(1 << 20)
    whole = {**MAIN, **{f"f{n}": noise[: 1 << 19] + bytes(1 << 19) for n in range(32)}}
    refused(zipped(whole), "over 33554432 bytes")
    many = {f"f{n}": b"" for n in range(2000)}
    refused(zipped({**MAIN, **many}), "over 2000 entries")
    assert len(files(zipped({**MAIN, **{f"f{n}": b"" for n in range(1999)}}))) == 2000
    # The number of entries is 16 bits: the most that there can be, said or really there.
    local, central = raw_entry(b"main.py", b"", offset=0)
    refused(archive(local, central * 65_534, 65_534), "over 2000 entries")
    refused(archive(local, central * 65_535, 65_535), "over 2000 entries|ZIP64")
    refused(archive(local, central, 1999), "fewer entries than it says")
    refused(archive(local, central * 3, 1), "does not end where it should")


def test_a_wheel_has_no_room_of_its_own() -> None:
    noise = random.Random(2).randbytes(1 << 20)
    half = {f"f{n}": noise[: 1 << 15] + bytes(31 << 15) for n in range(20)}
    inner = zipped(half)
    refused(
        zipped({**MAIN, **{f"wheels/w{n}-1-py3-none-any.whl": inner for n in range(2)}}), "together with its wheels"
    )
    small = zipped({f"g{n}/__init__.py": b"" for n in range(1200)})
    refused(zipped({**MAIN, **{f"wheels/w{n}-1-py3-none-any.whl": small for n in range(2)}}), "over 2000 entries")
    refused(zipped({**MAIN, "wheels/w-1-py3-none-any.whl": zipped({"zeros": bytes(8 << 20)})}), "over 200 times")


def test_entries_do_not_share_bytes() -> None:
    # As in the better zip bomb: many names for one piece of data, quoted inside one another.
    kernel, first = raw_entry(b"main.py", b"print(1)", offset=0)
    _, again = raw_entry(b"main.py", b"print(1)", offset=0)
    refused(archive(kernel, first + again, 2), "there twice")
    _, other = raw_entry(b"other.p", b"print(1)", offset=0)
    refused(archive(kernel, first + other, 2), "two things")
    inner, inside = raw_entry(b"b", b"x", offset=37, method=0)
    outer, outside = raw_entry(b"main.py", inner, offset=0, method=0)
    refused(archive(outer, outside + inside, 2), "overlaps")
    # … and with the directory.
    local, central = raw_entry(b"main.py", b"print(1)", offset=0, packed=60)
    refused(archive(local, central, 1), "overlaps")


def test_names_are_there_once_and_one_thing() -> None:
    refused(zipped({**MAIN, "a": b"", "a/b": b""}), "a file and a folder")
    refused(zipped({**MAIN, "a/b": b"", "a": b""}), "a file and a folder")
    refused(zipped({**MAIN, "a/": b"", "a": b""}), "there twice")
    twins = {f"wheels/w{n}-1-py3-none-any.whl": zipped({"same.py": b"1", f"own{n}.py": b""}) for n in range(2)}
    assert {"site/same.py", "site/own0.py", "site/own1.py"} < set(files(zipped({**MAIN, **twins})))
    twins["wheels/w2-1-py3-none-any.whl"] = zipped({"same.py": b"2"})
    refused(zipped({**MAIN, **twins}), "there twice, with other bytes")
    refused(zipped({**MAIN, "hzc.py": b""}), "the platform's")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("numpy-2.0.0-cp312-cp312-manylinux_2_17_x86_64.whl", "built for manylinux_2_17_x86_64.*none-any"),
        ("x-1-cp312-abi3-any.whl", "only pure Python"),
        ("x-1-py2-none-any.whl", "not Python 3"),
        ("x.whl", "not named as a wheel"),
        ("more/x-1-py3-none-any.whl", "not directly in wheels/"),
    ],
)
def test_wheels_are_pure_python(name: str, match: str) -> None:
    refused(zipped({**MAIN, f"wheels/{name}": wheel()}), match)


def test_a_wheel_keeps_the_rules_too() -> None:
    for name, match in ((b"../../main.py", "rename it"), (b"/x", "rename it")):
        local, central = raw_entry(name, b"", offset=0)
        refused(zipped({**MAIN, f"wheels/{GREET}": archive(local, central, 1)}), f"{GREET}.*{match}")
    refused(zipped({**MAIN, f"wheels/{GREET}": b"no archive"}), f"{GREET}.*no ZIP archive")
    long = "/".join(["a" * 100] * 5 + ["b" * 10])
    refused(zipped({**MAIN, f"wheels/{GREET}": zipped({long: b""})}), "too long")


def test_what_is_no_archive() -> None:
    whole = zipped(MAIN)
    for data in (b"", b"PK\5\6", b"\0" * 100, whole[:-1], whole[:40]):
        refused(data, "no ZIP archive|bytes follow")
    refused(whole + b"x", "bytes follow")
    refused(b"x" + whole, "not where it says")
    refused(whole[:-22] + struct.pack("<4s4H2LH", b"PK\5\6", 1, 1, 1, 1, 53, 0, 0), "several parts")
    refused(zipped({"other.py": b""}), "no file 'main.py'.*entry")
    refused(zipped({"main.py/": b""}), "no file 'main.py'")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_archive_is_refused_or_the_same(data: st.DataObject) -> None:
    whole = bytearray(python_package())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = files(bytes(whole))
    except InvalidPackage:
        return
    assert all(path_problem(name) is None for name in found)
    assert sum(map(len, found.values())) <= bounds.PACKAGE_SIZE_MAX


_NAMES = st.text("abcü._-", min_size=1, max_size=8).filter(lambda name: path_problem(name) is None)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(_NAMES, st.binary(max_size=2000), max_size=20))
def test_what_is_packed_is_unpacked(given_: dict[str, bytes]) -> None:
    whole = {**given_, "main.js": b"1"}
    packed = pack(whole)
    assert files(packed, "javascript", "main.js") == whole
    assert pack(dict(reversed(whole.items()))) == packed


def test_packing_tells_what_to_leave_out() -> None:
    noise = random.Random(3).randbytes
    given_: list[tuple[Callable[[], dict[str, bytes]], str]] = [
        (lambda: {str(n): b"" for n in range(2001)}, "2001 files"),
        (lambda: {"a": noise(9 << 20)}, "packed"),
        (lambda: {"a": bytes(33 << 20)}, "bytes together"),
    ]
    for make, match in given_:
        with pytest.raises(InvalidPackage, match=f"{match}.*leave some out"):
            pack(make())


def test_where_python_looks() -> None:
    assert environment("python", {"A": "1"}) == {"A": "1", "PYTHONPATH": "/in:/in/site"}
    assert environment("python", {"PYTHONPATH": "/in/lib"}) == {"PYTHONPATH": "/in:/in/site:/in/lib"}
    assert environment("javascript", {"A": "1"}) == {"A": "1"}
