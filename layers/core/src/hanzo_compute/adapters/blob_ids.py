"""Ids of blobs and names of tenants, checked before they become paths, keys or URLs."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from hanzo_compute.errors import InvalidRequest, PayloadTooLarge
from hanzo_compute.model.bounds import BLOB_MAX

_BLOB: Final = re.compile(r"b1-[0-9a-f]{64}")
# No dot in front and no slash at all: a tenant's name is also the name of a folder.
_TENANT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def of(data: bytes) -> str:
    """The id of these bytes. Raises PayloadTooLarge over 8 MiB."""
    if len(data) > BLOB_MAX:
        raise PayloadTooLarge(f"a blob of {len(data)} bytes is over {BLOB_MAX}", hint="split or compress it")
    return f"b1-{hashlib.sha256(data).hexdigest()}"


def check_tenant(tenant: str) -> None:
    """Refuse a tenant that cannot be a folder."""
    if not _TENANT.fullmatch(tenant):
        raise InvalidRequest("not a tenant name", hint="letters, digits, '.', '_' and '-', no dot in front")


def check(tenant: str, blob: str) -> None:
    """Refuse what is no tenant or no blob id."""
    check_tenant(tenant)
    if not _BLOB.fullmatch(blob):
        raise InvalidRequest("not a blob id", hint="b1- and the SHA-256 of the bytes in lower-case hex")
