"""Trust roots, pinned by the SHA-256 of their certificate (DER).

Each was compared in at least two published sources; the source named is where the vendor publishes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Pin:
    """A root that the product trusts for one purpose."""

    name: str
    sha256: str
    source: str


AMD: Final = (
    Pin(
        "ARK-Milan",
        "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "AMD key distribution service, /vcek/v1/Milan/cert_chain",
    ),
    Pin(
        "ARK-Genoa",
        "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "AMD key distribution service, /vcek/v1/Genoa/cert_chain",
    ),
    Pin(
        "ARK-Turin",
        "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
        "AMD key distribution service, /vcek/v1/Turin/cert_chain",
    ),
)
INTEL: Final = (
    Pin(
        "Intel SGX Root CA",
        "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
        "Intel provisioning certification service, Intel_SGX_Provisioning_Certification_RootCA",
    ),
)
NITRO: Final = (
    Pin(
        "AWS Nitro Enclaves Root G1",
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b",
        "AWS Nitro Enclaves user guide, verifying the root of trust",
    ),
)
NVIDIA_DEVICE: Final = (
    Pin(
        "NVIDIA Device Identity CA",
        "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
        "NVIDIA nvtrust, verifier_device_root",
    ),
)
NVIDIA_RIM: Final = (
    Pin(
        "NVIDIA CoRIM signing Root CA",
        "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
        "NVIDIA nvtrust, verifier_RIM_root",
    ),
)
GOOGLE_TPM: Final = (
    Pin(
        "Google EK/AK CA Root",
        "594759594b9b61524f6c8ef668f7177f7b9066bc0674f2f49fe9e052be78beb2",
        "Google private CA, EK/AK CA root",
    ),
)
