"""How long an interpreter takes to say hello: CPython and QuickJS through a worker, Python and node as processes.

Method. A program of one line, in the interpreters that the platform runs Python and JavaScript with, as a job is run:
a worker that has the compiled module, folders for input and scratch, the fast profile. Nothing of a run is left to the
next. Beside them a new process for each: the Python of this machine without its site (-SE), which is the least that it
can do, and node. The parts of CPython's time are found by runs with other arguments, in the same rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hanzo_compute import config
from hanzo_compute.adapters.sandbox import interpreters
from hanzo_compute.adapters.sandbox.artefacts import INTERPRETER_S, artefacts_of
from hanzo_compute.adapters.sandbox.call import Folder
from hanzo_compute.adapters.sandbox.process import Template, WorkerProcess
from hanzo_compute.adapters.sandbox.settings import Profile
from tests.bench.options import Options
from tests.bench.report import Report, Target, percentile, ratios, spread

HELLO = {"python": "print('hello')\n", "javascript": "console.log('hello');\n"}
EXIT = "import os; os._exit(0)\n"
FILES = {"python": "main.py", "javascript": "main.js"}
PARTS = {
    "its version alone: no interpreter starts": ["python", "-V"],
    "without site and environment (-SE)": ["python", "-SE", "-B", "-c", "pass"],
    "with site": ["python", "-B", "-c", "pass"],
}
READY = "from a snapshot, until the program runs (it leaves at once)"


class Starts:
    """Runs of an interpreter in a worker."""

    def __init__(self, worker: WorkerProcess, language: str, folder: Path, options: Options) -> None:
        cache = config.default_cache(os.environ)
        self.interpreter = interpreters.ensure(language, cache, options.say)
        self._cache = cache
        self._worker = worker
        for name in ("in", "tmp"):
            (folder / name).mkdir()
        (folder / "in" / FILES[language]).write_text(HELLO[language])
        (folder / "in" / "exit.py").write_text(EXIT)
        self._folders = (
            Folder(str(folder / "in"), "/in"),
            Folder(str(folder / "tmp"), "/tmp", writable=True),
        )

    def ready(self, argv: list[str], *, snapshot: bool = False) -> Callable[[], bytes]:
        """Something that runs it with these arguments, and gives its output; ``snapshot``: from one."""
        artefacts = artefacts_of(self._cache, Profile.FAST, snapshot=snapshot)
        name, source = self.interpreter.digest, self.interpreter.path.read_bytes
        call = {"entry": "command", "argv": argv}
        template = Template(artefacts.name(name), "fast", call, folders=self._folders)
        number = self._worker.prepare(template, lambda: artefacts.get(name, source, timeout_s=INTERPRETER_S))

        def run() -> bytes:
            answered = self._worker.call(number, b"", 60)
            assert answered is not None
            assert answered.report is not None
            assert answered.report.exit_code == 0, answered.report
            return answered.report.output or answered.report.stdout

        return run


def process(*command: str) -> Callable[[], bytes]:
    """Something that starts a process, and gives its output."""
    return lambda: subprocess.run(command, check=True, capture_output=True).stdout


def run(options: Options) -> Report:
    """All of them."""
    count = options.size(20, 1)
    worker = WorkerProcess()
    try:
        python = Starts(worker, "python", options.folder("python"), options)
        script = Starts(worker, "javascript", options.folder("javascript"), options)
        ways = {
            "CPython": python.ready(list(python.interpreter.argv), snapshot=True),
            "started": python.ready(list(python.interpreter.argv)),
            "QuickJS": script.ready(list(script.interpreter.argv)),
            "python": process(sys.executable, "-SE", "-c", "print('hello')"),
            "node": process("node", "-e", "console.log('hello')"),
        }
        assert {way() for way in ways.values()} == {b"hello\n"}
        ways |= {name: python.ready(argv) for name, argv in PARTS.items()}
        ways[READY] = python.ready(["python", "-u", "-B", "/in/exit.py"], snapshot=True)
        found: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, way in ways.items():
                found.setdefault(name, []).append(percentile([timed(way) for _ in range(count)], 0.5))
    finally:
        worker.kill()
    report = Report("An interpreter says hello", ["ms", "ours", "a process", "ours / a process"])
    for name, peer, title in (
        ("CPython", "python", f"{python.interpreter.version}, from a snapshot (python -SE)"),
        ("started", "python", f"{python.interpreter.version}, started (python -SE)"),
        ("QuickJS", "node", f"{script.interpreter.version} (node)"),
    ):
        report.rows.append([title, spread(found[name]), spread(found[peer]), ratios(found[name], found[peer])])
    report.rows += [[f"CPython, {name}", spread(found[name]), None, None] for name in (READY, *PARTS)]
    report.targets.append(Target("ms until a program runs, from a snapshot", spread(found[READY]), 2.0))
    return report


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that something takes."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000
