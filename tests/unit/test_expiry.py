"""When results are taken to stop working, whatever the gateway says of it."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.expiry import LONGEST_LIFETIME_MS, RESULT_LIFETIME_MS, ToldExpiry, expires_at_ms

NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z
HOUR_MS = 3_600_000
IN_A_DAY = NOW_MS + RESULT_LIFETIME_MS


def moment(value: Any) -> int:
    """Read one moment."""
    return expires_at_ms([ToldExpiry(value)], NOW_MS)


def span(value: Any) -> int:
    """Read one span."""
    return expires_at_ms([ToldExpiry(value, is_span=True)], NOW_MS)


@pytest.mark.parametrize(
    "value",
    [
        "2027-01-15T09:00:00Z", "2027-01-15T09:00:00.000Z", "2027-01-15T12:00:00+03:00", "2027-01-15 09:00:00+00:00",
        " 2027-01-15T09:00:00Z ", 1_800_003_600, 1_800_003_600.0, "1800003600", "1800003600.000", 1_800_003_600_000,
        "1800003600000",
    ],
)  # fmt: skip
def test_a_moment_is_read_in_any_form(value: Any) -> None:
    """RFC 3339 with any offset, seconds or milliseconds since 1970, as number or text."""
    assert moment(value) == NOW_MS + HOUR_MS


@pytest.mark.parametrize("value", [3600, 3600.0, "3600", " 3600 ", "3600.0"])
def test_a_span_is_read_in_any_form(value: Any) -> None:
    """Seconds from now, as number or text."""
    assert span(value) == NOW_MS + HOUR_MS


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 1, 3600, "", "soon", "2027-01-15", "2027-01-15T09:00:00", "2027-01-15T07:59:59Z",
        "2027-01-15T08:00:00Z", "2028-01-16T08:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00",
        "2027-13-45T99:00:00Z", 1_800_000_000, 1_831_622_400, 1_799_999_999_999, 10**30, float("inf"), float("nan"),
        "9" * 5000, [1_800_003_600], {"at": 1_800_003_600},
    ],
)  # fmt: skip
def test_a_moment_that_cannot_be_right_is_a_day(value: Any) -> None:
    """What is past, a year away, without a zone or no time at all."""
    assert moment(value) == IN_A_DAY


@pytest.mark.parametrize("value", [None, True, 0, -5, "", "1h", 10**9, 10**40, float("nan"), "2027-01-15T09:00:00Z"])
def test_a_span_that_cannot_be_right_is_a_day(value: Any) -> None:
    """What is no number of seconds within a year."""
    assert span(value) == IN_A_DAY


def test_the_earliest_that_can_be_right_counts() -> None:
    """One of several that is nonsense spoils none of the others."""
    told = [ToldExpiry("soon"), ToldExpiry(7200, is_span=True), ToldExpiry(1_800_003_600), ToldExpiry(5)]
    assert expires_at_ms(told, NOW_MS) == NOW_MS + HOUR_MS
    assert expires_at_ms([], NOW_MS) == IN_A_DAY


@given(at=st.datetimes(datetime(2027, 1, 15, 8, 0, 1), datetime(2028, 1, 15, 8, 0, 0)))  # noqa: DTZ001 - UTC below
def test_all_forms_agree(at: datetime) -> None:
    """A moment is the same however it is written, to the millisecond where the form has one."""
    at = at.replace(microsecond=at.microsecond // 1000 * 1000, tzinfo=UTC)
    at_ms = round(at.timestamp() * 1000)
    assert moment(at.isoformat()) == moment(at_ms) == moment(str(at_ms)) == at_ms
    assert moment(at_ms // 1000) == span(at_ms // 1000 - NOW_MS // 1000) == at_ms // 1000 * 1000


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str) | st.binary()


@given(told=st.lists(st.builds(ToldExpiry, VALUES | st.lists(VALUES, max_size=2), is_span=st.booleans()), max_size=5))
def test_nothing_told_surprises_the_reader(told: list[ToldExpiry]) -> None:
    """Whatever is told, the answer is in the future and within a year."""
    assert NOW_MS < expires_at_ms(told, NOW_MS) <= NOW_MS + LONGEST_LIFETIME_MS
