"""Workers that are killed, stopped, out of disk, or taken over: one honest end, in time, and never ours."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import area, frames, harden, process
from hanzo_compute.adapters.sandbox.call import Bounds, Report
from hanzo_compute.adapters.sandbox.frames import FRAME_MAX, BadFrame, Inbox
from hanzo_compute.adapters.sandbox.process import Answered, Overdue, WorkerDied, WorkerProcess
from tests.support.engines import need_landlock, need_root, need_seccomp
from tests.support.sandbox import PROFILES, Lab
from tests.support.wasi_script import Script, module
from tests.support.wasm import SLEEP_30_S, SPIN, command, eventually

SOON_S = 60.0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def lab(cache: Path) -> Iterator[Lab]:
    made = Lab(cache)
    yield made
    made.close()


class Asked(threading.Thread):
    """A call in the making, and how it ended."""

    def __init__(self, lab: Lab, body: str, timeout_s: float = 200) -> None:
        super().__init__()
        self.end: Answered | BaseException | None = None
        self._timeout_s = timeout_s
        self._began = threading.Event()
        binary = command(body)
        # The worker ends with the thread that has made it.
        self.worker = lab.worker()
        self._number = self.worker.prepare(lab.template(binary), lab.opens(binary, "fast"))

    def begin(self) -> None:
        """Start it; a moment later it runs."""
        self.start()
        assert self._began.wait(SOON_S)
        time.sleep(0.3)

    def run(self) -> None:
        self._began.set()
        try:
            self.end = self.worker.call(self._number, b"", self._timeout_s)
        except BaseException as error:
            self.end = error


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
@pytest.mark.parametrize("body", [SPIN, SLEEP_30_S], ids=["busy", "asleep"])
def test_a_worker_that_is_killed_in_a_call_has_died(lab: Lab, number: signal.Signals, body: str) -> None:
    asked = Asked(lab, body)
    pid = asked.worker.pid
    asked.begin()
    os.kill(pid, number)
    if number in (signal.SIGSEGV, signal.SIGABRT):
        # The engine takes the first for one of a guest's, and lets go of the signal.
        time.sleep(0.1)
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    asked.join(SOON_S)
    assert isinstance(asked.end, WorkerDied)
    assert asked.end.signal == number
    assert number.name in str(asked.end)
    assert lab.run(command("")).kind == "exit"
    assert lab.worker().pid != pid


def test_a_worker_that_is_stopped_is_overdue_and_killed(lab: Lab) -> None:
    asked = Asked(lab, SPIN, timeout_s=4)
    asked.begin()
    os.kill(asked.worker.pid, signal.SIGSTOP)
    asked.join(SOON_S)
    assert isinstance(asked.end, Overdue)
    assert lab.run(command("")).kind == "exit"


def test_a_stopped_worker_does_not_hold_up_who_sends_it_much(lab: Lab) -> None:
    """More than a socket takes: it is the sender who waits."""
    binary, worker = command(""), lab.worker()
    number = worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    os.kill(worker.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(Overdue):
        worker.call(number, b"x" * (20 << 20), 1)
    assert time.monotonic() - began < SOON_S


def test_a_stopped_worker_that_is_told_to_stop_is_killed(lab: Lab) -> None:
    binary = command(SPIN)
    worker = lab.worker()
    number = worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    wake, waker = os.pipe()
    try:
        os.write(waker, b"x")
        assert worker.call(number, b"", 60, wake) is None
        os.kill(worker.pid, signal.SIGSTOP)
        worker.stop()
        with pytest.raises(Overdue):
            worker.wait(time.monotonic() + 0.3)
    finally:
        os.close(wake)
        os.close(waker)


# Disks and limits

WRITES = Script()
for _ in range(100):
    WRITES.add("fd_write", 1, WRITES.iovec((0, 32768)), 1, WRITES.room(4))
BIG = WRITES.request()


def test_output_that_does_not_fit_on_the_disk_is_an_error_and_not_the_end_of_the_worker(
    lab: Lab, tmp_path: Path
) -> None:
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=True)
    try:
        files = (disk / "stdout", disk / "stderr")
        for file in files:
            file.touch()
        # Once with the guest's own write that fails, once with the flush of the other thread.
        for body in (BIG, Script().write(1, b"x").request()):
            paths = (str(files[0]), str(files[1]))
            answered = lab.ask(module(), body, entry="reactor", files=paths, bounds=Bounds(memory_mib=4))
            assert answered.report is None
            assert "No space left" in str(answered.error)
        slow = command(
            "(i32.store (i32.const 4) (i32.const 65536)) (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) "
            f"(i32.const 8))) {SPIN}"
        )
        began = time.monotonic()
        answered = lab.ask(slow, files=(str(files[0]), str(files[1])), timeout_s=90)
        assert answered.report is None
        assert "No space left" in str(answered.error)
        assert time.monotonic() - began < 80
        files[0].write_bytes(b"")
        assert lab.run(command("")).kind == "exit"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_files_have_a_limit_of_their_own_under_that_of_the_process(cache: Path, tmp_path: Path) -> None:
    """A supervisor that is itself limited: its workers are, too, and say so."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = (tmp_path / "stdout", tmp_path / "stderr")
    for file in files:
        file.touch()
    script = f"""
        import resource, sys
        from pathlib import Path
        from tests.support.sandbox import Lab
        from tests.support.wasi_script import module
        from hanzo_compute.adapters.sandbox.call import Bounds

        lab = Lab(Path({str(cache)!r}))
        lab.opens(module(), "fast")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        answered = lab.ask(module(), sys.stdin.buffer.read(), entry="reactor", files={[str(f) for f in files]!r},
                           bounds=Bounds(memory_mib=4))
        print(answered.error)
        lab.close()
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input=BIG,
        capture_output=True,
        check=True,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert b"File too large" in ended.stdout
    assert files[0].stat().st_size <= 1 << 20
    assert resource.getrlimit(resource.RLIMIT_FSIZE) == before


# Workers that are not what they should be


class Impostor:
    """A worker whose other end is the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.worker = WorkerProcess()
        self.worker._socket.close()
        self.worker._socket, self.socket = socket.socketpair()
        monkeypatch.setattr(process, "READY_S", 5.0)

    def says(self, *data: bytes) -> None:
        """Bytes in the name of the worker, from another thread: a socket does not hold them all."""

        def say() -> None:
            try:
                for each in data:
                    self.socket.sendall(each)
            except OSError:
                pass

        threading.Thread(target=say, daemon=True).start()

    def listens(self) -> None:
        """Read what it is told."""

        def read() -> None:
            with suppress(OSError):
                while self.socket.recv(1 << 16):
                    pass

        threading.Thread(target=read, daemon=True).start()


