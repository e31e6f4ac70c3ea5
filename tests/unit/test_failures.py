"""The failure table: right on the corpus, total over everything else, and careful with money."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.failures import (
    BARE_MISSING_PATIENCE,
    MISSING_PATIENCE,
    NOMINAL,
    RETRYABLE_CODES,
    RULES,
    TERMINAL_CODES,
    TIMEOUT_PATIENCE,
    UNRECOGNISED,
    believed,
    classify,
    explain_dict,
    own_failure,
)
from jobs.verdict import NOT_SENT, Acceptance, Action, Category, Code, Failure, Reset, Scope, Signal, Stage, Transport

CORPUS = [json.loads(line) for line in Path(__file__).with_name("corpus.jsonl").read_text("utf-8").splitlines()]
RETRYABLE = (
    "rate_limited model_quota_exceeded server_error gateway_unavailable submit_unknown generation_failed "
    "generation_timeout"
)
TERMINAL = (
    "invalid_request unauthorized insufficient_balance forbidden model_blocked model_not_found payload_too_large "
    "model_unsupported invalid_input content_rejected task_lost deadline_exceeded internal_error canceled"
)
DOCUMENTED = {
    "invalid_api_key": Code.UNAUTHORIZED,
    "insufficient_balance": Code.INSUFFICIENT_BALANCE,
    "model_blocked": Code.MODEL_BLOCKED,
    "model_not_found": Code.MODEL_NOT_FOUND,
    "payload_too_large": Code.PAYLOAD_TOO_LARGE,
    "rate_limit_exceeded": Code.RATE_LIMITED,
    "daily_token_limit_exceeded": Code.MODEL_QUOTA_EXCEEDED,
    "daily_request_limit_exceeded": Code.MODEL_QUOTA_EXCEEDED,
    "monthly_token_limit_exceeded": Code.MODEL_QUOTA_EXCEEDED,
    "free_model_rate_limit": Code.MODEL_QUOTA_EXCEEDED,
}
PROVIDER = [str(number) for number in (200, 400, 401, 402, 404, 408, 422, 429, 433, 455, 500, 501, 505, 524, 531, 1501)]
STATES = [
    "SENSITIVE_WORD_ERROR",
    "CREATE_TASK_FAILED",
    "GENERATE_AUDIO_FAILED",
    "CALLBACK_EXCEPTION",
    "generate_failed",
]
ENOUGH_WORDINGS = 20
WORST_S = 0.02  # ten times what it takes, for a slow machine
BY_NAME = {rule.name: rule for rule in RULES}


def seen(row: dict[str, object]) -> Failure:
    """Classify a row of the corpus."""
    return classify(Signal(Stage(str(row["stage"])), row["status"], row["code"], row["message"]))  # type: ignore[arg-type]


def everything() -> Iterator[Signal]:
    """Give every transport outcome and every status with every known code, enveloped or not, at every stage."""
    known = [None, *DOCUMENTED, *PROVIDER, *STATES]
    yield from (Signal(stage, transport=transport) for stage, transport in product(Stage, Transport))
    yield from (Signal(stage, code=code) for stage, code in product(Stage, known))
    for stage, status, code, enveloped in product(Stage, range(100, 600), known, [True, False]):
        yield Signal(stage, status, code, enveloped=enveloped)


def wrong_about(failure: Failure, signal: Signal) -> str | None:
    """Say which promise of the table a verdict breaks, if any."""
    rule = BY_NAME.get(failure.rule)
    overridden = rule is not None and signal.stage is Stage.POLL and rule.category is not None
    expected = NOMINAL[failure.code][0]
    promises = {
        "its rule is a row of the table, at this stage": rule is not None and signal.stage in rule.stages,
        "its category is the contract's": failure.category is expected or overridden,
        "its message says something": bool(failure.message),
        "a look-up never ends a task": (failure.action is Action.KEEP_POLLING) == (signal.stage is Stage.POLL),
        "only a submission is not accepted": failure.acceptance is Acceptance.YES or signal.stage is Stage.SUBMIT,
        "unknown is unknown": (failure.acceptance is Acceptance.UNKNOWN) == (failure.code is Code.SUBMIT_UNKNOWN),
        "what may be paid counts": failure.counts_as_attempt or failure.acceptance is Acceptance.NO,
        "a submission is refused or unknown": failure.acceptance is not Acceptance.YES
        or signal.stage is not Stage.SUBMIT,
    }
    return next((promise for promise, kept in promises.items() if not kept), None)


def differs(row: dict[str, Any]) -> tuple[object, ...] | None:
    """Tell a row of the corpus with its verdict where that is not what the row expects, as far as it expects any."""
    verdict = explain_dict(seen(row))
    expected = {key: value for key, value in row["expect"].items() if value is not None}
    return None if expected == {key: verdict[key] for key in expected} else (row, verdict)


@pytest.mark.parametrize(("stage", "code"), sorted({(row["stage"], str(row["expect"]["code"])) for row in CORPUS}))
def test_each_row_of_the_corpus_gets_its_verdict(stage: str, code: str) -> None:
    """The code, category and action are those that the corpus expects, in every wording of a verdict."""
    rows = [row for row in CORPUS if (row["stage"], str(row["expect"]["code"])) == (stage, code)]
    assert rows
    assert [wrong for row in rows if (wrong := differs(row))] == []


def test_the_corpus_is_broad() -> None:
    """Every verdict that can be seen is in the corpus in more than twenty wordings, at every stage that can see it."""
    told = Counter((row["stage"], row["expect"]["code"]) for row in CORPUS)
    told[Stage.POLL, Code.TASK_LOST] += told.pop((Stage.POLL, None))  # whatever its name, it is looked up again
    told.pop((Stage.RESULT, None))
    assert {code for _, code in told} == set(Code) - {Code.DEADLINE_EXCEEDED, Code.INTERNAL_ERROR, Code.CANCELED}
    assert {at: times for at, times in told.items() if times <= ENOUGH_WORDINGS} == {}


def test_the_codes_are_the_contracts() -> None:
    """Codes and categories are the contract's, in its order, and each has a nominal verdict."""
    assert " ".join(Code) == f"{RETRYABLE} {TERMINAL}"
    assert set(RETRYABLE.split()) == RETRYABLE_CODES
    assert set(TERMINAL.split()) == TERMINAL_CODES
    assert list(NOMINAL) == list(Code)


