"""What a caller may ask for, and how it is told what is wrong."""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.request import MAX_FAULTS, MAX_NAME_CHARS, Fault, InvalidRequest, JobRequest, RequestTooLarge, read_request

GOOD: dict[str, Any] = {"kind": "video", "input": {"prompt": "a lighthouse at dusk", "seed": 7}}


def faults(raw: Any) -> dict[str, str]:
    """Read a request that is refused; give the faults by field."""
    with pytest.raises(InvalidRequest) as refused:
        read_request(raw, allow_private=False)
    return {fault.field: fault.message for fault in refused.value.faults}


def test_the_contracts_example_is_taken() -> None:
    """Every field of the documented request is known."""
    order = read_request(
        {
            "id": "order-1841", "kind": "video", "model": "veo3", "fallbacks": ["sora-2"],
            "input": {"prompt": "a lighthouse at dusk", "aspect_ratio": "16:9"},
            "webhook_url": "https://shop.example/hooks/media",
            "webhook_events": ["job.completed", "job.failed", "job.canceled", "job.partial"],
            "metadata": {"customer": 77}, "deadline_s": 3600, "max_attempts": 5, "on_unknown_submit": "retry",
        },
        allow_private=False,
    )  # fmt: skip
    assert order.request.id == "order-1841"
    assert order.input_json == b'{"aspect_ratio":"16:9","prompt":"a lighthouse at dusk"}'


def test_the_fingerprint_is_of_what_was_asked() -> None:
    """The order of keys and the id do not matter, everything else does."""
    one = read_request({**GOOD, "id": "a"}, allow_private=False).fingerprint
    same = read_request({"input": {"seed": 7, "prompt": "a lighthouse at dusk"}, "kind": "video"}, allow_private=False)
    other = read_request({**GOOD, "model": "veo3"}, allow_private=False)
    assert one == same.fingerprint
    assert one != other.fingerprint


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"kind": "vidoe"}, "kind", "'video', 'image'"),
        ({"kind": None}, "kind", ""),
        ({"input": "a lighthouse"}, "input", "JSON object"),
        ({"input": {"model": "veo3"}}, "input.model", "'model'"),
        ({"prompt": "a lighthouse"}, "prompt", "not a known field"),
        ({"id": "x" * 129}, "id", "128"),
        ({"id": "a b"}, "id", "A-Za-z0-9"),
        ({"id": "a\n"}, "id", "A-Za-z0-9"),
        ({"id": 7}, "id", "string"),
        ({"model": ""}, "model", ""),
        ({"fallbacks": ["a"] * 9}, "fallbacks", "8"),
        ({"fallbacks": "a"}, "fallbacks", "list"),
        ({"fallbacks": ["a", 1]}, "fallbacks.1", "string"),
        ({"metadata": {"x": "y" * 5000}}, "metadata", "4096"),
        ({"metadata": []}, "metadata", "object"),
        ({"deadline_s": 0}, "deadline_s", "greater than 0"),
        ({"deadline_s": "60"}, "deadline_s", "number"),
        ({"max_attempts": 0}, "max_attempts", "1"),
        ({"max_attempts": True}, "max_attempts", "whole number"),
        ({"on_unknown_submit": "maybe"}, "on_unknown_submit", "retry"),
        ({"webhook_events": ["job.completed"] * 17}, "webhook_events", "16"),
        ({"webhook_events": ["job.done"]}, "webhook_events.0", "job.completed"),
        ({"webhook_url": "ftp://x.example"}, "webhook_url", "http"),
        ({"webhook_url": "http://127.0.0.1/"}, "webhook_url", "non-public"),
        ({"webhook_url": "https://user:pw@x.example"}, "webhook_url", "credentials"),
        ({"input": {"prompt": "\ud800"}}, "input", "Unicode"),
        ({"input": {"seed": float("nan")}}, "input", "finite"),
    ],
)
def test_each_fault_names_its_field(change: dict[str, Any], field: str, words: str) -> None:
    """A wrong value is refused by the name of its field, with what is allowed."""
    found = faults({**GOOD, **change})
    assert field in found
    assert words in found[field]


