"""Agents: the real loop, with the platform behind a network and programs that are plans."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from hanzo_compute.adapters import blob_ids
from hanzo_compute.adapters.memory import MemoryBlobs
from hanzo_compute.errors import ComputeError, Unavailable
from hanzo_compute.model import keys
from hanzo_compute.model.evidence import Evidence
from hanzo_compute.model.job import Job
from hanzo_compute.ports import (
    Asked,
    Beat,
    Completed,
    Handle,
    KeyAnswer,
    Lease,
    LogEntry,
    Presented,
    Report,
    Seen,
    Want,
)
from hanzo_compute.security import hpke
from hanzo_compute.services import appraisals, complete, grants, lease, release_key
from hanzo_compute.services.appraisals import Keys
from hanzo_compute.services.context import Context
from hanzo_compute.services.lease import Claim
from hanzo_compute_agent.agent import Agent, Settings
from hanzo_compute_agent.confidential import Confidential
from tests.simulation.faults import Faults
from tests.simulation.host import Answer, Network
from tests.simulation.invariants import Watch
from tests.simulation.ports import SimAttester, SimClock
from tests.simulation.runner import Disk, SimJournal, SimRunner
from tests.simulation.scheduler import SECOND, Process
from tests.support import statements
from tests.support.attested import EnrolledTpm
from tests.support.endorsed import EndorsedTpm

LESSEE: Final = "platform"
SLOTS: Final = 2
Work = Callable[[Context], Answer[Any]]


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

    def entry(self, job: str, attempt: int, key: bytes, *, fresh: bool) -> Seen:
        claim = Claim(job, attempt, LESSEE)
        return self._network.call(f"entry {job} {key!r}", lambda ctx: (grants.entry(ctx, claim, key, fresh=fresh), ()))

    def secret(self, job: str, attempt: int, name: str) -> bytes | None:
        claim = Claim(job, attempt, LESSEE)
        return self._network.call(f"secret {job} {name}", lambda ctx: (grants.secret(ctx, claim, name), ()))

    def complete(self, reports: Sequence[Report], *, want: Want | None = None) -> Completed:
        ended = [
            complete.Ended(
                Claim(each.job, each.attempt, LESSEE),
                each.outcome,
                each.log_seq,
                each.entries,
                each.signed,
                each.touched,
            )
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


class SimKeyApi:
    """What the function ``attestation`` and the agent's HTTP client do, without HTTP; ``process`` is who asks."""

    def __init__(self, network: Network, watch: Watch, process: str) -> None:
        self._network = network
        self._watch = watch
        self._process = process

    def challenge(self, job: str, attempt: int, signing_key: bytes, sealing_key: bytes) -> Asked:
        claim, given = Claim(job, attempt, LESSEE), Keys(signing_key, sealing_key)
        made = self._network.call(f"challenge {job}", lambda ctx: (appraisals.challenge(ctx, claim, given), ()))
        return Asked(made["id"], bytes.fromhex(made["nonce"]))

    def credential(self, challenge: str, ek: bytes, ak: bytes) -> bytes:
        work: Work = lambda ctx: (appraisals.activation(ctx, LESSEE, challenge, ek, ak), ())  # noqa: E731
        return base64.b64decode(self._network.call("activation", work)["credential"])

    def present(self, challenge: str, evidence: Sequence[Evidence], activated: bytes | None = None) -> Presented:
        work: Work = lambda ctx: (appraisals.present(ctx, LESSEE, challenge, evidence, activated), ())  # noqa: E731
        found = self._network.call("present", work)
        return Presented(found["token"], found["result"]["verdict"])

    def key(self, job: str, attempt: int, token: str) -> KeyAnswer:
        claim = Claim(job, attempt, LESSEE)
        found = self._network.call(f"key {job}", lambda ctx: (release_key.release(ctx, claim, token), ()))
        answer = KeyAnswer(base64.b64decode(found["sealed"]), found["tier"], found["evidence"])
        self._watch.sealed.opens(self._process, job, attempt, answer, self._watch.database)
        return answer


class AgentHost:
    """Starts an agent, and starts it again after a crash or a stop; its disk stays."""

    def __init__(
        self,
        faults: Faults,
        network: Network,
        blobs: MemoryBlobs,
        name: str,
        pool: str,
        watch: Watch,
        tpm: EnrolledTpm | EndorsedTpm,
    ) -> None:
        self.disk = Disk()
        self._watch = watch
        self._tpm = tpm
        self._lives = 0
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
        self._lives += 1
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
            evidence=self._evidence(f"{self._name} life {self._lives}") if faults.profile.sealed else None,
        )
        if faults.random.random() < 0.5:
            agent._carrier.pace_s = 0.001  # as after many attempts that ended at once
        self._scheduler.spawn(self._name, agent.start, process)
        if faults.chance(faults.profile.stops, f"{self._name} will be told to stop"):
            moment = faults.random.randrange(faults.profile.until_s // 2 * SECOND)
            self._scheduler.spawn(f"{self._name} stop", lambda: self._stop(agent, runner, process, moment), process)

        if faults.chance(faults.profile.seconds, f"{self._name} will be there twice"):
            moment = faults.random.randrange(faults.profile.until_s // 2 * SECOND)
            second = f"{self._name} second {self._lives}"
            self._scheduler.spawn(second, lambda: self._second(agent, second, moment), Process(second))

    def _evidence(self, process: str) -> tuple[SimKeyApi, SimAttester]:
        return SimKeyApi(self._parts[0], self._watch, process), SimAttester(self._faults, self._tpm)

    def _second(self, agent: Agent, name: str, moment: int) -> None:
        """On the same machine, with the same keys: it wants the keys of attempts that the first process has."""
        self._scheduler.pause(moment)
        api, random = SimLeaseApi(self._faults, *self._parts), self._faults.random
        asks, attester = self._evidence(name)
        confidential = Confidential(asks, attester, SimClock(self._faults), lambda: agent.signer.public_key)
        going = lambda: self._scheduler.now_us < self._faults.profile.until_s * SECOND  # noqa: E731
        known: set[Handle] = set()
        while going() and len(known) < 3:
            there = agent._carrier.carrying - known
            for handle in sorted(there, key=lambda each: (each.job, each.attempt))[:1]:
                known.add(handle)
                with suppress(ComputeError):
                    lease = api.again(handle.job, handle.attempt)
                    if "data_key" not in lease.spec:
                        continue
                    if random.random() < 0.3:
                        confidential.obtain(lease, going)
                        continue
                    # Or it asks when the attempt may be over, and the next one have begun.
                    token = confidential._proved(attester, lease, hpke.new_pair()[1], going)
                    self._scheduler.pause(random.randrange(12 * SECOND))
                    asks.key(handle.job, handle.attempt, token)
            self._scheduler.pause(random.randrange(SECOND // 2))

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
