"""Who waits for a worker: first come, first served within a tenant, and the tenants take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Queues by tenant; the tenant whose turn it is comes first."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def tenants(self) -> list[str]:
        """Who has something here, in the order of their turns."""
        return list(self._queues)

    def waiting(self, tenant: str) -> int:
        """How much a tenant has here."""
        return len(self._queues.get(tenant, ()))

    def put(self, tenant: str, item: T) -> None:
        """Wait behind all else of the tenant."""
        self._queues.setdefault(tenant, deque()).append(item)
        self._count += 1

    def put_back(self, tenant: str, item: T) -> None:
        """Wait before all else, of everybody."""
        self._queues.setdefault(tenant, deque()).appendleft(item)
        self._queues.move_to_end(tenant, last=False)
        self._count += 1

    def head(self, tenant: str) -> T | None:
        """What is next of a tenant."""
        queue = self._queues.get(tenant)
        return queue[0] if queue else None

    def pop(self, tenant: str) -> T:
        """Take what is next of a tenant."""
        queue = self._queues[tenant]
        item = queue.popleft()
        self._count -= 1
        if not queue:
            del self._queues[tenant]
        return item

    def served(self, tenant: str) -> None:
        """A tenant has had its turn: all others come before it."""
        if tenant in self._queues:
            self._queues.move_to_end(tenant)

    def clear(self) -> list[T]:
        """Take all that waits."""
        items = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        self._count = 0
        return items
