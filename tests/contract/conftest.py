"""Every contract test runs on every family of adapters; a new family is one more name here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.backends import Backend, MemoryBackend, Process, SqliteBackend
from tests.support.writer import WriterProcess


@pytest.fixture(scope="session")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WriterProcess]:
    with WriterProcess(tmp_path_factory.mktemp("writer")) as process:
        yield process
        assert process.stop() == 0


@pytest.fixture(params=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    found: Backend
    if request.param == "memory":
        found = MemoryBackend()
    else:
        found = SqliteBackend(request.getfixturevalue("writer").home)
    yield found
    found.close()


@pytest.fixture
def process(backend: Backend) -> Process:
    return backend.process()
