"""Where the platform's state is, and how to reach it: flags, then environment, then the state folder."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hanzo_compute import errors

DEFAULT_PORT: Final = 8787
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A platform's address and a credential for it."""

    url: str
    key: str | None


def find_home(environ: Mapping[str, str] = os.environ) -> Path:
    """``HZC_HOME``; else ``.hzc`` in the current folder if it is there; else the XDG state folder."""
    if environ.get("HZC_HOME"):
        return Path(environ["HZC_HOME"]).absolute()
    here = Path(".hzc").absolute()
    if here.is_dir():
        return here
    try:
        state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    except RuntimeError:
        raise errors.InvalidRequest("this user has no home folder", hint="set HZC_HOME and HZC_CACHE") from None
    return Path(state) / "hanzo-compute"


def find_port(environ: Mapping[str, str] = os.environ) -> int:
    """``HZC_PORT``, else 8787."""
    value = environ.get("HZC_PORT") or str(DEFAULT_PORT)
    if not value.isdecimal() or not 1 <= int(value) <= 65535:
        raise errors.InvalidRequest(f"HZC_PORT is {value!r}", hint="set it to a port from 1 to 65535")
    return int(value)


def read_credentials(home: Path) -> Endpoint | None:
    """What the platform of this home wrote for its owner, or None.

    Raises:
        PermissionDenied: others could read or change the file, so its address and key prove nothing.
    """
    path = home / "credentials.json"
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            if info.st_mode & 0o077 or info.st_uid not in (os.getuid(), 0):
                raise errors.PermissionDenied(
                    f"{path} can be read or written by others", hint=f"if it is yours: chmod 600 {path}"
                )
            found = json.load(file)
        return Endpoint(str(found["url"]), str(found["key"]))
    except FileNotFoundError:
        return None
    except PermissionError:
        raise errors.PermissionDenied(
            f"{path} belongs to another user",
            hint="set HZC_URL and HZC_KEY, or HZC_HOME to a folder of yours",
        ) from None
    except (ValueError, KeyError, TypeError):
        raise errors.InvalidRequest(
            f"{path} does not hold a url and a key",
            hint="remove it and start the platform again with `hzc up`",
        ) from None


def find_endpoint(url: str | None, key: str | None, home: Path, environ: Mapping[str, str] = os.environ) -> Endpoint:
    """The platform to talk to. The state folder's key goes only to the address that is written beside it.

    Raises:
        Unavailable: no address is known.
        Unauthenticated: an address, but no key for it.
    """
    url = (url or environ.get("HZC_URL") or "").strip() or None
    key = (key or environ.get("HZC_KEY") or "").strip() or None
    if key is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key):
        raise errors.InvalidRequest("the key has characters that no key has", hint="it looks like hzk_…: copy it again")
    if url and key:
        return Endpoint(url, key)
    stored = read_credentials(home)
    if stored is None and not url:
        raise errors.Unavailable(
            f"no platform is known: neither --url nor HZC_URL is given, and {home} holds no credentials",
            hint="start one with `hzc up`, or set HZC_HOME to the folder of one that runs",
        )
    address = url or (stored.url if stored else "")
    if key is None and stored is not None and _same_place(address, stored.url):
        key = stored.key
    if key is None:
        raise errors.Unauthenticated(
            f"no credential for {address}", hint="set HZC_KEY, or give --key (others can see it in ps)"
        )
    return Endpoint(address, key)


def _same_place(first: str, second: str) -> bool:
    return _place(first) == _place(second)


def _place(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme, "loopback" if host in _LOOPBACK else host, parts.port
