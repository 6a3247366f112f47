"""BlobStore as files: ``home/blobs/<tenant>/<first two digits>/<id>``, on disk when ``put`` returns.

What is still being written lies in ``home/blobs/.new``, locked by its writer: so whoever opens the store can tell what
a process that was killed has left behind, and removes it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from hanzo_compute.adapters import blob_ids
from hanzo_compute.adapters.local.folders import make_folders, sync
from hanzo_compute.adapters.local.secret_file import made_once
from hanzo_compute.adapters.presign import Signer
from hanzo_compute.errors import InternalError, InvalidRequest, NotFound, Unavailable
from hanzo_compute.ports import Clock, PresignedUrl

_KEY_BYTES: Final = 32
_HINT: Final = "repeat the request; if it stays so, see whether the disk is full or failing (hzc doctor)"


class FileBlobs:
    """Blobs in a state folder; the host serves presigned URLs by ``verify``, ``open_upload``, ``path``."""

    def __init__(self, home: Path, clock: Clock, base_url: str) -> None:
        self._folder = home / "blobs"
        self._new = self._folder / ".new"
        self._clock = clock
        self._signer = Signer(_load_key(home / "keys" / "presign.key"), base_url)
        _sweep(self._new)

    def put(self, tenant: str, data: bytes) -> str:
        """Store bytes, durably, and return their id; storing them again is the same."""
        blob = blob_ids.of(data)
        if not self._intact(tenant, blob):
            upload = self.open_upload(tenant, blob, len(data))
            try:
                upload.write(data)
                upload.commit()
            finally:
                upload.abort()
        return blob

    def get(self, tenant: str, blob: str) -> bytes:
        """The bytes. Raises NotFound; raises InternalError when they do not match their digest."""
        path = self.path(tenant, blob)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no blob {blob}", hint="upload it first") from None
        except OSError as error:
            raise Unavailable(f"the blob cannot be read: {error.strerror}", hint=_HINT) from error
        if blob_ids.of(data) != blob:
            raise InternalError(f"blob {blob} is damaged on disk", hint="upload it again")
        return data

    def size(self, tenant: str, blob: str) -> int | None:
        """Size in bytes, or None when the tenant has no such blob."""
        try:
            return self.path(tenant, blob).stat().st_size
        except FileNotFoundError:
            return None

    def presign_put(self, tenant: str, blob: str, size: int, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that takes exactly these bytes by PUT."""
        return self._signer.sign("PUT", tenant, blob, self._clock.now_ms() + ttl_s * 1000, size)

    def presign_get(self, tenant: str, blob: str, *, ttl_s: int = 900) -> PresignedUrl:
        """A URL that gives the bytes by GET."""
        return self._signer.sign("GET", tenant, blob, self._clock.now_ms() + ttl_s * 1000)

    def verify(self, method: str, path: str, query: Mapping[str, str], now_ms: int) -> tuple[str, str, int | None]:
        """Tenant, blob and size (None for GET) of a presigned request. Raises PermissionDenied."""
        return self._signer.verify(method, path, query, now_ms)

    def path(self, tenant: str, blob: str) -> Path:
        """Where the blob is, if the tenant has it."""
        blob_ids.check(tenant, blob)
        return self._folder / tenant / blob[3:5] / blob

    def open_upload(self, tenant: str, blob: str, size: int) -> Upload:
        """Start to store a blob of ``size`` bytes piece by piece."""
        path = self.path(tenant, blob)
        with _on_disk():
            make_folders(path.parent)
            make_folders(self._new)
            return Upload(path, size, self._new)

    def _intact(self, tenant: str, blob: str) -> bool:
        try:
            self.get(tenant, blob)
        except (NotFound, InternalError):
            return False
        # It may be there by the rename of a process that has not synced the folder yet.
        with _on_disk():
            sync(self.path(tenant, blob).parent)
        return True


class Upload:
    """A blob on its way: invisible until :meth:`commit`, gone after :meth:`abort`."""

    def __init__(self, path: Path, size: int, folder: Path) -> None:
        self._path = path
        self._size = size
        self._digest = hashlib.sha256()
        self._written = 0
        self._temporary, self._file = _locked_file(folder)

    def write(self, data: bytes) -> None:
        """Append bytes. Raises InvalidRequest beyond the size, after removing what there was."""
        self._written += len(data)
        if self._written > self._size:
            self.abort()
            raise InvalidRequest(f"more than the {self._size} bytes of this upload", hint="sign the real size")
        self._digest.update(data)
        with _on_disk():
            self._file.write(data)

    def commit(self) -> None:
        """Make the blob visible and durable. Raises InvalidRequest when these are not its bytes."""
        digest = f"b1-{self._digest.hexdigest()}"
        if self._written != self._size or digest != self._path.name:
            self.abort()
            raise InvalidRequest(
                f"{self._written} bytes with id {digest} came for {self._size} bytes of {self._path.name}",
                hint="send the bytes that the URL was made for",
            )
        with _on_disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._temporary.rename(self._path)
            self._file.close()
            try:
                sync(self._path.parent)
            except OSError:
                # Whoever saw it here would take it for stored. It comes again.
                self._path.unlink(missing_ok=True)
                raise

    def abort(self) -> None:
        """Remove what was written; harmless after :meth:`commit`."""
        with suppress(OSError):  # closing tries again to write what the disk did not take
            self._file.close()
        with suppress(OSError):  # a disk that is read-only by now
            self._temporary.unlink(missing_ok=True)


@contextmanager
def _on_disk() -> Iterator[None]:
    """A disk that is full or fails is no defect of ours: nothing was stored, and a repeat may succeed."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the blob could not be stored: {error.strerror}", hint=_HINT) from error


def _locked_file(folder: Path) -> tuple[Path, BinaryIO]:
    """A new file that stays locked until it is closed, or its process has ended."""
    while True:
        path = folder / secrets.token_hex(8)
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        # Somebody who swept came between the two steps if it has no name any more.
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _sweep(folder: Path) -> None:
    """Remove what nobody writes any more."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        with suppress(OSError), path.open("rb") as file:  # somebody writes it, or has moved it; or the disk refuses
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def _load_key(path: Path) -> bytes:
    """The key that signs URLs, made by whichever process comes first."""
    key = made_once(path, lambda: secrets.token_bytes(_KEY_BYTES))
    if len(key) != _KEY_BYTES:
        raise InternalError(f"{path} is not a key of {_KEY_BYTES} bytes", hint="remove it: a new one is made")
    return key
