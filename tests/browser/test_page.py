"""The operators' page in a real browser: what an operator does with it, and what the browser says about it."""

import json
from typing import Any

import redis.asyncio
from chromium import Page
from product import directed
from stage import TOKEN, Stage

HOSTILE = "<img src=x onerror=\"document.title='executed'\"><script>document.title='executed'</script>"
SIZES = ((1400, 900), (390, 844))


async def populate(stage: Stage) -> None:
    """Have jobs of several kinds and fates."""
    refusal = {"status": 403, "code": "model_blocked", "message": HOSTILE}
    for number in range(30):
        await stage.api.submit(f"done-{number}", kind="image", input=directed(f"done-{number}", duration_s=0.1))
    hostile = directed("hostile", submit=[refusal]) | {"prompt": HOSTILE}
    await stage.api.submit("hostile", model="wan", input=hostile, metadata={"note": HOSTILE})
    await stage.api.submit("long-film", kind="video", input=directed("long-film", duration_s=600))
    await stage.api.standing("hostile", "failed")
    await stage.api.standing("long-film", "processing")
    await stage.api.standing("done-29", "completed")


async def signed_in(stage: Stage, address: str = "/") -> Page:
    """Sign in by the form, and wait for the jobs."""
    page = stage.page
    await page.go(f"{stage.address}{address}")
    await page.type("#token", TOKEN)
    await page.until("document.querySelectorAll('#jobs tr[data-job]').length > 0")
    return page


def check_quiet(stage: Stage, *, but: str | None = None) -> None:
    """Check that the browser had nothing to complain about, and asked nobody but us, without the token."""
    assert [line for line in stage.page.complaints if but is None or but not in line] == []
    asked = [request["url"] for request in stage.page.requests]
    assert asked
    assert [url for url in asked if not url.startswith((stage.address, "data:", "about:"))] == []
    assert not [url for url in asked if TOKEN in url]


async def rows(page: Page) -> list[str]:
    """Name the jobs on the page."""
    listed = await page.run("[...document.querySelectorAll('#jobs tr[data-job]')].map(row => row.dataset.job)")
    return list(listed)


async def listed(page: Page, *job_ids: str) -> None:
    """Wait until the list is just these jobs."""
    names = json.dumps(",".join(job_ids))
    await page.until(
        f"[...document.querySelectorAll('#jobs tr[data-job]')].map(row => row.dataset.job) + '' === {names}"
    )


async def confirm(page: Page, button: str) -> None:
    """Press a button and say yes."""
    await page.click(button)
    await page.until("document.getElementById('ask').open")
    await page.click("#ask-yes")


def text_of(selector: str, words: str) -> str:
    """Make a condition: an element shows these words."""
    return f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(words)})"


async def test_signing_in_and_out(stage: Stage) -> None:
    """A wrong token shows the form again, a good one the page that was asked for, and signing out ends it."""
    await populate(stage)
    page = stage.page
    await page.go(f"{stage.address}/#job=long-film")
    await page.type("#token", "wrong")
    await page.until(text_of("#sign-in", "That did not work"))
    await page.go(f"{stage.address}/#job=long-film")
    await page.type("#token", TOKEN)
    await page.until(text_of("#sheet-body", "attempt.begun"))
    assert await page.run("document.cookie") == ""
    await page.press("Escape")
    await page.click(".top form button")
    await page.until("!!document.getElementById('token')")
    check_quiet(stage, but="401")  # of the wrong token


async def test_list_filters_and_pages(stage: Stage) -> None:
    """The list shows the newest, is filtered by status, kind and model, goes on by pages, and survives a reload."""
    await populate(stage)
    page = await signed_in(stage)
    first = await rows(page)
    assert first[:2] == ["long-film", "hostile"]
    assert len(first) == 25
    await page.click("#older")
    await page.until("document.querySelectorAll('#jobs tr[data-job]').length === 7")
    assert set(await rows(page)).isdisjoint(first)
    await page.click("#newer")
    await page.until("document.querySelectorAll('#jobs tr[data-job]').length === 25")
    await page.click("#tabs [data-status=failed]")
    await listed(page, "hostile")
    await page.run("location.reload()")
    await page.until(text_of("#tabs [aria-pressed=true]", "ailed"))
    await listed(page, "hostile")
    await page.click("[data-action=clear]")
    await page.type("#model", "veo3")
    await listed(page, "long-film")
    await page.type("#model", "no-such-model")
    await page.until(text_of("#jobs", "Nothing matches"))
    await page.type("#find-id", "done-3")
    await page.until(text_of("#sheet-body", "job.completed"))
    links = await page.run(
        "[...document.querySelectorAll('#sheet-body a')].map(a => [a.rel, new URL(a.href).protocol])"
    )
    assert links
    assert all(rel == "noopener noreferrer" and protocol in {"http:", "https:"} for rel, protocol in links)
    check_quiet(stage)


