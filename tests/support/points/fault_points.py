"""Named points of the product's code at which a process ends itself by SIGKILL, once, when the point is armed.

A copy of this folder goes on the PYTHONPATH of a platform's processes. The file ``armed`` beside this module names the
point; the process that reaches it first renames the file to ``died`` and is gone. The product knows nothing of this.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
CORE = "hanzo_compute.adapters"
WRITER, FRONT, PUMP = f"{CORE}.local.writer", "hanzo_compute_host.front", "hanzo_compute_host.pump"
AGENT, WORKER = "hanzo_compute_agent", f"{CORE}.sandbox.worker"
SUPERVISOR, PROVISION = "hanzo_compute_host.cli", "hanzo_compute_host.provision"

Only = Callable[[Sequence[Any], Any], bool]
"""Given the arguments, ``self`` first, and the result (None before the call): whether this call counts."""


@dataclass(frozen=True)
class Point:
    """``target`` is ``module:name`` of a function; ``process`` the module of the process, any if it is empty."""

    name: str
    process: str
    target: str
    when: str
    only: Only = lambda args, result: True


def _is(operation: str) -> Only:
    return lambda args, result: bool(args[1]["op"] == operation)


def _received(args: Sequence[Any], result: Any) -> bool:
    return bool(args[1]["op"] == "receive" and result["ok"])


def _some(args: Sequence[Any], result: Any) -> bool:
    return bool(result)


def _changes(args: Sequence[Any], result: Any) -> bool:
    return bool(args[0]._woken)


def _puts_spec(args: Sequence[Any], result: Any) -> bool:
    return any(operation.key.sk == "SPEC" for operation in args[1])


def _sends(args: Sequence[Any], result: Any) -> bool:
    return len(args) > 2 and bool(args[2])


def _answers(path: str, status: int = 200) -> Only:
    def only(args: Sequence[Any], result: Any) -> bool:
        exchange, answer = args
        if exchange.method != "POST" or answer.status != status or answer.body == b'{"leases":[]}':
            return False
        return bool(exchange.raw_path.endswith(path))

    return only


def _of_queue(args: Sequence[Any], result: Any) -> bool:
    return "Records" in args[2]


def _named(*endings: str) -> Only:
    return lambda args, result: str(args[0]).endswith(endings)


def _to(ending: str) -> Only:
    return lambda args, result: str(args[1]).endswith(ending)


def _in(*parts: str) -> Only:
    return lambda args, result: all(part in str(args[0]) for part in parts)


_ENGINE, _STORE = f"{CORE}.local.engine:Engine", f"{CORE}.local.store:SqliteStore"
_QUEUE, _BLOBS = f"{CORE}.local.queue:SqliteQueue", f"{CORE}.local.blobs"
_API, _ATTEMPT = f"{CORE}.http.leases:HttpLeaseApi", f"{CORE}.runner.wasm.attempt:AttemptDir"
_JOURNAL, _RESPOND = "hanzo_compute_agent.journal:FileJournal", "hanzo_compute_host.exchange:Exchange.respond"
_SERVICES = "hanzo_compute.services"

POINTS = (
    # Around each commit
    Point("writer-before-apply", WRITER, f"{_ENGINE}.apply", "before", _is("transact")),
    Point("writer-applied-not-durable", WRITER, f"{_ENGINE}.apply", "after", _is("transact")),
    Point("writer-before-commit", WRITER, f"{_ENGINE}.commit", "before", _changes),
    Point("writer-committed-not-said", WRITER, f"{_ENGINE}.commit", "after", _some),
    Point("writer-sent-not-durable", WRITER, f"{CORE}.local.messages:send", "after"),
    Point("writer-received-not-durable", WRITER, f"{_ENGINE}.apply", "after", _received),
    Point("writer-before-ack", WRITER, f"{_ENGINE}.apply", "before", _is("ack")),
    Point("writer-acked-not-durable", WRITER, f"{_ENGINE}.apply", "after", _is("ack")),
    # A job comes in
    Point("front-before-submit", FRONT, f"{_STORE}.transact", "before", _puts_spec),
    Point("front-submit-applied", FRONT, f"{_STORE}.transact", "after", _puts_spec),
    Point("front-before-send", FRONT, f"{_STORE}.transact", "before", _sends),
    Point("front-sent", FRONT, f"{_STORE}.transact", "after", _sends),
    Point("front-submit-durable-not-answered", FRONT, _RESPOND, "before", _answers("/v1/jobs", 201)),
    Point("front-cancel-applied", FRONT, f"{_SERVICES}.cancel:cancel", "after"),
    Point("front-cancel-durable-not-answered", FRONT, _RESPOND, "before", _answers("/cancel")),
    # A job runs
    Point("front-lease-applied", FRONT, f"{_SERVICES}.lease:acquire", "after", _some),
    Point("front-lease-durable-not-answered", FRONT, _RESPOND, "before", _answers("/v1/leases")),
    Point("front-log-appended", FRONT, f"{CORE}.logs:RecordLogs.append", "after"),
    Point("front-before-complete", FRONT, f"{_SERVICES}.complete:complete_all", "before"),
    Point("front-complete-applied", FRONT, f"{_SERVICES}.complete:complete_all", "after"),
    Point("front-complete-durable-not-answered", FRONT, _RESPOND, "before", _answers("/complete")),
    Point("front-blob-before-fsync", FRONT, f"{_BLOBS}:Upload.commit", "before"),
    Point("front-blob-before-rename", FRONT, "pathlib:Path.rename", "before", _in("/blobs/.new/")),
    Point("front-blob-renamed", FRONT, "pathlib:Path.rename", "after", _in("/blobs/.new/")),
    # Queues
    Point("pump-received", PUMP, f"{_QUEUE}.receive", "after", _some),
    Point("pump-placed", PUMP, f"{_SERVICES}.place:place", "after", _some),
    Point("pump-closed", PUMP, f"{_SERVICES}.complete:close", "after", _some),
    Point("pump-handled", PUMP, "hanzo_compute_host.functions:Functions.call", "after", _of_queue),
    Point("pump-before-ack", PUMP, f"{_QUEUE}.ack", "before"),
    Point("pump-acked", PUMP, f"{_QUEUE}.ack", "after"),
    Point("pump-before-log", PUMP, f"{_SERVICES}.log:_Tree.append", "before"),
    Point("pump-logged-not-durable", PUMP, f"{_SERVICES}.log:_Tree.append", "after"),
    Point("pump-logged", PUMP, f"{_SERVICES}.log:sequence", "after", _some),
    Point("pump-reconciled", PUMP, f"{_SERVICES}.reconcile:reconcile", "after"),
    # The agent
    Point("agent-leased", AGENT, f"{_API}.lease", "after", _some),
    Point("agent-before-create", AGENT, f"{_ATTEMPT}.create", "before"),
    Point("agent-creating", AGENT, "pathlib:Path.rename", "before", _in("/attempts/.new-")),
    Point("agent-created", AGENT, f"{_ATTEMPT}.create", "after"),
    Point("agent-started", AGENT, f"{CORE}.runner.wasm.runner:WasmRunner.start", "after"),
    Point("agent-before-result", AGENT, f"{_ATTEMPT}.write_result", "before"),
    Point("agent-result-before-rename", AGENT, "pathlib:Path.rename", "before", _named("result.json.new")),
    Point("agent-result-written", AGENT, f"{_ATTEMPT}.write_result", "after"),
    Point("agent-before-journal", AGENT, f"{_JOURNAL}.intend", "before"),
    Point("agent-journal-before-replace", AGENT, "pathlib:Path.replace", "before", _in("/journal/")),
    Point("agent-journal-written", AGENT, f"{_JOURNAL}.intend", "after"),
    Point("agent-log-sent", AGENT, f"{_API}.logs", "after"),
    Point("agent-uploaded", AGENT, f"{_API}.upload", "after"),
    Point("agent-signed", AGENT, "hanzo_compute_agent.signing:Signer.sign", "after"),
    Point("agent-before-complete", AGENT, f"{_API}.complete", "before"),
    Point("agent-completed", AGENT, f"{_API}.complete", "after"),
    Point("agent-reaping", AGENT, "shutil:rmtree", "before", _in("/attempts/.new-")),
    Point("agent-reaped", AGENT, f"{_ATTEMPT}.remove", "after"),
    # The sandbox worker
    Point("worker-before-run", WORKER, f"{CORE}.sandbox.sandbox:Sandbox.run", "before"),
    Point("worker-ran", WORKER, f"{CORE}.sandbox.sandbox:Sandbox.run", "after"),
)

START_POINTS = (
    # While a platform starts for the first time
    Point("migrating", WRITER, f"{CORE}.local.schema:_migrate", "before"),
    Point("migrated", WRITER, f"{CORE}.local.schema:_migrate", "after"),
    Point("owner-made-not-durable", PROVISION, f"{_SERVICES}.credentials:ensure_owner", "after"),
    Point("agents-key-made", PROVISION, f"{_SERVICES}.credentials:ensure_runner", "after"),
    Point("agents-key-before-replace", SUPERVISOR, "pathlib:Path.replace", "before", _in("/keys/.runner.key.")),
    Point("credentials-before-replace", SUPERVISOR, "pathlib:Path.replace", "before", _in("/.credentials.json.")),
    Point("credentials-written", SUPERVISOR, "pathlib:Path.replace", "after", _in("/.credentials.json.")),
    Point("platform-before-replace", SUPERVISOR, "pathlib:Path.replace", "before", _in("/run/.platform.json.")),
    Point("url-key-made", "", "pathlib:Path.rename", "before", _to("/keys/presign.key")),
    Point("log-key-made", PROVISION, "pathlib:Path.rename", "before", _to("/keys/log.pem")),
    Point("agent-key-made", AGENT, "pathlib:Path.rename", "before", _to("/keys/agent-local-1.pem")),
    Point("tariff-stored", PROVISION, f"{_SERVICES}.pricing:publish", "after"),
)


def strike(point: Point) -> None:
    """End this process if the point is armed."""
    try:
        if (HERE / "armed").read_text() != point.name:
            return
        os.rename(HERE / "armed", HERE / "died")  # noqa: PTH104 — Path.rename has points of its own
    except FileNotFoundError:  # not armed, or another process came first
        return
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def wrap(function: Callable[..., Any], points: Sequence[Point]) -> Callable[..., Any]:
    """The function with its points."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        for point in points:
            if point.when == "before" and point.only(args, None):
                strike(point)
        result = function(*args, **kwargs)
        for point in points:
            if point.when == "after" and point.only(args, result):
                strike(point)
        return result

    return wrapped


