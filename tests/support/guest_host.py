"""A host for guests by wasmtime's public API: what the SDKs are tested against, call by call.

Its answers can be scripted, errors included, which a real host cannot be made to give. It holds the ABI strictly:
`take` gives the last result once, and a pointer outside of memory fails the test.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_FOUND, DENIED, INVALID, CONFLICT, OVER_LIMIT, UNAVAILABLE, TIMED_OUT = range(-1, -8, -1)


@dataclass(slots=True)
class GuestHost:
    """What the calls of one guest meet, and what it did."""

    values: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)
    input: bytes = b""
    outputs: dict[str, bytes] = field(default_factory=dict)
    logged: list[tuple[int, str]] = field(default_factory=list)
    # Answers to HTTP requests: an error, or what the other side says.
    http: Callable[[dict[str, Any], bytes], int | bytes] = lambda head, body: UNAVAILABLE
    # Errors that the next calls of a function give, before it does its work.
    errors: dict[str, list[int]] = field(default_factory=dict)
    # Called before each kv_put: a chance to come in between.
    before_put: Callable[[], None] = lambda: None
    calls: list[str] = field(default_factory=list)
    # Not one for all hosts: at the end of the interpreter wasmtime's objects can no longer be freed.
    _compiled: dict[Path, tuple[Any, Any]] = field(default_factory=dict)
    _last: bytes = b""
    _memory: Any = None
    _store: Any = None

    def call(self, module: Path, request: bytes) -> bytes:
        """The response of a reactor to one request, in an instance of its own."""
        import wasmtime

        if module not in self._compiled:
            engine = wasmtime.Engine()
            self._compiled[module] = engine, wasmtime.Module.from_file(engine, str(module))
        engine, compiled = self._compiled[module]
        linker = wasmtime.Linker(engine)
        linker.define_wasi()
        i32, i64 = wasmtime.ValType.i32(), wasmtime.ValType.i64()
        for name, (params, result) in {
            "log": ([i32, i32, i32], i32),
            "now": ([], i64),
            "random": ([i32, i32], i32),
            "take": ([i32, i32], i32),
            "kv_get": ([i32, i32, i32], i64),
            "kv_put": ([i32, i32, i32, i32, i64], i32),
            "kv_delete": ([i32, i32, i64], i32),
            "secret": ([i32, i32], i64),
            "http": ([i32, i32, i32, i32], i64),
            "input_size": ([], i64),
            "input_read": ([i64, i32, i32], i64),
            "output": ([i32, i32, i32, i32], i64),
        }.items():
            linker.define_func("hzc", name, wasmtime.FuncType(params, [result]), self._function(name))
        with wasmtime.Store(engine) as store:
            store.set_wasi(wasmtime.WasiConfig())
            exports = linker.instantiate(store, compiled).exports(store)
            self._store, self._memory = store, exports["memory"]
            if "_initialize" in exports:
                exports["_initialize"](store)
            pointer = exports["alloc"](store, len(request))
            assert pointer > 0
            self._memory.write(store, request, pointer)
            packed = exports["handle"](store, pointer, len(request)) & (1 << 64) - 1
            return self._read(packed >> 32, packed & 0xFFFFFFFF)

    def _function(self, name: str) -> Callable[..., int]:
        work: Callable[..., int] = getattr(self, f"_{name}")

        def function(*args: int) -> int:
            self.calls.append(name)
            if self.errors.get(name):
                return self.errors[name].pop(0)
            return work(*args)

        return function

    def _read(self, pointer: int, length: int) -> bytes:
        assert 0 <= pointer <= pointer + length <= self._memory.data_len(self._store)
        return bytes(self._memory.read(self._store, pointer, pointer + length))

    def _result(self, value: bytes) -> int:
        self._last = value
        return len(value)

    def _log(self, level: int, pointer: int, length: int) -> int:
        if level not in range(4):
            return INVALID
        self.logged.append((level, self._read(pointer, length).decode()))
        return 0

    def _now(self) -> int:
        return time.time_ns()

    def _random(self, pointer: int, length: int) -> int:
        self._memory.write(self._store, os.urandom(length), pointer)
        return 0

    def _take(self, pointer: int, length: int) -> int:
        given, self._last = self._last[:length], b""
        self._memory.write(self._store, given, pointer)
        return len(given)

    def _kv_get(self, key: int, key_length: int, version_out: int) -> int:
        version, value = self.values.get(self._read(key, key_length), (0, b""))
        if version_out:
            self._memory.write(self._store, version.to_bytes(8, "little"), version_out)
        return self._result(value) if version else NOT_FOUND

    def _kv_put(self, key: int, key_length: int, value: int, length: int, expect: int) -> int:
        self.before_put()
        name = self._read(key, key_length)
        version, _ = self.values.get(name, (0, b""))
        if expect not in {-1, version}:
            return CONFLICT
        self.values[name] = (version + 1, self._read(value, length))
        return 0

    def _kv_delete(self, key: int, length: int, expect: int) -> int:
        name = self._read(key, length)
        version, _ = self.values.get(name, (0, b""))
        if expect not in {-1, version}:
            return CONFLICT
        return 0 if self.values.pop(name, None) else NOT_FOUND

    def _secret(self, name: int, length: int) -> int:
        secret = self.secrets.get(self._read(name, length).decode())
        return NOT_FOUND if secret is None else self._result(secret)

    def _http(self, head: int, head_length: int, body: int, length: int) -> int:
        answer = self.http(json.loads(self._read(head, head_length)), self._read(body, length))
        return answer if isinstance(answer, int) else self._result(answer)

    def _input_size(self) -> int:
        return len(self.input)

    def _input_read(self, offset: int, pointer: int, length: int) -> int:
        if offset < 0:
            return INVALID
        part = self.input[offset : offset + length]
        self._memory.write(self._store, part, pointer)
        return len(part)

    def _output(self, name: int, name_length: int, pointer: int, length: int) -> int:
        key = self._read(name, name_length).decode()
        self.outputs[key] = self.outputs.get(key, b"") + self._read(pointer, length)
        return len(self.outputs[key])


def http_request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as an HTTP function gets it."""
    head = {"method": method, "path": path, "query": "", "headers": headers, "body_size": len(body)}
    return json.dumps(head).encode() + b"\n" + body


def http_response(response: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of what an HTTP function answers."""
    line, _, body = response.partition(b"\n")
    head = json.loads(line)
    return head["status"], head["headers"], body
