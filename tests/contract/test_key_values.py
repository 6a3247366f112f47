"""Key-value sessions on every store, by several processes at once."""

from __future__ import annotations

import threading
from dataclasses import replace

from hanzo_compute.errors import Conflict
from hanzo_compute.services import kv
from hanzo_compute.services.context import Context
from tests.support.backends import Backend, MemoryBackend
from tests.support.stepped import Platform

K = b"\x00k"


def context(backend: Backend) -> Context:
    process = backend.process()
    return replace(Platform().ctx, store=process.store, queue=process.queue)


def count_up(ctx: Context, name: str, times: int) -> int:
    """Add 1 so many times; returns how often somebody came in between."""
    conflicts = done = 0
    while done < times:
        mine = kv.Session(ctx, "acme", name, fresh=conflicts > 0)
        value, version = mine.get(K) or (b"0", 0)
        assert mine.put(K, b"%d" % (int(value) + 1), version) == 0
        try:
            mine.commit()
            done += 1
        except Conflict:
            conflicts += 1
    return conflicts


def test_processes_that_count_up_lose_nothing(backend: Backend) -> None:
    contexts, name = [context(backend) for _ in range(3)], backend.unique("counter")
    if isinstance(backend, MemoryBackend):  # the twin is for one thread
        for _ in range(20):
            for ctx in contexts:
                count_up(ctx, name, 1)
    else:
        threads = [threading.Thread(target=count_up, args=(ctx, name, 20)) for ctx in contexts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert kv.Session(contexts[0], "acme", name, fresh=True).get(K) == (b"60", 60)


def test_who_commits_second_is_refused(backend: Backend) -> None:
    name = backend.unique("race")
    one, two = (kv.Session(context(backend), "acme", name, fresh=True) for _ in range(2))
    for each in (one, two):
        assert each.get(K) is None
        assert each.put(K, b"x" * 256 * 1024, 0) == 0
    one.commit()
    try:
        two.commit()
        raise AssertionError("both were committed")
    except Conflict:
        pass
    gone = kv.Session(context(backend), "acme", name, fresh=True)
    assert gone.delete(K, 1) == 0
    gone.commit()
    anew = kv.Session(context(backend), "acme", name, fresh=True)
    assert anew.put(K, b"2", 0) == 0
    anew.commit()
    assert kv.Session(context(backend), "acme", name, fresh=True).get(K) == (b"2", 2)
