"""A host that does not answer holds no guest beyond its deadline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox.artefacts import Artefacts
from hanzo_compute.adapters.sandbox.frames import Invocation
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile, tag
from tests.support.wasm import wat

DIGEST = "a" * 64
ASKS = "(loop $again (drop (call $get (i32.const 0) (i32.const 1) (i32.const 8))) (br $again))"
GUEST = f"""(module (import "hzc" "kv_get" (func $get (param i32 i32 i32) (result i64)))
  (memory (export "memory") 1) (func (export "_start") {ASKS}))"""


class NotNow(Exception):
    """Instead of an answer: it reaches who waits for the worker, who may go on waiting."""


class Silent:
    """A service that answers no question."""

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        raise NotNow(name)


def test_a_guest_that_asks_a_silent_host_again_and_again_ends_at_its_deadline(tmp_path: Path) -> None:
    artefacts = Artefacts(tmp_path, "fast", tag(Profile.FAST))
    template = Template(artefacts.name(DIGEST), "fast", {"entry": "command"}, granted=frozenset({"kv"}))
    worker = WorkerProcess(Silent())
    try:
        number = worker.prepare(template, lambda: artefacts.get(DIGEST, lambda: wat(GUEST)))
        worker.send([Invocation(0, number, 1000, b"")])
        with pytest.raises(NotNow):
            worker.wait(time.monotonic() + 60)
        ends = [worker.wait(time.monotonic() + 60)]
        # The answer is still owed when the next call asks: it waits for it in vain.
        worker.send([Invocation(0, number, 1000, b"")])
        ends.append(worker.wait(time.monotonic() + 60))
        for answered in ends:
            assert answered is not None
            assert answered.report is not None
            assert answered.report.trap == "interrupt"
    finally:
        worker.kill()
        artefacts.close()
