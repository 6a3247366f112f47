"""The KeyVault port on files: each key in a file of its own that only the owner can read."""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hanzo_compute.adapters import sealing
from hanzo_compute.adapters.local.secret_file import made_once
from hanzo_compute.errors import Conflict, InternalError
from hanzo_compute.ports import DataKey, KeyKind

if TYPE_CHECKING:
    from hanzo_compute.adapters.sealing import PrivateKey

MASTER: Final = "master.key"
EPOCH: Final = re.compile(r"[1-9][0-9]{0,8}")


class FileVault:
    """Keys in ``folder``, made at their first use; of several processes that make one, the first wins."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[tuple[str, KeyKind], tuple[PrivateKey, bytes]] = {}
        self._masters: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def public_key(self, name: str, kind: KeyKind) -> bytes:
        """Public key as SubjectPublicKeyInfo (DER). Raises Conflict: the key of this name is of another kind."""
        return self._key(name, kind)[1]

    def sign(self, name: str, kind: KeyKind, message: bytes) -> bytes:
        """64 bytes: see :meth:`hanzo_compute.ports.KeyVault.sign`."""
        return sealing.sign(self._key(name, kind)[0], message)

    def data_key(self, context: Mapping[str, str]) -> DataKey:
        """A new data key, wrapped under the master key of the context's epoch, with this encryption context."""
        plaintext = sealing.new_key()
        return DataKey(plaintext, sealing.wrap(self._master_key(context), plaintext, context, secrets.token_bytes))

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key. Raises PermissionDenied: see :meth:`hanzo_compute.ports.KeyVault.unwrap`."""
        return sealing.unwrap(self._master_key(context), wrapped, context)

    def _key(self, name: str, kind: KeyKind) -> tuple[PrivateKey, bytes]:
        found = self._keys.get((name, kind))
        if found is not None:
            return found
        sealing.check_name(name)
        with self._lock:
            path = self._folder / f"{name}.pem"
            key = _parse(path, made_once(path, lambda: _pem(sealing.generate(kind))), kind)
            return self._keys.setdefault((name, kind), (key, sealing.public_bytes(key)))

    def _master_key(self, context: Mapping[str, str]) -> bytes:
        """One for contexts without an epoch, and one for each epoch: its file can go when nothing of it is needed."""
        epoch = context.get("epoch", "")
        if epoch and not EPOCH.fullmatch(epoch):
            raise InternalError(f"{epoch[:40]!r} is no epoch", hint="HZC_KEY_EPOCH is a whole number from 1")
        name = f"master-{epoch}.key" if epoch else MASTER
        if name not in self._masters:
            with self._lock:
                path = self._folder / name
                found = made_once(path, sealing.new_key)
                if len(found) != sealing.KEY_BYTES:
                    raise _damaged(path)
                self._masters[name] = found
        return self._masters[name]


def _pem(key: PrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _parse(path: Path, data: bytes, kind: KeyKind) -> PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged(path) from None
    found = sealing.kind_of(key)
    if found is None:
        raise _damaged(path)
    if found is not kind:
        raise Conflict(f"the key {path.stem} is of kind {found}, not {kind}", hint="use another name")
    return key  # type: ignore[return-value] # it is of a kind that is used here


def _damaged(path: Path) -> InternalError:
    return InternalError(
        f"{path} holds no key that can be read",
        hint="restore it from a backup (hzc restore): what was made with it cannot be made with another",
    )