@pytest.fixture
def impostor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Impostor]:
    made = Impostor(monkeypatch)
    yield made
    made.socket.close()
    made.worker.kill()


def collected(impostor: Impostor, seconds: float = 0.5) -> list[Answered]:
    """What it answers to a call."""
    impostor.worker.send([frames.Invocation(0, 0, 0, b"")])
    return impostor.worker.collect(1, time.monotonic() + seconds)


def told(report: object, blobs: bytes = b"", **more: object) -> bytes:
    import json

    text = json.dumps({"report": report, **more}).encode()
    data = struct.pack("<I", len(text)) + text + blobs
    return frames.done([frames.Result(0, frames.TOLD, -1, 5, data)])


GOOD = {
    **dict.fromkeys(("output", "stdout", "stderr", "wall_ms", "cpu_ms", "memory_bytes"), 0),
    "kind": "exit",
    "exit_code": 0,
    "trap": None,
    "detail": "",
    "fuel": None,
    "at_memory_limit": False,
    "limits": [],
    "counters": {},
}


def test_a_report_of_the_right_form_is_taken(impostor: Impostor) -> None:
    impostor.says(told({**GOOD, "stdout": 3}, b"abc"))
    (answered,) = collected(impostor, 60)
    assert answered.report == Report("exit", exit_code=0, stdout=b"abc")


