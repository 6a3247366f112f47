"""BlobStore in memory, with the requests that its presigned URLs stand for."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

from hanzo_compute.adapters import blob_ids, presign
from hanzo_compute.errors import InvalidRequest, NotFound
from hanzo_compute.ports import Clock, PresignedUrl


class MemoryBlobs:
    """Blobs by tenant and id; ``upload`` and ``download`` do what a client does with a presigned URL."""

    def __init__(self, clock: Clock, base_url: str = "memory://blobs") -> None:
        self._clock = clock
        self._signer = presign.Signer(b"no secret: this process is client and server", base_url)
        self._blobs: dict[tuple[str, str], bytes] = {}

    def put(self, tenant: str, data: bytes) -> str:
        """Store bytes and return their id."""
        blob_ids.check_tenant(tenant)
        blob = blob_ids.of(data)
        self._blobs[tenant, blob] = bytes(data)
        return blob

    def get(self, tenant: str, blob: str) -> bytes:
        """The bytes. Raises NotFound."""
        blob_ids.check(tenant, blob)
        data = self._blobs.get((tenant, blob))
        if data is None:
            raise NotFound(f"no blob {blob}", hint="upload it first")
        return data

    def size(self, tenant: str, blob: str) -> int | None:
        """Size in bytes, or None when the tenant has no such blob."""
        blob_ids.check(tenant, blob)
        data = self._blobs.get((tenant, blob))
        return None if data is None else len(data)

    def presign_put(self, tenant: str, blob: str, size: int, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that takes exactly these bytes by PUT."""
        return self._signer.sign("PUT", tenant, blob, self._clock.now_ms() + ttl_s * 1000, size)

    def presign_get(self, tenant: str, blob: str, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that gives the bytes by GET."""
        return self._signer.sign("GET", tenant, blob, self._clock.now_ms() + ttl_s * 1000)

    def upload(self, url: str, data: bytes) -> None:
        """PUT ``data``. Raises PermissionDenied for a bad URL, InvalidRequest for other bytes than signed."""
        tenant, blob, size = self._open("PUT", url)
        if len(data) != size or blob_ids.of(data) != blob:
            raise InvalidRequest(f"these are not the bytes of {blob}", hint="sign a URL for these bytes")
        self._blobs[tenant, blob] = bytes(data)

    def download(self, url: str) -> bytes:
        """GET the bytes. Raises PermissionDenied for a bad URL, NotFound."""
        tenant, blob, _ = self._open("GET", url)
        return self.get(tenant, blob)

    def _open(self, method: str, url: str) -> tuple[str, str, int | None]:
        parts = urlsplit(url)
        return self._signer.verify(method, parts.path, dict(parse_qsl(parts.query)), self._clock.now_ms())
