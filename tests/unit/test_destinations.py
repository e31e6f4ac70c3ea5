"""Where webhooks may go."""

import ipaddress
import re
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from yarl import URL

from config.settings import SettingsError
from jobs.destinations import _V4, _V6, MAX_URL_CHARS, address_fault, is_public, url_fault
from jobs.request import InvalidRequest, read_request
from worker.main import load_settings

FORM, ASCII, CHARS = "an http or https URL with a host", "must be ASCII", "spaces, control characters or backslashes"
HOST, V6_FORM, ONE_HOST = "a host of labels", "IPv6 address in its brackets", "one host and at most one port"
PORT, SECRETS, NUMBERS, NAME = "port from 1 to 65535", "credentials", "four decimal numbers", "private name"


def literals(kind: str, *hosts: str) -> list[tuple[str, str]]:
    """Make rows of hosts that are non-public addresses, of one kind."""
    return [(f"http://{host}/hook", kind) for host in hosts]


def urls(reason: str, *spellings: str) -> list[tuple[str, str]]:
    """Make rows of whole URLs, refused for one reason."""
    return [(spelling, reason) for spelling in spellings]


ADDRESSES = [
    *literals("(127.0.0.1), loopback", "127.0.0.1", "127.0.0.1.", "127.0.0.1:8080", "127.1", "127.0.1", "127.1."),
    *literals("(127.0.0.1), loopback", "2130706433", "017700000001", "0x7f000001", "0X7F000001", "0x7F.1", "0x7f.0.1"),
    *literals("(127.0.0.1), loopback", "0177.0.0.1", "0177.0x0.0.1", "127.0x1", "00000177.1", "0x000000007f.1"),
    *literals("(127.0.0.1), loopback", "127.0.0.0x1", "127.00.00.01"),
    *literals("(127.255.255.255), loopback", "127.16777215", "127.255.65535"),
    *literals("(127.127.127.127), loopback", "127.127.127.127"),
    *literals("this network", "0", "0.0.0.0", "0.0.0.1", "0x0", "00", "0.1.2.3"),
    *literals("(10.0.0.1), private", "10.0.0.1", "10.1", "012.0.0.1", "167772161"),
    *literals("private", "172.16.0.1", "172.31.255.255", "192.168.1.1", "0xc0a80101", "192.168.257"),
    *literals("(169.254.169.254), link-local, cloud metadata", "169.254.169.254", "2852039166", "0xa9fea9fe"),
    *literals("(169.254.169.254), link-local, cloud metadata", "0251.0376.0251.0376", "169.254.43518"),
    *literals("(169.254.170.2), link-local, cloud metadata", "169.254.170.2"),
    *literals("cloud metadata", "168.63.129.16"),
    *literals("CGNAT", "100.64.0.1", "100.127.255.255", "100.100.100.200"),
    *literals("benchmarks", "198.18.0.1", "198.19.255.255"),
    *literals("protocol assignments", "192.0.0.8", "192.0.0.9", "192.0.0.192"),
    *literals("documentation", "192.0.2.1", "198.51.100.7", "203.0.113.9"),
    *literals("6to4 relays", "192.88.99.1"),
    *literals("multicast", "224.0.0.1", "239.255.255.250"),
    *literals("reserved", "240.0.0.1", "255.255.255.255", "4294967295", "0xffffffff"),
    *literals("loopback", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::0.0.0.1]"),
    *literals("unspecified", "[::]", "[::0]"),
    *literals("IPv4-mapped 127.0.0.1, loopback", "[::ffff:127.0.0.1]", "[::FFFF:7F00:1]", "[0:0:0:0:0:ffff:7f00:0001]"),
    *literals("IPv4-mapped 169.254.169.254, link-local", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]"),
    *literals("IPv4-compatible", "[::127.0.0.1]", "[::7f00:1]", "[::8.8.8.8]"),
    *literals("IPv4-translated", "[::ffff:0:127.0.0.1]", "[::ffff:0:7f00:1]"),
    *literals("NAT64 of 127.0.0.1, loopback", "[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]"),
    *literals("NAT64 of 10.0.0.1, private", "[64:ff9b::10.0.0.1]"),
    *literals("NAT64 of local use", "[64:ff9b:1::7f00:1]", "[64:ff9b:1:7f00:0:100::]", "[64:ff9b:1::8.8.8.8]"),
    *literals("6to4 of 127.0.0.1, loopback", "[2002:7f00:1::]", "[2002:7f00:0001::1]"),
    *literals("6to4 of 10.0.0.1, private", "[2002:a00:1::]"),
    *literals("6to4 of 169.254.169.254", "[2002:a9fe:a9fe::]"),
    *literals("Teredo", "[2001::1]", "[2001:0:7f00:1::]", "[2001:0:4136:e378:8000:63bf:80ff:fffe]"),
    *literals("ISATAP of 127.0.0.1, loopback", "[2606:4700::5efe:127.0.0.1]", "[2606:4700::5efe:7f00:1]"),
    *literals("ISATAP of 10.0.0.1, private", "[2606:4700::200:5efe:10.0.0.1]"),
    *literals("unique local", "[fc00::1]", "[fd00::1]", "[fd00:ec2::254]", "[fd20:ce::254]"),
    *literals("link-local", "[fe80::1]", "[febf::1]", "[fe80::a9fe:a9fe]"),
    *literals("site-local", "[fec0::1]", "[feff::1]"),
    *literals("multicast", "[ff02::1]", "[ff0e::1]"),
    *literals("documentation", "[2001:db8::1]", "[3fff::1]"),
    *literals("protocol assignments", "[2001:2::1]", "[2001:10::1]", "[2001:20::1]"),
    *literals("discarded", "[100::1]"),
    *literals("of no public range", "[5f00::1]", "[200::1]", "[4000::1]", "[64:ff9b:2::1]"),
]
NAMES = [
    *urls(NAME, "http://localhost/", "http://LocalHost:80/", "http://localhost./", "http://a.b.localhost/"),
    *urls(NAME, "https://localhost.localdomain/", "http://printer.local/", "http://router.home.arpa/"),
    *urls(NAME, "http://metadata.google.internal/computeMetadata/v1/", "http://METADATA.GOOGLE.INTERNAL./"),
]
FORMS = [
    *urls(FORM, "", "x.example", "//127.0.0.1/", "http:127.0.0.1/", "http:/127.0.0.1/", "http://", "http:///127.0.0.1"),
    *urls(FORM, "http:////127.0.0.1/", "http://?x", "http://#x", "http//127.0.0.1/", ":80", "https:x.example"),
    *urls(FORM, "ftp://x.example/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "ws://x.example/"),
    *urls(FORM, "javascript:alert(1)", "data:,x", "unix:///tmp/x", "dict://127.0.0.1/", "http+unix://x/", "xhttp://x/"),
    *urls(SECRETS, "http://user@x.example/", "http://user:pw@x.example/", "http://good.example@127.0.0.1/"),
    *urls(SECRETS, "http://127.0.0.1@good.example/", "http://good.example:80@127.0.0.1/", "http://@127.0.0.1/"),
    *urls(SECRETS, "http://good.example%2f@127.0.0.1/", "http://a@b@127.0.0.1/", "http://:@127.0.0.1/"),
    *urls(SECRETS, "http://[::1]@good.example/", "http://good.example;@127.0.0.1/"),
    *urls(PORT, "http://x.example:0/", "http://x.example:65536/", "http://x.example:99999/", "http://x.example:/"),
    *urls(PORT, "http://x.example:http/", "http://x.example:-1/", "http://x.example:+80/", "http://x.example:8_0/"),
    *urls(PORT, "http://x.example:080/", "http://x.example:80:80/", "http://x.example:80%20/", "http://[::1]:x/"),
    *urls(PORT, "http://x.example:0x50/", "http://x.example:80.0/", "http://127.0.0.1:99999999999999999999/"),
    *urls(HOST, "http://127%2e0%2e0%2e1/", "http://%31%32%37.0.0.1/", "http://localhos%74/", "http://x.example%00/"),
    *urls(HOST, "http://x.example%0d%0aX/", "http://127.0.0.1%09/", "http://127.0.0.1%2f.good.example/"),
    *urls(HOST, "http://127.0.0.1../", "http://localhost../", "http://.127.0.0.1/", "http://127..1/", "http://./"),
    *urls(HOST, "http://x..example/", "http://.x.example/", "http://good.example,127.0.0.1/", "http://a&b.example/"),
    *urls(HOST, "http://*.example/", "http://x.example;/", "http://$HOST/", "http://{x}.example/", "http://x!y/"),
    *urls(HOST, "http://" + "a" * 64 + ".example/", "http://" + "a." * 127 + "example/", "http://<x>/", "http://x|y/"),
    *urls(HOST, "http://fe80%25lo/", "http://'127.0.0.1'/", 'http://"x"/', "http://x=y/", "http://~/"),
    *urls(ONE_HOST, "http://::1/", "http://[::1/", "http://::1]/", "http://[::1]x/", "http://x[::1]/"),
    *urls(ONE_HOST, "http://[[::1]]/", "http://[::1].good.example/", "http://[::1][::1]/", "http://:80/"),
    *urls(V6_FORM, "http://[fe80::1%25lo]/", "http://[fe80::1%lo]/", "http://[::1%250]/", "http://[2606:4700::1%1]/"),
    *urls(V6_FORM, "http://[]/", "http://[127.0.0.1]/", "http://[localhost]/", "http://[v1.x]/", "http://[::1%]/"),
    *urls(V6_FORM, "http://[::ffff:127.1]/", "http://[::ffff:0x7f.0.0.1]/", "http://[1:2]/", "http://[:::1]/"),
    *urls(V6_FORM, "http://[::12345]/", "http://[0:0:0:0:0:0:0:0:1]/", "http://[::ffff:0127.0.0.1]/"),
    *urls(NUMBERS, "http://8.8.8/", "http://134744072/", "http://0x8.8.8.8/", "http://010.010.010.010/"),
    *urls(NUMBERS, "http://4294967296/", "http://6425673729/", "http://256.0.0.1/", "http://127.0.0.256/"),
    *urls(NUMBERS, "http://127.0.0.0.1/", "http://127.0.0.1.0x/", "http://0x/", "http://x.example.1/"),
    *urls(NUMBERS, "http://1.2.3.x.0x7/"),
    *urls(NUMBERS, "http://09.0.0.1/", "http://0x17f000001/", "http://127.0.65536/", "http://127.16777216/"),
    *urls(CHARS, "http://x.example/\r\nX-Evil: 1", "http://x.example\r\n/", "http://x.example/\n"),
    *urls(CHARS, "http://x.example/\r"),
    *urls(CHARS, "http://127.0.0.1\t/", "ht\ttp://127.0.0.1/", "http://x.ex\tample/", "\thttp://x.example/"),
    *urls(CHARS, "http://x/ a"),
    *urls(CHARS, " http://x.example/", "http://x.example/ ", "http://x.example/\x00"),
    *urls(CHARS, "http://x.example\x00.good.example/"),
    *urls(CHARS, "http://x.example/\x7f", "http://x.example/\x1b[2J", "http://x.example\\@127.0.0.1/"),
    *urls(CHARS, "http:\\\\x.example\\"),
    *urls(CHARS, "http://127.0.0.1\\.good.example/", "http:/\\127.0.0.1/", "http://x.example/\x0b"),
    *urls(CHARS, "http://x.example/?a=\n"),
    *urls(ASCII, *(f"http://127{dot}0{dot}0{dot}1/" for dot in "\u3002\uff0e\uff61\u2024")),
    *urls(ASCII, "http://\uff11\uff12\uff17.0.0.1/", "http://\u2460\u2461\u2466.0.0.1/"),
    *urls(ASCII, "http://\u0661\u0662\u0667.0.0.1/"),
    *urls(ASCII, "http://loc\u24d0lhost/", "http://\uff4cocalhost/", "http://x.example\uff0f@127.0.0.1/"),
    *urls(ASCII, "http://x\u00ad.example/"),
    *urls(ASCII, "http://x.example\uff03@127.0.0.1/", "http://x.example/\u010d\u010a", "http://x\u200b.example/"),
    *urls(ASCII, "http://\udc80/"),
    *urls(f"at most {MAX_URL_CHARS} characters", "http://x.example/" + "x" * MAX_URL_CHARS),
]  # fmt: skip
REFUSED = [*ADDRESSES, *NAMES, *FORMS]

PUBLIC = [
    "http://93.184.216.34/", "http://93.184.216.34:8080/hook", "https://[2606:4700::1111]/",
    "https://[2606:4700:0:0:0:0:0:1111]:8443/x", "http://[::ffff:93.184.216.34]/", "http://[64:ff9b::93.184.216.34]/",
    "http://[2002:5db8:d822::1]/", "https://shop.example", "https://shop.example/hooks/media",
    "https://shop.example:8443/hooks?shop=7&x=%20", "https://shop.example?x=1", "https://shop.example/#part",
    "HTTPS://Shop.Example/Hooks", "https://shop.example./", "http://xn--bcher-kva.example/", "http://xn--p1ai/",
    "https://my_shop.example/", "https://a--b.example/", "https://1e100.example/", "https://0x7f.example/",
    "https://127.0.0.1.example/", "http://10.0.0.1.nip.example/", "https://0x7g/", "http://1x/",
    "https://shop.example/a%2Fb/%0d%0a", "https://shop.example/@me:x/;v=1?u=a@b&c=[1]", "http://shop.example:1/",
    "http://shop.example:65535/", "http://notlocalhost/", "https://localhost.example/", "https://mylocal/",
    "https://internal.example/", "https://" + "a" * 63 + ".example/", "https://x.example/?url=http://127.0.0.1/",
    "https://x.example#@127.0.0.1/", "https://x.example?@127.0.0.1/", "https://x.example/http://[::1]/",
]  # fmt: skip
ALLOWED = ["http://127.0.0.1:9000/hook", "http://[::1]:9000/", "http://localhost/", "http://my_service:8080/", *PUBLIC]


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_what_is_not_public_is_refused_with_its_reason(url: str, reason: str) -> None:
    """Each spelling of a private place, and each form that is no plain web address."""
    assert reason in (url_fault(url, allow_private=False) or "")


@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_a_request_is_refused_with_the_field_named(url: str, reason: str) -> None:
    """A request with such a destination comes back with the field and the same words."""
    if "\udc80" in url:
        reason = "plain JSON"  # no text at all: refused before it is a URL
    with pytest.raises(InvalidRequest) as refused:
        read_request({"kind": "video", "input": {}, "webhook_url": url}, allow_private=False)
    assert [(fault.field, reason in fault.message) for fault in refused.value.faults] == [("webhook_url", True)]


@pytest.mark.parametrize(("url", "reason"), [*ADDRESSES, *NAMES])
def test_who_is_refused_a_private_place_learns_what_allows_it(url: str, reason: str) -> None:
    """The words name the setting, and whoever has set it gets through with every plain spelling."""
    assert "WEBHOOK_ALLOW_PRIVATE=true" in (url_fault(url, allow_private=False) or "")
    assert url_fault(url, allow_private=True) is None or NUMBERS in (url_fault(url, allow_private=True) or ""), reason


@pytest.mark.parametrize(("url", "reason"), FORMS)
def test_a_wrong_form_is_refused_where_private_is_allowed(url: str, reason: str) -> None:
    """Nothing can be injected, and nothing be read in two ways, whatever may be connected to."""
    assert reason in (url_fault(url, allow_private=True) or "")


@pytest.mark.parametrize("url", PUBLIC)
def test_public_destinations_pass(url: str) -> None:
    """Names, whatever they resolve to later, and public literals are fine."""
    assert url_fault(url, allow_private=False) is None
    assert read_request({"kind": "video", "input": {}, "webhook_url": url}, allow_private=False)


@pytest.mark.parametrize("url", ALLOWED)
def test_private_passes_where_allowed(url: str) -> None:
    """For development and inner networks."""
    assert url_fault(url, allow_private=True) is None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%25eth0", "192.0.2.1", "240.0.0.1", "::ffff:192.168.0.1"])
def test_resolved_addresses_are_judged_too(address: str) -> None:
    """What a name leads to is held to the same rule, by the same words."""
    assert not is_public(address)
    assert "a non-public address (" in (address_fault(address) or "")


@pytest.mark.parametrize("address", ["", "x", "1", "127.1", "::1::", "%lo", "93.184.216.34 ", "0x7f.0.0.1"])
def test_what_is_no_address_is_not_public(address: str) -> None:
    """A resolver may answer nonsense: it is not connected to."""
    assert "no address" in (address_fault(address) or "")


def test_no_address_is_public_that_the_standard_library_calls_private() -> None:
    """At both ends of every network we name, and just beside it, ours is never the laxer judgement.

    Relays that embed a public address are left out: there the library judges the relay, and differently by version.
    """
    constants = vars(ipaddress)["_IPv4Constants"], vars(ipaddress)["_IPv6Constants"]
    networks: list[Any] = [*_V4, *_V6, *(network for kind in constants for network in kind._private_networks)]
    seen = 0
    for network in networks:
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, last, last + 1):
            with suppress(ipaddress.AddressValueError):
                ip = type(network.network_address)(number)
                inner = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
                seen += 1
                assert not is_public(str(ip)) or inner or not (ip.is_private or ip.is_multicast or ip.is_reserved), ip
    assert seen > 150


