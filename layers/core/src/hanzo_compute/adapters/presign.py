"""Presigned blob URLs: HMAC-SHA256 over method, path, expiry and size."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from hanzo_compute.adapters import blob_ids
from hanzo_compute.errors import InvalidRequest, PermissionDenied
from hanzo_compute.model.bounds import BLOB_MAX
from hanzo_compute.ports import PresignedUrl

PREFIX: Final = "/_blobs"
"""Path under which the host serves presigned requests."""

_NUMBER: Final = re.compile(r"[0-9]{1,15}")


class Signer:
    """Makes and verifies URLs ``<base_url>/_blobs/<tenant>/<blob>?expires=…&size=…&signature=…``."""

    def __init__(self, key: bytes, base_url: str) -> None:
        self._key = key
        self._base_url = base_url.rstrip("/")

    def sign(self, method: str, tenant: str, blob: str, expires_ms: int, size: int | None = None) -> PresignedUrl:
        """A URL for one method on one blob; ``size`` in bytes is what a PUT must send."""
        blob_ids.check(tenant, blob)
        if size is not None and not 0 <= size <= BLOB_MAX:
            raise InvalidRequest(f"a blob has 0 to {BLOB_MAX} bytes, not {size}")
        path = f"{PREFIX}/{tenant}/{blob}"
        query = {"expires": str(expires_ms)} | ({} if size is None else {"size": str(size)})
        signature = self._signature(method, path, query)
        return PresignedUrl(f"{self._base_url}{path}?{urlencode(query | {'signature': signature})}", method, expires_ms)

    def verify(self, method: str, path: str, query: Mapping[str, str], now_ms: int) -> tuple[str, str, int | None]:
        """Tenant, blob and size (None for GET) of a request. Raises PermissionDenied saying what is wrong."""
        given = query.get("signature", "")
        signed = {name: value for name, value in query.items() if name != "signature"}
        names = {"expires", "size"} if method == "PUT" else {"expires"}
        if set(signed) != names or not all(_NUMBER.fullmatch(value) for value in signed.values()):
            raise PermissionDenied("this is not a presigned URL for this method", hint="ask for a new one")
        if not hmac.compare_digest(self._signature(method, path, signed).encode(), given.encode()):
            raise PermissionDenied(
                "the signature does not fit: the URL was changed, or used with another method",
                hint="use the URL as it was given",
            )
        if now_ms >= int(signed["expires"]):
            raise PermissionDenied("the URL has expired", hint="ask for a new one")
        tenant, blob = path.removeprefix(f"{PREFIX}/").split("/")
        return tenant, blob, int(signed["size"]) if "size" in signed else None

    def _signature(self, method: str, path: str, query: Mapping[str, str]) -> str:
        text = "\n".join([method, path, query["expires"], query.get("size", "")])
        return hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
