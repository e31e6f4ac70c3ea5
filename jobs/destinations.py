"""Owns the question whether a webhook may be sent somewhere: the URL's form, and which addresses are public.

Used twice: at enqueue on the URL (a literal address is refused at once), and by the delivery's transport on each
address it is about to connect to. A host is taken only in a form that no two readers of URLs can read differently.
Which addresses are public is a table of our own, so that it is the same under every Python: ``ipaddress`` takes
site-local ones for global, and has changed its mind about others. Sources: IANA's special-purpose registries; RFC 4291
(mapped), 6052 and 8215 (NAT64), 3056 (6to4), 4380 (Teredo), 5214 (ISATAP); Microsoft's page on 168.63.129.16; for
numbers in the place of a name the WHATWG's URL standard, which takes a host whose last label is one for an address.
"""

import hashlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

MAX_URL_CHARS = 2048
MAX_HOST_CHARS = 253

_ALLOWING = "WEBHOOK_ALLOW_PRIVATE=true allows it"
_LOCAL_NAMES = (".localhost", ".localdomain", ".local", ".internal", ".home.arpa")

_URL = re.compile(r"https?://(?P<authority>[^/?#]+)(?:[/?#].*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<name>[^:\[\]]+))(?::(?P<port>.*))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_NAME = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_V4 = {
    IPv4Network(network): kind
    for network, kind in {
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by a carrier (CGNAT)",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "cloud metadata",
        "169.254.0.0/16": "link-local, cloud metadata",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "protocol assignments",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relays",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarks",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
    }.items()
}
_V6 = {
    IPv6Network(network): kind
    for network, kind in {  # the first that fits
        "::/128": "unspecified",
        "::1/128": "loopback",
        "::/96": "IPv4-compatible",
        "::ffff:0:0:0/96": "IPv4-translated",
        "64:ff9b:1::/48": "NAT64 of local use",
        "100::/64": "discarded",
        "2001::/32": "Teredo",
        "2001::/23": "protocol assignments",
        "2001:db8::/32": "documentation",
        "3fff::/20": "documentation",
        "fc00::/7": "unique local",
        "fe80::/10": "link-local",
        "fec0::/10": "site-local",
        "ff00::/8": "multicast",
    }.items()
}
_MAPPED, _NAT64, _6TO4 = IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")
_V6_PUBLIC = (IPv6Network("2000::/3"), _MAPPED, _NAT64)
_ISATAP = {0x0000_5EFE, 0x0200_5EFE}


def url_fault(url: str, *, allow_private: bool) -> str | None:
    """Say what is wrong with a webhook URL, or None. Names are not resolved here."""
    if len(url) > MAX_URL_CHARS:
        return f"must be at most {MAX_URL_CHARS} characters"
    if not url.isascii():  # others read look-alike dots and digits as an address
        return "must be ASCII: write an international name in punycode and percent-encode the rest"
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        return "must not contain spaces, control characters or backslashes"
    form = _URL.fullmatch(url)
    if form is None:
        return "must be an http or https URL with a host"
    if "@" in form["authority"]:
        return "must not carry credentials"
    parts = _AUTHORITY.fullmatch(form["authority"])
    if parts is None:
        return "must have one host and at most one port, and an IPv6 address in brackets"
    port = parts["port"]
    if port is not None and not (_PORT.fullmatch(port) and int(port) <= 0xFFFF):
        return "must have a port from 1 to 65535 after the colon, or no colon"
    return _name_fault(parts["name"], allow_private) if parts["v6"] is None else _v6_fault(parts["v6"], allow_private)


def _v6_fault(text: str, allow_private: bool) -> str | None:  # noqa: FBT001 - passed on
    try:
        ip = IPv6Address(text)
    except AddressValueError:
        ip = None
    if ip is None or ip.scope_id is not None:
        return "must have an IPv6 address in its brackets, without a zone"
    return None if allow_private else _pointing(ip)


def _name_fault(name: str, allow_private: bool) -> str | None:  # noqa: FBT001 - passed on
    if len(name) > MAX_HOST_CHARS or not _NAME.fullmatch(name):
        return "must have a host of labels of 1-63 letters, digits, '-' and '_', with single dots between them"
    name = name.removesuffix(".").lower()
    if not allow_private and f".{name}".endswith(_LOCAL_NAMES):
        return f"points to a private name ({name}); {_ALLOWING}"
    if not _NUMBER.fullmatch(name.rpartition(".")[2]):
        return None
    ip = _loosely_read(name)
    if ip is not None and not allow_private and (fault := _pointing(ip)):
        return fault
    return None if str(ip) == name else "must spell an IPv4 address as four decimal numbers, and no name like one"


def _loosely_read(host: str) -> IPv4Address | None:
    """Read an address as old resolvers do: in one to four parts, each decimal, octal or hex."""
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _pointing(ip: IPv4Address | IPv6Address) -> str | None:
    return f"points to {fault}" if (fault := address_fault(str(ip))) else None


def is_public(address: str) -> bool:
    """Tell whether an address is globally reachable, looking through every form that embeds an IPv4 address."""
    return address_fault(address) is None


def address_fault(address: str) -> str | None:
    """Say what an address is that is not public, or None; what is no address is not public."""
    try:
        ip = ip_address(address.split("%", 1)[0])
    except ValueError:
        return f"something that is no address ({address[:MAX_HOST_CHARS]!r})"
    kind = _v4_kind(ip) if isinstance(ip, IPv4Address) else _v6_kind(ip)
    return f"a non-public address ({ip}), {kind}; {_ALLOWING}" if kind else None


def _v4_kind(ip: IPv4Address) -> str | None:
    return next((kind for network, kind in _V4.items() if ip in network), None)


def _v6_kind(ip: IPv6Address) -> str | None:
    for form, inner in _embedded(ip):
        if kind := _v4_kind(inner):
            return f"{form} {inner}, {kind}"
    if kind := next((kind for network, kind in _V6.items() if ip in network), None):
        return kind
    return None if any(ip in network for network in _V6_PUBLIC) else "of no public range"


def _embedded(ip: IPv6Address) -> Iterator[tuple[str, IPv4Address]]:
    bits = int(ip)
    if ip in _MAPPED:
        yield "IPv4-mapped", IPv4Address(bits & 0xFFFF_FFFF)
    if ip in _NAT64:
        yield "NAT64 of", IPv4Address(bits & 0xFFFF_FFFF)
    if ip in _6TO4:
        yield "6to4 of", IPv4Address(bits >> 80 & 0xFFFF_FFFF)
    if bits >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield "ISATAP of", IPv4Address(bits & 0xFFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where webhooks go: scheme, host, port and path. ``id`` is short and fit for a key."""

    name: str
    host: str

    @property
    def id(self) -> str:
        """Name it shortly."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @classmethod
    def of(cls, url: str) -> "Destination":
        """Read it out of a webhook's URL; of a text that is none, it is a destination of its own, of no host."""
        try:
            parts = urlsplit(url)
            port = parts.port or (443 if parts.scheme == "https" else 80)
            host = (parts.hostname or "").rstrip(".")
        except ValueError:
            return cls("", "")
        return cls(f"{parts.scheme}://{host}:{port}{parts.path or '/'}", host)
