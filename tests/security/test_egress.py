"""A function that tries to reach what it must not: refused before anything is connected to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import pytest

from hanzo_compute.adapters.egress import AddressPolicy
from hanzo_compute.model.origins import METADATA, is_public
from hanzo_compute.ports import GuestRefusal, Status
from tests.support.far_side import PUBLIC, FarSide, answering, get

API, TLS = "http://api.example.com", "https://api.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

PRIVATE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
    *("169.254.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("192.0.0.1", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "192.88.99.1"),
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "168.63.129.16"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00::1", "fd00:ec2::254", "ff02::1"),
    *("2001:db8::1", "3fff::1", "100::1", "5f00::1", "2001:2::1", "2001:10::1", "4000::1", "e000::1"),
    # IPv4-mapped, -compatible and -translated, 6to4, Teredo, NAT64 (well-known and local)
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "::ffff:0:0"),
    *("::127.0.0.1", "::7f00:1", "::10.0.0.1", "::8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:8.8.8.8"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::", "2001:0:0a00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8", "64:ff9b:1::a00:1"),
    *("", "localhost", "8.8.8.8.", "8.8.8", "0x08080808", "8.8.8.8/32"),
]
OPEN = [
    *("8.8.8.8", "1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1"),
    *("2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
]


@pytest.fixture
def far() -> Iterator[FarSide]:
    made = FarSide(serve={PUBLIC: answering(OK)})
    yield made
    made.close()


def denied(
    far: FarSide, url: str, *origins: str, policy: AddressPolicy | None = None, **fields: object
) -> GuestRefusal:
    with pytest.raises(GuestRefusal) as error:
        get(far.egress(policy), url, *(origins or (API, TLS)), **fields)
    assert error.value.status in (Status.DENIED, Status.INVALID)
    return error.value


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("mixed", [(), (PUBLIC,), (PUBLIC, "2606:4700::1111")])
def test_a_name_of_an_address_inside(far: FarSide, address: str, mixed: tuple[str, ...]) -> None:
    for answer in ([address, *mixed], [*mixed, address]):
        far.names["api.example.com"] = answer
        for url in (f"{API}/latest/meta-data/", TLS):
            error = denied(far, url)
            assert error.status is Status.DENIED
            assert not address or address not in error.why  # what is inside is not told
    assert far.connected == []


@pytest.mark.parametrize("address", OPEN)
def test_the_internet_is_open(far: FarSide, address: str) -> None:
    far.names["api.example.com"] = [address]
    shown = str(ipaddress.ip_address(address))
    far.serve[shown] = answering(OK)
    assert get(far.egress(), API, API).status == 200
    assert far.connected == [(shown, 80)]


URLS = [
    *(
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::127.0.0.1]",
        "http://169.254.169.254/",
    ),
    # one number, octal, hexadecimal, short forms: what resolvers of C take for an address
    *("http://2130706433/", "http://017700000001/", "http://0x7f000001/", "http://0177.0.0.1/", "http://0x7f.0.0.1/"),
    *("http://127.1/", "http://127.0.1/", "http://0/", "http://127.0.0.1./", "http://127.0.0.0x1/", "http://0x7f.1"),
    *("http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://localhost/", "http://localhost:80/", "http://LOCALHOST./"),
    # another host, or the right one in another form, port or scheme
    *("http://api.example.com./", "http://api.example.com.evil.example/", "http://evil.example/api.example.com"),
    *(
        "http://api.example.com:8080/",
        "http://api.example.com:443",
        "https://api.example.com:80/",
        "http://api.example.com:080/",
    ),
    *(
        "http://api.example.com:0/",
        "http://api.example.com:99999/",
        "http://api.example.com:/",
        "http://api.example.com:+80/",
    ),
    *("http://api%2eexample.com/", "http://api.example.com%00.evil.example/", "http://sub.api.example.com/"),
    *(
        "ftp://api.example.com/",
        "file:///etc/passwd",
        "gopher://api.example.com/",
        "javascript:alert(1)",
        "//api.example.com/",
    ),
    # user names, and what one parser takes for the host and another one does not
    *("http://api.example.com@127.0.0.1/", "http://user:pass@api.example.com/", "http://127.0.0.1#@api.example.com/"),
    *(
        "http://api.example.com:80@127.0.0.1/",
        "http://127.0.0.1\\@api.example.com/",
        "http://api.example.com\\@127.0.0.1/",
    ),
    *(
        "http://127.0.0.1?@api.example.com/",
        "http:///api.example.com/",
        "http:/api.example.com",
        "http:api.example.com",
    ),
    *(
        "http://api.example.com /",
        " http://api.example.com/",
        "http://api.example.com/\r\nHost: x",
        "http://api.example.com\t/",
    ),
    *(
        "http://api.example.com/\n",
        "http://api.example.com/a b",
        "http://api.example.com/\x00",
        "http://[::1",
        "http://[x]/",
    ),
    *(
        "http://[::1%25eth0]/",
        "http://[fe80::1%25lo]/",
        "http://",
        "",
        "http://" + "a" * 9000,
        "http://api.example.com/ä",
    ),
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_means_something_else(far: FarSide, url: str) -> None:
    denied(far, url)
    assert (far.resolved, far.connected) == ([], [])


@pytest.mark.parametrize(
    "url", [API, "HTTP://API.EXAMPLE.COM/", "http://api.example.com:80/x", "http://api.example.com?x=@y"]
)
def test_the_same_origin_in_other_words_is_the_same(far: FarSide, url: str) -> None:
    assert get(far.egress(), url, API).status == 200
    assert far.resolved == ["api.example.com"]


def test_nothing_granted_is_nothing_reached(far: FarSide) -> None:
    with pytest.raises(GuestRefusal) as error:
        get(far.egress(), API)
    assert (error.value.status, far.resolved) == (Status.DENIED, [])


LOCATIONS = [
    *(
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://169.254.169.254/latest/",
        "http://2130706433/",
    ),
    *(
        "http://evil.example/",
        "//evil.example/",
        "http://api.example.com:8080/",
        "http://api.example.com@evil.example/",
    ),
    *("ftp://api.example.com/", "file:///etc/passwd", "http://inside.example.com/", "https://inside.example.com/"),
    *("\\\\evil.example/", "http://api.example.com/a b", "http://[::1/"),
]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_redirect_leads_inside(far: FarSide, location: str) -> None:
    inside = ("http://inside.example.com", "https://inside.example.com")
    far.names["inside.example.com"] = ["10.0.0.7"]
    far.serve[PUBLIC] = answering(f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode())
    with pytest.raises(GuestRefusal) as error:
        get(far.egress(), API, API, TLS, *inside, follow=True)
    assert error.value.status in (Status.DENIED, Status.UNAVAILABLE)
    assert far.connected == [(PUBLIC, 80)]


def test_a_redirect_does_not_leave_tls() -> None:
    from hanzo_compute.adapters.egress import urls

    both = frozenset({API, TLS})
    assert urls.redirected(urls.target(API, both), TLS, both).scheme == "https"
    with pytest.raises(GuestRefusal) as error:
        urls.redirected(urls.target(TLS, both), API, both)
    assert error.value.status is Status.DENIED


def test_a_name_is_resolved_once_and_what_was_checked_is_connected_to(far: FarSide) -> None:
    """DNS rebinding: the second answer would be another one."""
    replies = [[PUBLIC], ["127.0.0.1"]]
    egress = far.egress()
    egress._resolve = lambda *_: replies.pop(0)
    assert get(egress, API, API).status == 200
    assert (far.connected, replies) == ([(PUBLIC, 80)], [["127.0.0.1"]])
    far.serve[PUBLIC] = answering(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
    egress._resolve = lambda *_, left=[[PUBLIC], ["127.0.0.1"]]: left.pop(0)  # type: ignore[misc]
    with pytest.raises(GuestRefusal) as error:
        get(egress, API, API, follow=True)
    assert error.value.status is Status.DENIED
    assert far.connected == [(PUBLIC, 80)] * 2


def test_the_environment_says_nothing(far: FarSide, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert get(far.egress(), API, API).status == 200
    assert far.connected == [(PUBLIC, 80)]


def test_the_operator_opens_networks_but_never_metadata(far: FarSide) -> None:
    everything = AddressPolicy((ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
    ten = AddressPolicy((ipaddress.ip_network("10.1.0.0/16"),))
    far.serve["10.1.0.7"] = answering(OK)
    for form in ("10.1.0.7", "::ffff:10.1.0.7"):
        far.names["api.example.com"] = [form]
        assert ten.permits(ipaddress.ip_address(form))
    far.names["api.example.com"] = ["10.1.0.7"]
    assert get(far.egress(ten), API, API).status == 200
    far.connected.clear()
    for address in ("10.2.0.1", "127.0.0.1"):
        far.names["api.example.com"] = [address]
        denied(far, API, policy=ten)
    for metadata in METADATA:
        forms = [str(metadata)] + ([f"::ffff:{metadata}"] if metadata.version == 4 else [])
        for form in forms:
            far.names["api.example.com"] = [form]
            denied(far, API, policy=everything)
            assert not is_public(ipaddress.ip_address(form))
    assert far.connected == []
