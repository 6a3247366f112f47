"""What a worker gives up before it runs anything: limits, privileges, and the system calls that it does not need."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from typing import Final, NoReturn

OPEN_FILES: Final = 128
DATA_ROOM: Final = 1 << 30
"""Bytes of memory that a process may have besides its guest's: Python, wasmtime, modules, and what is on its way."""
ADDRESS_ROOM: Final = 48 << 30
"""Address space: the slots of two engines' pools (4 GiB for each memory) are reserved, not used. What a process can
fill is bounded by RLIMIT_DATA."""

PR_SET_PDEATHSIG: Final = 1
PR_SET_NO_NEW_PRIVS: Final = 38
PR_SET_SECCOMP: Final = 22
PR_GET_SECCOMP: Final = 21
SECCOMP_MODE_FILTER: Final = 2

_REFUSED: Final = {
    # Names and numbers: the kernel's syscall tables of x86-64 and of aarch64 (include/uapi/asm-generic/unistd.h).
    "x86_64": {
        "socket": 41,
        "connect": 42,
        "accept": 43,
        "sendto": 44,
        "bind": 49,
        "listen": 50,
        "accept4": 288,
        "fork": 57,
        "vfork": 58,
        "execve": 59,
        "execveat": 322,
        "ptrace": 101,
        "kill": 62,
        "tkill": 200,
        "rt_sigqueueinfo": 129,
        "rt_tgsigqueueinfo": 297,
        "pidfd_send_signal": 424,
        "process_madvise": 440,
        "kcmp": 312,
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "pidfd_open": 434,
        "pidfd_getfd": 438,
        "mount": 165,
        "umount2": 166,
        "pivot_root": 155,
        "chroot": 161,
        "setns": 308,
        "unshare": 272,
        "bpf": 321,
        "perf_event_open": 298,
        "userfaultfd": 323,
        "io_uring_setup": 425,
        "open_by_handle_at": 304,
        "keyctl": 250,
        "add_key": 248,
        "request_key": 249,
        "init_module": 175,
        "finit_module": 313,
        "delete_module": 176,
        "kexec_load": 246,
        "reboot": 169,
        "swapon": 167,
        "swapoff": 168,
        "acct": 163,
        "mknod": 133,
        "mknodat": 259,
        "setuid": 105,
        "setgid": 106,
        "setresuid": 117,
        "setresgid": 119,
        "setreuid": 113,
        "setregid": 114,
        "setgroups": 116,
        "sethostname": 170,
        "settimeofday": 164,
        "clock_settime": 227,
        "adjtimex": 159,
        "quotactl": 179,
        "personality": 135,
        "iopl": 172,
        "ioperm": 173,
    },
    "aarch64": {
        "socket": 198,
        "connect": 203,
        "accept": 202,
        "sendto": 206,
        "bind": 200,
        "listen": 201,
        "accept4": 242,
        "execve": 221,
        "execveat": 281,
        "ptrace": 117,
        "kill": 129,
        "tkill": 130,
        "rt_sigqueueinfo": 138,
        "rt_tgsigqueueinfo": 240,
        "pidfd_send_signal": 424,
        "process_madvise": 440,
        "kcmp": 272,
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "pidfd_open": 434,
        "pidfd_getfd": 438,
        "mount": 40,
        "umount2": 39,
        "pivot_root": 41,
        "chroot": 51,
        "setns": 268,
        "unshare": 97,
        "bpf": 280,
        "perf_event_open": 241,
        "userfaultfd": 282,
        "io_uring_setup": 425,
        "open_by_handle_at": 265,
        "keyctl": 219,
        "add_key": 217,
        "request_key": 218,
        "init_module": 105,
        "finit_module": 273,
        "delete_module": 106,
        "kexec_load": 104,
        "reboot": 142,
        "swapon": 224,
        "swapoff": 225,
        "acct": 89,
        "mknodat": 33,
        "setuid": 146,
        "setgid": 144,
        "setresuid": 147,
        "setresgid": 149,
        "setreuid": 145,
        "setregid": 143,
        "setgroups": 159,
        "sethostname": 161,
        "settimeofday": 170,
        "clock_settime": 112,
        "adjtimex": 171,
        "quotactl": 60,
        "personality": 92,
    },
}
_CLONE: Final = {"x86_64": (56, 435), "aarch64": (220, 435)}
"""clone, and clone3, whose flags a filter cannot see: the C library falls back to clone."""
_OF_A_PROCESS: Final = {
    # (number, whether 0 means the caller): of others they are refused. abort() and setrlimit() need them.
    "x86_64": {"tgkill": (234, False), "prlimit64": (302, True)},
    "aarch64": {"tgkill": (131, False), "prlimit64": (261, True)},
}
"""System calls whose first argument is a process."""
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE_THREAD: Final = 0x10000

_LD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_ERRNO: Final = 0x00050000