@cache
def survey() -> tuple[list[tuple[Signal, str]], set[str]]:
    """Classify everything once: name the promises that are broken, and the rules that are reached."""
    broken: list[tuple[Signal, str]] = []
    reached: set[str] = set()
    for signal in everything():
        failure = classify(signal)
        reached.add(failure.rule)
        if why := wrong_about(failure, signal):
            broken.append((signal, why))
    return broken, reached


def test_the_table_is_total() -> None:
    """Whatever is seen at whatever stage gets a verdict that keeps every promise of the table."""
    assert survey()[0] == []


def test_every_rule_is_named_once_and_reached() -> None:
    """No two rules share a name, and the signals of these tests reach every one that can be seen."""
    assert [name for name, times in Counter(rule.name for rule in RULES).items() if times > 1] == []
    reached = survey()[1] | {seen(row).rule for row in CORPUS}
    reached |= {own_failure(rule.code, "").rule for rule in RULES if not rule.stages}
    assert {rule.name for rule in RULES} - reached == set()


@given(
    stage=st.sampled_from(Stage),
    status=st.none() | st.integers(),
    code=st.none() | st.text() | st.integers().map(str) | st.sampled_from([*DOCUMENTED, *PROVIDER]),
    message=st.none() | st.text() | st.text(st.characters(codec=None)).map(lambda text: text * 50),
    transport=st.none() | st.sampled_from(Transport),
    enveloped=st.booleans(),
    retry_after_s=st.none() | st.floats(),
)
def test_nothing_makes_it_raise(
    stage: Stage,
    status: int | None,
    code: str | None,
    message: str | None,
    transport: Transport | None,
    enveloped: bool,  # noqa: FBT001 - Hypothesis hands it in by name
    retry_after_s: float | None,
) -> None:
    """Arbitrary text and numbers get a verdict whose own text can be stored and shown."""
    signal = Signal(stage, status, code, message, transport, enveloped, retry_after_s)
    failure = classify(signal)
    assert wrong_about(failure, signal) is None
    assert failure.message.isprintable()
    assert len(failure.message.encode()) <= 4 * 500
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s < float("inf")


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        " ",
        "invalid ",
        "image ",
        "content ",
        "no ",
        "the ",
        "model a ",
        "too many ",
        "İ",
        "aA",
        "https://",
        "a-_ ",
        "|",
    ],
)
@pytest.mark.parametrize("stage", Stage)
def test_a_huge_message_costs_little(stage: Stage, unit: str) -> None:
    """A message of 100 kB, however it repeats itself, is judged by its beginning and kept short."""
    failure = classify(Signal(stage, 422, "c" * 100_000, unit * (100_000 // len(unit))))
    assert len(failure.message) <= 500
    assert len(failure.gateway_code or "") <= 500


@pytest.mark.parametrize(
    "unit", ["prompt ", "is not ", "could not be the ", "model a ", "content was ", "(", "违规", "aA", "no image | "]
)
@pytest.mark.parametrize(("stage", "status"), [(Stage.SUBMIT, 422), (Stage.SUBMIT, 500), (Stage.RESULT, 200)])
def test_no_wording_makes_it_slow(stage: Stage, status: int, unit: str) -> None:
    """The worst of messages costs a worker milliseconds at most: no pattern backtracks without bound."""
    taken_s = []
    for number in range(5):
        message = f"{number} {unit * (10_000 // len(unit))}"
        began_s = time.process_time()
        classify(Signal(stage, status, None, message))
        taken_s.append(time.process_time() - began_s)
    assert min(taken_s) < WORST_S


@pytest.mark.parametrize("transport", Transport)
def test_only_what_never_left_is_not_accepted(transport: Transport) -> None:
    """A submission that was not sent is simply sent again; any other that got no answer may have been accepted."""
    failure = classify(Signal(Stage.SUBMIT, transport=transport))
    sent = transport not in NOT_SENT
    assert failure.code is (Code.SUBMIT_UNKNOWN if sent else Code.GATEWAY_UNAVAILABLE)
    assert failure.acceptance is (Acceptance.UNKNOWN if sent else Acceptance.NO)
    assert failure.counts_as_attempt is sent


@pytest.mark.parametrize("status", range(500, 600))
def test_a_5xx_without_an_envelope_leaves_acceptance_unknown(status: int) -> None:
    """Only a 503 says without the gateway's envelope that nothing was accepted (trap 5)."""
    failure = classify(Signal(Stage.SUBMIT, status, message="<html>", enveloped=False))
    assert failure.code is (Code.GATEWAY_UNAVAILABLE if status == 503 else Code.SUBMIT_UNKNOWN)
    assert failure.counts_as_attempt is (status != 503)


@pytest.mark.parametrize(("name", "code"), DOCUMENTED.items())
@pytest.mark.parametrize("status", [200, 400, 403, 404, 422, 429, 500])
def test_a_documented_name_outweighs_the_status(name: str, code: Code, status: int) -> None:
    """Which status goes with which name is not published, so the name alone decides."""
    failure = classify(Signal(Stage.SUBMIT, status, name))
    assert (failure.code, failure.acceptance, failure.counts_as_attempt) == (code, Acceptance.NO, False)


@pytest.mark.parametrize(
    ("code", "message", "resets"),
    [
        ("rate_limit_exceeded", None, Reset.MINUTE),
        (None, None, Reset.BURST),
        (None, "Dakikada 60 istek", Reset.MINUTE),
        ("daily_token_limit_exceeded", None, Reset.DAY),
        ("daily_request_limit_exceeded", None, Reset.DAY),
        (None, "GÜNLÜK LİMİT AŞILDI", Reset.DAY),
        ("monthly_token_limit_exceeded", None, Reset.MONTH),
        (None, "AYLIK LIMIT ASILDI", Reset.MONTH),
        ("free_model_rate_limit", None, Reset.ROLLING_DAY),
        (None, "At most 5 requests can be sent within 24 hours.", Reset.ROLLING_DAY),
    ],
)
def test_a_limit_says_when_it_resets(code: str | None, message: str | None, resets: Reset) -> None:
    """A 429 names its period by its code, or else by its words, and never counts as an attempt."""
    failure = classify(Signal(Stage.SUBMIT, 429, code, message))
    assert (failure.resets, failure.counts_as_attempt) == (resets, False)
    assert failure.scope is (Scope.ACCOUNT if resets in {Reset.BURST, Reset.MINUTE} else Scope.MODEL)


@pytest.mark.parametrize("message", [None, "Server error", "aspect_ratio is not within the range of allowed options"])
def test_an_enveloped_500_counts_but_was_not_accepted(message: str | None) -> None:
    """The contract counts a submission that was answered 500, whatever its words turn it into."""
    failure = classify(Signal(Stage.SUBMIT, 500, None, message))
    assert (failure.acceptance, failure.counts_as_attempt) == (Acceptance.NO, True)


@pytest.mark.parametrize(
    ("signal", "patience"),
    [
        (Signal(Stage.POLL, 404), MISSING_PATIENCE),
        (Signal(Stage.POLL, 410), MISSING_PATIENCE),
        (Signal(Stage.POLL, 200, "422", "recordInfo is null"), MISSING_PATIENCE),
        (Signal(Stage.POLL, 404, enveloped=False), BARE_MISSING_PATIENCE),
    ],
)
def test_a_missing_task_is_lost_only_after_a_while(signal: Signal, patience: object) -> None:
    """A look-up that does not know the task is doubted first (trap 1), then ends the job for good."""
    doubted = classify(signal)
    assert (doubted.category, doubted.patience) == (Category.RETRYABLE, patience)
    lost = believed(doubted)
    assert (lost.code, lost.category, lost.action) == (Code.TASK_LOST, Category.TERMINAL, Action.FAIL)
    assert lost.patience is None


@pytest.mark.parametrize(
    "signal",
    [
        Signal(Stage.RESULT, 200, "524", "generate task timeout."),
        Signal(Stage.RESULT, 200, "524", "Internal error"),
        Signal(Stage.RESULT, 200, None, "ZAMAN AŞIMI"),
    ],
)
def test_a_timed_out_task_is_believed_only_after_a_grace(signal: Signal) -> None:
    """A task that timed out has come back a minute later (trap 2); believed, it is retried."""
    doubted = classify(signal)
    assert doubted.patience == TIMEOUT_PATIENCE
    assert believed(doubted) == replace(doubted, patience=None)
    assert (doubted.code, doubted.action) == (Code.GENERATION_TIMEOUT, Action.RETRY)


def test_what_needs_no_patience_is_believed_as_it_is() -> None:
    """A verdict without patience does not change, least of all a refused look-up."""
    failure = classify(Signal(Stage.POLL, 402))
    assert believed(failure) is failure


def test_a_name_outweighs_an_apology() -> None:
    """A code that says what was the matter is believed over a message that only regrets it, but over no other."""
    assert classify(Signal(Stage.RESULT, 200, "SAFETY.INPUT.IMAGE", "An error occurred.")).code is Code.CONTENT_REJECTED
    assert classify(Signal(Stage.RESULT, 200, "TASK_TIMEOUT", "Internal error")).code is Code.GENERATION_TIMEOUT
    broken = Signal(Stage.RESULT, 200, "SAFETY.INPUT.IMAGE", "Internal error in the safety service")
    assert classify(broken).code is Code.GENERATION_FAILED


@pytest.mark.parametrize(
    "message",
    [
        "Something broke on our side, no credits were charged",
        "Our latency-sensitive pool is exhausted",
        "Task rejected: the queue is full",
        "safety_tolerance store unavailable",
    ],
)
def test_words_that_only_look_like_a_verdict_say_nothing(message: str) -> None:
    """A parameter's name, a figure of speech or an assurance is no refusal, and ends no job."""
    assert classify(Signal(Stage.RESULT, 200, None, message)).code is Code.GENERATION_FAILED


def test_unknown_wording_is_told_apart() -> None:
    """A generation failure that no row recognises is retried under a rule of its own, so that it can be logged."""
    assert classify(Signal(Stage.RESULT, 200, "999", "Flux capacitor misaligned")).rule == UNRECOGNISED
    assert classify(Signal(Stage.RESULT, 200, None, "Video generation failed")).rule != UNRECOGNISED


def test_words_in_a_url_mean_nothing() -> None:
    """The name of somebody's file is no policy refusal."""
    failure = classify(Signal(Stage.RESULT, 200, None, "Failed to download https://x.example/nsfw/celebrity.png"))
    assert failure.code is Code.INVALID_INPUT


def test_the_gateways_words_are_kept() -> None:
    """Its message and code are kept, without control characters and cut, and ours stand in where it gave none."""
    told = classify(
        Signal(Stage.SUBMIT, 402, "insufficient_balance", "Yetersiz\x00\n\x1b[31m bakiye.\ud800", retry_after_s=3)
    )
    assert (told.message, told.gateway_code) == ("Yetersiz [31m bakiye.", "insufficient_balance")
    assert (told.http_status, told.retry_after_s) == (402, 3)
    assert classify(Signal(Stage.SUBMIT, 402, message="ş" * 600)).message == "ş" * 499 + "…"
    assert classify(Signal(Stage.SUBMIT, 402)).message == "the balance is used up (HTTP 402)"


@pytest.mark.parametrize(
    ("code", "category", "counts", "acceptance"),
    [
        (Code.DEADLINE_EXCEEDED, Category.TERMINAL, False, Acceptance.NO),
        (Code.CANCELED, Category.TERMINAL, False, Acceptance.NO),
        (Code.INVALID_REQUEST, Category.TERMINAL, False, Acceptance.NO),
        (Code.TASK_LOST, Category.TERMINAL, True, Acceptance.YES),
        (Code.GENERATION_TIMEOUT, Category.RETRYABLE, True, Acceptance.YES),
        (Code.SUBMIT_UNKNOWN, Category.RETRYABLE, True, Acceptance.UNKNOWN),
    ],
)
def test_verdicts_of_our_own_have_rows(code: Code, category: Category, counts: bool, acceptance: Acceptance) -> None:  # noqa: FBT001
    """What this side concludes by itself is in the table too, with its words and nothing of the gateway's."""
    failure = own_failure(code, "said so")
    assert (failure.code, failure.category, failure.counts_as_attempt) == (code, category, counts)
    assert (failure.acceptance, failure.message, failure.source) == (acceptance, "said so", "ours")
    assert (failure.http_status, failure.gateway_code, failure.patience) == (None, None, None)


def test_only_what_says_that_the_task_is_missing_counts_toward_its_loss() -> None:
    """A 422 at a look-up is most likely that, but a guess ends no paid task."""
    guess = classify(Signal(Stage.POLL, 422))
    assert (guess.code, guess.category, guess.patience) == (Code.TASK_LOST, Category.RETRYABLE, None)
    doubted = {rule.name for rule in RULES if Stage.POLL in rule.stages and rule.patience is not None}
    assert doubted == {"poll_record_missing", "poll_404_410", "poll_404_410_bare"}
