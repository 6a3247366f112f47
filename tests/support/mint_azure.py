"""A confidential VM of Azure's form: a report of SEV-SNP under our own root vouches for the key of a TPM of our own."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from hanzo_compute.model.evidence import Evidence
from tests.support import mint_snp, mint_tpm
from tests.support.mint_tpm import RSA_KEY, evidence, sign

ROOT = mint_snp.ark("Milan").pem


def jwk(kid: str = "HCLAkPub", **changed: Any) -> dict[str, Any]:
    numbers = RSA_KEY.public_key().public_numbers()
    return {"kid": kid, "key_ops": ["sign"], "kty": "RSA", "e": number(numbers.e), "n": number(numbers.n), **changed}


def number(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def runtime(**changed: Any) -> bytes:
    document = {"keys": [jwk()], "vm-configuration": {"secure-boot": True}, "user-data": "00" * 64, **changed}
    return json.dumps(document).encode()


def blob(report: bytes, data: bytes, *, kind: int = 2, hashed: int = 1) -> bytes:
    """What the NV index holds."""
    head = struct.pack("<4sIII16x", b"HCLA", 2, 32 + 1184 + 20 + len(data), 2)
    return (head + report + struct.pack("<5I", 20 + len(data), 1, kind, hashed, len(data)) + data).ljust(2600, b"\0")


def vm(data: bytes | None = None, report_data: bytes | None = None, *, hashed: int = 1, **fields: Any) -> Evidence:
    """Its evidence; the report is of the runtime data, and a quote of the key, unless told otherwise."""
    data = runtime() if data is None else data
    name = {1: "sha256", 2: "sha384", 3: "sha512"}[hashed]
    expected = hashlib.new(name, data).digest().ljust(64, b"\0")
    report = mint_snp.report("Milan", report_data=report_data or expected, **fields)
    tpm = mint_tpm.minted().with_(ak=RSA_KEY)
    message = tpm.message(firmware=0x2020031200120003)
    return evidence(
        {
            "message": message,
            "signature": sign(RSA_KEY, message)[6:],
            "pcrs": tpm.quote()["pcrs"],
            "hcl_report": blob(report, data, hashed=hashed),
            "vek": mint_snp.Vek().der(),
            "chain": mint_snp.ask("Milan").pem + ROOT,
        }
    )
