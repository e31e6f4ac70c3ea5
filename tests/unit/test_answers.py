"""The tolerant reader of the gateway's answers."""

import gzip
import json
import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.expiry import ToldExpiry
from jobs.failures import classify
from jobs.verdict import Signal
from worker.answers import (
    DONE,
    FAILED,
    RUNNING,
    Done,
    LookRefused,
    Running,
    TaskAccepted,
    TaskFailed,
    read_look,
    read_submission,
)
from worker.decoding import Decoder, Undecodable


def look(body: Any, *, status: int = 200, text_output: bool = False) -> Running | Done | TaskFailed | LookRefused:
    """Read a look-up's answer given as JSON value or bytes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_look(status, raw, text_output=text_output)


@pytest.mark.parametrize(
    ("status", "body", "task_id"),
    [
        (202, {"success": True, "data": {"task_id": "t1", "status": "processing"}}, "t1"),
        (202, {"task_id": "t1"}, "t1"),
        (200, {"code": 200, "msg": "success", "data": {"taskId": "t1"}}, "t1"),
        (200, {"id": 12345}, "12345"),
        (202, {"data": {"id": " t1 "}}, "t1"),
        (500, {"success": False, "error": {"code": "x"}, "data": {"task_id": "t1"}}, "t1"),
        (409, {"success": False, "error": {"code": "duplicate", "task_id": "t1"}}, "t1"),
    ],
)
def test_an_acceptance_is_read_in_any_form(status: int, body: Any, task_id: str) -> None:
    """Bare or wrapped, camel or snake case, string or integer; even beside an error."""
    answer = read_submission(status, json.dumps(body).encode())
    assert isinstance(answer, TaskAccepted)
    assert answer.task_id == task_id


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (402, {"success": False, "error": {"code": "insufficient_balance", "message": "Yetersiz"}},
         (402, "insufficient_balance", "Yetersiz", True)),
        (200, {"code": 401, "msg": "You do not have access permissions"}, (200, "401", "You do not have", True)),
        (500, {"error": "boom"}, (500, None, "boom", True)),
        (400, {"success": False, "id": "req-1"}, (400, None, None, True)),
        (502, b"<html>Bad Gateway</html>", (502, None, "<html>", False)),
        (202, b'{"success": true, "data": {"task_', (202, None, '{"success"', False)),
        (202, b"", (202, None, None, False)),
        (202, {"data": {"task_id": None}}, (202, None, None, False)),
        (500, {"detail": "oops"}, (500, None, None, False)),
    ],
)  # fmt: skip
def test_a_refusal_is_read_with_its_own_words(status: int, body: Any, expected: tuple[Any, ...]) -> None:
    """Status, code, words, and whether it was the gateway's envelope at all."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = read_submission(status, raw)
    assert isinstance(answer, Signal)
    code, words, enveloped = expected[1:]
    assert (answer.status, answer.code, answer.enveloped) == (expected[0], code, enveloped)
    assert (answer.message or "").startswith(words or "")


@pytest.mark.parametrize("word", sorted(DONE))
@pytest.mark.parametrize("name", ["status", "state", "successFlag"])
def test_every_word_for_done(word: str, name: str) -> None:
    """In any letter case, under any of the names, as text or number."""
    for value in {word, word.upper(), word.title()} | ({int(word)} if word.isdigit() else set()):
        answer = look({"data": {name: value, "result": {"urls": ["https://x.test/1"]}}})
        assert isinstance(answer, Done), value


@pytest.mark.parametrize("word", sorted(FAILED))
def test_every_word_for_failed(word: str) -> None:
    """The failure's code and words come along, wherever they stand."""
    answer = look(
        {"code": 200, "msg": "success", "data": {"state": word, "failCode": 500, "failMsg": "Internal Error"}}
    )
    assert isinstance(answer, TaskFailed)
    assert (answer.signal.code, answer.signal.message) == ("500", "Internal Error")


@pytest.mark.parametrize("word", sorted(RUNNING))
def test_every_word_for_running(word: str) -> None:
    """Known words make no noise."""
    assert look({"data": {"status": word}}) == Running()


@pytest.mark.parametrize("body", [{"data": {"status": "simmering"}}, {"status": "simmering"}])
def test_an_unknown_word_is_running(body: Any) -> None:
    """What nobody knows is no failure: it is polled on, and reported."""
    assert look(body) == Running("simmering")


