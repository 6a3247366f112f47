"""Attestation documents of AWS Nitro Enclaves, through ``/dev/nsm``.

The driver is Linux's ``drivers/misc/nsm.c`` (``NSM_IOCTL_RAW``: CBOR to and fro); requests and responses are those
of AWS's nsm-api, ``nsm_io``.

Run against a model of the driver at the ioctl layer only, never in an enclave.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Final

from hanzo_compute.adapters.attester.device import Ioctl, ioctl, opened
from hanzo_compute.errors import EvidenceUnavailable, InvalidRequest

DEVICE: Final = Path("/dev/nsm")
RAW: Final = 0xC020_0A00
"""``_IOWR(0x0A, 0, 32)``"""
REQUEST_MAX: Final = 0x1000
RESPONSE_MAX: Final = 0x3000
USER_DATA_MAX: Final = 512
NONCE_MAX: Final = 512
PUBLIC_KEY_MAX: Final = 1024


class Iovec(ctypes.Structure):
    """An address and a length."""

    _fields_ = (("addr", ctypes.c_uint64), ("len", ctypes.c_uint64))


class Raw(ctypes.Structure):
    """``nsm_raw``, 32 bytes: the request's bytes, and where the response goes."""

    _fields_ = (("request", Iovec), ("response", Iovec))


def attest(
    user_data: bytes | None = None,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
    *,
    device: Path = DEVICE,
    call: Ioctl = ioctl,
) -> bytes:
    """An attestation document (COSE_Sign1) that carries these.

    Args:
        user_data: up to 512 bytes.
        nonce: up to 512 bytes.
        public_key: up to 1024 bytes, DER.
        device: the device file.
        call: does the ioctl.

    Raises:
        InvalidRequest: one of them is too long.
        EvidenceUnavailable: the device gives none: it is named why.
    """
    given = (("user_data", user_data, USER_DATA_MAX), ("nonce", nonce, NONCE_MAX))
    for name, value, most in (*given, ("public_key", public_key, PUBLIC_KEY_MAX)):
        if value is not None and len(value) > most:
            raise InvalidRequest(f"{name} has at most {most} bytes, not {len(value)}")
    asked = {"Attestation": {"user_data": user_data, "nonce": nonce, "public_key": public_key}}
    document = _member(ask(asked, device=device, call=call), "Attestation").get("document")
    if not isinstance(document, bytes) or not document:
        raise EvidenceUnavailable(f"{device} answers without a document")
    return document


def describe(*, device: Path = DEVICE, call: Ioctl = ioctl) -> dict[str, Any]:
    """What the module says of itself: ``module_id``, ``locked_pcrs``, … Raises EvidenceUnavailable."""
    return _member(ask("DescribeNSM", device=device, call=call), "DescribeNSM")


def ask(request: object, *, device: Path = DEVICE, call: Ioctl = ioctl) -> object:
    """One request and its response, as values of CBOR.

    Raises:
        EvidenceUnavailable: the device fails, answers an error (by its name), or what is no CBOR.
    """
    import cbor2

    data = cbor2.dumps(request)
    if len(data) > REQUEST_MAX:
        raise InvalidRequest(f"a request has at most {REQUEST_MAX} bytes, not {len(data)}")
    source, target = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(RESPONSE_MAX)
    raw = Raw(Iovec(ctypes.addressof(source), len(data)), Iovec(ctypes.addressof(target), RESPONSE_MAX))
    with opened(device, "it is there in Nitro Enclaves only; modprobe nsm") as descriptor:
        try:
            call(descriptor, RAW, raw)
        except OSError as error:
            number = error.errno or 0
            raise EvidenceUnavailable(f"{device} does not answer: {os.strerror(number)}") from error
    if not 0 < raw.response.len <= RESPONSE_MAX:
        raise EvidenceUnavailable(f"{device} answers {raw.response.len} bytes")
    try:
        answer = cbor2.loads(target.raw[: raw.response.len])
    except (cbor2.CBORDecodeError, ValueError) as error:
        raise EvidenceUnavailable(f"{device} answers what is no CBOR: {error}") from error
    if isinstance(answer, dict) and "Error" in answer:
        name = str(answer["Error"])[:64]
        raise EvidenceUnavailable(f"{device} refuses: {name}", name=name)
    return answer


def _member(answer: object, name: str) -> dict[str, Any]:
    found = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise EvidenceUnavailable(f"the security module's answer has no {name}")
    return found
