"""Owns the session of a browser: a cookie that stands for a token without containing it.

Nothing is kept. The cookie says when it ends, with a code over that which is keyed by the token: every web process can
check it, and it dies with its token. Signing out takes it from the browser; a copy of it lives until it ends.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from config.settings import ApiToken

COOKIE = "onysoft_session"
LASTS_S = 12 * 3600
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_VALUE = re.compile(r"([0-9]{1,12})\.([0-9a-f]{64})")


class Sessions:
    """The sessions that the tokens allow. Compared with all of them each time: the time taken tells nothing."""

    def __init__(self, tokens: Sequence[ApiToken]) -> None:
        self._tokens = tokens

    def holder(self, headers: Headers, now_s: float) -> str | None:
        """Name the holder of the token that the request's cookie stands for, None where there is no good one."""
        parts = _VALUE.fullmatch(cookie_parser("; ".join(headers.getlist("cookie"))).get(COOKIE, ""))
        if parts is None or int(parts[1]) <= now_s:
            return None
        found = None
        for held in self._tokens:
            if hmac.compare_digest(_code(held.token, parts[1]), parts[2]):
                found = held.name
        return found


def issue(token: str, now_s: float) -> str:
    """Make the value of the cookie for a token that is good."""
    ends = str(int(now_s) + LASTS_S)
    return f"{ends}.{_code(token, ends)}"


def set_cookie(value: str, *, lasts_s: int, secure: bool) -> str:
    """Write the header that has a browser keep the cookie; one that lasts no time is dropped."""
    words = f"{COOKIE}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict"
    return f"{words}; Secure" if secure else words


def by_own_page(headers: Headers) -> bool:
    """Tell whether a browser says that a page of this very server makes the request.

    Browsers say so in Sec-Fetch-Site where they trust the connection, and elsewhere by an Origin that is our Host.
    """
    sites = headers.getlist("sec-fetch-site")
    if sites:
        return sites == ["same-origin"]
    origins, hosts = headers.getlist("origin"), headers.getlist("host")
    return len(origins) == len(hosts) == 1 and origins[0] in {f"http://{hosts[0]}", f"https://{hosts[0]}"}


def came_by_https(headers: Headers, scheme: str) -> bool:
    """Tell whether the browser's side of the connection is https, also behind a proxy that speaks http to us."""
    forwarded = headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    return "https" in {scheme, forwarded} or headers.get("origin", "").startswith("https://")


def _code(token: str, ends: str) -> str:
    return hmac.new(token.encode(), f"onysoft-worker session until {ends}".encode(), hashlib.sha256).hexdigest()
