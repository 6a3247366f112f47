"""Collateral of AMD: keys of chips by their TCB version, chains and lists; and that no lie is kept or accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hanzo_compute.adapters.collateral import CollateralFetcher
from hanzo_compute.attestation import AttestationResult, appraise, builtin
from hanzo_compute.model.evidence import Evidence, Platform
from hanzo_compute.ports import CollateralSource, FetchedCollateral
from tests.support.collateral_clock import StillClock
from tests.support.collateral_server import CollateralServer, How, Reply
from tests.support.collateral_services import fetcher, vcek_path
from tests.support.mint_snp import TCB, Vek, ark, ask, crl, hardware_id, report, with_snp
from tests.support.pki import NOW_MS

LEVELS = {
    "Milan": {"bl": 4, "tee": 0, "snp": 24, "ucode": 219},
    "Genoa": {"bl": 10, "tee": 0, "snp": 23, "ucode": 84},
    "Turin": {"fmc": 1, "bl": 1, "tee": 1, "snp": 4, "ucode": 81},
}
STRICT = with_snp({"crl_required": True})


@dataclass
class Kds:
    """The key distribution service, of one line, on a server."""

    server: CollateralServer
    line: str

    @property
    def vcek(self) -> str:
        return vcek_path(self.line, hardware_id(self.line), **LEVELS[self.line])

    @property
    def chain(self) -> str:
        return f"/vcek/v1/{self.line}/cert_chain"

    @property
    def crl(self) -> str:
        return f"/vcek/v1/{self.line}/crl"

    def open(self) -> Kds:
        """It gives what it should."""
        self.server.serve(self.vcek, Reply(Vek(self.line).der()))
        self.server.serve(self.chain, Reply(ask(self.line).pem + ark(self.line).pem))
        self.server.serve(self.crl, Reply(crl(ark(self.line))))
        return self


@pytest.fixture
def server() -> Iterator[CollateralServer]:
    with CollateralServer() as made:
        yield made


@pytest.fixture
def kds(server: CollateralServer) -> Kds:
    return Kds(server, "Genoa").open()


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def source(server: CollateralServer, clock: StillClock, tmp_path: Path) -> CollateralFetcher:
    return made(server, clock, tmp_path)


def made(server: CollateralServer, clock: StillClock, folder: Path) -> CollateralFetcher:
    return fetcher(server, folder, clock, *(ark(line).pem for line in LEVELS))


def bare(line: str = "Genoa", **fields: Any) -> Evidence:
    return Evidence(Platform.SNP, {"report": report(line, **fields)})


def judged(evidence: Evidence, found: FetchedCollateral, now_ms: int = NOW_MS) -> AttestationResult:
    anchors = [ark(line).pem for line in LEVELS]
    return appraise(evidence, STRICT, found.files, now_ms, anchors=anchors)


def missing(found: FetchedCollateral) -> dict[str, str]:
    return {each.name: each.reason for each in found.missing}


def test_it_is_the_port(source: CollateralFetcher) -> None:
    assert isinstance(source, CollateralSource)


@pytest.mark.parametrize("line", LEVELS)
def test_a_report_alone_is_accepted_with_what_is_fetched(
    server: CollateralServer, source: CollateralFetcher, line: str
) -> None:
    kds = Kds(server, line).open()
    evidence = bare(line)
    assert judged(evidence, FetchedCollateral({})).verdict == "unavailable"
    found = source.fetch([evidence], NOW_MS)
    assert set(found.files[Platform.SNP]) == {"vek", "chain", "crl"}
    assert judged(evidence, found).verdict == "accept"
    assert {each.path for each in server.asked} == {kds.vcek, kds.chain, kds.crl}
    assert source.fetch([evidence], NOW_MS) == found
    assert len(server.asked) == 3


def test_turins_parameters_are_its_own(server: CollateralServer) -> None:
    assert (
        Kds(server, "Turin").vcek
        == "/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81"
    )


def test_version_two_does_not_say_its_line(server: CollateralServer, kds: Kds, source: CollateralFetcher) -> None:
    evidence = bare(version=2, cpuid=bytes(3))
    found = source.fetch([evidence], NOW_MS)
    assert judged(evidence, found).verdict == "accept"
    assert server.count("/vcek/v1/Milan/") == 2, "its chain, and the key that is not of this line"


def test_an_unknown_processor_is_of_no_line(server: CollateralServer, source: CollateralFetcher) -> None:
    found = source.fetch([bare(cpuid=b"\x1b\x00\x00")], NOW_MS)
    assert found.files == {}
    assert all("no product is known of family 0x1b" in reason for reason in missing(found).values())
    assert server.asked == []


def test_a_masked_chip_cannot_be_asked_for(server: CollateralServer, kds: Kds, source: CollateralFetcher) -> None:
    found = source.fetch([bare(chip_id=bytes(64))], NOW_MS)
    assert "hides its chip id" in missing(found)["vek"]
    assert judged(bare(chip_id=bytes(64)), found).verdict == "unavailable"


def test_a_providers_key_comes_with_the_evidence(server: CollateralServer, source: CollateralFetcher) -> None:
    server.serve("/vlek/v1/Genoa/crl", Reply(crl(ark("Genoa"))))
    files = {
        "report": report("Genoa", flags=4, chip_id=bytes(64)),
        "vek": Vek("Genoa", "VLEK").der(),
        "chain": ask("Genoa", "VLEK").pem,
    }
    found = source.fetch([Evidence(Platform.SNP, files)], NOW_MS)
    assert set(found.files[Platform.SNP]) == {"crl"}
    assert [each.path for each in server.asked] == ["/vlek/v1/Genoa/crl"]


def test_evidence_that_carries_everything_needs_no_network(server: CollateralServer, source: CollateralFetcher) -> None:
    files = {**bare().files, "vek": Vek("Genoa").der(), "chain": ask("Genoa").pem, "crl": crl(ark("Genoa"))}
    found = source.fetch([Evidence(Platform.SNP, files)], NOW_MS)
    assert (found.files, found.missing, server.asked) == ({}, (), [])


@pytest.mark.parametrize("data", [b"", b"x" * 1184 + b"y", b"x" * 100])
def test_what_is_no_report_needs_nothing(server: CollateralServer, source: CollateralFetcher, data: bytes) -> None:
    found = source.fetch([Evidence(Platform.SNP, {"report": data}), Evidence(Platform.SNP, {})], NOW_MS)
    assert (found.files, found.missing, server.asked) == ({}, (), [])


def test_one_file_that_is_missing_takes_no_other_along(
    server: CollateralServer, kds: Kds, source: CollateralFetcher
) -> None:
    server.serve(kds.crl, Reply(status=503))
    found = source.fetch([bare()], NOW_MS)
    assert set(found.files[Platform.SNP]) == {"vek", "chain"}
    assert missing(found) == {"crl": f"the revocation list of ARK-Genoa: {server.url} answered 503"}
    assert found.missing[0].retry_after_s == 0.0
    result = judged(bare(), found)
    assert (result.verdict, result.reasons) == ("unavailable", ("snp.revocation",))


OUTAGES = {
    "down": Reply(status=502),
    "busy": Reply(status=429, headers={"Retry-After": "3600"}),
    "reset": Reply(b"x" * 100, how=How.RESET),
    "truncated": Reply(b"x" * 100, how=How.TRUNCATED),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_unavailable_and_passes(
    server: CollateralServer, kds: Kds, source: CollateralFetcher, clock: StillClock, outage: str
) -> None:
    server.fail(OUTAGES[outage])
    evidence = bare()
    found = source.fetch([evidence], NOW_MS)
    assert found.files == {}
    assert set(missing(found)) == {"vek", "chain", "crl"}
    assert all(each.retry_after_s is not None for each in found.missing)
    assert judged(evidence, found).verdict == "unavailable"
    kds.open()
    clock.go(3601)
    assert judged(evidence, source.fetch([evidence], NOW_MS)).verdict == "accept"


def test_an_outage_that_ends_soon_is_not_noticed(server: CollateralServer, kds: Kds, source: CollateralFetcher) -> None:
    for path in (kds.vcek, kds.chain, kds.crl):
        server.then(path, Reply(status=500), Reply(b"x", how=How.RESET))
    assert judged(bare(), source.fetch([bare()], NOW_MS)).verdict == "accept"


def test_a_chip_that_is_in_the_cache_is_judged_during_an_outage(
    server: CollateralServer, kds: Kds, clock: StillClock, tmp_path: Path
) -> None:
    made(server, clock, tmp_path).fetch([bare()], NOW_MS)
    server.fail(Reply(status=503))
    other = bare(report_data=bytes(64))
    assert judged(other, made(server, clock, tmp_path).fetch([other], NOW_MS)).verdict == "accept"


Lie = Callable[[Kds], tuple[str, Reply]]
LIES: dict[str, Lie] = {
    "garbage": lambda kds: (kds.vcek, Reply(b"\x30\x82\xff\xff garbage")),
    "empty": lambda kds: (kds.vcek, Reply(b"")),
    "oversized": lambda kds: (kds.vcek, Reply(b"\x30" * 20_000)),
    "a redirect": lambda kds: (kds.vcek, Reply(status=302, headers={"Location": kds.chain})),
    "the key of another chip": lambda kds: (kds.vcek, Reply(Vek("Genoa", hardware_id=bytes(range(64))).der())),
    "the key of another TCB": lambda kds: (kds.vcek, Reply(Vek("Genoa", tcb=TCB["Milan"]).der())),
    "the key of another line": lambda kds: (kds.vcek, Reply(Vek("Milan", tcb=TCB["Genoa"]).der())),
    "a provider's key": lambda kds: (kds.vcek, Reply(Vek("Genoa", "VLEK").der())),
    "a key by a stranger": lambda kds: (kds.vcek, Reply(Vek("Genoa", issuer=ask("Genoa", key=5, root=6)).der())),
    "a chain of a stranger": lambda kds: (
        kds.chain,
        Reply(ask("Genoa", key=5, root=6).pem + ark("Genoa", 6).pem),
    ),
    "a chain of another line": lambda kds: (kds.chain, Reply(ask("Milan").pem + ark("Milan").pem)),
    "a chain the wrong way round": lambda kds: (kds.chain, Reply(ark("Genoa").pem + ask("Genoa").pem)),
    "a page": lambda kds: (kds.chain, Reply(b"<html>maintenance</html>")),
    "a list by a stranger": lambda kds: (kds.crl, Reply(crl(ark("Genoa", 6)))),
    "a list of another line": lambda kds: (kds.crl, Reply(crl(ark("Milan")))),
    "no list": lambda kds: (kds.crl, Reply(ark("Genoa").der)),
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_is_kept_or_accepted(
    server: CollateralServer, kds: Kds, clock: StillClock, tmp_path: Path, lie: str
) -> None:
    path, reply = LIES[lie](kds)
    server.serve(path, reply)
    found = made(server, clock, tmp_path).fetch([bare()], NOW_MS)
    assert found.missing
    assert judged(bare(), found).verdict == "unavailable"
    kds.open()
    assert judged(bare(), made(server, clock, tmp_path).fetch([bare()], NOW_MS)).verdict == "accept"


def test_another_key_of_the_chip_is_rejected_by_the_verifier(
    server: CollateralServer, kds: Kds, source: CollateralFetcher
) -> None:
    # Nothing tells it from the right one before the report's signature is verified with it.
    server.serve(kds.vcek, Reply(Vek("Genoa", key=1).der()))
    result = judged(bare(), source.fetch([bare()], NOW_MS))
    assert (result.verdict, result.reasons) == ("reject", ("snp.signature",))


def test_a_revocation_is_rejected(server: CollateralServer, kds: Kds, source: CollateralFetcher) -> None:
    server.serve(kds.crl, Reply(crl(ark("Genoa"), ask("Genoa").certificate.serial_number)))
    result = judged(bare(), source.fetch([bare()], NOW_MS))
    assert (result.verdict, result.reasons) == ("reject", ("snp.revocation",))


def test_without_an_anchor_a_test_root_is_nobody(server: CollateralServer, kds: Kds, tmp_path: Path) -> None:
    found = fetcher(server, tmp_path, StillClock()).fetch([bare()], NOW_MS)
    assert found.files == {}
    assert appraise(bare(), builtin("baseline"), found.files, NOW_MS).verdict == "unavailable"
