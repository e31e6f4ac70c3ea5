"""Who gets in: tokens, loopback names, and what a browser says about the page that asks."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from config.settings import ApiToken
from worker.web.guard import Guard, Tokens, from_elsewhere, is_loopback

TOKENS = [ApiToken("shop", "s3cret-of-the-shop"), ApiToken("token-2", "x")]
PRINTABLE = st.text(string.ascii_letters + string.digits + string.punctuation, min_size=1)


@pytest.mark.parametrize(
    "authority",
    [
        "localhost", "LocalHost:8000", "127.0.0.1", "127.0.0.1:65535", "127.9.8.7:1", "[::1]", "[::1]:8000",
        "[0:0:0:0:0:0:0:1]:80", "localhost:",
    ],
)  # fmt: skip
def test_loopback_names(authority: str) -> None:
    """Every way to write this machine is let in."""
    assert is_loopback(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "", "example.com", "localhost.example.com", "127.0.0.1.example.com", "127.0.0.1@example.com:80", "128.0.0.1",
        "0.0.0.0", "10.0.0.1", "[::]", "[fe80::1]", "[::ffff:8.8.8.8]", "::1", "127.1", "127.0.0.01", "2130706433",
        "localhost:80:80", "localhost:port", "localhost/..", "localhost, example.com", " localhost", "localhost\n",
        "localh\u00f6st", "[localhost", ":8000",
    ],
)  # fmt: skip
def test_other_names(authority: str) -> None:
    """Whatever is not plainly this machine is another, and names that begin or end like it are."""
    assert not is_loopback(authority)


@given(st.ip_addresses(v=4))
def test_only_127_is_loopback(address: object) -> None:
    """Of all IPv4 addresses those of 127.0.0.0/8 are let in."""
    assert is_loopback(f"{address}:8000") == str(address).startswith("127.")


@given(st.text(max_size=40))
def test_any_authority_is_judged(authority: str) -> None:
    """No Host header and no Origin makes the guard stumble."""
    assert is_loopback(authority) in {True, False}
    assert from_elsewhere(Headers({"origin": authority.encode("utf-8", "replace").decode("latin-1")})) in {True, False}


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "https://127.0.0.1"}, False),
        ({"origin": "http://[::1]:8000", "sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "http://localhost:8000", "sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "Cross-Site"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "http://localhost.evil.example"}, True),
        ({"origin": "http://localhost@evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": ""}, True),
        ({"origin": "http://["}, True),
        ({"origin": "chrome-extension://localhost"}, True),
    ],
)
def test_pages_of_elsewhere(headers: dict[str, str], *, elsewhere: bool) -> None:
    """A page may ask if its own address is on this machine and the browser does not call it cross-site."""
    assert from_elsewhere(Headers(headers)) is elsewhere


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_each_token_names_its_holder(scheme: str) -> None:
    """Any of the tokens is good, however its scheme is written."""
    tokens = Tokens(TOKENS)
    assert tokens.holder([f"{scheme} s3cret-of-the-shop"]) == "shop"
    assert tokens.holder([f"{scheme} x"]) == "token-2"


@pytest.mark.parametrize(
    "authorization",
    [
        [], [""], ["Bearer"], ["Bearer "], ["Basic s3cret-of-the-shop"], ["s3cret-of-the-shop"],
        ["Bearer s3cret-of-the-sho"], ["Bearer s3cret-of-the-shopp"], ["Bearer S3CRET-OF-THE-SHOP"], ["Bearer x y"],
        ["Bearer x", "Bearer x"], ["Bearer \u00ff"], ["Bearer shop:s3cret-of-the-shop"],
    ],
)  # fmt: skip
def test_nothing_else_is_a_token(authorization: list[str]) -> None:
    """A token is good whole and alone, or not at all."""
    assert Tokens(TOKENS).holder(authorization) is None


@given(PRINTABLE, PRINTABLE)
def test_tokens_of_any_length(token: str, other: str) -> None:
    """A token lets in whoever has it, whatever it looks like, and nobody else."""
    tokens = Tokens([ApiToken("only", token)])
    assert tokens.holder([f"Bearer {token}"]) == "only"
    assert tokens.holder([f"Bearer {other}"]) == ("only" if other == token else None)


async def test_web_sockets_do_not_pass_by() -> None:
    """What is not HTTP never reaches the app behind the guard."""
    reached = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        reached.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None:
        raise AssertionError

    guard = Guard(app, None)
    await guard({"type": "websocket", "path": "/healthz", "headers": []}, receive, send)
    await guard({"type": "lifespan"}, receive, send)
    assert reached == ["lifespan"]