# Who reads the URL later must read the same host: the standard library (diagnosis), httpx and yarl (delivery).


def readings(url: str) -> set[tuple[str, int | None]]:
    """Read host and port in every way that this project, or what it stands on, reads them."""
    parts, sent, known = urlsplit(url), httpx.URL(url), {"http": 80, "https": 443}[urlsplit(url).scheme]
    way = URL(str(sent), encoded=True)
    found = [
        (str(parts.hostname), parts.port), (sent.raw_host.decode(), sent.port), (str(way.raw_host), way.port),
        (str(URL(url).raw_host), URL(url).port), (str(URL(url, encoded=True).raw_host), URL(url, encoded=True).port),
    ]  # fmt: skip
    return {(_canonical(host), port or known) for host, port in found}


def _canonical(host: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host.lower()


PIECES = [
    "http", "https", "://", ":", "/", "//", "@", "?", "#", "[", "]", "%", "%25", "%2e", "%00", "%0d%0a", ".", "..",
    "-", "_", "127.0.0.1", "0x7f", "0177", "1", "0", "2130706433", "::1", "::ffff:7f00:1", "fe80::1",
    "2606:4700::1111", "lo", "localhost", "x.example", "good", "xn--", "xn--bcher-kva", "xn--a", "80", "65535",
    "65536", ";", "&", "=", "+", "~", "!", "\\", "\t", "\n", " ", "\x00", "\u3002", "\uff11", "\u2460", "<", ">",
    '"', "'", "`", "|", "^", "{", "}", "$", ",", "*", "(",
]  # fmt: skip


@settings(max_examples=3000, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.sampled_from(["http://", "https://", "HTTP://", ""])
)
@example("x.example?@127.0.0.1", "http://")
@example("x.example#@127.0.0.1", "http://")
@example("xn--a/", "http://")
@example("-", "http://")
def test_what_is_accepted_has_one_host_for_every_reader(rest: str, start: str) -> None:
    """Pieces of URLs in any order: what passes is read alike by all, and as what was checked."""
    url = start + rest
    if url_fault(url, allow_private=True) is None:
        assert len(readings(url)) == 1
    if url_fault(url, allow_private=False) is None:
        ((host, _),) = readings(url)
        assert host.rstrip(".") != "localhost"
        with suppress(ValueError):
            assert is_public(str(ipaddress.ip_address(host.rstrip("."))))


PLACES = [
    "http://{}/", "http://x{}.example/", "http://x.example{}/", "http://1{}2.0.0.1/", "http://x.example:8{}0/",
    "http://[::{}1]/", "http://[::1{}]/", "http://[::1]{}/", "http:/{}/x.example/", "htt{}p://x.example/",
    "http://x.example/{}", "{}http://x/",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_character_anywhere_makes_two_readings(place: str) -> None:
    """Every character of ASCII, alone and before one that divides, at each place that matters."""
    for one in map(chr, range(128)):
        for text in (one, *(one + other for other in "/?#@:[].%\\")):
            url = place.format(text)
            if url_fault(url, allow_private=True) is None:
                assert len(readings(url)) == 1, url


@pytest.mark.parametrize("url", PUBLIC)
def test_good_destinations_have_one_host_for_every_reader(url: str) -> None:
    """The good ones, too, and a request can be made of each."""
    assert len(readings(url)) == 1
    assert re.fullmatch(r"[\x21-\x7e]+", httpx.Request("POST", url).headers["Host"])


def test_the_default_destination_is_held_to_the_same() -> None:
    """WEBHOOK_URL is refused at start, by name, with the reason."""
    with pytest.raises(SettingsError, match=r"WEBHOOK_URL: points to a non-public address \(127\.0\.0\.1\), loopback"):
        load_settings({"WEBHOOK_URL": "http://2130706433/hook"})
