"""Intel's provisioning certification service, version 4 of its API, or a caching service (PCCS) in its place.

A quote is judged by five signed things: TCB info of its processor family (FMSPC), identity of its quoting enclave,
the revocation lists of the two authorities above its PCK certificate, and the chains of their signers. They make one
file, ``collateral``: JSON with the fields of DCAP's ``sgx_ql_qve_collateral_t``, lists and signatures in hex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.trust import milliseconds, revocations, rooted, texts, together
from hanzo_compute.adapters.collateral.wanted import Answer, Job, Kept, Request, Unfit, Unobtainable, Wanted
from hanzo_compute.attestation import pins
from hanzo_compute.attestation import x509 as chains
from hanzo_compute.attestation.checks import Unreadable
from hanzo_compute.attestation.tdx import pck, quote

FILE: Final = "collateral"
LIMIT: Final = 64 * 1024
"""Bytes of each part; the appraisal reads 512 KiB of all of them."""
_CA_NAMES: Final = dict(zip(("platform", "processor"), pck.AUTHORITIES, strict=True))
_SIGNATURE: Final = re.compile(r'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*')


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a quote decides what collateral it needs."""

    tee: str
    """``tdx`` or ``sgx``."""
    fmspc: str
    """12 hex digits."""
    authority: str
    """Of its PCK certificate: ``platform`` or ``processor``."""


def asked(data: bytes) -> Asked:
    """What to ask for, from a quote.

    Raises:
        Unreadable: it is no quote, or carries no PCK certificate.
    """
    parsed = quote.parse(data)
    if parsed.cert_type != quote.PCK_CHAIN:
        raise Unreadable("the quote does not carry the chain of its PCK certificate")
    try:
        certificate = pck.read(pck.read_chain(parsed.cert_data)[0])
    except (ValueError, IndexError) as error:
        raise Unreadable(f"the quote's PCK certificate cannot be read: {error}") from None
    authority = "platform" if certificate.authority == _CA_NAMES["platform"] else "processor"
    return Asked("sgx" if parsed.tee_type == quote.SGX_TYPE else "tdx", certificate.fmspc.hex().upper(), authority)