NONSENSE: dict[str, bytes] = {
    "a frame of 4 GiB": struct.pack("<BI", frames.DONE, 2**32 - 1),
    "a frame just too long": struct.pack("<BI", frames.OUTPUT, FRAME_MAX + 1),
    "a frame of no kind": frames.frame(0, b""),
    "a frame that workers get": frames.frame(frames.CALLS, b""),
    "a result cut short": frames.frame(frames.DONE, b"\0" * 10),
    "a result longer than its frame": frames.frame(frames.DONE, struct.pack("<IBqII", 0, 0, 0, 0, 100)),
    "a result in no memory": frames.frame(frames.BACK, b""),
    "two results": frames.done([frames.Result(0, frames.EXITED, -1, 0, b"")] * 2),
    "results by the million": frames.frame(frames.DONE, bytes(FRAME_MAX)),
    "arguments by the million": frames.frame(frames.ASK, b"kv_get\0" + b"b\0\0\0\0" * (FRAME_MAX // 5 - 2)),
    "a report that is no JSON": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\4\0\0\0abcd")]),
    "a report that is a list": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\2\0\0\0[]")]),
    "a report without its length": frames.done([frames.Result(0, frames.TOLD, -1, 0, b"\2")]),
    "a report of nested lists": frames.done(
        [frames.Result(0, frames.TOLD, -1, 0, struct.pack("<I", 100_000) + b"[" * 100_000)]
    ),
    "JSON of 50 MB": frames.done(
        [frames.Result(0, frames.TOLD, -1, 0, struct.pack("<I", 50_000_000) + b" " * 50_000_000)]
    ),
    "a question of nobody": frames.ask("exec", [b"sh"]),
    "a question of the worker's own": frames.ask("log", [1, b"x"]),
    "a question without arguments": frames.ask("kv_get", []),
    "a question with too many": frames.ask("kv_get", [b"key", b"key"]),
    "a question with numbers for bytes": frames.ask("kv_put", [1, 2, 3]),
    "a question cut short": frames.frame(frames.ASK, b"kv_get\0b\xff\0\0\0abc"),
    "output of no stream": frames.frame(frames.OUTPUT, b"\3abc"),
    "output of nothing": frames.frame(frames.OUTPUT, b""),
    "a log line without level": frames.frame(frames.OUTPUT, b"\0text"),
    "more output than it sends": told({**GOOD, "stdout": 5}, b"abc"),
    "less than no output": told({**GOOD, "stdout": -1, "output": 1}, b"abc"),
    "no output": told({**GOOD, "stdout": None}),
    "a kind of its own": told({**GOOD, "kind": "success"}),
    "an exit code of text": told({**GOOD, "exit_code": "0"}),
    "an exit code below 0": told({**GOOD, "exit_code": -1}),
    "an endless time": told({**GOOD, "wall_ms": 1e300}),
    "true for a number": told({**GOOD, "cpu_ms": True}),
    "fuel of 2^64": told({**GOOD, "fuel": 2**64}),
    "a number for words": told({**GOOD, "detail": 5}),
    "limits that are numbers": told({**GOOD, "limits": [1]}),
    "counters of text": told({**GOOD, "counters": {"a": "b"}}),
    "a field too many": told({**GOOD, "admin": True}),
    "a field too few": told({key: value for key, value in GOOD.items() if key != "kind"}),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_worker_that_speaks_nonsense_is_killed(impostor: Impostor, what: str) -> None:
    impostor.says(NONSENSE[what])
    began = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WorkerDied):
        collected(impostor, 60)
    assert time.monotonic() - began < 50
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * (FRAME_MAX >> 10)
    assert impostor.worker.dead


IN_MEMORY: dict[str, bytes] = {
    "4 GiB": frames.frame(frames.BACK, struct.pack("<IBqII", 0, frames.EXITED, -1, 0, 2**32 - 1)),
    "a byte too many": frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x" * (area.SIZE + 1))),
    "a result and more": frames.frame(frames.BACK, bytes(22)),
    "two results": frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x")) * 2,
    "a report of zeros": frames.given_back(frames.Result(0, frames.TOLD, -1, 0, b"x" * 100)),
    "a report without its length": frames.given_back(frames.Result(0, frames.TOLD, -1, 0, b"x")),
    "a frame that workers get": frames.lent(frames.Invocation(0, 0, 0, b""), inside=False),
}


@pytest.mark.parametrize("what", IN_MEMORY)
def test_a_worker_that_misuses_the_memory_it_was_lent_is_killed(impostor: Impostor, what: str) -> None:
    impostor.worker.send([frames.Invocation(0, 0, 0, b"x" * area.SIZE)])
    impostor.says(IN_MEMORY[what])
    with pytest.raises(WorkerDied):
        impostor.worker.collect(2, time.monotonic() + 60)
    assert impostor.worker.dead


def test_memory_that_was_not_lent_has_no_result(impostor: Impostor) -> None:
    impostor.worker.send([frames.Invocation(number, 0, 0, b"") for number in range(2)])
    impostor.says(frames.given_back(frames.Result(0, frames.EXITED, -1, 0, b"x" * 10)))
    with pytest.raises(WorkerDied):
        impostor.worker.collect(1, time.monotonic() + 60)
    assert impostor.worker.dead


def test_a_result_that_nobody_waits_for_is_the_last(impostor: Impostor) -> None:
    good = frames.done([frames.Result(0, frames.EXITED, -1, 0, b"")])
    impostor.says(good)
    assert len(collected(impostor)) == 1
    impostor.says(good)
    with pytest.raises(WorkerDied):
        impostor.worker.collect(1, time.monotonic() + 60)
    assert impostor.worker.dead


def endless(impostor: Impostor, data: bytes) -> threading.Event:
    """Says the same for ever."""
    stop = threading.Event()

    def say() -> None:
        try:
            while not stop.is_set():
                impostor.socket.sendall(data)
        except OSError:
            pass

    threading.Thread(target=say, daemon=True).start()
    return stop


FLOODS = {
    "output": frames.frame(frames.OUTPUT, b"\1" + b"x" * 1000) * 50,
    "empty output": frames.frame(frames.OUTPUT, b"\1") * 5000,
    "results of nothing": frames.frame(frames.DONE, b"") * 5000,
    "readiness": frames.told(frames.READY, {}) * 500,
    "questions": frames.ask("kv_get", [b"key"]) * 500,
    "questions that are heard": frames.ask("kv_get", [b"key"]) * 500,
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_flood_does_not_outlast_the_time(impostor: Impostor, what: str) -> None:
    if what == "questions that are heard":
        impostor.listens()
    stop = endless(impostor, FLOODS[what])
    began = time.monotonic()
    with pytest.raises(Overdue):
        collected(impostor, 0.3)
    stop.set()
    assert time.monotonic() - began < SOON_S
    assert impostor.worker.dead


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_in_one_of_two_ways(impostor: Impostor, seed: int) -> None:
    dice = random.Random(seed)
    good = [
        IN_MEMORY["two results"],
        NONSENSE["a question without arguments"],
        told(GOOD),
        frames.told(frames.READY, {"a": 1}),
        *FLOODS.values(),
    ]
    pieces = []
    for _ in range(50):
        data = bytearray(dice.choice(good)[:2000])
        for _ in range(dice.randrange(6)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        pieces.append(bytes(data[: dice.randrange(len(data) + 1)]) if dice.random() < 0.3 else bytes(data))
    impostor.says(*pieces, dice.randbytes(5000))
    began = time.monotonic()
    try:
        while True:
            collected(impostor, 0.5)
    except (WorkerDied, Overdue):
        pass
    assert time.monotonic() - began < 60
    assert impostor.worker.dead


def test_nonsense_while_it_should_be_getting_ready(impostor: Impostor, lab: Lab) -> None:
    binary = command("")
    impostor.says(frames.frame(frames.READY, b"[" * 200_000))
    with pytest.raises(WorkerDied):
        impostor.worker.prepare(lab.template(binary), lab.opens(binary, "fast"))


def test_a_flood_while_it_should_be_getting_ready(impostor: Impostor, lab: Lab) -> None:
    binary = command("")
    endless(impostor, FLOODS["output"])
    began = time.monotonic()
    with pytest.raises(Overdue):
        impostor.worker.prepare(lab.template(binary), lab.opens(binary, "fast"))
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("seed", range(10))
def test_an_inbox_keeps_no_more_than_a_frame(seed: int) -> None:
    dice = random.Random(seed)
    inbox = Inbox()
    with suppress(BadFrame):
        for _ in range(2000):
            data = dice.randbytes(dice.choice((1, 5, 100, 4096)))
            if dice.random() < 0.5:
                data = frames.frame(dice.randrange(256), data)
            inbox.feed(data)
            while inbox.take() is not None:
                pass
            assert inbox._size <= FRAME_MAX + 5
            assert sum(map(len, inbox._pieces)) <= FRAME_MAX + 5 + 2 * 4096


# What the kernel refuses

PROBES: dict[str, str] = {
    "execve": "os.execv('/bin/true', ['true'])",
    "fork": "os.fork()",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "socket": "socket.socket()",
    "unix socket": "socket.socket(socket.AF_UNIX)",
    "ptrace": "call(101 if x86 else 117, 16, os.getppid(), 0, 0)",
    "kill of the parent": "os.kill(os.getppid(), 0)",
    "tgkill of the parent": "call(234 if x86 else 131, os.getppid(), os.getppid(), 0)",
    "a queued signal": "call(129 if x86 else 138, os.getppid(), 10, ctypes.create_string_buffer(128))",
    "limits of the parent": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (1, 1))",
    "memory of the parent": "call(310 if x86 else 270, os.getppid(), 0, 0, 0, 0, 0)",
    "a pidfd": "os.pidfd_open(os.getppid())",
    "mount": "call(165 if x86 else 40, b'none', b'/tmp', b'tmpfs', 0, 0)",
    "chroot": "os.chroot('/')",
    "unshare": "call(272 if x86 else 97, 0x10000000)",
    "setuid": "os.setuid(65534)",
    "bpf": "call(321 if x86 else 280, 0, 0, 0)",
    "io_uring": "call(425, 1, ctypes.create_string_buffer(256))",
    "userfaultfd": "call(323 if x86 else 282, 1)",
    "keys": "call(250 if x86 else 219, 0, 0, 0)",
}

LIKE_A_WORKER = """
    import ctypes, os, platform, resource, shutil, socket, sys, tempfile, threading
    from hanzo_compute.adapters.sandbox import harden

    x86 = platform.machine() == "x86_64"
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number, *args):
        if libc.syscall(number, *args) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    harden.harden(os.getppid())
    assert harden.refuse_system_calls()

    def attempt(probe, found):
        try:
            eval(probe)
            found.append("done")
        except OSError as error:
            found.append(error.errno)

    here, there = [], []
    thread = threading.Thread(target=attempt, args=(sys.argv[1], there))
    thread.start()
    thread.join()
    attempt(sys.argv[1], here)
    print(here, there)
"""


@pytest.mark.parametrize("what", PROBES)
def test_a_process_like_a_worker_is_refused(what: str) -> None:
    need_seccomp()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIKE_A_WORKER), PROBES[what]],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"[1] [1]\n", b"", 0)  # EPERM, in each thread