def patch(module: ModuleType, points: Sequence[Point]) -> None:
    """Put points into a module that has been loaded."""
    for target in {point.target for point in points}:
        holder: Any = module
        *way, last = target.partition(":")[2].split(".")
        for name in way:
            holder = getattr(holder, name)
        setattr(holder, last, wrap(getattr(holder, last), [point for point in points if point.target == target]))


def quicken_config(module: ModuleType) -> None:
    """Leases and repairs within seconds, so that a campaign does not spend its time waiting."""
    load: Any = module.load  # type: ignore[attr-defined]

    def loaded(*args: Any, **kwargs: Any) -> Any:
        found = load(*args, **kwargs)
        quick = replace(found.policy, lease_ms=3_000, resend_ms=3_000, outbox_ms=1_000, lapse_backoff_ms=200)
        return replace(found, policy=quick)

    module.load = loaded  # type: ignore[attr-defined]


def quicken_children(module: ModuleType) -> None:
    """What dies is started again at once, however often."""
    module.RESTART_MIN_S, module.STEADY_S = 0.05, 0.0  # type: ignore[attr-defined]


class Finder(importlib.abc.MetaPathFinder):
    """Calls back when one of these modules has been loaded."""

    def __init__(self, wanted: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self.wanted = wanted

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, with a loader that calls back."""
        actions = self.wanted.pop(name, None)
        if actions is None:
            return None
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            for action in actions:
                action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Prepare this process, by what it was started as."""
    process = next((word for word in sys.orig_argv if word.startswith("hanzo_compute")), "")
    wanted: dict[str, list[Callable[[ModuleType], None]]] = {
        "hanzo_compute.config": [quicken_config],
        "hanzo_compute_host.children": [quicken_children],
    }
    mine = [point for point in (*POINTS, *START_POINTS) if point.process in (process, "")]
    for name in {point.target.partition(":")[0] for point in mine}:
        of_module = [point for point in mine if point.target.partition(":")[0] == name]
        if name in sys.modules:
            patch(sys.modules[name], of_module)
        else:
            wanted.setdefault(name, []).append(functools.partial(patch, points=of_module))
    sys.meta_path.insert(0, Finder(wanted))
