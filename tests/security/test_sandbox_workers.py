"""Workers that are killed, stopped, or out of disk: one honest end, in time. And what the kernel refuses to them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hanzo_compute.adapters.sandbox import harden
from hanzo_compute.adapters.sandbox.call import Bounds
from hanzo_compute.adapters.sandbox.process import Answered, Overdue, WorkerDied
from tests.support.engines import has_landlock, need_root, need_seccomp
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
        """Start it; a moment later it runs. What is tested holds as well if it does not by then."""
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
    """These are files: no filter of system calls sees whose they are. A kernel without Landlock has workers as well."""
    probe = f"open(f'/proc/{{os.getppid()}}/{what}', 'rb').read(1)"
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIKE_A_WORKER), probe], capture_output=True, check=False, timeout=60
    )
    assert (ended.stderr, ended.returncode) == (b"", 0)
    assert ended.stdout == b"[13] [13]\n" or not has_landlock()  # EACCES, in each thread


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
