"""The host calls of an attempt: answered here, by way of its lease, as the platform answers those of an invocation.

The same checks, bounds and log as there. Entries are read one by one and written with the outcome; a secret is asked
for anew each time and kept nowhere; requests to other hosts are sent from here, as far as this machine's settings let
them. All of it is in this process alone: an attempt that outlives it is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from hanzo_compute.model.capabilities import of_source
from hanzo_compute.ports import Clock, Egress, Lease, LeaseApi, Seen, Touched
from hanzo_compute.services.host import CallOf, GuestHost

INLINE_MAX: Final = 256 * 1024
"""Bytes of values that are handed in with the outcome itself; beyond that they are uploaded before."""


@dataclass(frozen=True)
class LeaseReach:
    """What the lease of an attempt gives access to."""

    api: LeaseApi
    lease: Lease
    stdin: bytes

    def entry(self, key: bytes, fresh: bool) -> Seen:
        """A key-value entry of its function."""
        return self.api.entry(self.lease.job, self.lease.attempt, key, fresh=fresh)

    def secret(self, name: str) -> bytes | None:
        """A secret that it was granted."""
        return self.api.secret(self.lease.job, self.lease.attempt, name)

    def input(self) -> bytes:
        """Its standard input."""
        return self.stdin


class LeaseHost(GuestHost):
    """Answers the host calls of one attempt; afterwards it has what that left."""

    _timeout_s: float | None = None

    def starts_late(self, timeout_s: float) -> LeaseHost:
        """Its time begins with its first host call: before that its module may have had to be compiled."""
        self._timeout_s = timeout_s
        return self

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """See :class:`~hanzo_compute.ports.GuestService`."""
        if self._timeout_s is not None:
            self.of = replace(self.of, deadline=self._clock.monotonic() + self._timeout_s)
            self._timeout_s = None
        return super().ask(name, args)

    def touched(self, api: LeaseApi, lease: Lease) -> list[Touched] | None:
        """The entries that the attempt has used, large values uploaded; None: it has none. Raises StaleFence."""
        if "kv" not in self.granted:
            return None
        found, held = [], 0
        for each in self.buffer.touched():
            kept = each if each.changed else replace(each, value=None)
            if kept.value is not None:
                held += len(kept.value)
                if held > INLINE_MAX:
                    blob = api.upload(lease.job, lease.attempt, kept.value)
                    kept = replace(kept, value=None, blob=blob)
            found.append(kept)
        return found


def needs(lease: Lease) -> bool:
    """Whether the function of a leased job was granted anything."""
    return bool(of_source(lease.spec["source"]).granted)


def host_of(api: LeaseApi, clock: Clock, egress: Egress | None, lease: Lease, stdin: bytes) -> LeaseHost | None:
    """What answers the host calls of an attempt that starts now; None if it may make none."""
    source = lease.spec["source"]
    capabilities = of_source(source)
    if not capabilities.granted:
        return None
    name, _, version = source["function"].partition("@")
    of = CallOf("", name, int(version), lease.call or lease.job, 0.0)
    # An attempt that is not the first may follow one that saw what was no more.
    made = LeaseHost(LeaseReach(api, lease, stdin), clock, of, capabilities, egress, fresh=lease.attempt > 1)
    # The worker ends the guest in time; this only bounds how long a request may take.
    return made.starts_late(lease.timeout_ms / 1000)
