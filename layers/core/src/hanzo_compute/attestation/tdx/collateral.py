"""Intel's collateral for a quote: TCB info, identity of the quoting enclave, and the lists of revoked certificates.

Intel PCS API version 4: TCB info version 3, enclave identity version 2. The file is a JSON object of the texts that
Intel signed and of hex strings, with the names of DCAP's ``QuoteCollateralV3``. Nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

import dcap_qvl  # type: ignore[import-untyped]
from cryptography import x509
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tdx.ecdsa import key_of, verified
from hanzo_compute.attestation.tdx.pck import TCB_SIGNER, common_name, read_chain
from hanzo_compute.attestation.tdx.policy import TcbStatus

COLLATERAL_MAX: Final = 512 * 1024
"""Bytes of a file of collateral; Intel's have about 20 KiB."""
_CACHED: Final = 32
# Lists of revoked certificates are whole ones: what a critical extension would change is not understood here.
_CRL_EXTENSIONS: Final = frozenset({x509.CRLNumber.oid, x509.AuthorityKeyIdentifier.oid})
_X509_ERRORS: Final = (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
M = TypeVar("M", bound=BaseModel)


def _from_hex(value: Any) -> Any:
    return bytes.fromhex(value) if isinstance(value, str) else value


def _from_date(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    time = datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a date has no time zone")
    return round(time.timestamp() * 1000)


def _svns(value: Any) -> Any:
    return [each.get("svn") if isinstance(each, dict) else each for each in value] if isinstance(value, list) else value


Octets = Annotated[bytes, BeforeValidator(_from_hex)]
Bytes4 = Annotated[Octets, Field(min_length=4, max_length=4)]
Bytes8 = Annotated[Octets, Field(min_length=8, max_length=8)]
Bytes16 = Annotated[Octets, Field(min_length=16, max_length=16)]
Signature = Annotated[Octets, Field(min_length=64, max_length=64)]
Moment = Annotated[int, BeforeValidator(_from_date)]
"""Milliseconds since the epoch."""
Components = Annotated[
    tuple[Annotated[int, Field(ge=0, le=255)], ...], BeforeValidator(_svns), Field(min_length=16, max_length=16)
]


class _Document(BaseModel):
    """What Intel signs may grow: fields that are not known are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Level(_Document):
    """What is said of a TCB that is at least so new."""

    tcb_status: TcbStatus = Field(alias="tcbStatus")
    advisory_ids: tuple[str, ...] = Field(default=(), alias="advisoryIDs")


class _Tcb(_Document):
    sgx: Components = Field(alias="sgxtcbcomponents")
    pcesvn: int
    tdx: Components | None = Field(default=None, alias="tdxtcbcomponents")


class PlatformLevel(Level):
    """A level of a platform, from the newest on."""

    tcb: _Tcb


class _Version(_Document):
    isvsvn: int


class EnclaveLevel(Level):
    """A level of a TDX module or of a quoting enclave, from the newest on."""

    tcb: _Version


class Module(_Document):
    """What a TDX module is known by."""

    mrsigner: Annotated[Octets, Field(min_length=48, max_length=48)]
    attributes: Bytes8
    attributes_mask: Bytes8 = Field(alias="attributesMask")


class ModuleIdentity(Module):
    """A module of one version (``TDX_03``), with its levels."""

    id: str
    tcb_levels: tuple[EnclaveLevel, ...] = Field(alias="tcbLevels")


class _Dated(_Document):
    id: str
    version: int
    issue_date: Moment = Field(alias="issueDate")
    next_update: Moment = Field(alias="nextUpdate")
    tcb_evaluation_data_number: int = Field(alias="tcbEvaluationDataNumber")


class TcbInfo(_Dated):
    """TCB info of a family of processors (FMSPC)."""

    fmspc: Annotated[Octets, Field(min_length=6, max_length=6)]
    pce_id: Annotated[Octets, Field(min_length=2, max_length=2)] = Field(alias="pceId")
    tcb_type: int = Field(alias="tcbType")
    tdx_module: Module | None = Field(default=None, alias="tdxModule")
    tdx_module_identities: tuple[ModuleIdentity, ...] = Field(default=(), alias="tdxModuleIdentities")
    tcb_levels: tuple[PlatformLevel, ...] = Field(alias="tcbLevels")


class QeIdentity(_Dated):
    """What a quoting enclave is known by."""

    miscselect: Bytes4
    miscselect_mask: Bytes4 = Field(alias="miscselectMask")
    attributes: Bytes16
    attributes_mask: Bytes16 = Field(alias="attributesMask")
    mrsigner: Annotated[Octets, Field(min_length=32, max_length=32)]
    isvprodid: int
    tcb_levels: tuple[EnclaveLevel, ...] = Field(alias="tcbLevels")


class _File(BaseModel):
    """The file as it is."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    pck_crl_issuer_chain: str
    root_ca_crl: Octets
    pck_crl: Octets
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: Signature
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: Signature


@dataclass(frozen=True, slots=True)
class Crl:
    """A list of revoked certificates."""

    der: bytes
    this_update: int
    next_update: int
    serials: frozenset[int]
    """Of what is revoked or held."""


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed a text, apart from when that is good and whether the root is trusted."""

    certificates: Sequence[x509.Certificate]
    """The signer and its root."""
    problem: str
    """Why they are not a signer of Intel's below a root; empty if they are."""
    ok: bool
    """Whether the signer signed the text."""


@dataclass(frozen=True, slots=True)
class Collateral:
    """A file of collateral, read."""

    given: dcap_qvl.QuoteCollateralV3
    """The file's fields as dcap-qvl takes them."""
    tcb_info: TcbInfo
    tcb_info_signed: Signed
    qe_identity: QeIdentity
    qe_identity_signed: Signed
    root_crl: Crl
    pck_crl: Crl


@lru_cache(maxsize=_CACHED)
def read(data: bytes) -> Collateral:
    """Collateral from its file; remembered by its content, with what of it does not depend on the time.

    Raises:
        Unreadable: it is larger than :data:`COLLATERAL_MAX`, or not of the form.
    """
    if len(data) > COLLATERAL_MAX:
        raise Unreadable(f"the collateral has {len(data)} bytes; the limit is {COLLATERAL_MAX}")
    file = _model(_File, data, "the collateral")
    return Collateral(
        _given(file),
        _model(TcbInfo, file.tcb_info, "the TCB info"),
        _signed(file.tcb_info_issuer_chain, file.tcb_info, file.tcb_info_signature),
        _model(QeIdentity, file.qe_identity, "the identity of the quoting enclave"),
        _signed(file.qe_identity_issuer_chain, file.qe_identity, file.qe_identity_signature),
        _crl(file.root_ca_crl, "of the root"),
        _crl(file.pck_crl, "of PCK certificates"),
    )


def _signed(pem: str, text: str, signature: bytes) -> Signed:
    try:
        certificates = read_chain(pem.encode())
    except ValueError as error:
        raise Unreadable(f"the chain of the collateral's signer cannot be read: {error}") from None
    # The same authority issues PCK certificates' authorities: only the name tells a signer of collateral from them.
    if len(certificates) != 2 or common_name(certificates[0].subject) != TCB_SIGNER:
        return Signed(certificates, f"the collateral's signer is not {TCB_SIGNER}, issued by the root", False)
    chain = chains.verify(certificates, now_ms=0)
    key = key_of(certificates[0])
    ok = key is not None and verified(key, signature, text.encode())
    return Signed(certificates, chain.links or chain.rules, ok)


def _given(file: _File) -> dcap_qvl.QuoteCollateralV3:
    return dcap_qvl.QuoteCollateralV3(
        file.pck_crl_issuer_chain,
        file.root_ca_crl,
        file.pck_crl,
        file.tcb_info_issuer_chain,
        file.tcb_info,
        file.tcb_info_signature,
        file.qe_identity_issuer_chain,
        file.qe_identity,
        file.qe_identity_signature,
    )


def _model(model: type[M], text: str | bytes, what: str) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "JSON"
        raise Unreadable(f"{what} is not of its form: {where}: {first['msg']}") from None


def _crl(der: bytes, what: str) -> Crl:
    try:
        with chains.odd_numbers():
            crl = x509.load_der_x509_crl(der)
            unknown = [each.oid for each in crl.extensions if each.critical and each.oid not in _CRL_EXTENSIONS]
            serials = frozenset(each.serial_number for each in crl)
            next_update = crl.next_update_utc
            # Names are decoded when they are asked for first: what is wrong with them is to come out here.
            _ = crl.issuer
    except (ValueError, TypeError, *_X509_ERRORS) as error:
        raise Unreadable(f"the list of revoked certificates {what} cannot be read: {error}") from None
    if unknown or next_update is None:
        text = f"the list of revoked certificates {what} has no next update, or a critical extension"
        raise Unreadable(f"{text} that is not understood")
    return Crl(der, _ms(crl.last_update_utc), _ms(next_update), serials)


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
