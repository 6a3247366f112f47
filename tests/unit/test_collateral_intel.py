"""Collateral of Intel: what is asked for, what comes out, and that no lie is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import dcap_qvl
import pytest

from hanzo_compute.adapters.collateral import FileCache, HttpOpener
from hanzo_compute.adapters.collateral.getter import Getter
from hanzo_compute.adapters.collateral.intel import Asked, Intel
from hanzo_compute.adapters.collateral.limits import Buckets
from hanzo_compute.adapters.collateral.wanted import Unobtainable
from tests.support.collateral_clock import StillClock
from tests.support.collateral_server import CollateralServer, How, Reply
from tests.support.collateral_services import FAST, intel_headers, serve_intel
from tests.support.mint_collateral import FMSPC, ISSUED, Pcs, crl
from tests.support.pki import NOW_MS

WANT = Asked("tdx", FMSPC, "platform")
TCB = f"/tdx/certification/v4/tcb?fmspc={FMSPC}"
QE = "/tdx/certification/v4/qe/identity"
PCK_CRL = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_CRL = "/IntelSGXRootCA.der"


@pytest.fixture(scope="module")
def pcs() -> Pcs:
    return Pcs()


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        yield made


Get = Callable[..., bytes]


@pytest.fixture
def get(server: CollateralServer, pcs: Pcs, tmp_path: Path) -> Iterator[Get]:
    """Ask; each time with a new getter, and the same cache."""
    opener, clock = HttpOpener(), StillClock()

    def ask(now_ms: int = NOW_MS, want: Asked = WANT) -> bytes:
        getter = Getter(opener, FileCache(tmp_path), Buckets(FAST, clock), clock, uniform=lambda *_: 0.0)
        intel = Intel(getter, server.url, f"{server.url}{ROOT_CRL}", (pcs.root.pem,))
        return intel.collateral(want, now_ms, clock.monotonic() + 30)

    yield ask
    opener.close()


def refused(get: Get, now_ms: int = NOW_MS) -> Unobtainable:
    with pytest.raises(Unobtainable) as caught:
        get(now_ms)
    return caught.value


def test_the_parts_become_one_file(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    parts = pcs.parts()
    serve_intel(server, parts, "tdx", FMSPC, "platform")
    data = get()
    assert json.loads(data) == parts
    assert dcap_qvl.QuoteCollateralV3.from_json(data.decode()).tcb_info == parts["tcb_info"]
    assert [each.path for each in server.asked] == [TCB, QE, PCK_CRL, ROOT_CRL]
    get()
    assert len(server.asked) == 4, "all of it is kept"


def test_white_space_is_the_services_own(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    parts = pcs.parts()
    serve_intel(server, parts, "tdx", FMSPC, "platform")
    body = f' {{\n "tcbInfo" : {parts["tcb_info"]} ,\r\n "signature" : "{parts["tcb_info_signature"].upper()}" }}\n'
    headers = intel_headers("SGX-TCB-Info-Issuer-Chain", parts["tcb_info_issuer_chain"])
    server.serve(TCB, Reply(body.encode(), headers=headers))
    assert json.loads(get()) == parts


def test_lists_in_hex_of_a_caching_service(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    parts = pcs.parts()
    serve_intel(server, parts, "tdx", FMSPC, "platform")
    server.serve(ROOT_CRL, Reply(parts["root_ca_crl"].upper().encode() + b"\n"))
    assert json.loads(get()) == parts


def test_sgx_has_its_own(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    tcb, tcb_signature = pcs.signed({"id": "SGX", "fmspc": FMSPC.lower()})
    qe, qe_signature = pcs.signed({"id": "QE"})
    parts = pcs.parts(
        tcb_info=tcb, tcb_info_signature=tcb_signature, qe_identity=qe, qe_identity_signature=qe_signature
    )
    serve_intel(server, parts, "sgx", FMSPC, "platform")
    assert json.loads(get(want=Asked("sgx", FMSPC, "platform"))) == parts
    assert server.count("/tdx/") == 0


def test_one_part_that_is_missing_is_named(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    serve_intel(server, pcs.parts(), "tdx", FMSPC, "platform")
    server.serve(TCB, Reply(status=404))
    error = refused(get)
    assert error.reason == f"the TCB info of {FMSPC}: {server.url} does not have it (404)"
    assert not error.passing
    server.serve(QE, Reply(status=503))
    asked = len(server.asked)
    get_again = refused(get)
    assert "does not have it" in get_again.reason
    assert server.count("qe/identity") == 1, "the others were kept"
    assert len(server.asked) == asked + 1


def test_outages_of_all(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    serve_intel(server, pcs.parts(), "tdx", FMSPC, "platform")
    server.fail(Reply(b"x" * 100, how=How.RESET))
    error = refused(get)
    assert error.passing
    assert server.count(TCB) == 4


def _tcb(pcs: Pcs, text: str, signature: str, chain: bytes | None = None) -> Reply:
    pem = chain if chain is not None else pcs.signing.pem + pcs.root.pem
    body = f'{{"tcbInfo":{text},"signature":"{signature}"}}'.encode()
    return Reply(body, headers=intel_headers("TCB-Info-Issuer-Chain", pem.decode()))


def _flipped(pcs: Pcs) -> Reply:
    text, signature = pcs.signed({"id": "TDX", "fmspc": FMSPC, "tcbEvaluationDataNumber": 17})
    return _tcb(pcs, text.replace("17", "18"), signature)


def _by_another(pcs: Pcs) -> Reply:
    other = Pcs()
    return _tcb(other, *other.signed({"id": "TDX", "fmspc": FMSPC}))


LIES: dict[str, Callable[[Pcs], tuple[str, Reply]]] = {
    "garbage": lambda _: (TCB, Reply(b"\x00\xff garbage")),
    "empty": lambda _: (TCB, Reply(b"")),
    "a page of a proxy": lambda _: (TCB, Reply(b"<html>log in</html>", headers={"Content-Type": "text/html"})),
    "oversized": lambda _: (TCB, Reply(b" " * 70_000)),
    "nested without end": lambda _: (TCB, Reply(b'{"tcbInfo":' + b"[" * 60_000)),
    "redirect": lambda _: (TCB, Reply(status=307, headers={"Location": "http://127.0.0.1:1/"})),
    "no chain": lambda pcs: (TCB, Reply(b'{"tcbInfo":%s,"signature":"%s"}' % (b"{}", b"0" * 128))),
    "an empty chain": lambda pcs: (TCB, _tcb(pcs, *pcs.signed({"id": "TDX", "fmspc": FMSPC}), chain=b"")),
    "a chain of another root": lambda pcs: (TCB, _by_another(pcs)),
    "signed by the root": lambda pcs: (TCB, _tcb(pcs, *pcs.signed({"id": "TDX", "fmspc": FMSPC}), chain=pcs.root.pem)),
    "another processor": lambda pcs: (TCB, _tcb(pcs, *pcs.signed({"id": "TDX", "fmspc": "000000000000"}))),
    "TCB info of SGX": lambda pcs: (TCB, _tcb(pcs, *pcs.signed({"id": "SGX", "fmspc": FMSPC}))),
    "fields of other kinds": lambda pcs: (TCB, _tcb(pcs, *pcs.signed({"fmspc": 5, "id": ["TDX"]}))),
    "edited": lambda pcs: (TCB, _flipped(pcs)),
    "zero signature": lambda pcs: (TCB, _tcb(pcs, pcs.signed({"id": "TDX", "fmspc": FMSPC})[0], "0" * 128)),
    "identity of another enclave": lambda pcs: (
        QE,
        Reply(
            b'{"enclaveIdentity":%s,"signature":"%s"}' % tuple(map(str.encode, pcs.signed({"id": "QE"}))),
            headers=intel_headers("SGX-Enclave-Identity-Issuer-Chain", (pcs.signing.pem + pcs.root.pem).decode()),
        ),
    ),
    "list of the other authority": lambda pcs: (
        PCK_CRL,
        Reply(crl(pcs.root), headers=intel_headers("SGX-PCK-CRL-Issuer-Chain", pcs.root.pem.decode())),
    ),
    "list by another": lambda pcs: (
        PCK_CRL,
        Reply(
            crl(Pcs().pck),
            headers=intel_headers("SGX-PCK-CRL-Issuer-Chain", (pcs.pck.pem + pcs.root.pem).decode()),
        ),
    ),
    "root list by another": lambda _: (ROOT_CRL, Reply(crl(Pcs().root))),
    "root list of PCK": lambda pcs: (ROOT_CRL, Reply(crl(pcs.pck))),
    "no list": lambda pcs: (ROOT_CRL, Reply(pcs.root.der)),
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_is_kept(server: CollateralServer, pcs: Pcs, get: Get, lie: str) -> None:
    serve_intel(server, pcs.parts(), "tdx", FMSPC, "platform")
    path, reply = LIES[lie](pcs)
    server.then(path, reply)
    error = refused(get)
    assert not error.passing
    assert json.loads(get())["tcb_info"] == pcs.parts()["tcb_info"], "the truth is not kept out"


def test_what_is_out_of_date_is_not_given(server: CollateralServer, pcs: Pcs, get: Get) -> None:
    serve_intel(server, pcs.parts(), "tdx", FMSPC, "platform")
    get()
    server.fail(Reply(status=503))
    late = round(pcs.following.timestamp() * 1000)
    assert get(late - 1), "kept as long as it is good"
    assert "answered 503" in refused(get, late).reason


def test_old_collateral_is_not_taken(server: CollateralServer, get: Get, pcs: Pcs) -> None:
    serve_intel(server, pcs.parts(), "tdx", FMSPC, "platform")
    assert "is out of date" in refused(get, NOW_MS + 60 * 86_400_000).reason
    assert pcs.following > ISSUED
