"""A service for guests: what the functions of hzc do, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hanzo_compute.adapters.sandbox.hostcalls import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE


@dataclass
class HostService:
    """Values with versions, secrets, an input, outputs; HTTP is not to be had."""

    values: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    secrets: dict[bytes, bytes] = field(default_factory=dict)
    input: bytes = b""
    outputs: dict[bytes, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def ask(self, name: str, args: Sequence[bytes | int]) -> tuple[int, bytes]:
        """The status and the result."""
        self.calls.append(name)
        match name, *args:
            case "kv_get", bytes(key):
                version, value = self.values.get(key, (0, b""))
                return (0 if version else NOT_FOUND), version.to_bytes(8, "little") + value
            case "kv_put", bytes(key), bytes(value), int(expected):
                version, _ = self.values.get(key, (0, b""))
                if expected not in {-1, version}:
                    return CONFLICT, b""
                self.values[key] = (version + 1, value)
                return 0, b""
            case "kv_delete", bytes(key), int(expected):
                version, _ = self.values.get(key, (0, b""))
                if expected not in {-1, version}:
                    return CONFLICT, b""
                return (0 if self.values.pop(key, None) else NOT_FOUND), b""
            case "secret", bytes(key):
                return (0, self.secrets[key]) if key in self.secrets else (NOT_FOUND, b"")
            case ("input_size",):
                return len(self.input), b""
            case "input_read", int(at), int(size):
                return (0, self.input[at : at + size]) if at >= 0 else (INVALID, b"")
            case "output", bytes(key), bytes(data):
                self.outputs[key] = self.outputs.get(key, b"") + data
                return len(self.outputs[key]), b""
        return UNAVAILABLE, b""
