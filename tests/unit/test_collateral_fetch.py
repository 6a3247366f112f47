"""The fetcher as a whole: several pieces at once, many callers at once, and how a process comes by it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hanzo_compute import wiring
from hanzo_compute.adapters.collateral import CollateralFetcher
from hanzo_compute.adapters.collateral.wanted import Job, Unobtainable
from hanzo_compute.adapters.local.system import SystemClock
from hanzo_compute.config import Collateral, load
from hanzo_compute.errors import InvalidRequest
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import CollateralSource
from tests.support.collateral_clock import StillClock
from tests.support.collateral_server import CollateralServer, Reply
from tests.support.collateral_services import fetcher, vcek_path
from tests.support.mint_collateral import Gpu, Responder
from tests.support.mint_snp import Vek, ark, ask, crl, hardware_id, report
from tests.support.pki import NOW_MS


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        vcek = vcek_path("Milan", hardware_id("Milan"), bl=4, tee=0, snp=24, ucode=219)
        made.serve(vcek, Reply(Vek().der()))
        made.serve("/vcek/v1/Milan/cert_chain", Reply(ask("Milan").pem + ark("Milan").pem))
        made.serve("/vcek/v1/Milan/crl", Reply(crl(ark("Milan"))))
        yield made


def snp() -> Evidence:
    return Evidence(Platform.SNP, {"report": report()})


def test_each_piece_gets_what_it_needs(server: CollateralServer, tmp_path: Path) -> None:
    gpu = Gpu()
    server.serve("/", Responder([gpu.root, gpu.product, gpu.provisioner]))
    pieces = [snp(), Evidence(Platform.NVIDIA, gpu.files()), Evidence(Platform.NITRO, {"doc": b"carries all"})]
    found = fetcher(server, tmp_path, StillClock(), ark("Milan").pem, gpu.root.pem).fetch(pieces, NOW_MS)
    assert set(found.files) == {Platform.SNP, Platform.NVIDIA}
    assert set(found.files[Platform.SNP]) == {"vek", "chain", "crl"}
    assert len(found.files[Platform.NVIDIA]) == 3
    assert {each.platform for each in found.missing} == {Platform.NVIDIA}
    assert fetcher(server, tmp_path, StillClock()).fetch([], NOW_MS).files == {}


def test_many_callers_at_once_ask_once(server: CollateralServer, tmp_path: Path) -> None:
    source = fetcher(server, tmp_path, SystemClock(), ark("Milan").pem)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: source.fetch([snp()], NOW_MS), range(24)))
    assert all(set(each.files[Platform.SNP]) == {"vek", "chain", "crl"} for each in found)
    assert len(server.asked) == 3


def test_all_of_it_has_one_limit_of_time() -> None:
    clock = StillClock(NOW_MS)
    limits: list[float] = []

    def slow(_: int, until: float) -> bytes:
        limits.append(until)
        clock.go(5)
        raise Unobtainable("did not answer in time", passing=True)

    jobs = [Job("vek", slow), Job("crl", slow)]
    found = CollateralFetcher({Platform.SNP: lambda _: jobs}, clock, patience_s=7).fetch([snp()], NOW_MS)
    assert limits == [7, 7]
    assert [(each.name, each.retry_after_s) for each in found.missing] == [("vek", 0.0), ("crl", 0.0)]


def test_what_was_had_may_need_more_but_not_without_end() -> None:
    def endless(files: object) -> list[Job]:
        assert isinstance(files, dict)
        return [Job(f"file{len(files)}", lambda *_: b"x")]

    found = CollateralFetcher({Platform.SNP: endless}, StillClock()).fetch([snp()], NOW_MS)
    assert set(found.files[Platform.SNP]) == {"file1", "file2"}


def environ(home: Path, **more: str) -> dict[str, str]:
    return {"HZC_HOME": str(home), "HZC_CACHE": str(home / "cache"), **more}


def test_a_process_has_it_from_its_settings(server: CollateralServer, tmp_path: Path) -> None:
    settings = environ(tmp_path, HZC_KDS_URL=server.url)
    source = wiring.collateral(load(settings), [ark("Milan").pem])
    assert isinstance(source, CollateralSource)
    found = source.fetch([snp()], NOW_MS)
    assert set(found.files[Platform.SNP]) == {"vek", "chain", "crl"}
    assert len(list((tmp_path / "collateral").iterdir())) == 3
    offline = wiring.collateral(load({**settings, "HZC_COLLATERAL": "offline"}))
    assert offline.fetch([snp()], NOW_MS) == found
    assert len(server.asked) == 3


def test_a_mirror_takes_the_place_of_a_vendor(tmp_path: Path) -> None:
    assert load(environ(tmp_path)).collateral == Collateral()
    found = load(
        environ(
            tmp_path,
            HZC_PCS_URL="https://pccs.example:8081/",
            HZC_KDS_URL="http://127.0.0.1:8080/kds",
            HZC_RIM_URL="http://[::1]:1",
            HZC_OCSP_URL="http://localhost:2",
            HZC_COLLATERAL="offline",
        )
    ).collateral
    assert found.intel_url == "https://pccs.example:8081"
    assert found.intel_root_crl_url == "https://pccs.example:8081/sgx/certification/v4/rootcacrl"
    assert found.amd_url == "http://127.0.0.1:8080/kds"
    assert (found.rim_url, found.ocsp_url, found.offline) == ("http://[::1]:1", "http://localhost:2", True)


@pytest.mark.parametrize(
    "url",
    [
        "http://pccs.example",
        "ftp://pccs.example",
        "pccs.example",
        "https://",
        "https://user:password@pccs.example",
        "https://pccs.example/?a=b",
        "https://pccs.example/#a",
        "https://pccs.example/a b",
        "https://pccs.example:port",
        "https://pccs.example:0",
        "https://[::1",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
    ],
)
def test_what_is_no_address_of_a_service(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidRequest, match="HZC_PCS_URL is"):
        load(environ(tmp_path, HZC_PCS_URL=url))


def test_online_or_offline_and_nothing_else(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="HZC_COLLATERAL is 'never'"):
        load(environ(tmp_path, HZC_COLLATERAL="never"))
