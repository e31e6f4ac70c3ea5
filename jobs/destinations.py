"""Owns the question whether a webhook may be sent somewhere: the URL's form, and which addresses are public.

Used twice: at enqueue on the URL (a literal address is refused at once), and by the delivery transport's resolver on
each address a name resolves to, just before it connects. Sources: IANA's special-purpose registries as Python's
``ipaddress`` carries them; RFC 4291 (mapped), RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4380 (Teredo).
"""

import hashlib
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_URL_CHARS = 2048

_ALLOWING = "WEBHOOK_ALLOW_PRIVATE=true allows it"
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".home.arpa")


def url_fault(url: str, *, allow_private: bool) -> str | None:
    """Say what is wrong with a webhook URL, or None. Names are not resolved here."""
    if len(url) > MAX_URL_CHARS:
        return f"must be at most {MAX_URL_CHARS} characters"
    if not url.isascii():  # others read look-alike dots and digits as an address
        return "must be ASCII: write an international name in punycode and percent-encode the rest"
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in url) or "\\" in url:
        return "must not contain spaces, control characters or backslashes"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return "must be an http or https URL with a host"
    if "@" in parts.netloc:
        return "must not carry credentials"
    if allow_private:
        return None
    return _host_fault(host)


def _host_fault(host: str) -> str | None:
    name = host.rstrip(".").lower()
    if any(name == local.lstrip(".") or name.endswith(local) for local in _LOCAL_NAMES):
        return f"points to a private name ({host}); {_ALLOWING}"
    literal = _literal(name)
    if literal is None:
        return None
    return None if is_public(literal) else f"points to a non-public address ({literal}); {_ALLOWING}"


def _literal(host: str) -> str | None:
    """Read a host as an address the way a resolver would: dotted, decimal, octal or hex; None for a name."""
    try:
        return str(ipaddress.ip_address(host.split("%", 1)[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def is_public(address: str) -> bool:
    """Tell whether an address is globally reachable, looking through every form that embeds an IPv4 address."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if any(ip in network for network in _NAT64):
            embedded.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if ip in ipaddress.IPv6Network("::/96"):
            return False
        found = [inner for inner in embedded if inner is not None]
        if found:
            return all(is_public(str(inner)) for inner in found)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


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
            host = parts.hostname or ""
        except ValueError:
            return cls("", "")
        return cls(f"{parts.scheme}://{host}:{port}{parts.path or '/'}", host)
