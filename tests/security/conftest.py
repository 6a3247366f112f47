"""One real platform for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import wasm_cache  # noqa: F401 — a fixture of this folder, too
from tests.support.live import Platform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform") / "home") as started:
        yield started