async def test_hostile_words_stay_words(stage: Stage) -> None:
    """Markup in a message and in metadata is shown as it is, and nothing of it happens."""
    await populate(stage)
    page = await signed_in(stage)
    await page.click("#jobs a[data-job=hostile]")
    await page.until(text_of("#sheet-body", "onerror="))
    shown = await page.run("document.getElementById('sheet-body').innerText")
    assert shown.count("<img src=x") >= 3  # the failure, its line of the timeline, the metadata
    assert (
        await page.run("document.querySelectorAll('#sheet-body :is(img, script), #jobs :is(img, script)').length") == 0
    )
    assert await page.run("document.title") == "Onysoft worker"
    check_quiet(stage)


async def test_acting_on_jobs(stage: Stage) -> None:
    """A job is canceled, retried and its webhook delivered again, each after a question; no means no."""
    await populate(stage)
    page = await signed_in(stage)
    await page.click("#jobs tr[data-job=long-film] .c-what")
    await page.click("#sheet-acts [data-action=cancel]")
    await page.until(text_of("#ask", "paid for"))
    await page.click("#ask [value=no]")
    await page.until("!document.getElementById('ask').open")
    assert (await stage.api.view("long-film"))["status"] == "processing"
    await confirm(page, "#sheet-acts [data-action=cancel]")
    await stage.api.standing("long-film", "canceled")
    await page.until(text_of("#sheet-marks", "canceled"))
    await page.until(text_of("#sheet-body .deliveries", "delivered"))
    await confirm(page, "#sheet-body [data-action=replay]")
    await page.until("document.querySelectorAll('#sheet-body .tries li').length === 2")
    await page.press("Escape")
    await page.click("#jobs a[data-job=hostile]")
    await confirm(page, "#sheet-acts [data-action=retry]")
    await page.until(text_of("#sheet-body .timeline", "job.retried"))
    await stage.api.standing("hostile", "completed")
    await page.until(text_of("#sheet-marks", "completed"))
    check_quiet(stage)


async def test_pausing_a_kind(stage: Stage) -> None:
    """A kind is paused and resumed, and the page says so at the top."""
    await populate(stage)
    page = await signed_in(stage)
    await page.until(text_of("#state", "Operational"))
    await confirm(page, "#kinds [data-action=pause][data-kind=voice]")
    await page.until(text_of("#notices", "oice is paused"))
    paused = (await stage.api.http.get("/v1/queues")).json()["queues"]
    assert [queue["kind"] for queue in paused if queue["paused_since"]] == ["voice"]
    await page.click("#kinds [data-action=resume][data-kind=voice]")
    await page.until(text_of("#state", "Operational"))
    check_quiet(stage)


async def test_failing_webhooks_are_no_all_clear(stage: Stage) -> None:
    """Destinations that fail and webhooks that were given up are noticed; the rest of many destinations is counted."""
    for number in range(5):
        for turn in range(10):
            name = f"to-{number}-{turn}"
            url = f"http://127.0.0.1:1/{number}/{'x' * 1000}"
            await stage.api.submit(name, kind="image", input=directed(name, duration_s=0.1), webhook_url=url)
    page = await signed_in(stage)
    await page.until("document.querySelectorAll('#notices [data-key^=failing-http]').length === 3", within_s=60)
    await page.until(text_of("#notices [data-key=failing-more]", "And 2 more destinations fail"), within_s=60)
    await page.until(text_of("#notices [data-key^=failing-http]", "http://127.0.0.1:1/"))
    await page.look(width=390, height=844, scheme="dark")
    assert await page.run("document.querySelector('#notices [data-key^=failing-http]').scrollWidth") <= 390
    assert not await page.run(text_of("#notices", "All clear"))
    assert await page.run(text_of("#state", "Limited"))
    check_quiet(stage)


async def test_a_full_redis_is_no_all_clear(stage: Stage) -> None:
    """Above the mark new jobs are refused, at its maxmemory nothing is submitted: the page says which."""
    await stage.api.submit("a", kind="image", input=directed("a", duration_s=0.1))
    page = await signed_in(stage)
    await page.until(text_of("#notices", "All clear"))
    async with redis.asyncio.Redis.from_url(stage.redis_url) as client:
        used_bytes = int((await client.info("memory"))["used_memory"])
        await client.config_set("maxmemory", round(used_bytes / 0.95))
        await page.until(text_of("#notices [data-key=full]", "those there are go on"))
        await client.config_set("maxmemory", 1)
        await page.until(text_of("#notices [data-key=full]", "no submission begins"))
        await page.until(text_of("#state", "Needs attention"))
        await client.config_set("maxmemory", 0)
    await page.until(text_of("#notices", "All clear"))
    check_quiet(stage)


