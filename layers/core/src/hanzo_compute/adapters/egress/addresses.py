"""Which addresses may be called, and how a name becomes addresses."""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hanzo_compute.model.origins import METADATA, is_public
from hanzo_compute.ports import GuestRefusal, Status

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVING_MAX: Final = 32
"""Names that are being resolved at a time: a resolver that hangs holds a thread, and no more than these."""

_resolving = threading.BoundedSemaphore(RESOLVING_MAX)
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The internet, and networks that the operator permits besides; never where clouds give out credentials."""

    allow: tuple[Network, ...] = ()

    def permits(self, address: Address) -> bool:
        """Whether an address may be connected to."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address in METADATA:
            return False
        return is_public(address) or any(address in network for network in self.allow)


def checked(found: Sequence[str], host: str, policy: AddressPolicy) -> list[str]:
    """The addresses of a host in the order in which they came, if every one of them may be called.

    One that may not refuses all: a name that has both kinds is no accident.
    """
    addresses: list[str] = []
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            address = None
        scoped = getattr(address, "scope_id", None) is not None
        if address is None or scoped or not policy.permits(address):
            # Which address it was is not for the guest: names of inside would tell about inside.
            raise GuestRefusal(Status.DENIED, f"{host} has an address that is not one of the internet")
        if str(address) not in addresses:
            addresses.append(str(address))
    if not addresses:
        raise GuestRefusal(Status.NOT_FOUND, f"{host} has no address")
    return addresses


def resolve(host: str, port: int, timeout_s: float) -> list[str]:
    """All addresses of a name, by the system's resolver, which knows no timeout of its own.

    Raises:
        GuestRefusal: there is no such name, it took too long, or the resolver did not answer.
    """
    slots = _resolving
    if not slots.acquire(timeout=timeout_s):
        raise GuestRefusal(Status.UNAVAILABLE, "too many names are being resolved")
    answer: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def work() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            answer.put([str(entry[4][0]) for entry in found])
        except (OSError, UnicodeError) as error:
            answer.put(error)
        finally:
            slots.release()

    threading.Thread(target=work, name="egress-resolve", daemon=True).start()
    try:
        found = answer.get(timeout=timeout_s)
    except queue.Empty:
        raise GuestRefusal(Status.TIMED_OUT, f"the name {host} was not resolved in time") from None
    if isinstance(found, socket.gaierror) and found.errno not in _NO_SUCH_NAME:
        raise GuestRefusal(Status.UNAVAILABLE, f"the name {host} could not be resolved now")
    if isinstance(found, Exception):
        raise GuestRefusal(Status.NOT_FOUND, f"there is no host {host}")
    return found


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """A connection to an address; nothing is resolved. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(timeout_s)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.connect((address, port))
    except BaseException:
        made.close()
        raise
    return made
