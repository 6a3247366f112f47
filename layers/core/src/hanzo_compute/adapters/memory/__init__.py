"""Twins of the embedded adapters that keep everything in memory: for tests, of users too, and for simulation.

commits = MemoryCommits()      # one per process; MemoryCommits(database) shares a database
store = MemoryStore(commits)   # MemoryStore() alone has a database of its own
queue = MemoryQueue(clock, commits=commits)
"""

from hanzo_compute.adapters.memory.blobs import MemoryBlobs
from hanzo_compute.adapters.memory.commits import MemoryCommits
from hanzo_compute.adapters.memory.database import MemoryDatabase
from hanzo_compute.adapters.memory.queue import MemoryQueue
from hanzo_compute.adapters.memory.store import MemoryStore
from hanzo_compute.adapters.memory.system import ManualClock, SeededIds
from hanzo_compute.adapters.memory.vault import MemoryVault

__all__ = [
    "ManualClock",
    "MemoryBlobs",
    "MemoryCommits",
    "MemoryDatabase",
    "MemoryQueue",
    "MemoryStore",
    "MemoryVault",
    "SeededIds",
]
