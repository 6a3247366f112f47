"""Chooses the adapters: the only module that knows which back end this process stands on."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hanzo_compute import config as settings
from hanzo_compute.config import Config, WayOut
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import bounds
from hanzo_compute.ports import (
    Attester,
    Clock,
    CollateralSource,
    Commits,
    Egress,
    KeyApi,
    KeyVault,
    Lease,
    LeaseApi,
    Runner,
    RunnerOutcome,
)
from hanzo_compute.ports.sandboxes import Guests
from hanzo_compute.services.context import Context
from hanzo_compute.services.invocations import Batcher

if TYPE_CHECKING:
    from typing import BinaryIO

    from hanzo_compute.adapters.http.functions import FunctionsClient as FunctionsClient  # noqa: PLC0414
    from hanzo_compute.adapters.http.jobs import JobsClient as JobsClient  # noqa: PLC0414 — hosts name the type
    from hanzo_compute.adapters.http.keys import KeysClient as KeysClient  # noqa: PLC0414
    from hanzo_compute.adapters.http.log import ProofClient as ProofClient  # noqa: PLC0414
    from hanzo_compute.adapters.http.routing import RoutingClient as RoutingClient  # noqa: PLC0414
    from hanzo_compute.adapters.http.schedules import SchedulesClient as SchedulesClient  # noqa: PLC0414
    from hanzo_compute.adapters.http.secrets import SecretsClient as SecretsClient  # noqa: PLC0414
    from hanzo_compute.adapters.local.archive import BackupHead as BackupHead  # noqa: PLC0414
    from hanzo_compute.adapters.local.backup import BackupReport as BackupReport  # noqa: PLC0414
    from hanzo_compute.adapters.runner.wasm.local import LocalOutcome as LocalOutcome  # noqa: PLC0414
    from hanzo_compute.adapters.runner.wasm.local import LocalProgram as LocalProgram  # noqa: PLC0414
    from hanzo_compute.services.repair import StateFolder


@dataclass(frozen=True, kw_only=True)
class Container(Context):
    """The ports of this process, and what the host needs besides."""

    config: Config
    commits: Commits | None = None


_installed: list[Container] = []


def container() -> Container:
    """The container of this process, made from its environment at the first call."""
    if not _installed:
        _installed.append(local(settings.load()))
    return _installed[0]


def install(given: Container | None) -> None:
    """Make ``given`` the container of this process: for tests, and for programs that embed the platform."""
    _installed[:] = [given] if given else []


def local(config: Config, *, wakes: bool = False, max_receives: Mapping[str, int] | None = None) -> Container:
    """SQLite and files under ``config.home``.

    With ``wakes`` the writer tells which partitions changed. ``max_receives``: of each queue, from the template.
    """
    from hanzo_compute.adapters.local.blobs import FileBlobs
    from hanzo_compute.adapters.local.client import WriterClient
    from hanzo_compute.adapters.local.queue import SqliteQueue
    from hanzo_compute.adapters.local.store import SqliteStore
    from hanzo_compute.adapters.local.system import SystemClock, SystemIds
    from hanzo_compute.adapters.local.vault import FileVault
    from hanzo_compute.adapters.logs import RecordLogs

    clock, ids = SystemClock(), SystemIds()
    client = WriterClient(config.home, wakes=wakes)
    queue = SqliteQueue(client, clock, ids, max_receives)
    store = SqliteStore(client, queue)
    blobs = FileBlobs(config.home, clock, config.base_url)
    return Container(
        config=config,
        store=store,
        queue=queue,
        blobs=blobs,
        logs=RecordLogs(store, blobs),
        clock=clock,
        ids=ids,
        vault=FileVault(config.home / "keys"),
        policy=config.policy,
        tariff=config.tariff,
        egress=egress(config),
        invocations=Batcher("local"),
        collateral=collateral_ahead(config),
        commits=client,
    )


def egress(config: Config | WayOut) -> Egress:
    """The way out for functions, as far as the operator lets them."""
    from hanzo_compute.adapters.egress import AddressPolicy, ClosedEgress, HttpEgress

    return HttpEgress(AddressPolicy(config.egress_allow)) if config.egress else ClosedEgress()


def collateral(config: Config, anchors: Sequence[bytes] = ()) -> CollateralSource:
    """Where endorsements and reference values come from; what was had before is in ``collateral`` under the home.

    ``anchors``: roots besides the pinned ones whose collateral is kept. What is accepted the appraisal decides.
    """
    from hanzo_compute.adapters.collateral import CollateralFetcher, vendors
    from hanzo_compute.adapters.local.system import SystemClock

    clock = SystemClock()
    return CollateralFetcher(vendors(config.collateral, config.home / "collateral", clock, tuple(anchors)), clock)


def collateral_ahead(config: Config) -> CollateralSource:
    """The same for handlers, which never wait: from the cache, which is filled meanwhile."""
    from hanzo_compute.adapters.collateral.ahead import CollateralAhead

    cached = collateral(replace(config, collateral=replace(config.collateral, offline=True)))
    return cached if config.collateral.offline else CollateralAhead(cached, collateral(config))


def jobs_client(url: str, key: str | None) -> JobsClient:
    """A tenant's client."""
    from hanzo_compute.adapters.http import ApiClient, JobsClient

    return JobsClient(ApiClient(url, key))