@pytest.mark.parametrize(
    ("data", "urls"),
    [
        ({"result": {"tracks": [{"title": "take 0", "audio_url": "https://a.test/0"}]}}, ["https://a.test/0"]),
        ({"audio_url": "https://a.test/0", "urls": ["https://a.test/0", "https://a.test/1"]},
         ["https://a.test/0", "https://a.test/1"]),
        ({"resultJson": '{"resultUrls": ["https://a.test/0"]}'}, ["https://a.test/0"]),
        ({"response": {"sunoData": [
            {"audioUrl": "https://a.test/0", "imageUrl": "https://a.test/0.jpeg", "streamAudioUrl": "https://a.test/s"},
            {"audioUrl": "", "imageUrl": "https://a.test/1.jpeg", "streamAudioUrl": "https://a.test/t"},
        ]}}, ["https://a.test/0"]),
        ({"response": {"sunoData": [{"audioUrl": "", "cover": {"url": "https://a.test/0.jpeg"}}]}}, []),
        ({"input": {"audio_url": "https://me.test/in"}, "param": {"url": "https://me.test/in"},
          "result": {"request": {"url": "https://me.test/in"}}}, []),
        ({"callback": "https://me.test/hook", "title": "https://a.test/0"}, []),
        ({"result": {"url": "https://a.test/" + "x" * 5000}}, []),
        ({"urls": [f"https://a.test/{number}" for number in range(1000)]},
         [f"https://a.test/{number}" for number in range(16)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("word", ["FIRST_SUCCESS", "processing", "simmering"])
def test_what_a_running_task_shows_is_found(data: dict[str, Any], urls: list[str], word: str) -> None:
    """Of the result fields, without echoes, covers and streams, and bounded."""
    answer = look({"data": {"status": word, **data}})
    assert isinstance(answer, Running)
    assert list(answer.urls) == urls


def test_an_answer_without_a_state_shows_nothing() -> None:
    """What it is that stands there nobody says."""
    assert look({"data": {"urls": ["https://a.test/0"]}}) == Running("(none)")


def test_a_failure_word_that_says_more_is_the_code() -> None:
    """SENSITIVE_WORD_ERROR is a verdict by itself."""
    answer = look({"data": {"status": "SENSITIVE_WORD_ERROR", "msg": "Lyrics contain sensitive words"}})
    assert isinstance(answer, TaskFailed)
    assert answer.signal.code == "SENSITIVE_WORD_ERROR"


@pytest.mark.parametrize(
    ("data", "urls"),
    [
        ({"result": {"urls": ["https://a.test/1", "https://a.test/2"]}}, ["https://a.test/1", "https://a.test/2"]),
        ({"video_url": "https://a.test/1"}, ["https://a.test/1"]),
        ({"output": [{"url": "https://a.test/1"}, {"url": "https://a.test/1"}]}, ["https://a.test/1"]),
        ({"resultJson": '{"resultUrls": ["https://a.test/1"]}'}, ["https://a.test/1"]),
        ({"resultJson": {"resultUrls": ["HTTPS://a.test/1"]}}, ["HTTPS://a.test/1"]),
        ({"response": {"sunoData": [{"audioUrl": "https://a.test/1"}]}}, ["https://a.test/1"]),
        ({"results": {"deep": {"deeper": ["https://a.test/1"]}}}, ["https://a.test/1"]),
        ({"input": {"image_url": "https://me.test/in"}, "result": {"url": "https://a.test/1"}}, ["https://a.test/1"]),
        ({"param": '{"x":1}', "request": {"url": "https://me.test/in"}, "urls": ["https://a.test/1"]}, ["https://a.test/1"]),
        ({"result": {"input": "https://me.test/in", "url": "https://a.test/1"}}, ["https://a.test/1"]),
    ],
)  # fmt: skip
def test_results_are_found_and_echoes_are_not(data: dict[str, Any], urls: list[str]) -> None:
    """Every URL under a result field, in order, once; none that only repeats the request."""
    answer = look({"data": {"status": "success", **data}})
    assert isinstance(answer, Done)
    assert answer.result["urls"] == urls


def test_done_without_url_is_a_failure_unless_the_model_gives_text() -> None:
    """A text model's transcript is its result; any other model has failed."""
    body = {"data": {"status": "success", "transcript": "hello"}}
    assert isinstance(look(body), TaskFailed)
    answer = look(body, text_output=True)
    assert isinstance(answer, Done)
    assert answer.result["text"] == "hello"


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, {"success": False}), (200, {"code": 422, "msg": "recordInfo is null"}), (200, b"<html>"), (200, b""),
     (500, b""), (503, {"error": {"message": "Failed to generate response: upstream unavailable"}}),
     (401, {"error": {"code": "invalid_api_key"}}), (200, {"success": False, "error": "no"}), (200, b"[1]")],
)  # fmt: skip
def test_a_refused_look_is_no_failure_of_the_task(status: int, body: Any) -> None:
    """Whatever is not a statement about the task is a refusal of the look."""
    assert isinstance(look(body, status=status), LookRefused)


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        ({"cost": {"amount": 0.03, "currency": "USD"}}, {"amount": 0.03, "currency": "USD"}),
        ({"creditsConsumed": 60}, {"amount": 60, "currency": "credits"}),
        ({"cost": {"amount": 0.03}}, None),
        ({"cost": 3}, None),
    ],
)
def test_an_amount_never_travels_without_its_currency(data: dict[str, Any], cost: Any) -> None:
    """A bare number is no cost."""
    answer = look({"data": {"status": "success", "url": "https://a.test/1", **data}})
    assert isinstance(answer, Done)
    assert answer.cost == cost


