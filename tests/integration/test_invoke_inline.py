"""Calls of functions as on Lambda: the handler runs the call by itself, in a worker that is its child."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import invoke.app
from hanzo_compute import wiring
from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryCommits,
    MemoryQueue,
    MemoryStore,
    MemoryVault,
    SeededIds,
)
from hanzo_compute.config import Config
from hanzo_compute.front.calls import Calls
from hanzo_compute.model.function import FunctionSpec
from hanzo_compute.security.authorizer import Role
from hanzo_compute.services import batches, credentials, function_logs, functions
from hanzo_compute.services.invocations import Batcher
from hanzo_compute.wiring import Container
from tests.support.wasm import wat

CONTEXT = SimpleNamespace(function_name="invoke", memory_limit_in_mb=512, invoked_function_arn="a", aws_request_id="r")
ECHO = wat(
    """(module (memory (export "memory") 2)
      (func (export "alloc") (param i32) (result i32) (i32.const 1024))
      (func (export "handle") (param i32 i32) (result i64)
        (i64.or (i64.shl (i64.extend_i32_u (local.get 0)) (i64.const 32)) (i64.extend_i32_u (local.get 1)))))"""
)


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    clock, commits = ManualClock(), MemoryCommits()
    store, blobs = MemoryStore(commits), MemoryBlobs(clock)
    made = Container(
        config=Config("local", tmp_path / "home", "http://127.0.0.1:1", tmp_path / "cache", guest_workers=1),
        store=store,
        queue=MemoryQueue(clock, commits=commits),
        blobs=blobs,
        logs=RecordLogs(store, blobs),
        clock=clock,
        ids=SeededIds(random.Random(1)),
        vault=MemoryVault(random.Random(1)),
        invocations=Batcher("lambda"),
    )
    fresh = Calls()
    monkeypatch.setattr("invoke.app.calls", fresh)
    monkeypatch.setattr("invoke.routes.calls", fresh)
    wiring.install(made)
    yield made
    wiring.install(None)
    fresh.close()


def event(container: Container, name: str, data: bytes, key: str) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": "POST /v1/functions/{name}/invoke",
        "rawPath": f"/v1/functions/{name}/invoke",
        "rawQueryString": "",
        "headers": {"authorization": f"Bearer {key}", "content-type": "application/octet-stream"},
        "requestContext": {"requestId": "r", "stage": "$default", "http": {"method": "POST", "path": "/"}},
        "pathParameters": {"name": name},
        "body": base64.b64encode(data).decode(),
        "isBase64Encoded": True,
    }


def test_a_handler_by_itself_calls_answers_and_leaves_receipts_and_logs(container: Container) -> None:
    key = credentials.create(container, "t", Role.OWNER, "test")
    blob = container.blobs.put("t", ECHO)
    spec = {"source": {"module": blob}, "abi": "reactor"}
    functions.deploy(container, "t", "echo", FunctionSpec.model_validate(spec))
    trap = wat('(module (memory (export "memory") 1) (func (export "_start") unreachable))')
    spec = {"source": {"module": container.blobs.put("t", trap)}}
    functions.deploy(container, "t", "traps", FunctionSpec.model_validate(spec))

    for data in (b"\x00\xff bytes", b"again"):  # the second in the worker of the first
        answer = invoke.app.handler(event(container, "echo", data, key), CONTEXT)
        assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, True)
        assert base64.b64decode(answer["body"]) == data
    failed = invoke.app.handler(event(container, "traps", b"", key), CONTEXT)
    assert failed["statusCode"] == 502
    assert "unreachable" in failed["body"]
    assert container.calls == {}
    container.clock.advance(1000)  # type: ignore[attr-defined]
    invoke.app.handler({"source": invoke.app.FLUSH}, CONTEXT)
    (line,) = function_logs.read(container, "t", "traps", 10)
    assert (line["function"], line["category"]) == ("traps@1", "trap")
    receipt = batches.receipt(container, "t", answer["headers"]["X-Invocation"]).receipt
    assert receipt is not None
    assert receipt["statement"]["function"] == "echo@1"
