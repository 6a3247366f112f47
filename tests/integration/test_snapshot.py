"""Programs that go on from a snapshot of Python behave as those whose interpreter starts for them."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.adapters.runner.wasm import WasmRunner
from hanzo_compute.adapters.sandbox import guest, image, snapshot
from hanzo_compute.adapters.sandbox.artefacts import CannotCompile, artefacts_of
from hanzo_compute.adapters.sandbox.engine import InvalidProgram
from hanzo_compute.adapters.sandbox.interpreters import PINS, Interpreter, Pin
from hanzo_compute.adapters.sandbox.settings import Profile
from hanzo_compute.model import wasm
from tests.support.wasm import Runs, command, wat

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, wasm_cache: Path) -> Iterator[Runs]:
    runner = WasmRunner(tmp_path_factory.mktemp("state"), wasm_cache, 2, SystemClock())
    yield Runs(runner)
    runner.close()


def result(runs: Runs, program: str, stdin: bytes = b"", **options: Any) -> tuple[Any, ...]:
    """What can be seen of a run."""
    handle = runs.start(program, stdin, **options)
    outcome, stdout = runs.end(handle)
    errors = "".join(entry.text for entry in runs.entries(handle) if entry.stream == "stderr")
    return outcome.category, outcome.exit_code, outcome.detail, stdout, ADDRESS.sub("0x", errors)


ADDRESS = re.compile("0x[0-9a-f]+")

STATE = """
import sys
before = sorted(globals())
import gc, os, locale, signal, warnings, threading, builtins, site, atexit
print(before)
print(sys.argv, sys.orig_argv, sys._xoptions, sys.path, sys.flags, sys.warnoptions)
print([type(hook) for hook in sys.path_hooks], sys.meta_path, sys.__interactivehook__.__name__)
print(sorted(dir(sys)), sys.getrecursionlimit(), sys.is_finalizing(), sys.dont_write_bytecode)
print(sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix)
print(sys.getfilesystemencoding().lower())  # UTF-8 or utf-8, as CPython has read it the second time or the first
for stream in sys.stdin, sys.stdout, sys.stderr:
    print(stream.seekable(), stream.isatty(), stream.readable(), stream.writable(), stream.fileno())
    print(stream.name, stream.mode, stream.encoding, stream.errors, stream.line_buffering, stream.write_through)
print(os.getcwd(), sorted(os.environ.items()), os.environb if hasattr(os, "environb") else None)
print(gc.isenabled(), gc.get_threshold(), locale.getlocale(), locale.getpreferredencoding())
print(__name__, __file__, __spec__, __builtins__, type(__loader__), __doc__, __package__)
print(warnings.filters, threading.enumerate(), threading.current_thread() is threading.main_thread())
print(sorted(dir(builtins)), site.ENABLE_USER_SITE, atexit._ncallbacks())
print(sys.getallocatedblocks() > 0, sys.thread_info, sys.float_repr_style, sys.hash_info)
try:
    print(sys._getframe(1))
except ValueError as error:
    print(error)
