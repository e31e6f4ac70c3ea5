"""Where webhooks may go."""

import pytest

from jobs.destinations import is_public, url_fault

REFUSED = """http://127.0.0.1/ http://127.1/ http://0/ http://0.0.0.0/ http://2130706433/ http://0x7f000001/
http://0177.0.0.1/ http://017700000001/ http://10.0.0.1/ http://172.16.0.1/ http://192.168.1.1/ http://169.254.169.254/
http://100.64.0.1/ http://198.18.0.1/ http://224.0.0.1/ http://255.255.255.255/ http://[::1]/ http://[::]/
http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[::127.0.0.1]/ http://[fe80::1]/ http://[fc00::1]/
http://[fd00:ec2::254]/ http://[ff02::1]/ http://[64:ff9b::7f00:1]/ http://[64:ff9b::10.0.0.1]/ http://[2002:7f00:1::]/
http://[2002:a00:1::]/ http://[2001:db8::1]/ http://localhost/ http://LOCALHOST/ http://localhost./ http://x.localhost/
http://printer.local/ http://metadata.google.internal/ http://router.home.arpa/ ftp://x.example/ file:///etc/passwd
gopher://x.example/ http:/// http://user@x.example/ http://user:pw@x.example/ http://x.example:0/ http://x.example:99999/
javascript:alert(1) http://x.example\\@127.0.0.1/ //x.example/ x.example""".split()  # noqa: SIM905


LOOK_ALIKES = [f"http://127{dot}0{dot}0{dot}1/" for dot in "\u3002\uff0e\uff61"]  # read as dots by IDNA


@pytest.mark.parametrize("url", [*REFUSED, *LOOK_ALIKES])
def test_what_is_not_public_is_refused_with_a_reason(url: str) -> None:
    """Each spelling of a private place, and each form that is no plain web address."""
    assert url_fault(url, allow_private=False)


@pytest.mark.parametrize(
    "url", ["http://x.example/\r\nX: y", "http://x.example/ a", "http://x.example/\x00", "http://" + "x" * 3000]
)
def test_what_could_be_injected_is_refused_even_where_private_is_allowed(url: str) -> None:
    """Control characters and overlong URLs never pass."""
    assert url_fault(url, allow_private=True)


@pytest.mark.parametrize(
    "url", ["https://shop.example/hooks?x=1", "http://93.184.216.34:8080/", "https://[2606:4700::1111]/"]
)
def test_public_destinations_pass(url: str) -> None:
    """Names and public literals are fine."""
    assert url_fault(url, allow_private=False) is None


def test_private_passes_where_allowed() -> None:
    """For development and inner networks."""
    assert url_fault("http://127.0.0.1:9000/hook", allow_private=True) is None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "192.0.2.1", "240.0.0.1", "::ffff:192.168.0.1", "2001::1"])
def test_resolved_addresses_are_judged_too(address: str) -> None:
    """What a name leads to is held to the same rule."""
    assert not is_public(address)
