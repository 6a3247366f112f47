"""Modules that were downloaded before: a job that runs many times costs its agent one download."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

from hanzo_compute.errors import InternalError

ROOM: Final = 64 * 1024 * 1024
"""Bytes of modules that are kept."""


class Modules:
    """The modules used last, by blob id; what is kept has been checked against its id."""

    def __init__(self, download: Callable[[str], bytes], room: int = ROOM) -> None:
        self._download = download
        self._room = room
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = Lock()

    def get(self, blob: str, url: str) -> bytes:
        """The module ``blob``, from ``url`` unless it is kept.

        Raises:
            InternalError: what came is not this blob. Besides, what the download raises.
        """
        with self._lock:
            if blob in self._kept:
                self._kept.move_to_end(blob)
                return self._kept[blob]
        data = self._download(url)
        if f"b1-{hashlib.sha256(data).hexdigest()}" != blob:
            raise InternalError(f"the platform gave other bytes for {blob}")
        with self._lock:
            self._kept[blob] = data
            while sum(map(len, self._kept.values())) > self._room:
                self._kept.popitem(last=False)
        return data
