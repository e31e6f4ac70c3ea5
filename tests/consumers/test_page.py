"""What docs/webhooks.md says beside its receivers is so."""

import json
import re
import sqlite3
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, get_args

import pytest
from consumer import PAGE, blocks

from config.settings import Settings
from jobs.delivering import FIRST_GAP_S, LEAST_PATIENCE_S, LONGEST_GAP_S
from jobs.failures import TERMINAL_CODES, Code
from jobs.request import DEFAULT_WEBHOOK_EVENTS, WebhookEvent, read_request
from jobs.states import Status
from worker.dispatch import MOST_AT_A_HOST, MOST_AT_ONCE, MOST_FAILING_TOLD
from worker.signing import sign
from worker.web.schema import AttemptView, FailureView, JobView

ROOT = Path(__file__).parents[2]
README, RULES = (ROOT / "README.md").read_text(), (ROOT / "docs/failures.md").read_text()
UNITS_S = {"s": 1, "min": 60, "h": 3600}
EVENTS = [json.loads(block) for block in blocks("json")]


def section(heading: str) -> str:
    """Take what stands under a heading."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## )", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def rows(heading: str) -> Iterator[list[str]]:
    """Give the rows of the first table under a heading."""
    for line in section(heading).splitlines():
        if line.startswith("| ") and not line.startswith("| attempt"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def seconds(words: str) -> int:
    """Read "2 h 35 min"."""
    return sum(int(number) * UNITS_S[unit] for number, unit in re.findall(r"(\d+) (s|min|h)\b", words))


def test_the_retries_are_the_default_schedule() -> None:
    """Each delay as it is, and the sums right to the minute."""
    shown = list(rows("Retries"))
    assert [row[0] for row in shown] == [str(number) for number in range(1, len(shown) + 1)]
    delays = [seconds(row[1]) for row in shown]
    assert tuple(map(float, delays)) == Settings.from_env({}).webhook_schedule_s
    sums = [total if total < 60 else total // 60 * 60 for total in accumulate(delays)]
    assert [seconds(row[2]) for row in shown] == sums


def test_a_destination_in_trouble_is_treated_as_the_page_says() -> None:
    """Places, failures and gaps are those of the code and of the scripts."""
    script = (ROOT / "worker/lua/destination.lua").read_text()
    (found,) = re.findall(r"SHARE_OF_THE_UNKNOWN = (\d+), (\d+), (\d+)", script)
    opens_at, distrusted_at, share = map(int, found)
    assert "KEPT_MS, LONGEST_SHUT_MS = 86400000, 3600000" in script
    said = " ".join(section("Retries").split())
    for words in (
        f"at most {MOST_AT_ONCE} requests at a time, however many workers there are; a host gets {MOST_AT_A_HOST}",
        f"a fifth of that, {MOST_AT_ONCE // share} and {MOST_AT_A_HOST // share}: one that is new",
        "that was sent nothing for a day, or",
        f"that failed {distrusted_at} times in a row at all its paths",
        f"After {opens_at} failures in a row",
        f"gaps that grow from {FIRST_GAP_S:.0f} s to {LONGEST_GAP_S:.0f} s",
        "an hour at most), and everything else for it waits",
        f"(the first {MOST_FAILING_TOLD})",
    ):
        assert words in said
    assert (share, LEAST_PATIENCE_S) == (5, 86_400)


def test_the_example_to_check_a_verifier_with_is_right() -> None:
    """Our own signing gives the page's signature."""
    example = {row[0].strip("`"): row[1].strip("`") for row in rows("Verify")}
    signed = sign(example["secret"], example["webhook-id"], int(example["webhook-timestamp"]), example["body"].encode())
    assert signed == example["webhook-signature"]


