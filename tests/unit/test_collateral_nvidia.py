"""Collateral of NVIDIA: which status is asked for and how, what several devices share, and that no lie is kept."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from hanzo_compute.adapters.collateral import CollateralFetcher
from hanzo_compute.attestation.nvidia import ocsp
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import FetchedCollateral
from tests.support.collateral_clock import StillClock
from tests.support.collateral_server import CollateralServer, How, Reply
from tests.support.collateral_services import fetcher, serve_rim
from tests.support.mint_collateral import Gpu, Responder
from tests.support.pki import NOW_MS, issue
from tests.support.vectors import case

DRIVER = "NV_GPU_DRIVER_GH100_550.90.07"
VBIOS = "NV_GPU_VBIOS_G520_0280_895_96009F0001"


@pytest.fixture(scope="module")
def gpu() -> Gpu:
    return Gpu()


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        yield made


@pytest.fixture
def responder(server: CollateralServer, gpu: Gpu) -> Responder:
    made = Responder([gpu.root, gpu.product, gpu.provisioner])
    server.serve("/", made)
    return made


@pytest.fixture
def source(server: CollateralServer, gpu: Gpu, tmp_path: Path) -> CollateralFetcher:
    return fetcher(server, tmp_path, StillClock(), gpu.root.pem)


def evidence(gpu: Gpu, **files: bytes) -> Evidence:
    return Evidence(Platform.NVIDIA, {**gpu.files(), **files})


def statuses(found: FetchedCollateral) -> list[bytes]:
    return [data for name, data in found.files.get(Platform.NVIDIA, {}).items() if name.startswith("ocsp-")]


def test_each_certificate_that_nvidia_issued_has_its_status(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    found = source.fetch([evidence(gpu)], NOW_MS)
    assert {request.serial_number for request in responder.asked} == {
        each.certificate.serial_number for each in (gpu.chip, gpu.provisioner, gpu.product)
    }, "the leaf is by the device's own firmware"
    assert {request.hash_algorithm.name for request in responder.asked} == {"sha384"}
    nonces = {request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce for request in responder.asked}
    assert len(nonces) == 3
    assert {len(nonce) for nonce in nonces} == {32}
    posts = [each for each in server.asked if each.path == "/"]
    assert {(each.method, each.headers["content-type"]) for each in posts} == {("POST", "application/ocsp-request")}
    responses = [ocsp.load(data) for data in statuses(found)]
    for mine, issuer in ((gpu.chip, gpu.provisioner), (gpu.provisioner, gpu.product), (gpu.product, gpu.root)):
        status = ocsp.status(mine.certificate, issuer.certificate, responses, now_ms=NOW_MS)
        assert status.good, status.why


def test_reference_values_are_asked_for_by_name(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    found = source.fetch([evidence(gpu)], NOW_MS)
    assert {each.path for each in server.asked if each.method == "GET"} == {f"/v1/rim/{DRIVER}", f"/v1/rim/{VBIOS}"}
    assert {each.reason.split(":")[0] for each in found.missing} == {
        f"the reference values {DRIVER}",
        f"the reference values {VBIOS}",
    }
    assert {each.name.split("-")[0] for each in found.missing} == {"driver_rim", "vbios_rim"}


def test_a_hostile_version_stays_in_its_segment(
    server: CollateralServer, responder: Responder, source: CollateralFetcher
) -> None:
    hostile = Gpu("../../admin?x=1#y\\z")
    responder.issuers += [hostile.root, hostile.product, hostile.provisioner]
    source.fetch([evidence(hostile)], NOW_MS)
    paths = [each.path for each in server.asked if "DRIVER" in each.path]
    assert paths == ["/v1/rim/NV_GPU_DRIVER_GH100_..%2F..%2Fadmin%3Fx%3D1%23y%5Cz"]
    long = Gpu("5" * 200)
    source.fetch([evidence(long)], NOW_MS)
    assert server.count("555") == 0


def test_devices_share_what_they_have_in_common(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    found = source.fetch([evidence(gpu)] * 4, NOW_MS)
    assert len(statuses(found)) == 3
    assert len(found.missing) == 2
    assert len(server.asked) == 5


def test_status_is_kept_until_its_next_update(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    first = source.fetch([evidence(gpu)], NOW_MS)
    assert statuses(source.fetch([evidence(gpu)], NOW_MS)) == statuses(first)
    assert len(responder.asked) == 3
    source.fetch([evidence(gpu)], NOW_MS + 90_000_000)
    assert len(responder.asked) == 6, "it was asked again when the kept ones had ended"


def test_what_evidence_carries_is_not_asked_for(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    first = statuses(source.fetch([evidence(gpu)], NOW_MS))
    carried = {f"ocsp-{number}": data for number, data in enumerate(first)}
    rims = {"driver_rim": b"anything", "vbios_rim-1": b"anything"}
    asked = len(server.asked)
    found = source.fetch([evidence(gpu, **carried, **rims)], NOW_MS)
    assert found.files == {}
    assert found.missing == ()
    assert len(server.asked) == asked


def test_a_revocation_is_told(
    server: CollateralServer, responder: Responder, source: CollateralFetcher, gpu: Gpu
) -> None:
    responder.revoked = {gpu.chip.certificate.serial_number}
    responses = [ocsp.load(data) for data in statuses(source.fetch([evidence(gpu)], NOW_MS))]
    status = ocsp.status(gpu.chip.certificate, gpu.provisioner.certificate, responses, now_ms=NOW_MS)
    assert status.good is False
    assert "was revoked" in status.why


def _expired(responder: Responder) -> None:
    responder.following = datetime.datetime(2025, 12, 31, tzinfo=datetime.UTC)


def _endless(responder: Responder) -> None:
    responder.following = None


def _replayed(responder: Responder) -> None:
    responder.nonce = bytes(32)


def _no_nonce(responder: Responder) -> None:
    responder.no_nonce = True


def _another(responder: Responder) -> None:
    responder.serial = 77


def _stranger(responder: Responder) -> None:
    responder.signer = issue("OCSP Responder")


LIES: dict[str, tuple[Callable[[Responder], None], str]] = {
    "out of date": (_expired, "is out of date"),
    "without an end": (_endless, "is out of date"),
    "replayed": (_replayed, "does not answer the nonce"),
    "without a nonce": (_no_nonce, "does not answer the nonce"),
    "about another certificate": (_another, "about another certificate"),
    "by a stranger": (_stranger, "not appointed by the certificate's issuer"),
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_about_status_is_kept(
    server: CollateralServer, responder: Responder, gpu: Gpu, tmp_path: Path, lie: str
) -> None:
    make, text = LIES[lie]
    make(responder)
    found = fetcher(server, tmp_path, StillClock(), gpu.root.pem).fetch([evidence(gpu)], NOW_MS)
    assert statuses(found) == []
    assert sum(text in each.reason for each in found.missing) == 3, [each.reason for each in found.missing]
    server.serve("/", Responder(responder.issuers))
    again = fetcher(server, tmp_path, StillClock(), gpu.root.pem).fetch([evidence(gpu)], NOW_MS)
    assert len(statuses(again)) == 3


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"garbage"),
        Reply(b""),
        Reply(b"\x30\x03\x0a\x01\x03"),  # tryLater
        Reply(b"x" * 20_000),
        Reply(b"x" * 100, how=How.TRUNCATED),
        Reply(status=301, headers={"Location": "https://elsewhere.example/"}),
        Reply(status=500),
    ],
    ids=["garbage", "empty", "try later", "oversized", "truncated", "redirect", "down"],
)
def test_no_answer_is_no_status(server: CollateralServer, source: CollateralFetcher, gpu: Gpu, reply: Reply) -> None:
    server.serve("/", reply)
    found = source.fetch([evidence(gpu)], NOW_MS)
    assert statuses(found) == []
    assert sum(each.name.startswith("ocsp-") for each in found.missing) == 3


@pytest.mark.parametrize("name", ["report", "chain"])
def test_what_cannot_be_read_needs_nothing(server: CollateralServer, source: CollateralFetcher, name: str) -> None:
    for broken in ({name: b"garbage"}, {}):
        files = {**Gpu().files(), **broken} if broken else {}
        found = source.fetch([Evidence(Platform.NVIDIA, files)], NOW_MS)
        assert (found.files, found.missing) == ({}, ())
    assert server.asked == []


RIM_LIES: dict[str, dict[str, str]] = {
    "of another name": {"id": "NV_GPU_DRIVER_GH100_1"},
    "of another digest": {"sha256": "0" * 64},
    "no base64": {"rim": "?"},
    "no document": {"rim": base64.b64encode(b"<a/>").decode()},
}


@pytest.mark.parametrize("lie", RIM_LIES)
def test_no_lie_about_reference_values_is_kept(
    server: CollateralServer, source: CollateralFetcher, responder: Responder, gpu: Gpu, lie: str
) -> None:
    serve_rim(server, DRIVER, b"<a/>", **RIM_LIES[lie])
    server.serve(f"/v1/rim/{VBIOS}", Reply(json.dumps(["not an object"]).encode()))
    found = source.fetch([evidence(gpu)], NOW_MS)
    rims = [each.reason for each in found.missing if "rim" in each.name]
    assert len(rims) == 2
    assert all("answered with something else" in reason for reason in rims)


def test_edited_reference_values_are_no_use(server: CollateralServer, tmp_path: Path) -> None:
    recorded = case("nvidia", "h100-550.90.07")
    bare = Evidence(Platform.NVIDIA, {name: recorded.evidence.files[name] for name in ("report", "chain")})
    genuine = recorded.evidence.files["driver_rim"]
    edited = genuine.replace(b'active="True"', b'active="False"', 1)
    assert edited != genuine
    path = serve_rim(server, DRIVER, genuine)
    serve_rim(server, DRIVER, edited)
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([bare], recorded.now_ms)
    assert any("signature does not hold" in each.reason for each in found.missing)
    serve_rim(server, DRIVER, genuine)
    found = fetcher(server, tmp_path, StillClock(recorded.now_ms)).fetch([bare], recorded.now_ms)
    assert genuine in found.files[Platform.NVIDIA].values()
    assert server.count(path) == 2