async def test_a_given_up_webhook_is_noticed_and_its_answer_folded(stage: Stage, unwilling: str) -> None:
    """A long answer is folded after its beginning, and nothing of it is unseen or turns the words around it."""
    await stage.api.submit("refused", kind="image", input=directed("refused", duration_s=0.1), webhook_url=unwilling)
    page = await signed_in(stage, "/#job=refused")
    await page.until(text_of("#notices", "1 webhook was given up"), within_s=60)
    await page.until("!!document.querySelector('#sheet-body .tries details')")
    said = await page.run("document.querySelector('#sheet-body .tries summary').innerText")
    assert len(said) == 201
    assert "<b>" in said
    assert "\u202e" not in await page.run("document.querySelector('#sheet-body .tries details').textContent")
    await page.click("#sheet-body .tries summary")
    await page.until("document.querySelector('#sheet-body .tries details').open")
    check_quiet(stage)


async def layout_shifts(page: Page, *, refreshes: int) -> float:
    """Add up how much the layout shifts by itself over some refreshes."""
    found: Any = await page.run(f"""new Promise(done => {{
      let shift = 0, seen = 0;
      new PerformanceObserver(list => list.getEntries().forEach(entry => {{ shift += entry.value; }}))
        .observe({{type: "layout-shift"}});
      new MutationObserver(() => {{ seen += 1; if (seen >= {refreshes}) setTimeout(() => done(shift), 200); }})
        .observe(document.getElementById("refreshed"), {{childList: true, characterData: true, subtree: true}});
    }})""")
    return float(found)


async def test_the_readers_place_is_kept(stage: Stage) -> None:
    """Refreshing moves nothing: not the layout, not the scrolling, not the focus; new jobs wait for a click."""
    await populate(stage)
    page = await signed_in(stage)
    await page.look(width=1400, height=900, scheme="light")
    await page.run("document.querySelector('#jobs a[data-job=done-29]').focus()")
    before = await rows(page)
    await stage.api.submit("newest", kind="image", input=directed("newest", duration_s=0.1))
    assert await layout_shifts(page, refreshes=3) < 0.001
    assert await rows(page) == before
    assert await page.run("document.activeElement.dataset.job") == "done-29"
    await page.click("[data-action=fresh]")
    assert (await rows(page))[0] == "newest"
    check_quiet(stage)


async def test_the_api_is_away(stage: Stage) -> None:
    """When the API does not answer the page says so, keeps what it has, and goes on by itself."""
    await populate(stage)
    page = await signed_in(stage)
    for offline in (True, False):
        await page.tell(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        said = text_of("#reach", "Cannot reach the worker")
        await page.until(said if offline else f"!{said}")
        if offline:
            assert "Last refreshed at" in await page.run("document.getElementById('reach').innerText")
            assert len(await rows(page)) == 25
    check_quiet(stage, but="ERR_INTERNET_DISCONNECTED")


async def test_every_size_and_scheme(stage: Stage) -> None:
    """Nothing is wider than the window, on a desk or in a hand, by day or by night, with a job open or not."""
    await populate(stage)
    page = await signed_in(stage)
    for address in ("", "job=hostile"):
        await page.run(f"location.hash = {address!r}")
        await page.until(
            text_of("#sheet-body", "model_blocked") if address else "!document.getElementById('sheet').open"
        )
        for width, height in SIZES:
            for scheme in ("light", "dark"):
                assert len(await page.look(width=width, height=height, scheme=scheme)) > 10_000
                wide = await page.run(
                    "Math.max(document.documentElement.scrollWidth, document.getElementById('sheet-body').scrollWidth)"
                )
                assert wide <= width
                light = await page.run("matchMedia('(prefers-color-scheme: light)').matches")
                assert light == (scheme == "light")
    check_quiet(stage)


async def test_a_link_from_another_site(stage: Stage) -> None:
    """Who is signed in and follows a link from elsewhere comes to the job it names, not to the form."""
    await populate(stage)
    stage.address = stage.address.replace("127.0.0.1", "localhost")
    page = await signed_in(stage)
    elsewhere = stage.address.replace("localhost", "127.0.0.1")
    await page.go(f"{elsewhere}/healthz")
    await page.run(f"location.href = '{stage.address}/#job=hostile'")
    await page.until(text_of("#sheet-body", "model_blocked"))
    assert await page.run("!document.getElementById('token')")
