"""Keys and checkpoints that this user has seen: pinned at first use, so that a platform cannot change them unnoticed.

They lie in ``known.json`` in the state folder (``HZC_HOME``), beside the credentials: who begins a new platform with a
new folder begins with new pins.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from hanzo_compute.errors import InvalidRequest, Rejected
from hanzo_compute.transparency.checkpoint import VerifierKey

FILE: Final = "known.json"
FORGET: Final = "if the operator says that this is right: hzc log forget"


class Known:
    """What is pinned: keys of platforms by origin, origins by address, checkpoints, agents' keys by name."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self.changed = False
        self.news: list[str] = []
        """What has been pinned just now, in words."""

    def _part(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._body.setdefault(name, {})
        return found

    def _set(self, part: str, name: str, value: Any) -> None:
        self._part(part)[name] = value
        self.changed = True

    def platform(self, origin: str) -> VerifierKey | None:
        """The key that is pinned for an origin."""
        text = self._part("platforms").get(origin)
        return VerifierKey.parse(text) if text else None

    def pin_platform(self, key: VerifierKey) -> None:
        """From now on this is the key of its origin."""
        self._set("platforms", key.name, str(key))
        self.news.append(f"platform {key.name} is known from now on, by the key {key}")

    def offline(self, given: VerifierKey) -> VerifierKey | None:
        """The key to trust for a receipt from a file: a pinned one; the very first is pinned."""
        found = self.platform(given.name)
        if found is None and not self._part("platforms"):
            self.pin_platform(given)
            return given
        return found

    def online(self, url: str, given: VerifierKey) -> VerifierKey:
        """The key to trust at an address; the first that is seen there is pinned.

        Raises:
            Rejected: another log was there before.
        """
        origin = self._part("addresses").get(url)
        if origin is None:
            if self.platform(given.name) is None:
                self.pin_platform(given)
            self._set("addresses", url, given.name)
            origin = given.name
        if origin != given.name:
            raise Rejected(
                f"the platform at {url} shows the log {given.name}, and was {origin} before",
                hint=f"{FORGET} {url}",
                name="platform_key",
            )
        found = self.platform(origin)
        if found is None or found != given:
            raise Rejected(
                f"the platform at {url} shows another key than the pinned one of {origin}",
                hint=f"{FORGET} {url}",
                name="platform_key",
            )
        return found

    def checkpoint(self, origin: str) -> str | None:
        """The largest checkpoint of a log that was seen."""
        found: str | None = self._part("checkpoints").get(origin)
        return found

    def remember(self, origin: str, note: str) -> None:
        """This is the largest checkpoint now."""
        self._set("checkpoints", origin, note)

    def agent(self, origin: str, name: str, key_id: str) -> bool:
        """Whether an agent's key may speak; the first that is seen of a name is pinned."""
        agents: dict[str, str] = self._part("agents").setdefault(origin, {})
        found = agents.get(name)
        if found is None:
            agents[name] = key_id
            self.changed = True
            self.news.append(f"agent {name} is known from now on, by the key {key_id}")
            return True
        return bool(found == key_id)

    def forget(self, url: str) -> bool:
        """Forget the log at an address, its agents, and its other addresses; False when the address is not known."""
        addresses = self._part("addresses")
        origin = addresses.get(url)
        if origin is None:
            return False
        for part in ("platforms", "checkpoints", "agents"):
            self._part(part).pop(origin, None)
        for other in [other for other, pinned in addresses.items() if pinned == origin]:
            del addresses[other]
        self.changed = True
        return True


@contextmanager
def open_known(home: Path) -> Iterator[Known]:
    """What is pinned, for this process alone; what is changed is written at the end, unless an error comes."""
    path = home / FILE
    with ExitStack() as stack:
        with suppress(OSError):  # a folder that cannot be written: what is pinned there can still be used
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            fcntl.flock(stack.enter_context((home / f"{FILE}.lock").open("w")), fcntl.LOCK_EX)
        known = Known(_read(path))
        yield known
        if known.changed:
            _write(path, known._body)


def _read(path: Path) -> dict[str, Any]:
    found: Any
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if not _holds_pins(found):
        raise InvalidRequest(
            f"{path} cannot be read: it holds the keys that you trust",
            hint="restore it; or remove it, and compare the keys that are pinned anew with what the operator publishes",
        )
    return dict(found)


def _holds_pins(found: Any) -> bool:
    if not isinstance(found, dict):
        return False
    parts = [found.get(part, {}) for part in ("platforms", "addresses", "checkpoints", "agents")]
    if not all(isinstance(part, dict) for part in parts) or not all(
        isinstance(each, dict) for each in parts[3].values()
    ):
        return False
    texts = [text for part in (*parts[:3], *parts[3].values()) for text in part.values()]
    try:
        return all(isinstance(text, str) for text in texts) and all(map(VerifierKey.parse, parts[0].values()))
    except ValueError:
        return False


def _write(path: Path, body: dict[str, Any]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(body, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
