"""The guests that `make guests` builds, run by wasmtime alone: the SDKs, and the conformance guests themselves."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from tests.support import guest_host, guests
from tests.support.engines import need_guests
from tests.support.guest_host import GuestHost, http_request, http_response

# Building may have to install the tools first.
pytestmark = pytest.mark.timeout(900)

CASES = {case.name: case for case in guests.cases()}
# wasmtime's own WASI refuses exit codes from 126 on; a platform's must not.
BY_WASMTIME = [name for name, case in CASES.items() if (case.exit_code or 0) < 126]
FUEL = 20_000_000_000


@pytest.fixture(scope="session", autouse=True)
def built() -> Path:
    """The folder of the guests, which are up to date."""
    need_guests()
    return guests.BUILT


def end_of(case: guests.Case, module: bytes, root: Path, fuel: int = FUEL) -> tuple[str, int | None, bytes]:
    """How a command ends by wasmtime alone, its exit code and what it wrote."""
    import wasmtime

    config = wasmtime.Config()
    config.consume_fuel = True
    engine = wasmtime.Engine(config)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    wasi = wasmtime.WasiConfig()
    wasi.argv = [case.name, *case.args]
    wasi.env = list(case.env.items())
    for guest_path, path in case.lay_out(root).items():
        wasi.preopen_dir(str(path), guest_path, fs_mutable=case.folders[guest_path].writable)
    stdin, stdout, stderr = root / "stdin", root / "stdout", root / "stderr"
    stdin.write_bytes(case.stdin)
    wasi.stdin_file, wasi.stdout_file, wasi.stderr_file = str(stdin), str(stdout), str(stderr)
    with wasmtime.Store(engine) as store:
        store.set_limits(memory_size=(case.memory_mib or 256) << 20, table_elements=1_000_000)
        store.set_fuel(fuel)
        store.set_wasi(wasi)
        end, code = "exit", 0
        try:
            linker.instantiate(store, wasmtime.Module(engine, module)).exports(store)["_start"](store)
        except wasmtime.ExitTrap as error:
            code = error.code
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            end = "trap" if store.get_fuel() else "never"
    return end, code if end == "exit" else None, stdout.read_bytes()


def run_command(name: str, stdin: bytes, root: Path) -> bytes:
    case = guests.Case(name, guests.BUILT / f"{name}.wasm", "exit", stdin=stdin)
    end, code, stdout = end_of(case, case.module(), root)
    assert (end, code) == ("exit", 0)
    return stdout


@pytest.mark.parametrize("name", BY_WASMTIME)
def test_a_conformance_guest_holds_by_wasmtime_alone(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    end, code, stdout = end_of(case, case.module(), tmp_path, FUEL if case.ends != "never" else 50_000_000)
    assert b"FAIL" not in stdout
    assert end in case.ends.split(" or ")
    assert code == (case.exit_code if end == "exit" else None)
    if case.stdout is not None:
        assert stdout == case.stdout
    assert (tmp_path / "outside.txt").read_text() == "out of reach\n"
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "made.txt").exists()


def test_every_guest_of_the_folder_has_a_case() -> None:
    sources = {path.stem for path in guests.SOURCES.glob("*.c")} - {"hostcalls"} | {
        path.name for path in guests.SOURCES.glob("wat/*")
    }
    assert sources == {case.guest.name.removesuffix(".wasm") for case in CASES.values()}


@pytest.mark.parametrize("count", [0, 1, 7, 8, 15, 16, 17, 64, 100, 4096, 100_003])
def test_sum(count: int, built: Path) -> None:
    request = random.Random(count).randbytes(count)
    padded = request + bytes(-count % 8)
    total = sum(struct.unpack(f"<{len(padded) // 8}Q", padded)) % 2**64
    assert GuestHost().call(built / "sum.wasm", request) == struct.pack("<Q", total)


@pytest.mark.parametrize("size", [0, 1, 65_536, 5_000_000])
def test_echo(size: int, built: Path) -> None:
    request = random.Random(size).randbytes(size)
    assert GuestHost().call(built / "echo.wasm", request) == request


@pytest.mark.parametrize("name", ["wordcount", "wordcount-as"])
@pytest.mark.parametrize(
    "text", [b"", b"one", b" two\twords \n", bytes(range(256)) * 700, "üñï → 😀\r\n".encode() * 9999]
)
def test_wordcount(name: str, text: bytes, tmp_path: Path) -> None:
    expected = (text.count(b"\n"), len(text.split()), len(text))
    assert run_command(name, text, tmp_path) == b"%d %d %d\n" % expected


@pytest.mark.parametrize("name", ["counter.wasm", "counter-as.wasm"])
class TestCounter:
    def test_it_counts(self, name: str, built: Path) -> None:
        host = GuestHost()
        assert [host.call(built / name, b"hits") for _ in range(11)] == [b"%d" % number for number in range(1, 12)]
        assert host.call(built / name, b"") == b"1"
        assert host.values == {b"hits": (11, b"11"), b"counter": (1, b"1")}

    def test_two_at_the_same_time_count_as_two(self, name: str, built: Path) -> None:
        host = GuestHost(values={b"hits": (5, b"41")})
        others = iter([(6, b"42"), (7, b"43")])

        def other() -> None:
            if (value := next(others, None)) is not None:
                host.values[b"hits"] = value

        host.before_put = other
        assert host.call(built / name, b"hits") == b"44"
        assert host.calls.count("kv_put") == 3

    def test_it_gives_up_at_last(self, name: str, built: Path) -> None:
        host = GuestHost(errors={"kv_put": [guest_host.CONFLICT] * 1000})
        assert host.call(built / name, b"hits") == b"counter: put: conflict"
        assert host.calls.count("kv_put") == 64

    @pytest.mark.parametrize(
        ("function", "error", "said"),
        [
            ("kv_get", guest_host.DENIED, b"counter: get: denied"),
            ("kv_get", guest_host.OVER_LIMIT, b"counter: get: over a limit"),
            ("kv_get", guest_host.TIMED_OUT, b"counter: get: timed out"),
            ("kv_put", guest_host.INVALID, b"counter: put: invalid"),
            ("kv_put", guest_host.UNAVAILABLE, b"counter: put: unavailable"),
            ("kv_put", -99, b"counter: put: unknown error"),
        ],
    )
    def test_errors_are_named(self, name: str, function: str, error: int, said: bytes, built: Path) -> None:
        host = GuestHost(errors={function: [error]})
        assert host.call(built / name, b"hits") == said

    def test_a_short_take_is_an_error(self, name: str, built: Path) -> None:
        host = GuestHost(values={b"hits": (1, b"1234567")}, errors={"take": [3]})
        assert host.call(built / name, b"hits") == b"counter: get: unavailable"
        assert host.values == {b"hits": (1, b"1234567")}


@pytest.mark.parametrize("name", ["hostcalls.wasm", "hostcalls-as.wasm"])
def test_every_host_call(name: str, built: Path) -> None:
    blob = bytes(i * 7 % 251 for i in range(100_000))
    host = GuestHost(secrets={"token": b"opensesame"}, input=blob)
    lines = host.call(built / "tests" / name, b"").decode().splitlines()
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) == 32
    assert host.logged == [(1, "a line: üñï"), (0, "")]
    assert host.outputs == {"part": b"some more"}
    assert host.values == {}


@pytest.mark.parametrize("name", ["fetch.wasm", "fetch-as.wasm"])
def test_fetch_sends_the_secret_and_gives_the_answer_as_it_is(name: str, built: Path) -> None:
    seen = []

    def http(head: dict[str, object], body: bytes) -> bytes:
        seen.append((head, body))
        return b'{"status":404,"headers":{"x":"y"}}\n' + bytes(range(256)) * 1000

    host = GuestHost(secrets={"token": b's3"cr\\et'}, http=http)
    answer = host.call(built / name, 'https://example.test/ü?q="1"'.encode())
    assert http_response(answer) == (404, {"x": "y"}, bytes(range(256)) * 1000)
    headers = {"accept": "*/*", "authorization": 'Bearer s3"cr\\et'}
    assert seen == [({"method": "GET", "url": 'https://example.test/ü?q="1"', "headers": headers}, b"")]


@pytest.mark.parametrize("name", ["fetch.wasm", "fetch-as.wasm"])
def test_fetch_says_why_it_cannot(name: str, built: Path) -> None:
    assert http_response(GuestHost().call(built / name, b"https://example.test/"))[::2] == (
        502,
        b"fetch: the secret token: not found\n",
    )
    host = GuestHost(secrets={"token": b"t"}, errors={"http": [guest_host.DENIED]})
    assert http_response(host.call(built / name, b"http://localhost/"))[::2] == (
        502,
        b"fetch: the request: denied\n",
    )


SITE = {
    "home": (http_request("GET", "/"), 200, b"It works"),
    "home without slash": (http_request("GET", ""), 200, b"It works"),
    "hello": (http_request("GET", "/hello/Ada"), 200, b"Hello, Ada!\n"),
    "hello, escaped": (http_request("GET", '/hello/"ü😀\\\n'), 200, 'Hello, "ü😀\\\n!\n'.encode()),
    "hello by POST": (http_request("POST", "/hello/Ada"), 405, b"GET it.\n"),
    "echo": (http_request("POST", "/echo", b"a\nb\0c", **{"content-type": "x/y"}), 200, b"a\nb\0c"),
    "nothing": (http_request("GET", "/nothing"), 404, b"There is nothing here.\n"),
    "members that look like others": (b'{"x":{"path":"/no"},"path" : "/echo","method":"POST"}\nx', 200, b"x"),
    "no request": (b"hello", 400, b"call it at"),
    "an empty request": (b"", 400, b"call it at"),
    "half a request": (http_request("GET", "/")[:20], 400, b"call it at"),
    "a number for a path": (b'{"method":"GET","path":7}\n', 400, b"call it at"),
    "a broken escape": (b'{"method":"GET","path":"\\u12"}\n', 400, b"call it at"),
    "a string without end": (b'{"method":"GET","path":"\\"}\n', 400, b"call it at"),
}


@pytest.mark.parametrize("module", ["site.wasm", "site-as.wasm"])
@pytest.mark.parametrize("name", SITE)
def test_site(name: str, module: str, built: Path) -> None:
    request, status, said = SITE[name]
    response = http_response(GuestHost().call(built / module, request))
    assert response[0] == status
    assert said in response[2]
    if name == "echo":
        assert response[1] == {"content-type": "x/y"}


@pytest.mark.parametrize("module", ["site.wasm", "site-as.wasm"])
def test_site_survives_cuts_and_flips_of_a_head(module: str, built: Path) -> None:
    request = http_request("POST", '/echo\\u00fc"', b"body", **{"content-type": "té/xt"})
    dice, host = random.Random(5), GuestHost()
    for _ in range(300):
        broken = bytearray(request[: dice.randrange(len(request) + 1)])
        for _ in range(dice.randrange(4)):
            if broken:
                broken[dice.randrange(len(broken))] = dice.choice(b'"\\{}[]:,u\n\x00\xff9')
        response = host.call(built / module, bytes(broken))
        status, _, _ = http_response(response.decode(errors="replace").encode())
        assert status in {200, 400, 404, 405}