def test_every_event_is_listed_and_shown() -> None:
    """Those that come unasked are marked, and each has an example."""
    listed = {match[1]: row[2] for row in rows("Events") if (match := re.match(r"\[`([^`]+)`", row[0]))}
    assert set(get_args(WebhookEvent)) <= set(listed) == {event["type"] for event in EVENTS}
    assert {name for name, unasked in listed.items() if unasked == "yes"} == set(DEFAULT_WEBHOOK_EVENTS)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_examples_are_events(event: dict[str, Any]) -> None:
    """Fields, statuses and failures are those there are."""
    assert {"type", "sequence", "timestamp", "data"} <= set(event) <= {*EVENTS[0], "result_expired"}
    job = event["data"]
    assert {"id", "status"} <= set(job) <= {*JobView.model_fields, "partial"}
    assert job["status"] in set(Status)
    for failure in [job.get("failure"), *(attempt.get("failure") for attempt in job.get("attempts", []))]:
        if failure:
            assert set(failure) == set(FailureView.model_fields)
            assert (failure["category"] == "terminal") == (Code(failure["code"]) in TERMINAL_CODES)
            assert f"`{failure['rule']}`" in RULES or failure["rule"] == f"own_{failure['code']}"
    assert all(set(attempt) <= set(AttemptView.model_fields) for attempt in job.get("attempts", []))


def test_the_request_shown_is_one() -> None:
    """It is taken as it stands, with the events it names."""
    (body,) = [body for block in blocks("sh") for body in re.findall(r"/v1/jobs .*-d '(.*?)'$", block, flags=re.DOTALL)]
    order = read_request(json.loads(body), allow_private=False)
    assert order.request.webhook_events == json.loads(body)["webhook_events"]
    assert "job.processing" in body


def test_the_first_example_is_whole() -> None:
    """No field of a job is missing there."""
    assert set(JobView.model_fields) <= set(EVENTS[0]["data"])


def test_the_readme_shows_the_same_verifier() -> None:
    """One function, in two places, and one check of the secret."""
    (receiver,) = blocks("python")
    verifier = re.search(r"^def verified.*?return json.loads\(body\)$", receiver, flags=re.DOTALL | re.MULTILINE)
    assert verifier
    assert verifier[0] in README
    secret = re.search(r"^SECRET = .*?^KEY = .*?$", receiver, flags=re.DOTALL | re.MULTILINE)
    assert secret
    assert secret[0] in README


def test_the_sql_notes_once_and_keeps_the_newer() -> None:
    """A repeat breaks off before it changes anything; an older event is noted and changes nothing."""
    (script,) = blocks("sql")
    begin, note, change, commit = (part.strip() for part in script.split(";") if part.strip())
    db = sqlite3.connect(":memory:", isolation_level=None)
    db.execute("CREATE TABLE webhooks_noted (id TEXT PRIMARY KEY)")
    db.execute("CREATE TABLE media (job TEXT PRIMARY KEY, status TEXT, sequence INTEGER)")

    def take(webhook_id: str, status: str, sequence: int) -> None:
        given = {"webhook_id": webhook_id, "job": "order-1841", "status": status, "sequence": sequence}
        db.execute(begin)
        try:
            db.execute(note, given)
            db.execute(change, given)
            db.execute(commit)
        except sqlite3.IntegrityError:
            db.execute("ROLLBACK")

    steps = [("evt_2", "completed", 7), ("evt_1", "processing", 5), ("evt_2", "changed", 8), ("evt_3", "failed", 9)]
    kept = []
    for step in steps:
        take(*step)
        kept.append(db.execute("SELECT status, sequence FROM media").fetchall())
    assert kept == [[("completed", 7)], [("completed", 7)], [("completed", 7)], [("failed", 9)]]
    assert db.execute("SELECT count(*) FROM webhooks_noted").fetchone() == (3,)
    db.close()


def test_links_within_the_page_lead_somewhere() -> None:
    """Every anchor is a heading's, as GitHub makes them, and every file is there."""
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", prose)) <= anchors
    for file in re.findall(r"\]\(([\w./-]+)\)", prose):
        assert (ROOT / "docs" / file).exists()