@dataclass(frozen=True, slots=True)
class Intel:
    """The services, and the roots by which answers are told from lies before they are kept."""

    getter: Getter
    url: str
    root_crl_url: str
    anchors: tuple[bytes, ...] = ()

    def jobs(self, files: Mapping[str, bytes]) -> list[Job]:
        """What a quote needs and does not carry: ``collateral``. Raises Unreadable."""
        if FILE in files:
            return []
        if "quote" not in files:
            raise Unreadable("there is no quote")
        want = asked(files["quote"])
        return [Job(FILE, lambda now_ms, until: self.collateral(want, now_ms, until))]

    def collateral(self, want: Asked, now_ms: int, until: float) -> bytes:
        """The file ``collateral``.

        Raises:
            Unobtainable: a part of it cannot be had; the message says which parts and why.
        """
        wanted = {"tcb": self._tcb(want), "qe": self._identity(want.tee), "pck_crl": self._pck_crl(want.authority)}
        parts: dict[str, Any] = {}
        failed: list[Unobtainable] = []
        for name, each in wanted.items():
            try:
                parts[name] = json.loads(self.getter.get(each, now_ms, until))
            except Unobtainable as error:
                failed.append(error)
        if "pck_crl" in parts:
            # The end of a chain that was verified before it was kept.
            root = chains.load(parts["pck_crl"]["chain"].encode())[-1]
            try:
                parts["root_crl"] = self.getter.get(self._root_crl(root), now_ms, until)
            except Unobtainable as error:
                failed.append(error)
        if failed:
            raise together(failed)
        return json.dumps(_file(parts), separators=(",", ":")).encode()

    def _tcb(self, want: Asked) -> Wanted:
        url = f"{self.url}/{want.tee}/certification/v4/tcb?fmspc={want.fmspc}"

        def admit(answer: Answer) -> Kept:
            signed = self._signed(answer, "tcbInfo", ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"))
            tee, fmspc, end = texts(signed["text"], "id", "fmspc", "nextUpdate")
            if tee != want.tee.upper() or fmspc.upper() != want.fmspc:
                raise Unfit(f"it is TCB info of {tee} {fmspc}")
            return Kept(json.dumps(signed).encode(), milliseconds(datetime.fromisoformat(end)))

        return Wanted(f"the TCB info of {want.fmspc}", "intel", Request(url, LIMIT, "application/json"), admit)

    def _identity(self, tee: str) -> Wanted:
        url = f"{self.url}/{tee}/certification/v4/qe/identity"

        def admit(answer: Answer) -> Kept:
            signed = self._signed(answer, "enclaveIdentity", ("sgx-enclave-identity-issuer-chain",))
            enclave, end = texts(signed["text"], "id", "nextUpdate")
            if enclave != {"tdx": "TD_QE", "sgx": "QE"}[tee]:
                raise Unfit(f"it is the identity of {enclave}")
            return Kept(json.dumps(signed).encode(), milliseconds(datetime.fromisoformat(end)))

        return Wanted("the identity of the quoting enclave", "intel", Request(url, LIMIT, "application/json"), admit)

    def _pck_crl(self, authority: str) -> Wanted:
        url = f"{self.url}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der"

        def admit(answer: Answer) -> Kept:
            pem, chain = self._chain(answer, ("sgx-pck-crl-issuer-chain",))
            if pck.common_name(chain[0].subject) != _CA_NAMES[authority]:
                raise Unfit(f"it is a list of {chain[0].subject.rfc4514_string()}")
            der, until = revocations(answer.body, chain[:1])
            return Kept(json.dumps({"chain": pem, "crl": der.hex()}).encode(), until)

        return Wanted(f"the revocation list of PCK certificates ({authority})", "intel", Request(url, LIMIT), admit)

    def _root_crl(self, root: x509.Certificate) -> Wanted:
        def admit(answer: Answer) -> Kept:
            return Kept(*revocations(answer.body, [root]))

        return Wanted("the revocation list of Intel's root", "intel", Request(self.root_crl_url, LIMIT), admit)

    def _signed(self, answer: Answer, name: str, headers: Sequence[str]) -> dict[str, str]:
        """The signed text of an answer, its signature (hex) and its signer's chain (PEM), once they fit."""
        text, signature = _split(answer.body.decode("utf-8"), name)
        pem, chain = self._chain(answer, headers)
        key = chain[0].public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Unfit("its signer has no key of an elliptic curve")
        r, s = int(signature[:64], 16), int(signature[64:], 16)
        key.verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(hashes.SHA256()))
        return {"text": text, "signature": signature, "chain": pem}

    def _chain(self, answer: Answer, headers: Sequence[str]) -> tuple[str, Sequence[x509.Certificate]]:
        found = next((answer.headers[name] for name in headers if name in answer.headers), None)
        if found is None:
            raise Unfit(f"it comes without the header {headers[0]}")
        pem = unquote(found)
        certificates = chains.load(pem.encode())
        rooted(certificates, pins.INTEL, self.anchors)
        return pem, certificates


def _split(body: str, name: str) -> tuple[str, str]:
    """The object ``name`` of an answer as the text that is signed, and the signature: 128 hex digits.

    Raises:
        ValueError: the answer has another form.
    """
    head = re.match(rf'\s*\{{\s*"{name}"\s*:\s*', body)
    if head is None:
        raise Unfit(f"it does not begin with {name}")
    _, end = json.JSONDecoder().raw_decode(body, head.end())
    tail = _SIGNATURE.fullmatch(body, end)
    if tail is None:
        raise Unfit(f"no signature follows {name}")
    return body[head.end() : end], tail[1].lower()


def _file(parts: dict[str, Any]) -> dict[str, str]:
    return {
        "pck_crl_issuer_chain": parts["pck_crl"]["chain"],
        "root_ca_crl": parts["root_crl"].hex(),
        "pck_crl": parts["pck_crl"]["crl"],
        "tcb_info_issuer_chain": parts["tcb"]["chain"],
        "tcb_info": parts["tcb"]["text"],
        "tcb_info_signature": parts["tcb"]["signature"],
        "qe_identity_issuer_chain": parts["qe"]["chain"],
        "qe_identity": parts["qe"]["text"],
        "qe_identity_signature": parts["qe"]["signature"],
    }
