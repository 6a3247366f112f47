"""EIP-712 by eth_account, which imports what raises this process's recursion limit: it is put back."""

from __future__ import annotations

import sys

_LIMIT = sys.getrecursionlimit()

from eth_account.messages import encode_typed_data  # noqa: E402
from eth_utils.crypto import keccak  # noqa: E402

sys.setrecursionlimit(_LIMIT)

__all__ = ["encode_typed_data", "keccak"]
