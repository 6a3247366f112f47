"""Modules are downloaded once, checked, and kept within a bound."""

from __future__ import annotations

import hashlib

import pytest

from hanzo_compute.errors import InternalError
from hanzo_compute_agent.modules import Modules


class Blobs:
    def __init__(self) -> None:
        self.fetched: list[str] = []

    def download(self, url: str) -> bytes:
        self.fetched.append(url)
        return url.encode()


def blob(text: str) -> str:
    return f"b1-{hashlib.sha256(text.encode()).hexdigest()}"


def test_a_module_is_downloaded_once() -> None:
    blobs = Blobs()
    modules = Modules(blobs.download)
    assert [modules.get(blob("a"), "a") for _ in range(3)] == [b"a"] * 3
    assert blobs.fetched == ["a"]


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    blobs = Blobs()
    modules = Modules(blobs.download, room=8)
    for url in ("aaa", "bbb", "aaa", "ccc", "aaa", "bbb"):
        modules.get(blob(url), url)
    assert blobs.fetched == ["aaa", "bbb", "ccc", "bbb"]


def test_one_that_is_larger_than_all_room_is_handed_over_and_not_kept() -> None:
    blobs = Blobs()
    modules = Modules(blobs.download, room=2)
    assert [modules.get(blob("aaa"), "aaa") for _ in range(2)] == [b"aaa"] * 2
    assert blobs.fetched == ["aaa", "aaa"]


def test_other_bytes_are_refused() -> None:
    with pytest.raises(InternalError, match="other bytes"):
        Modules(Blobs().download).get(blob("a"), "b")