SPAN, MOMENT = ToldExpiry(3600, is_span=True), ToldExpiry("2027-01-15T09:00:00Z")


@pytest.mark.parametrize(
    ("data", "expiries"),
    [
        ({"expires_at": "2027-01-15T09:00:00Z"}, {MOMENT}),
        ({"expireTime": "2027-01-15T09:00:00Z", "expires_in": 3600}, {MOMENT, SPAN}),
        ({"result": {"urls": [], "EXPIRES_IN": 3600}}, {SPAN}),
        ({"response": {"sunoData": [{"expiresIn": 3600}]}}, {SPAN}),
        ({"resultJson": '{"resultUrls": [], "expires_in": 3600}'}, {SPAN}),
        ({"input": {"expires_in": 60}, "result": {"param": {"expires_at": 1}}, "key": {"expires_at": 2}}, set()),
        ({"title": "expires_at", "expiries": 3}, set()),
    ],
)
def test_what_is_said_of_an_expiry_is_found(data: dict[str, Any], expiries: set[ToldExpiry]) -> None:
    """Beside the result and in it, under any of the names; not where the request is repeated."""
    answer = look({"data": {"status": "success", "url": "https://a.test/1", **data}})
    assert isinstance(answer, Done)
    assert set(answer.expiries) == expiries


def test_a_huge_raw_answer_is_not_kept() -> None:
    """The URLs are, the raw object over its limit is not."""
    answer = look({"data": {"status": "success", "url": "https://a.test/1", "pad": "x" * 100_000}})
    assert isinstance(answer, Done)
    assert answer.result["raw"] is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "data",
                    "status",
                    "state",
                    "error",
                    "code",
                    "msg",
                    "result",
                    "urls",
                    "task_id",
                    "id",
                    "x",
                    "expires_in",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(body=JSON, status=st.integers(100, 599), text_output=st.booleans())
def test_no_answer_surprises_the_reader(body: Any, status: int, text_output: bool) -> None:  # noqa: FBT001
    """Any JSON at all is read as something."""
    raw = json.dumps(body).encode()
    assert isinstance(read_submission(status, raw), TaskAccepted | Signal)
    assert isinstance(read_look(status, raw, text_output=text_output), Running | Done | TaskFailed | LookRefused)


WORDS = st.sampled_from(sorted({*DONE, *FAILED, *RUNNING, "SENSITIVE_WORD_ERROR", "task not found", "\ud83d", "1e400"}))
ODD = st.sampled_from(
    [float("nan"), float("inf"), 10**400, -1, True, "9" * 5000, "\ud83d\ude00", "\x00", "https://a.test/1"]
)
NAMES = st.sampled_from(
    [
        *("success", "data", "status", "state", "successFlag", "error", "code", "msg", "message", "result", "results"),
        *("resultJson", "response", "urls", "url", "task_id", "taskId", "id", "failCode", "failMsg", "errorCode"),
        *("errorMessage", "cost", "creditsConsumed", "expires_at", "expires_in", "sunoData", "audioUrl", "text"),
    ]
)
TALES = st.recursive(
    WORDS | ODD | st.none() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=15,
)