def test_all_faults_come_at_once() -> None:
    """A line for each thing wrong, so that a caller mends it once."""
    assert set(faults({"kind": "x", "id": "", "foo": 1})) == {"kind", "id", "foo", "input"}


@pytest.mark.parametrize("raw", [None, [], "x", 7, b"x"])
def test_what_is_no_object_is_refused(raw: Any) -> None:
    """The request itself is the field then."""
    assert "request" in faults(raw)


def test_a_request_over_the_limit_is_refused_as_such() -> None:
    """Eleven megabytes in all."""
    with pytest.raises(RequestTooLarge):
        read_request({**GOOD, "input": {"image_url": "x" * (12 * 1024 * 1024)}}, allow_private=False)


def test_nesting_without_end_is_refused() -> None:
    """A request too deep to be encoded is a fault, not a crash."""
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    assert "input" in faults({**GOOD, "input": {"x": deep}})


MANY = 900_000


def many_fields() -> dict[str, int]:
    """Make an object of endless fields."""
    return {f"{n:05}": 1 for n in range(MANY)}


@pytest.mark.parametrize(
    ("change", "words"),
    [  # made when the test runs: together they are 300 MB
        (many_fields, f"request: and {MANY - MAX_FAULTS} more"),
        (lambda: {"fallbacks": [1] * MANY}, "fallbacks: "),
        (lambda: {"fallbacks": ["a b"] * MANY}, "fallbacks: "),
        (lambda: {"webhook_events": ["x"] * MANY}, "webhook_events: "),
        (lambda: {"webhook_events": ["job.completed"] * (MANY // 2)}, "webhook_events: "),
        (lambda: {"metadata": many_fields()}, "metadata: "),
        (lambda: {"metadata": {"a": [many_fields()]}}, "metadata: "),
        (lambda: {"x" * 10_000_000: 1}, "x: is not a known field"),
    ],
    ids=["fields", "fallbacks", "spaced fallbacks", "events", "good events", "metadata", "nested metadata", "name"],
)
def test_what_is_said_about_a_request_is_bounded(change: Callable[[], dict[str, Any]], words: str) -> None:
    """A request with endless faults is refused soon and in few words: the first ones, and how many more there are."""
    request = {**GOOD, **change()}
    started_s = time.process_time()
    with pytest.raises(InvalidRequest) as refused:
        read_request(request, allow_private=False)
    assert time.process_time() - started_s < 2
    said = str(refused.value)
    assert len(said) < 4000
    assert words in said.replace("x" * (MAX_NAME_CHARS - 1) + "…", "x")
    assert len(refused.value.faults) <= MAX_FAULTS + 1
    assert all(len(fault.field) <= MAX_NAME_CHARS for fault in refused.value.faults)


def test_the_known_fields_are_listed_once() -> None:
    """Of several unknown fields each is named, and what is known said with the first."""
    found = faults({**GOOD, "modle": 1, "prompt": 2, "sead": 3})
    assert list(found) == ["modle", "prompt", "sead"]
    assert [message.count("webhook_url") for message in found.values()] == [1, 0, 0]


FIELDS = st.sampled_from([*JobRequest.model_fields, "prompt", "\ud83d", "x" * 200])
ODD = ["video", "job.failed", "https://shop.example/x", "retry", "\ud83d", "http://[", 10**400, "a" * 5000]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=6) | FIELDS, inner, max_size=4),
    max_leaves=12,
)


@given(raw=VALUES | st.dictionaries(FIELDS, VALUES, max_size=8), base=st.sampled_from([{}, GOOD]))
def test_any_json_is_an_order_or_names_its_faults(raw: Any, base: dict[str, Any]) -> None:
    """Never another exception, never a fault without a field, and nothing taken that could not be written."""
    asked = {**base, **raw} if isinstance(raw, dict) else raw
    told: Sequence[Fault] = ()
    try:
        order = read_request(asked, allow_private=False)
        assert json.loads(order.input_json) == asked["input"]
        assert order.fingerprint == read_request(json.loads(json.dumps(asked)), allow_private=False).fingerprint
    except InvalidRequest as refused:
        told = refused.faults or (Fault("", "none"),)
    assert all(fault.field and fault.message and len(str(fault)) < 1000 for fault in told)
