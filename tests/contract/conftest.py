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


def _memory(_request: pytest.FixtureRequest) -> Backend:
    return MemoryBackend()


def _sqlite(request: pytest.FixtureRequest) -> Backend:
    return SqliteBackend(request.getfixturevalue("writer").home)


@pytest.fixture(params=[_memory, _sqlite], ids=["memory", "sqlite"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    found: Backend = request.param(request)
    yield found
    found.close()


@pytest.fixture
def process(backend: Backend) -> Process:
    return backend.process()
