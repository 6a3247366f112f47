"""The vendors' services on one loopback server, and a fetcher that asks them."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from urllib.parse import quote

from hanzo_compute.adapters.collateral import CollateralFetcher, vendors
from hanzo_compute.adapters.collateral.limits import Rate
from hanzo_compute.config import Collateral
from hanzo_compute.ports import Clock
from tests.support.collateral_server import CollateralServer, Reply

FAST = dict.fromkeys(("amd", "intel", "nvidia-rim", "nvidia-ocsp"), Rate(10_000.0, 10_000))


def fetcher(
    server: CollateralServer,
    folder: Path,
    clock: Clock,
    *anchors: bytes,
    offline: bool = False,
    patience_s: float = 30.0,
) -> CollateralFetcher:
    """Asks the server for everything, as often as it likes."""
    settings = Collateral(
        server.url, server.url, f"{server.url}/IntelSGXRootCA.der", server.url, server.url, offline=offline
    )
    platforms = vendors(settings, folder, clock, anchors, rates=FAST, uniform=lambda _, high: high / 1000)
    return CollateralFetcher(platforms, clock, patience_s=patience_s)


def vcek_path(line: str, chip: bytes, **levels: int) -> str:
    """Where the key distribution service has a chip's certificate."""
    size = 8 if line == "Turin" else 64
    return f"/vcek/v1/{line}/{chip[:size].hex()}?" + "&".join(f"{k}SPL={v:02d}" for k, v in levels.items())


def serve_rim(server: CollateralServer, rim_id: str, data: bytes, **changed: str) -> str:
    """The RIM service has this document; its path."""
    said = {
        "id": rim_id,
        "rim": base64.b64encode(data).decode(),
        "sha256": hashlib.sha256(data).hexdigest(),
        "last_updated": "2026-01-01T00:00:00.000000",
        "rim_format": "TCG",
        **changed,
    }
    path = f"/v1/rim/{rim_id}"
    server.serve(path, Reply(json.dumps(said).encode()))
    return path


def intel_headers(name: str, pem: str) -> dict[str, str]:
    return {name: quote(pem, safe="")}


def serve_intel(server: CollateralServer, collateral: dict[str, str], tee: str, fmspc: str, authority: str) -> None:
    """The provisioning certification service has these parts, of the file as it is to come out."""
    signed = '{"%s":%s,"signature":"%s"}'
    server.serve(
        f"/{tee}/certification/v4/tcb?fmspc={fmspc.upper()}",
        Reply(
            (signed % ("tcbInfo", collateral["tcb_info"], collateral["tcb_info_signature"])).encode(),
            headers=intel_headers("TCB-Info-Issuer-Chain", collateral["tcb_info_issuer_chain"]),
        ),
    )
    server.serve(
        f"/{tee}/certification/v4/qe/identity",
        Reply(
            (signed % ("enclaveIdentity", collateral["qe_identity"], collateral["qe_identity_signature"])).encode(),
            headers=intel_headers("SGX-Enclave-Identity-Issuer-Chain", collateral["qe_identity_issuer_chain"]),
        ),
    )
    server.serve(
        f"/sgx/certification/v4/pckcrl?ca={authority}&encoding=der",
        Reply(
            bytes.fromhex(collateral["pck_crl"]),
            headers=intel_headers("SGX-PCK-CRL-Issuer-Chain", collateral["pck_crl_issuer_chain"]),
        ),
    )
    server.serve("/IntelSGXRootCA.der", Reply(bytes.fromhex(collateral["root_ca_crl"])))