_CAPABILITIES: Final = struct.Struct("6I")
_CAPABILITY_VERSION: Final = struct.pack("Ii", 0x20080522, 0)
"""Linux, capability.h: version 3, of this thread."""
CAPABILITIES_KEPT: Final = 1 << 1 | 1 << 2 | 1 << 3
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: an agent that runs as root may have files that are another's."""

_LANDLOCK_CREATE_RULESET: Final = 444
_LANDLOCK_RESTRICT_SELF: Final = 446
"""The numbers are the same on x86-64 and on aarch64."""
_LANDLOCK_NET: Final = struct.pack("QQ", 0, 0x1 | 0x2)
"""Linux, landlock.h: a ruleset with no access to files handled, and LANDLOCK_ACCESS_NET_BIND_TCP and _CONNECT_TCP."""


def harden(parent: int) -> None:
    """Tie this process's life to the process ``parent``, and limit it. Before any thread is started."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    _lower(resource.RLIMIT_AS, ADDRESS_ROOM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A write over RLIMIT_FSIZE is then an error that the guest sees.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    os.umask(0o077)
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        give_up_capabilities()
        leave_processes_alone()
    if os.getppid() != parent:  # it died before it could be watched
        os._exit(1)


def give_up_capabilities() -> None:
    """Keep nothing of root's but what opens files: not the memory of others, devices, networks or the clock."""
    libc = ctypes.CDLL(None, use_errno=True)
    had = ctypes.create_string_buffer(_CAPABILITIES.size)
    header = ctypes.create_string_buffer(_CAPABILITY_VERSION, len(_CAPABILITY_VERSION))
    if libc.capget(header, had) != 0:
        raise OSError(ctypes.get_errno(), "capget failed")
    effective, permitted = (each & CAPABILITIES_KEPT for each in _CAPABILITIES.unpack(had.raw)[:2])
    if libc.capset(header, _CAPABILITIES.pack(effective, permitted, 0, 0, 0, 0)) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def leave_processes_alone() -> bool:
    """From now on, reach into no other process: not by ptrace, and not by ``/proc/PID/mem``, ``environ`` or ``fd``,
    which are files and no system calls of their own. False where the kernel has no Landlock for networks (Linux 6.7).

    Threads of this process that exist already are not covered.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    # That much any domain of Landlock does. One that handles files would refuse to move them between folders, too.
    rules = libc.syscall(_LANDLOCK_CREATE_RULESET, _LANDLOCK_NET, ctypes.c_size_t(len(_LANDLOCK_NET)), 0)
    if rules < 0:
        return False
    try:
        done: int = libc.syscall(_LANDLOCK_RESTRICT_SELF, rules, 0)
        return done == 0
    finally:
        os.close(rules)


def limit_memory(guest_bytes: int) -> None:
    """Bound what this process can fill, for a guest of that size."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = DATA_ROOM + guest_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def refuse_system_calls() -> bool:
    """From now on, refuse what only an escaped guest would call; False where the kernel has no such filter.

    Threads of this process that exist already are not covered.
    """
    machine = platform.machine()
    if sys.platform != "linux" or machine not in _REFUSED:
        return False
    program = _filter(machine)
    # Both must live until the kernel has read them.
    buffer = ctypes.create_string_buffer(program)
    prog = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))
    try:
        _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(prog))
    except OSError:
        return False
    return True


def _filter(machine: str) -> bytes:
    """A program in classic BPF (Linux, Documentation/userspace-api/seccomp_filter.rst)."""

    def op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
        return struct.pack("<HBBI", code, jt, jf, k)

    clone, clone3 = _CLONE[machine]
    refuse = op(_RET, _ERRNO | errno.EPERM)
    program = [
        op(_LD, 4),
        op(_JEQ, _AUDIT_ARCH[machine], 1, 0),
        op(_RET, _KILL),
        op(_LD, 0),
        # The x32 ABI has numbers of its own for the same calls.
        op(_JGE, 0x40000000, 0, 1),
        refuse,
        op(_JEQ, clone3, 0, 1),
        op(_RET, _ERRNO | errno.ENOSYS),
        op(_JEQ, clone, 0, 4),
        op(_LD, 16),
        op(_JSET, _CLONE_THREAD, 1, 0),
        refuse,
        op(_RET, _ALLOW),
    ]
    for number, zero in _OF_A_PROCESS[machine].values():
        program += [
            op(_JEQ, number, 0, 5),
            op(_LD, 16),
            op(_JEQ, os.getpid(), 2, 0),
            op(_JEQ, 0, 1 if zero else 0, 0),
            refuse,
            op(_RET, _ALLOW),
        ]
    for number in sorted(_REFUSED[machine].values()):
        program += [op(_JEQ, number, 0, 1), refuse]
    return b"".join([*program, op(_RET, _ALLOW)])


def _lower(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard == resource.RLIM_INFINITY or hard > most:
        resource.setrlimit(what, (most, most))


def _prctl(option: int, *args: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(value) for value in (*args, 0, 0, 0, 0)[:4]]
    if libc.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def leave(code: int) -> NoReturn:
    """End this process without finalising wasmtime, which has no use then, and has been seen to abort."""
    os._exit(code)