OF_OTHERS = ("mem", "environ", "maps", "auxv", "fd/0", "cwd/x", "root/etc/passwd")


@pytest.mark.parametrize("what", OF_OTHERS)
def test_a_process_like_a_worker_cannot_look_into_its_supervisor(what: str) -> None:
    """These are files: no filter of system calls sees whose they are."""
    need_landlock()
    probe = f"open(f'/proc/{{os.getppid()}}/{what}', 'rb').read(1)"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIKE_A_WORKER), probe], capture_output=True, check=False, timeout=60
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"[13] [13]\n", b"", 0)  # EACCES, in each thread


def test_a_worker_keeps_nothing_of_root(lab: Lab) -> None:
    lab.run(command(""))
    for task in Path(f"/proc/{lab.worker().pid}/task").iterdir():
        status = dict(
            line.split(":\t") for line in (task / "status").read_text().splitlines() if line.startswith("Cap")
        )
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) & ~harden.CAPABILITIES_KEPT == 0, name


ALLOWED = {
    "threads": "[t.start() or t.join() for t in [threading.Thread(target=int) for _ in range(50)]]",
    "its own limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "a signal to itself": "call(234 if x86 else 131, os.getpid(), threading.get_native_id(), 0)",
    "files": "open('/dev/null', 'wb').close()",
    "memory": "bytearray(50 << 20)",
    "a pipe": "os.pipe()",
    "what is its own": "open('/proc/self/mem', 'rb').close() or open('/proc/self/fd/0', 'rb').close()",
    "files moved between folders": "(d := tempfile.mkdtemp()) and (os.mkdir(d + '/a'), os.mkdir(d + '/b'), "
    "open(d + '/a/f', 'w').close(), os.rename(d + '/a/f', d + '/b/f'), shutil.rmtree(d))",
}


@pytest.mark.parametrize("what", ALLOWED)
def test_what_a_worker_needs_is_left(what: str) -> None:
    need_seccomp()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIKE_A_WORKER), ALLOWED[what]],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"['done'] ['done']\n", b"", 0)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_thread_of_a_worker_and_of_a_compiler_is_filtered(lab: Lab, profile: str) -> None:
    need_seccomp()
    lab.run(command(""), profile=profile)
    tasks = list(Path(f"/proc/{lab.worker().pid}/task").iterdir())
    assert len(tasks) > 1
    for task in tasks:
        assert "Seccomp:\t2" in (task / "status").read_text()
    binary = command("".join(f"(drop (i32.const {n}))" for n in range(60_000)))
    seen: set[str] = set()

    def look() -> bool:
        for each in Path("/proc").glob("[0-9]*"):
            try:
                if b"adapters.sandbox.compile" in (each / "cmdline").read_bytes():
                    seen.update(line for line in (each / "status").read_text().splitlines() if "Seccomp:" in line)
            except OSError:
                continue
        return "Seccomp:\t2" in seen

    ended = threading.Thread(target=lambda: os.close(lab.opens(binary, profile)()))
    ended.start()
    eventually(look, "the compiler filtered", SOON_S)
    ended.join()
