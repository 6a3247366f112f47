"""Components that misbehave: their WASI is wasmtime's alone, so it is the process that bounds them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox.artefacts import CannotCompile
from hanzo_compute.adapters.sandbox.call import Bounds, Folder
from hanzo_compute.adapters.sandbox.process import WorkerDied
from tests.support.sandbox import Lab
from tests.support.wasm import SPIN, wat

# What a command needs of WASI preview 2 to write: resources of streams, and who has them.
STREAMS = """
  (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
  (alias export $error "error" (type $e))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "output-stream" (type $o (sub resource)))
    (alias outer 1 $e (type $e2)) (export "error" (type $e3 (eq $e2)))
    (type $se (variant (case "last-operation-failed" (own $e3)) (case "closed")))
    (export "stream-error" (type $se2 (eq $se)))
    (export "[method]output-stream.blocking-write-and-flush"
      (func (param "self" (borrow $o)) (param "contents" (list u8)) (result (result (error $se2)))))))
  (alias export $streams "output-stream" (type $out))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (alias outer 1 $out (type $o)) (export "output-stream" (type $o2 (eq $o)))
    (export "get-stdout" (func (result (own $o2))))))
  (core module $mem (memory (export "memory") 2)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
  (core instance $mi (instantiate $mem))
  (core func $get (canon lower (func $stdout "get-stdout")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory (core memory $mi "memory")) (realloc (core func $mi "realloc"))))
"""


def component(body: str, extra: str = "", *, streams: bool = False) -> bytes:
    """A WASI preview 2 command whose run is ``body``."""
    imports = (
        """(import "host" "get" (func $get (result i32)))
           (import "host" "write" (func $write (param i32 i32 i32 i32)))"""
        if streams
        else ""
    )
    given = '(with "host" (instance (export "get" (func $get)) (export "write" (func $write))))' if streams else ""
    return wat(
        f"""(component {STREAMS if streams else ""}
          (core module $m {imports} {extra} (func (export "run") (result i32) {body}))
          (core instance $i (instantiate $m {given}))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $inst (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $inst)))"""
    )


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made
    made.close()


def test_it_exits_with_what_it_returns(lab: Lab) -> None:
    assert lab.run(component("(i32.const 0)"), entry="component").exit_code == 0
    assert lab.run(component("(i32.const 1)"), entry="component").exit_code == 1


def test_what_has_no_end_is_interrupted(lab: Lab) -> None:
    report = lab.run(component(f"{SPIN} (i32.const 0)"), entry="component", timeout_s=0.3)
    assert (report.kind, report.trap) == ("trap", "interrupt")


TRAPS = {
    "unreachable": "unreachable",
    "memory_out_of_bounds": "(i32.load (i32.const -1))",
    "integer_division_by_zero": "(i32.div_s (i32.const 1) (i32.const 0))",
    "integer_overflow": "(i32.div_s (i32.const 0x80000000) (i32.const -1))",
    "bad_conversion_to_integer": "(i32.trunc_f32_s (f32.const nan))",
    "indirect_call_to_null": "(call_indirect (type $t) (i32.const 0))",
    "table_out_of_bounds": "(call_indirect (type $t) (i32.const 9))",
    "host_error": "(i32.const 7)",
}


def test_its_traps_have_names(lab: Lab) -> None:
    deep = component("(call $deep)", "(func $deep (result i32) (i32.add (call $deep) (i32.const 1)))")
    assert lab.run(deep, entry="component").trap == "stack_overflow"
    for trap, body in TRAPS.items():
        extra = "(memory 1) (table 1 funcref) (type $t (func (result i32)))"
        report = lab.run(component(body, extra), entry="component")
        assert (report.kind, report.trap) == ("trap", trap)


def test_its_memory_ends_at_its_limit(lab: Lab) -> None:
    grow = "(i32.eq (memory.grow (i32.const 2000)) (i32.const -1))"
    assert lab.run(component(grow, "(memory 1)"), entry="component").exit_code == 1
    assert lab.run(component(grow, "(memory 1)"), entry="component", bounds=Bounds(memory_mib=256)).exit_code == 0
    assert lab.run(component("(i32.const 0)", "(memory 2000)"), entry="component").kind == "oom"


def test_it_runs_in_the_profile_fast_alone(lab: Lab) -> None:
    with pytest.raises(CannotCompile, match="component"):
        lab.ask(component("(i32.const 0)"), entry="component", profile="metered", deterministic=False)


def test_an_import_that_nobody_offers_is_refused(lab: Lab) -> None:
    binary = wat(
        """(component (import "wasi:sockets/nothing@0.2.0" (func $f))
          (core func $l (canon lower (func $f))) (core module $m (import "a" "f" (func)))
          (core instance (instantiate $m (with "a" (instance (export "f" (func $l)))))))"""
    )
    report = lab.run(binary, entry="component")
    assert report.kind == "invalid"
    assert "wasi:sockets/nothing" in report.detail


WRITE = "(call $write (local.get $s) (i32.const 0) (i32.const 4096) (i32.const 65600))"


def test_it_writes(lab: Lab) -> None:
    body = f"(local $s i32) (local.set $s (call $get)) {WRITE} {WRITE} (i32.const 0)"
    report = lab.run(component(body, streams=True), entry="component")
    assert (report.kind, report.stdout, report.limits) == ("exit", bytes(8192), [])


def test_its_output_is_cut_and_the_disk_is_spared(lab: Lab) -> None:
    body = f"(local $s i32) (local.set $s (call $get)) (loop $l {WRITE} (br $l)) (i32.const 0)"
    bounds = Bounds(memory_mib=64, output=100_000, scratch=1_000_000)
    answered = lab.ask(
        component(body, streams=True),
        entry="component",
        bounds=bounds,
        timeout_s=2,
        folders=[Folder("/proc/self", "/in")],
    )
    assert answered.report is not None
    assert (len(answered.report.stdout), answered.report.limits) == (100_000, ["stdout"])


def test_a_worker_that_is_killed_in_it_leaves_no_files(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.worker().kill()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    binary, worker = component(f"{SPIN} (i32.const 0)"), lab.worker()
    number = worker.prepare(lab.template(binary, entry="component"), lab.opens(binary, "fast"))
    killer = threading.Timer(0.5, lambda: os.kill(worker.pid, signal.SIGKILL))
    killer.start()
    began = time.monotonic()
    with pytest.raises(WorkerDied):
        worker.call(number, b"x" * 1_000_000, 200)
    assert time.monotonic() - began < 100
    killer.join()
    assert list(tmp_path.iterdir()) == []
