"""A platform in memory behind its functions, and who calls them; the client before a fake of the API."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.logs import RecordLogs
from hanzo_compute.adapters.memory import (
    ManualClock,
    MemoryBlobs,
    MemoryCommits,
    MemoryQueue,
    MemoryStore,
    MemoryVault,
    SeededIds,
)
from hanzo_compute.config import Config
from hanzo_compute.security.authorizer import Role
from hanzo_compute.wiring import Container
from tests.support.cli import Hzc
from tests.support.fake_api import FakeApi
from tests.support.handlers import Client


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    clock, commits = ManualClock(), MemoryCommits()
    store, blobs = MemoryStore(commits), MemoryBlobs(clock)
    made = Container(
        config=Config("local", tmp_path, "http://127.0.0.1:1", tmp_path),
        store=store,
        queue=MemoryQueue(clock, commits=commits),
        blobs=blobs,
        logs=RecordLogs(store, blobs),
        clock=clock,
        ids=SeededIds(random.Random(1)),
        vault=MemoryVault(random.Random(1)),
    )
    wiring.install(made)
    yield made
    wiring.install(None)


@pytest.fixture
def call(container: Container) -> Client:
    return Client(container, "t1")


@pytest.fixture
def other(container: Container) -> Client:
    return Client(container, "t2")


@pytest.fixture
def agent(container: Container) -> Client:
    return Client(container, "platform", Role.RUNNER)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi().serving() as fake:
        yield fake


@pytest.fixture
def hzc(api: FakeApi, tmp_path: Path) -> Hzc:
    return Hzc.of(api, str(tmp_path / "home"))
