"""Agents: the real loop, with the platform behind a network and programs that are plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from hanzo_compute.adapters import blob_ids
from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute.errors import Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.job import Job
from hanzo_compute.ports import Beat, Completed, Lease, LogEntry, Report, Want
from hanzo_compute.services import complete, lease
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.agent import Agent, Settings
from tests.simulation.faults import Faults
from tests.simulation.host import Answer, Network
from tests.simulation.ports import SimClock
from tests.simulation.runner import Disk, SimJournal, SimRunner
from tests.simulation.scheduler import SECOND, Process
from tests.support import statements

LESSEE: Final = "platform"
SLOTS: Final = 2


class SimLeaseApi:
    """What the function ``leases`` and the agent's HTTP client do, without HTTP."""

    def __init__(self, faults: Faults, network: Network, blobs: MemoryBlobs) -> None:
        self._faults = faults
        self._network = network
        self._blobs = blobs

    def lease(self, want: Want, wait_s: float) -> list[Lease]:
        def work(ctx: Context) -> Answer[list[Lease]]:
            found = lease.acquire(ctx, want, LESSEE)
            return found, () if found else (keys.pool_partition(want.pool),)

        return self._network.call("lease", work, wait_s)

    def again(self, job: str, attempt: int) -> Lease:
        claim = Claim(job, attempt, LESSEE)
        return self._network.call(f"again {job}", lambda ctx: (lease.again(ctx, claim), ()))

    def heartbeat(self, job: str, attempt: int, *, seen: Beat, wait_s: float) -> Beat:
        def work(ctx: Context) -> Answer[Beat]:
            beat = lease.heartbeat(ctx, Claim(job, attempt, LESSEE))
            return beat, (keys.job_partition(job),) if beat == seen else ()

        return self._network.call(f"heartbeat {job}", work, wait_s)

    def logs(self, job: str, attempt: int, seq: int, entries: Sequence[LogEntry]) -> None:
        def work(ctx: Context) -> Answer[None]:
            lease.append_logs(ctx, Claim(job, attempt, LESSEE), seq, entries)
            return None, ()

        self._network.call(f"logs {job} {seq}", work)

    def upload(self, job: str, attempt: int, data: bytes) -> str:
        blob = blob_ids.of(data)
        claim = Claim(job, attempt, LESSEE)
        url = self._network.call(f"blobs {job}", lambda ctx: (lease.presign_output(ctx, claim, blob, len(data)), ()))
        if url is not None:
            lost = self._faults.step("http upload", fallible=True)
            self._blobs.upload(url.url, data)
            self._faults.reply(lost, "http upload")
        return blob

    def download(self, url: str) -> bytes:
        lost = self._faults.step("http download", fallible=True)
        data = self._blobs.download(url)
        self._faults.reply(lost, "http download")
        return data

    def complete(self, reports: Sequence[Report], *, want: Want | None = None) -> Completed:
        ended = [
            complete.Ended(Claim(each.job, each.attempt, LESSEE), each.outcome, each.log_seq, each.entries, each.signed)
            for each in reports
        ]

        def work(ctx: Context) -> Answer[Completed]:
            found = complete.complete_all(ctx, ended)
            leases: list[Lease] = []
            if want is not None:
                with suppress(Unavailable):
                    leases = lease.acquire(ctx, want, LESSEE)
            return Completed([each.state.value if isinstance(each, Job) else each for each in found], leases), ()

        told = " ".join(f"{each.job} {each.outcome.category}" for each in reports)
        return self._network.call(f"complete {told}", work)

    def release(self, job: str, attempt: int, reason: str) -> None:
        claim = Claim(job, attempt, LESSEE)
        self._network.call(f"release {job}", lambda ctx: (lease.release(ctx, claim, reason), ()))


class AgentHost:
    """Starts an agent, and starts it again after a crash or a stop; its disk stays."""

    def __init__(self, faults: Faults, network: Network, blobs: MemoryBlobs, name: str, pool: str) -> None:
        self.disk = Disk()
        self.agent: Agent | None = None
        self._faults = faults
        self._scheduler = faults.scheduler
        self._parts = (network, blobs)
        self._name = name
        self._pool = pool
        self._start()

    def _start(self) -> None:
        faults = self._faults
        process = Process(self._name)
        runner = SimRunner(faults, self.disk, self._name)

        def crashed() -> None:
            runner.died()
            self.agent = None
            self._scheduler.after(faults.random.randrange(faults.profile.restart_s * SECOND), self._start)

        def spawn(task: Callable[[], None], name: str) -> None:
            faults.step(f"spawn {name}")
            self._scheduler.spawn(f"{self._name} {name}", task, process)

        process.at_crash.append(crashed)
        agent = self.agent = Agent(
            SimLeaseApi(faults, *self._parts),
            runner,
            SimClock(faults),
            SimJournal(faults, self.disk),
            spawn,
            Settings(self._name, self._pool, SLOTS),
            statements.VAULT,
        )
        if faults.random.random() < 0.5:
            agent._carrier.pace_s = 0.001  # as after many attempts that ended at once
        self._scheduler.spawn(self._name, agent.start, process)
        if faults.chance(faults.profile.stops, f"{self._name} will be told to stop"):
            moment = faults.random.randrange(faults.profile.until_s // 2 * SECOND)
            self._scheduler.spawn(f"{self._name} stop", lambda: self._stop(agent, runner, process, moment), process)

    def _stop(self, agent: Agent, runner: SimRunner, process: Process, moment: int) -> None:
        """As ``hanzo_compute_agent.__main__`` stops: drain, wait a little longer, close, exit."""
        self._scheduler.pause(moment)
        agent.stop()
        patience = self._scheduler.now_us + 10 * SECOND
        while agent.carrying and self._scheduler.now_us < patience:
            self._scheduler.pause(SECOND // 10)
        runner.close()
        self._faults.note(f"{self._name} exits, {agent.carrying} left behind")
        self._scheduler.crash(process)