@given(body=TALES, status=st.integers(0, 999), text_output=st.booleans(), wait_s=st.none() | st.floats())
def test_every_tale_of_a_gateway_is_judged(body: Any, status: int, text_output: bool, wait_s: float | None) -> None:  # noqa: FBT001
    """In its own words and with the oddest values, each answer comes to something, and each refusal to a verdict."""
    raw = json.dumps(body).encode()
    submitted = read_submission(status, raw, retry_after_s=wait_s)
    assert isinstance(submitted, TaskAccepted) or classify(submitted).code
    match read_look(status, raw, text_output=text_output):
        case LookRefused(signal) | TaskFailed(signal):
            assert classify(signal).code
        case Done() | Running() as seen:
            assert repr(seen)


@given(
    body=st.binary(max_size=200),
    packed=st.sampled_from([zlib.compress, gzip.compress, lambda body: body]),
    cut=st.integers(0, 200),
    named=st.sampled_from(["gzip", "deflate", "x-gzip", "identity", "br", "gzip, gzip", "", "\xff", ",,"]),
    limit=st.integers(1, 300),
)
def test_no_coding_surprises_the_decoder(
    body: bytes, packed: Callable[[bytes], bytes], cut: int, named: str, limit: int
) -> None:
    """Whole or cut, right or wrongly named: bytes within the limit, or the one error."""
    piece = packed(body)[:cut]
    with suppress(Undecodable):
        decoder = Decoder(named)
        assert all(len(decoder.decode(part, limit)) <= limit for part in (piece[:7], piece[7:]))


@given(raw=st.binary(max_size=200), status=st.integers(100, 599))
def test_no_bytes_surprise_the_reader(raw: bytes, status: int) -> None:
    """Neither do bytes that are no JSON, nor nesting without end."""
    assert isinstance(read_submission(status, raw), TaskAccepted | Signal)
    assert isinstance(read_look(status, b"[" * 100_000, text_output=False), LookRefused)


@pytest.mark.parametrize(
    ("data", "code", "cost"),
    [
        ({"creditsConsumed": 60}, "501", {"amount": 60, "currency": "credits"}),
        ({"creditsConsumed": 60}, "531", {"amount": 60, "currency": "credits", "refunded": True}),
        ({"creditsConsumed": 60, "creditsRefunded": 60}, "x", {"amount": 60, "currency": "credits", "refunded": True}),
        ({"creditsConsumed": 60, "creditsRefunded": 0}, "x", {"amount": 60, "currency": "credits"}),
        ({"creditsRefunded": 60}, "x", {"amount": 60, "currency": "credits", "refunded": True}),
        (
            {"cost": {"amount": 0.03, "currency": "USD"}, "refunded": True},
            "x",
            {"amount": 0.03, "currency": "USD", "refunded": True},
        ),
        ({"refunded": True}, "531", None),
    ],
)
def test_what_a_failed_generation_cost_is_kept_where_told(data: dict[str, Any], code: str, cost: Any) -> None:
    """With whether it was given back; a refund without an amount is none."""
    answer = look({"code": 200, "data": {"status": "fail", "failCode": code, "failMsg": "no", **data}})
    assert isinstance(answer, TaskFailed)
    assert answer.cost == cost


@pytest.mark.parametrize(
    ("body", "doubtful"),
    [
        ({"status": "error", "code": 429, "msg": "slow down"}, True),
        ({"status": "error", "message": "Generation failed"}, False),
        ({"data": {"task_id": "t1", "status": "error", "code": "501"}}, False),
        ({"data": {"status": "failed", "failCode": "429"}}, False),
    ],
)
def test_an_error_that_names_no_task_is_doubted(body: Any, doubtful: bool) -> None:  # noqa: FBT001
    """The word is a task's state and a look-up's failure alike: beside a code it may be the latter."""
    answer = look(body)
    assert isinstance(answer, TaskFailed)
    assert answer.doubtful is doubtful