def functions_client(url: str, key: str | None) -> FunctionsClient:
    """A tenant's client of functions."""
    from hanzo_compute.adapters.http import ApiClient, FunctionsClient

    return FunctionsClient(ApiClient(url, key))


def secrets_client(url: str, key: str | None) -> SecretsClient:
    """A tenant's client of secrets."""
    from hanzo_compute.adapters.http import ApiClient, SecretsClient

    return SecretsClient(ApiClient(url, key))


def keys_client(url: str, key: str | None) -> KeysClient:
    """A requester's client of attestation and keys."""
    from hanzo_compute.adapters.http import ApiClient, KeysClient

    return KeysClient(ApiClient(url, key))


def proof_client(url: str, key: str | None) -> ProofClient:
    """A tenant's client of quotes, receipts and the transparency log."""
    from hanzo_compute.adapters.http import ApiClient, ProofClient

    return ProofClient(ApiClient(url, key))


def schedules_client(url: str, key: str | None) -> SchedulesClient:
    """A tenant's client of schedules."""
    from hanzo_compute.adapters.http import ApiClient, SchedulesClient

    return SchedulesClient(ApiClient(url, key))


def routing_client(url: str, key: str | None) -> RoutingClient:
    """A tenant's client of the router."""
    from hanzo_compute.adapters.http import ApiClient, RoutingClient

    return RoutingClient(ApiClient(url, key))


@dataclass(frozen=True)
class AgentParts:
    """What an agent works with."""

    api: LeaseApi
    runner: Runner
    clock: Clock
    vault: KeyVault
    evidence: tuple[KeyApi, Attester]
    """How keys of sealed jobs are asked for, and what collects the evidence for that."""
    prepare: Callable[[Callable[[float], bool]], list[str]]
    """Make the runner ready for jobs to come, while it may run others: see
    :meth:`~hanzo_compute.adapters.runner.wasm.runner.WasmRunner.prepare`."""


def agent(
    url: str,
    key: str,
    state: Path,
    cache: Path,
    slots: int,
    keys: Path,
    patience: Callable[[], bool] | None = None,
    tcti: str | None = None,
) -> AgentParts:
    """An agent's parts: the platform's lease API at ``url``, a runner that keeps its attempts under ``state``, and
    a vault in the folder ``keys``.

    ``tcti`` names another TPM than the machine's own. While another agent has ``state``, ``patience`` is called again
    and again until it returns False.
    """
    from hanzo_compute.adapters.http import ApiClient, HttpKeyApi, HttpLeaseApi
    from hanzo_compute.adapters.local.system import SystemClock
    from hanzo_compute.adapters.local.vault import FileVault
    from hanzo_compute.adapters.runner.wasm import WasmRunner

    clock, client = SystemClock(), ApiClient(url, key)
    runner = WasmRunner(state, cache, slots, clock, patience)
    evidence = HttpKeyApi(client), attester(tcti)
    return AgentParts(HttpLeaseApi(client), runner, clock, FileVault(keys), evidence, runner.prepare)


def replay(
    spec: Mapping[str, Any], module: bytes | None, stdin: bytes, cache: Path, progress: Callable[[str], None]
) -> RunnerOutcome:
    """Run a job's program again, here and by itself, as an agent's runner does.

    Its time limit is ten times the job's: this machine may be slower. Raises Unavailable when it cannot be run.
    """
    from hanzo_compute.adapters.local.system import SystemClock
    from hanzo_compute.adapters.runner.wasm import WasmRunner
    from hanzo_compute.adapters.sandbox import interpreters
    from hanzo_compute.adapters.sandbox.settings import Profile

    language, resources = spec["source"].get("language"), spec.get("resources", {})
    metered = spec.get("profile") == "deterministic" or resources.get("fuel") is not None
    if language is not None:
        interpreters.precompile(language, Profile.METERED if metered else Profile.FAST, cache, progress)
    timeout_ms = 10_000 * resources.get("timeout_s", bounds.TIMEOUT_S_DEFAULT)
    lease = Lease("replay", 1, "wasm", dict(spec), timeout_ms, timeout_ms, timeout_is_deadline=False)
    with tempfile.TemporaryDirectory(prefix="hzc-replay-") as folder:
        runner = WasmRunner(Path(folder), cache, 1, SystemClock())
        try:
            handle = runner.start(lease, module=module, stdin=stdin)
            while not runner.poll(handle, 1.0):
                pass
            return runner.collect(handle)
        finally:
            runner.close()


