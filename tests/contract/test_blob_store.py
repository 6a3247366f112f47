"""The contract of BlobStore, presigned URLs included."""

from __future__ import annotations

import hashlib
import re

import pytest

from hanzo_compute.errors import InvalidRequest, NotFound, PayloadTooLarge, PermissionDenied
from hanzo_compute.model.bounds import BLOB_MAX
from tests.support.backends import Backend

DATA = b"some bytes\x00\xff"
BLOB = "b1-" + hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def tenant(backend: Backend) -> str:
    return backend.unique("tenant")


def test_bytes_come_back_by_their_digest(backend: Backend, tenant: str) -> None:
    assert backend.blobs.put(tenant, DATA) == BLOB
    assert backend.blobs.put(tenant, DATA) == BLOB
    assert backend.blobs.get(tenant, BLOB) == DATA
    assert backend.blobs.size(tenant, BLOB) == len(DATA)


@pytest.mark.parametrize("size", [0, 1, BLOB_MAX])
def test_sizes_at_the_bounds(backend: Backend, tenant: str, size: int) -> None:
    blob = backend.blobs.put(tenant, bytes(size))
    assert backend.blobs.size(tenant, blob) == size
    assert backend.blobs.get(tenant, blob) == bytes(size)


def test_larger_ones_are_refused(backend: Backend, tenant: str) -> None:
    with pytest.raises(PayloadTooLarge):
        backend.blobs.put(tenant, bytes(BLOB_MAX + 1))
    with pytest.raises(InvalidRequest):
        backend.blobs.presign_put(tenant, BLOB, BLOB_MAX + 1)


def test_tenants_do_not_see_each_other_s_blobs(backend: Backend, tenant: str) -> None:
    backend.blobs.put(tenant, DATA)
    other = backend.unique("tenant")
    assert backend.blobs.size(other, BLOB) is None
    with pytest.raises(NotFound):
        backend.blobs.get(other, BLOB)


@pytest.mark.parametrize("bad", ["", ".", "..", ".hidden", "a/b", "../a", "a\x00", "é", "a" * 129, "a\n"])
def test_tenants_that_are_no_folders_are_refused(backend: Backend, bad: str) -> None:
    for call in (
        lambda: backend.blobs.put(bad, DATA),
        lambda: backend.blobs.get(bad, BLOB),
        lambda: backend.blobs.size(bad, BLOB),
        lambda: backend.blobs.presign_get(bad, BLOB),
        lambda: backend.blobs.presign_put(bad, BLOB, 1),
    ):
        with pytest.raises(InvalidRequest):
            call()


@pytest.mark.parametrize("bad", ["", "b1-", BLOB.upper(), BLOB + "0", BLOB + "\n", "m1-" + BLOB[3:], "../" + BLOB])
def test_ids_that_are_none_are_refused(backend: Backend, tenant: str, bad: str) -> None:
    with pytest.raises(InvalidRequest):
        backend.blobs.get(tenant, bad)
    with pytest.raises(InvalidRequest):
        backend.blobs.presign_get(tenant, bad)


def test_a_presigned_upload_and_download(backend: Backend, tenant: str) -> None:
    put = backend.blobs.presign_put(tenant, BLOB, len(DATA))
    assert (put.method, put.expires_ms) == ("PUT", backend.clock.now_ms() + 900_000)
    backend.upload(put.url, DATA)
    backend.upload(put.url, DATA)
    assert backend.blobs.get(tenant, BLOB) == DATA
    get = backend.blobs.presign_get(tenant, BLOB, ttl_s=10)
    assert (get.method, get.expires_ms) == ("GET", backend.clock.now_ms() + 10_000)
    assert backend.download(get.url) == DATA


@pytest.mark.parametrize("data", [b"", DATA[:-1], DATA + b"x", DATA[:-1] + b"x", bytes(5000)])
def test_an_upload_of_other_bytes_leaves_nothing(backend: Backend, tenant: str, data: bytes) -> None:
    url = backend.blobs.presign_put(tenant, BLOB, len(DATA)).url
    with pytest.raises(InvalidRequest):
        backend.upload(url, data)
    assert backend.blobs.size(tenant, BLOB) is None


def test_a_url_expires(backend: Backend, tenant: str) -> None:
    backend.blobs.put(tenant, DATA)
    put = backend.blobs.presign_put(tenant, BLOB, len(DATA), ttl_s=10).url
    get = backend.blobs.presign_get(tenant, BLOB, ttl_s=10).url
    backend.clock.advance(9_999)
    assert backend.download(get) == DATA
    backend.clock.advance(1)
    with pytest.raises(PermissionDenied, match="expired"):
        backend.download(get)
    with pytest.raises(PermissionDenied, match="expired"):
        backend.upload(put, DATA)


def test_a_url_is_good_for_its_method_only(backend: Backend, tenant: str) -> None:
    put = backend.blobs.presign_put(tenant, BLOB, len(DATA)).url
    backend.upload(put, DATA)
    with pytest.raises(PermissionDenied):
        backend.download(put)
    with pytest.raises(PermissionDenied):
        backend.upload(backend.blobs.presign_get(tenant, BLOB).url, DATA)


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"expires=(\d)", r"expires=9\1"),
        (r"size=\d+", "size=1"),
        (r"size=\d+&", ""),
        (r"signature=.", "signature=g"),
        (r"&signature=.*", ""),
        (r"/tenant-", "/another-"),
        (r"b1-[0-9a-f]{64}", "b1-" + "0" * 64),
        (r"$", "&more=1"),
        (r"expires=\d+", "expires=x"),
    ],
)
def test_a_changed_url_is_refused(backend: Backend, tenant: str, pattern: str, replacement: str) -> None:
    url = backend.blobs.presign_put(tenant, BLOB, len(DATA)).url
    changed = re.sub(pattern, replacement, url, count=1)
    assert changed != url
    with pytest.raises(PermissionDenied):
        backend.upload(changed, DATA)
    assert backend.blobs.size(tenant, BLOB) is None
