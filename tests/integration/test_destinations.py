"""Where webhooks do go: names under a DNS server of the test's own, proxies, redirects, damaged deliveries.

The machine's look-up of names ending in `.test` is led to that server; all else of a worker is as it runs anywhere.
"""

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from harness import API_KEY, Bench, Receiver, eventually

from jobs.destinations import address_fault
from worker.actions import cancel
from worker.outbox import Delivery
from worker.transport import NOT_SENT, Transport, read_capped

A, AAAA = 1, 28
UNROUTED = "3ffe::1"  # of a range that went back to IANA: public by any rule, and nobody is there
NEIGHBOUR = "127.0.0.2"  # stands for a public address where one must answer
PRIVATE = pytest.mark.env(WEBHOOK_ALLOW_PRIVATE="false", WEBHOOK_TIMEOUT_S="1")


@dataclass
class Zone(asyncio.DatagramProtocol):
    """A DNS server: for each name the answers to one look-up after the other, the last one again and again."""

    answers: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    port: int = 0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer one question; no time to live, so that each look-up asks again."""
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        name, (kind,) = ".".join(labels), struct.unpack("!H", data[at + 1 : at + 3])
        script = self.answers.get(name, [[]])
        asked = sum(1 for other, of in self.asked if (other, of) == (name, kind))
        self.asked.append((name, kind))
        found = [ip_address(text) for text in script[min(asked, len(script) - 1)]]
        found = [ip for ip in found if ip.version == (4 if kind == A else 6)]
        head = data[:2] + struct.pack("!5H", 0x8180, 1, len(found), 0, 0)
        records = (struct.pack("!3HIH", 0xC00C, kind, 1, 0, len(ip.packed)) + ip.packed for ip in found)
        self.transport.sendto(head + data[12 : at + 5] + b"".join(records), addr)

    def look_up(self, name: str) -> list[str]:
        """Ask the server, over the wire, for both kinds of addresses. Blocks: for a thread."""
        return [address for kind in (A, AAAA) for address in self._ask(name, kind)]

    def _ask(self, name: str, kind: int) -> list[str]:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
        question = labels + b"\0" + struct.pack("!2H", kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(5)
            asking.sendto(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + question, ("127.0.0.1", self.port))
            answer = asking.recv(512)
        (count,), size = struct.unpack("!H", answer[6:8]), 4 if kind == A else 16
        records = answer[12 + len(question) :]
        return [str(ip_address(records[each * (12 + size) + 12 :][:size])) for each in range(count)]


class Names(AbstractResolver):
    """A resolver that asks the test's server."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Ask for both kinds of addresses."""
        found = await asyncio.to_thread(self.zone.look_up, host)
        return [ResolveResult(hostname=host, host=ip, port=port, family=family, proto=0, flags=0) for ip in found]

    async def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