"""

PROGRAMS: dict[str, tuple[str, bytes]] = {
    "its state": (STATE, b""),
    "it exits": ("import sys; sys.exit(3)", b""),
    "it exits at once": ("import os; os._exit(4)", b""),
    "it exits with words": ("raise SystemExit('no')", b""),
    "an exception": ("def f():\n    return 1 / 0\ntry:\n    f()\nexcept ZeroDivisionError:\n    [][0]", b""),
    "a syntax error": ("print('a'\n", b""),
    "no such module": ("import nothing", b""),
    "interrupted": ("raise KeyboardInterrupt", b""),
    "deep recursion": (
        "def f(n):\n    try:\n        return f(n + 1)\n    except RecursionError:\n        return n\nprint(f(0))",
        b"",
    ),
    "a stack": ("import traceback\ndef f(): traceback.print_stack()\nf()", b""),
    "a warning": ("import warnings\nwarnings.warn('careful')\nwarnings.warn('very', stacklevel=2)", b""),
    "input": (
        "import sys\nprint(input(), sys.stdin.read(3), sys.stdin.buffer.read(2), list(sys.stdin))",
        b"a\nbcdefg\nh\xc3\xbc\n",
    ),
    "all of the input": (
        "import sys\ndata = sys.stdin.buffer.read(); print(len(data), hash(data) == hash(data))",
        bytes(300_000),
    ),
    "no input": ("try:\n    input()\nexcept EOFError as error:\n    print(repr(error))", b""),
    "the end": (
        "import atexit, sys\n"
        "class Last:\n    def __del__(self): print('deleted', self.name)\n"
        "a = Last(); a.name = 'a'\n"
        "ring = Last(); ring.name = 'ring'; ring.own = ring\n"
        "import io, os\n"
        "class Raw(io.RawIOBase):\n    def writable(self): return True\n    def write(self, b): return os.write(1, b)\n"
        "waiting = io.BufferedWriter(Raw()); waiting.write(b'not flushed')\n"
        "atexit.register(print, 'first'); atexit.register(print, 'second')\n"
        "print('x', end=''); sys.stderr.write('y')",
        b"",
    ),
    "a thread": (
        "import threading\ntry:\n    threading.Thread(target=print).start()\n"
        "except RuntimeError as error:\n    print(error)",
        b"",
    ),
    "a loop of asyncio": (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 5\n"
        "try:\n    asyncio.run(f())\nexcept OSError as error:\n    print(error)",
        b"",
    ),
    "a log": ("import logging\nlogging.basicConfig()\nlogging.warning('hm')", b""),
    "classes": (
        "import dataclasses, enum, typing, json, re, datetime, collections\n"
        "@dataclasses.dataclass\nclass P:\n    x: int\n    y: 'list[int]' = dataclasses.field(default_factory=list)\n"
        "T = collections.namedtuple('T', 'a b')\nE = enum.Enum('E', 'A B')\n"
        "print(P(1), T(1, 2), E.A, T.__module__, P.__module__, typing.get_type_hints(P))\n"
        "print(json.dumps({'a': [1.5, None]}), re.sub('a+', 'b', 'caat'), datetime.date(2026, 2, 3))",
        b"",
    ),
    "files": (
        "import os, tempfile\n"
        "with tempfile.TemporaryDirectory() as name:\n"
        "    path = os.path.join(name, 'a'); open(path, 'w').write('ü' * 9000); print(len(open(path).read()))\n"
        "print(os.listdir('/in'), os.path.exists('/in/main.py'), os.listdir('/tmp'))",
        b"",
    ),
    "modules of every kind": (
        "import csv, decimal, fractions, hashlib, heapq, hmac, html, http, inspect, pickle, secrets, shutil, sqlite3,"
        " statistics, unicodedata, unittest, urllib.parse, uuid, xml.etree.ElementTree, zipfile, zlib\n"
        "print(decimal.Decimal('1.1') + 1, hashlib.sha256(b'a').hexdigest(), pickle.loads(pickle.dumps({1: 'a'})))",
        b"",
    ),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_sees_no_difference(runs: Runs, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    program, stdin = PROGRAMS[what]
    options = {"args": ["a", "-b", "ü"], "env": {"NAME": "wörld", "EMPTY": ""}}
    resumed = result(runs, program, stdin, **options)
    monkeypatch.setattr(Interpreter, "resumes", lambda *_: False)
    assert resumed == result(runs, program, stdin, **options)


def modules(runs: Runs, **options: Any) -> set[str]:
    _, stdout = runs.run("import sys; print(*sys.modules)", **options)
    return set(stdout.decode().split())


def test_what_asks_for_a_start_of_its_own_gets_it(runs: Runs) -> None:
    """A snapshot holds modules that a start does not import."""
    assert "dataclasses" in modules(runs)
    assert "dataclasses" in modules(runs, env={"PYTHONPATH": "/tmp", "NAME": "x"})
    for env in ({"PYTHONHASHSEED": "1"}, {"PYTHONUTF8": "1"}, {"LC_ALL": "C"}, {"LANG": "C"}):
        assert "dataclasses" not in modules(runs, env=env), env
    assert "dataclasses" not in modules(runs, memory_mib=16)
    assert "dataclasses" not in modules(runs, fuel=10**11)
    hashes = [runs.run("print(hash('a'))", env={"PYTHONHASHSEED": seed})[1] for seed in ("1", "1", "random", "random")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_no_run_repeats_anothers_random_numbers(runs: Runs) -> None:
    code = "import random, os, secrets, uuid\n"
    code += "print(random.random(), os.urandom(8).hex(), secrets.token_hex(), uuid.uuid4())"
    found = [runs.run(code)[1].split() for _ in range(3)]
    for column in zip(*found, strict=True):
        assert len(set(column)) == 3


def test_no_run_sees_what_another_has_changed(runs: Runs) -> None:
    code = """
import builtins, collections, json, os, random, sys
found = [hasattr(module, "left") for module in (builtins, collections, json, os, sys, random)]
print(found, "LEFT" in os.environ, "/left" in sys.path, len(gone := json.JSONEncoder.item_separator))
for module in (builtins, collections, json, os, sys, random):
    module.left = bytes(100_000)