def run_local(
    program: LocalProgram, cache: Path, output: Callable[[int, bytes], None], progress: Callable[[str], None]
) -> LocalOutcome:
    """Run a program here, without a platform: see :func:`hanzo_compute.adapters.runner.wasm.local.run`."""
    from hanzo_compute.adapters.runner.wasm import local

    return local.run(program, cache, output, progress)


def local_program(**fields: Any) -> LocalProgram:
    """What :func:`run_local` takes."""
    from hanzo_compute.adapters.runner.wasm.local import LocalProgram

    return LocalProgram(**fields)


def prepare_interpreters(cache: Path, progress: Callable[[str], None]) -> None:
    """Make sure that the interpreters for source code are here and compiled."""
    from hanzo_compute.adapters.sandbox import interpreters
    from hanzo_compute.adapters.sandbox.settings import Profile

    for language in interpreters.PINS:
        interpreters.precompile(language, Profile.FAST, cache, progress)


def guests(config: Config) -> Guests:
    """Sandboxes for calls of functions, in worker processes of this one."""
    from hanzo_compute.adapters.sandbox.pool import Pool

    return Pool(config.home, config.cache, config.guest_workers, strict=config.strict_tenants)


def backup(home: Path, target: Path, scratch: Path, say: Callable[[str], None]) -> BackupReport:
    """Write a backup of a state folder: see :func:`hanzo_compute.adapters.local.backup.write`."""
    from hanzo_compute.adapters.local import backup

    return backup.write(home, target, scratch, say)


def unpack_backup(file: BinaryIO, size: int, folder: Path, say: Callable[[str], None]) -> BackupHead:
    """Verify and unpack a backup: see :func:`hanzo_compute.adapters.local.restore.unpack`."""
    from hanzo_compute.adapters.local import restore

    return restore.unpack(file, size, folder, say)


@contextmanager
def offline(config: Config) -> Iterator[tuple[Container, StateFolder]]:
    """The ports of a state folder that no platform runs in, each write in a commit of its own; and what lies below.

    Raises:
        NotFound, Conflict, InvalidRequest: see :class:`hanzo_compute.adapters.local.offline.OfflineState`.
        Unavailable: the disk does not do what is asked of it.
    """
    from hanzo_compute.adapters.local.blobs import FileBlobs
    from hanzo_compute.adapters.local.offline import OfflineClient, OfflineState
    from hanzo_compute.adapters.local.queue import SqliteQueue
    from hanzo_compute.adapters.local.store import SqliteStore
    from hanzo_compute.adapters.local.system import SystemClock, SystemIds
    from hanzo_compute.adapters.local.vault import FileVault
    from hanzo_compute.adapters.logs import RecordLogs

    clock, ids = SystemClock(), SystemIds()
    state = OfflineState(config.home, config.cache)
    client = OfflineClient(config.home, state.db)
    queue = SqliteQueue(client, clock, ids)
    store = SqliteStore(client, queue)
    try:
        blobs = FileBlobs(config.home, clock, config.base_url)
        made = Container(
            config=config,
            store=store,
            queue=queue,
            blobs=blobs,
            logs=RecordLogs(store, blobs),
            clock=clock,
            ids=ids,
            vault=FileVault(config.home / "keys"),
            policy=config.policy,
            tariff=config.tariff,
        )
        yield made, state
    except sqlite3.Error as error:
        raise Unavailable(
            f"the database cannot be read or written: {error}",
            hint="free some disk space; if there is enough: hzc doctor --repair, hzc restore",
        ) from error
    finally:
        store.close()
        state.close()


def attester(tcti: str | None = None) -> Attester:
    """What collects evidence of this machine; ``tcti`` names another TPM than the machine's own."""
    from hanzo_compute.adapters.attester import HardwareAttester, Sources
    from hanzo_compute.adapters.attester.tpm import Tpm
    from hanzo_compute.adapters.attester.tpm_tools import Tools

    if tcti is None:
        return HardwareAttester()
    # The firmware's log is of the machine's own TPM, and says nothing of another.
    return HardwareAttester(Sources(tpm=Tpm(Tools(tcti), event_log=None)))