async def zone(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Zone]:
    """Run the DNS server, and have the machine's look-up of names ending in `.test` ask it."""
    loop = asyncio.get_running_loop()
    transport, zone = await loop.create_datagram_endpoint(Zone, local_addr=("127.0.0.1", 0))
    system = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if not isinstance(host, str) or not host.rstrip(".").endswith(".test"):
            return system(host, port, *args, **options)
        if not (found := zone.look_up(host)):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [row for ip in found for row in system(ip, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield zone
    transport.close()


@dataclass
class Listener:
    """A raw server on loopback: how often it was connected to, and what was said to it."""

    port: int
    connections: int = 0
    heard: bytes = b""


@asynccontextmanager
async def listening(
    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Listener]:
    """Run a server that gives one answer to whatever is said to it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        while piece := await reader.read(65536):
            listener.heard += piece
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, host, port)
    listener = Listener(server.sockets[0].getsockname()[1])
    async with server:
        yield listener
        server.close()


async def undelivered(bench: Bench, url: str) -> Delivery:
    """Let a job end, and wait until its webhook is given up."""
    job_id = await bench.submit(webhook_url=url, webhook_events=["job.completed"])

    async def dead() -> Delivery | None:
        rows = await bench.store.outbox.of_job(job_id)
        return rows[0] if rows and rows[0].state == "dead" else None

    async with bench.worker():
        found = await eventually(dead)
    assert isinstance(found, Delivery)
    return found


def said(delivery: Delivery) -> set[str]:
    """Name what the attempts of a delivery came to."""
    return {attempt["answer"] for attempt in delivery.attempts}


@PRIVATE
@pytest.mark.parametrize(
    ("addresses", "named"),
    [
        (["127.0.0.1"], "127.0.0.1"),
        (["10.0.0.1"], "10.0.0.1"),
        ([UNROUTED, "127.0.0.1"], "127.0.0.1"),
        (["127.0.0.1", UNROUTED], "127.0.0.1"),
        (["::1"], "::1"),
        (["::ffff:127.0.0.1"], str(ip_address("::ffff:127.0.0.1"))),
        (["64:ff9b::7f00:1"], "64:ff9b::7f00:1"),
        (["169.254.169.254"], "169.254.169.254"),
        (["0.0.0.0"], "0.0.0.0"),
    ],
)
async def test_name_that_leads_to_a_private_place_is_not_connected_to(
    bench: Bench, zone: Zone, addresses: list[str], named: str
) -> None:
    """One non-public address refuses a name, each attempt says which and what allows it, and nobody is connected to."""
    zone.answers["shop.test"] = [addresses]
    async with listening() as listener:
        delivery = await undelivered(bench, f"http://shop.test:{listener.port}/hook")
    assert listener.connections == 0
    assert len(delivery.attempts) == 3
    (words,) = said(delivery)
    assert f"shop.test resolves to a non-public address ({named})" in words
    assert "WEBHOOK_ALLOW_PRIVATE=true" in words


@PRIVATE
async def test_name_that_turns_private_after_its_check_is_not_connected_to(bench: Bench, zone: Zone) -> None:
    """A name that is public when first asked for and loopback ever after never leads there."""
    zone.answers["rebind.test"] = [[UNROUTED], ["127.0.0.1"]]
    async with listening() as listener:
        delivery = await undelivered(bench, f"http://rebind.test:{listener.port}/hook")
    assert listener.connections == 0
    assert zone.asked.count(("rebind.test", A)) >= 1
    assert {attempt["status"] for attempt in delivery.attempts} == {None}


async def test_address_that_was_checked_is_the_one_connected_to(zone: Zone) -> None:
    """Each connection asks for the name once: what answered is checked, and it alone is connected to."""
    zone.answers["rebind.test"] = [[NEIGHBOUR], ["127.0.0.1"]]
    checked: list[str] = []

    def fault(address: str) -> str | None:
        checked.append(address)
        return None if address == NEIGHBOUR else address_fault(address)

    async with listening() as forbidden, listening(host=NEIGHBOUR, port=forbidden.port) as allowed:
        url = f"http://rebind.test:{forbidden.port}/"
        first, later = (Transport(limit=5, keepalive_s=0, resolver=Names(zone), address_fault=fault) for _ in range(2))
        assert (await read(first, url)) == 200
        assert (zone.asked, checked) == ([("rebind.test", A), ("rebind.test", AAAA)], [NEIGHBOUR])
        assert (await read(first, url)) == 200
        assert checked == [NEIGHBOUR] * 2, "what is remembered of a name is checked again"
        with pytest.raises(NOT_SENT, match=r"rebind\.test resolves to a non-public address \(127\.0\.0\.1\), loopback"):
            await read(later, url)
        await first.aclose()
        await later.aclose()
    assert (allowed.connections, forbidden.connections) == (2, 0)


async def read(transport: Transport, url: str) -> int:
    """Send one request; give the status."""
    response = await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
    await read_capped(response, 100)
    return response.status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0x7f.1", "2130706433", "127.1", "0"])
async def test_address_in_a_url_is_checked_at_the_connection_too(host: str) -> None:
    """Literals pass no resolver, so the connection itself holds them to the rule, whatever was checked before."""
    async with listening() as listener:
        transport = Transport(limit=5, keepalive_s=0, address_fault=address_fault)
        with pytest.raises(NOT_SENT, match=r"non-public address \(.*WEBHOOK_ALLOW_PRIVATE|is not a canonical"):
            await read(transport, f"http://{host}:{listener.port}/")
        await transport.aclose()
    assert listener.connections == 0


async def test_name_is_found_again_after_it_moved_to_a_public_place(zone: Zone) -> None:
    """A refusal is of an answer, not of the name: once it leads elsewhere, deliveries go there."""
    zone.answers["shop.test"] = [["10.0.0.1"], [NEIGHBOUR]]
    async with listening(host=NEIGHBOUR) as listener:
        for expected in ("refused", 200):
            transport = Transport(
                limit=5,
                keepalive_s=0,
                resolver=Names(zone),
                address_fault=lambda address: None if address == NEIGHBOUR else address_fault(address),
            )
            try:
                assert await read(transport, f"http://shop.test:{listener.port}/") == expected
            except NOT_SENT:
                assert expected == "refused"
            await transport.aclose()
    assert listener.connections == 1


@pytest.mark.parametrize("host", ["xn--i-7iq.test", "xn--a.test", "xn--bcher-kva.test", "my_shop.test", "shop.test."])
async def test_odd_names_are_delivered_to(bench: Bench, zone: Zone, receiver: Receiver, host: str) -> None:
    """An emoji in punycode, what is no punycode at all, an underscore, a last dot: all that is accepted is sent to."""
    zone.answers[host.rstrip(".")] = [["127.0.0.1"]]
    job_id = await bench.submit(webhook_url=receiver.url.replace("127.0.0.1", host))

    async def came() -> list[dict[str, Any]]:
        return receiver.of(job_id)

    async with bench.worker():
        assert len(await eventually(came)) == 1


async def test_proxy_of_the_environment_is_not_used(
    bench: Bench, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a webhook nor a submission goes through a proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with listening() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        job_id = await bench.submit()

        async def came() -> list[dict[str, Any]]:
            return receiver.of(job_id)

        async with bench.worker():
            assert (await eventually(came))[0]["data"]["status"] == "completed"
    assert proxy.connections == 0


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirect_is_not_followed_and_counts_as_failure(bench: Bench, status: str) -> None:
    """A destination that points elsewhere, on this machine, has its answer recorded and is tried again as it is."""
    async with listening() as inner:
        head = f"HTTP/1.1 {status}\r\nLocation: http://127.0.0.1:{inner.port}/\r\nContent-Length: 0\r\n\r\n"
        async with listening(head.encode()) as outer:
            delivery = await undelivered(bench, f"http://127.0.0.1:{outer.port}/hook")
    assert inner.connections == 0
    assert [attempt["status"] for attempt in delivery.attempts] == [int(status[:3])] * 3


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda url: url + "\r\nX-Evil: 1\r\n\r\n", "the URL must not contain spaces, control characters"),
        (lambda url: url.replace("http://", "http://x\r\nX-Evil: 1@"), "the URL must not contain spaces"),
        (lambda url: url.replace("http://", "http://x:y@"), "the URL must not carry credentials"),
        (lambda url: url.replace("http://", "//"), "the URL must be an http or https URL"),
        (lambda _: "", "the URL must be an http or https URL"),
    ],
)
async def test_damaged_delivery_sends_nothing_and_says_why(
    bench: Bench, damage: Callable[[str], str], reason: str
) -> None:
    """A destination that was changed in Redis is looked at again before anything is sent there."""
    async with listening() as listener:
        url = f"http://127.0.0.1:{listener.port}/hook"
        job_id = await bench.submit(webhook_url=url)
        await cancel(bench.store, job_id)
        (waiting,) = await bench.store.outbox.of_job(job_id)
        await bench.raw.hset(f"onysoft:delivery:{waiting.id}", "url", damage(url))

        async def recorded() -> list[Delivery]:
            return [row for row in await bench.store.outbox.of_job(job_id) if row.attempts]

        async with bench.worker():
            (delivery,) = await eventually(recorded)
    assert listener.connections == 0
    assert all(words.startswith(reason) for words in said(delivery))


@PRIVATE
async def test_private_literal_in_redis_is_not_connected_to(bench: Bench, zone: Zone) -> None:
    """A delivery whose destination became a private literal after it was taken is refused when it is due."""
    async with listening() as listener:
        zone.answers["shop.test"] = [["10.0.0.1"]]
        job_id = await bench.submit(webhook_url="http://shop.test/hook")
        await cancel(bench.store, job_id)
        (waiting,) = await bench.store.outbox.of_job(job_id)
        await bench.raw.hset(f"onysoft:delivery:{waiting.id}", "url", f"http://127.1:{listener.port}/")

        async def recorded() -> list[Delivery]:
            return [row for row in await bench.store.outbox.of_job(job_id) if row.attempts]

        async with bench.worker():
            (delivery,) = await eventually(recorded)
    assert listener.connections == 0
    assert all("points to a non-public address (127.0.0.1), loopback" in words for words in said(delivery))


async def test_command_line_refuses_a_private_destination(redis_url: str) -> None:
    """`submit --webhook` says what is wrong in one line, with the status of wrong usage."""
    words = ["-m", "worker", "submit", "video", "--input", "prompt=x", "--webhook", "http://10.0.0.1/"]
    environ = {**os.environ, "REDIS_URL": redis_url, "ONYSOFT_API_KEY": API_KEY, "WEBHOOK_ALLOW_PRIVATE": "false"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *words, env=environ, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert b"webhook_url: points to a non-public address (10.0.0.1), private" in err
    assert err.count(b"\n") == 1