json.JSONEncoder.item_separator = "left"
os.environ["LEFT"] = "1"
sys.path.append("/left")
"""
    expected = b"[False, False, False, False, False, False] False False 2\n"
    assert [runs.run(code)[1] for _ in range(4)] == [expected] * 4


def package(files: dict[str, str]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return made.getvalue()


def test_a_package_has_its_own_path(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "app/run.py": "import sys, lib, beside\nprint(sys.path, lib.name, beside.name, sys.customised)",
        "app/beside.py": "name = 'beside'",
        "lib.py": "name = 'lib'",
        "sitecustomize.py": "import sys; sys.customised = True",
    }
    seen = []
    for resumes in (True, False):
        if not resumes:
            monkeypatch.setattr(Interpreter, "resumes", lambda *_: False)
        source = {"package": "b1-" + "0" * 64, "language": "python", "entry": "app/run.py"}
        lease = runs.lease(source, env={"PYTHONPATH": "/tmp::/tmp"})
        outcome, stdout = runs.end(runs.runner.start(lease, module=package(files), stdin=b""))
        assert outcome.exit_code == 0, outcome.detail
        seen.append(stdout)
    assert seen[0] == seen[1]


def test_only_an_interpreter_that_is_known_has_one(tmp_path: Path) -> None:
    artefacts = artefacts_of(tmp_path, Profile.FAST, snapshot=True)
    for module in (command(""), b"nonsense"):
        with pytest.raises(CannotCompile, match="no interpreter"):
            artefacts.get(hashlib.sha256(module).hexdigest(), lambda module=module: module)
    artefacts.close()


PIN = Pin("", "", "", 0, "", "", ("guest", ""), started=64)
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'


def started(body: str, globals_: str = "(global $sp (mut i32) (i32.const 9))", pages: int = 2) -> bytes:
    """A module that does this when it starts, and then leaves by where a snapshot is taken."""
    return wat(
        f'(module {EXIT} {globals_} (memory (export "memory") {pages}) (data (i32.const 64) "\\00\\00\\00\\00set")'
        f'(func (export "at") (param i32) (result i32) (i32.load (local.get 0)))'
        f'(func (export "_start") {body}))'
    )


def test_it_is_the_module_with_the_memory_that_it_had(tmp_path: Path) -> None:
    body = f"""
      (i32.store (i32.const 64) (i32.const 1)) (i32.store (i32.const 4094) (i32.const -1))
      (drop (memory.grow (i32.const 1))) (i32.store (i32.const 196604) (i32.const 77))
      (i32.store (i32.const 120000) (i32.const 0x80)) (global.set $sp (i32.const 3))
      (call $exit (i32.const {image.TAKEN}))"""
    made = snapshot.take(started(body), PIN, tmp_path)
    facts = wasm.inspect(made)
    assert facts.memories == [(3, None)]
    assert facts.data_bytes <= 5 * snapshot.BLOCK
    import wasmtime

    store = wasmtime.Store()
    linker = wasmtime.Linker(store.engine)
    linker.define_wasi()
    store.set_wasi(wasmtime.WasiConfig())
    exports: Any = linker.instantiate(store, wasmtime.Module(store.engine, made)).exports(store)
    found = {at: exports["at"](store, at) for at in (0, 64, 68, 4094, 65536, 120_000, 196_604)}
    assert found == {0: 0, 64: 0, 68: 0x746573, 4094: -1, 65536: 0, 120_000: 0x80, 196_604: 77}
    assert list(tmp_path.iterdir()) == []


LEAVE = f"(call $exit (i32.const {image.TAKEN}))"
REFUSED = {
    "the flag is not set": (started(LEAVE), "flag"),
    "it ends by itself": (started("(i32.store (i32.const 64) (i32.const 1))"), "ended with 0"),
    "it fails": (started("(call $exit (i32.const 1))"), "ended with 1"),
    "it traps": (started("unreachable"), "could not be started: .*unreachable"),
    "it has another global": (
        started(
            f"(i32.store (i32.const 64) (i32.const 1)) {LEAVE}", "(global i32 (i32.const 1)) (global i32 (i32.const 2))"
        ),
        "globals",
    ),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_as_it_should_be_is_refused(tmp_path: Path, why: str) -> None:
    module, said = REFUSED[why]
    with pytest.raises(InvalidProgram, match=said):
        snapshot.take(module, PIN, tmp_path)


def test_it_depends_on_what_runs_in_it(wasm_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = PINS["python"].sha256
    plain, first = (artefacts_of(wasm_cache, Profile.FAST, snapshot=which).name(digest) for which in (False, True))
    monkeypatch.setattr(guest, "resume", lambda: b"pass")
    assert len({plain, first, artefacts_of(wasm_cache, Profile.FAST, snapshot=True).name(digest)}) == 3
