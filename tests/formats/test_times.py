"""When it was: every way in which switches write it comes to the instant, or to a refusal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.formats.times import (
    TimeError,
    candidates,
    from_microseconds,
    from_milliseconds,
    from_seconds,
    told_apart,
)

NEW_YORK = ZoneInfo("America/New_York")
ZONES = st.sampled_from(
    [NEW_YORK, ZoneInfo("UTC"), ZoneInfo("Europe/London"), ZoneInfo("Australia/Lord_Howe")]
)
INSTANTS = st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 30), timezones=st.just(UTC))


@given(INSTANTS)
@settings(deadline=None)
def test_an_epoch_in_any_unit_is_the_instant_to_the_microsecond(instant: datetime) -> None:
    microseconds = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    seconds = f"{microseconds // 10**6}.{microseconds % 10**6:06d}"
    assert (
        from_seconds(seconds)
        == from_microseconds(microseconds)
        == from_microseconds(str(microseconds))
        == instant
    )
    assert from_milliseconds(microseconds // 1000) == instant.replace(
        microsecond=instant.microsecond // 1000 * 1000
    )


@pytest.mark.parametrize("never", [None, "", "0", 0, "0.000", "000"])
def test_zero_is_never(never: object) -> None:
    assert from_seconds(never) is None
    assert from_microseconds(never) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "-1",
        "nan",
        "inf",
        "1791633597026",
        "12",
        "x",
        "1.2.3",
        ".",
        [],
        True,
        "9" * 400,
        "1791633597,5",
    ],
)
def test_what_is_no_epoch_in_seconds_is_refused(wrong: object) -> None:
    with pytest.raises(TimeError):
        from_seconds(wrong)


@given(INSTANTS, ZONES)
@settings(deadline=None)
def test_a_local_time_is_read_back_as_its_instant_or_as_one_of_two(instant: datetime, zone: ZoneInfo) -> None:
    local = instant.astimezone(zone).replace(tzinfo=None)
    found = candidates(local.isoformat(), zone)
    assert instant in found
    assert len(found) <= 2
    assert all(each.astimezone(zone).replace(tzinfo=None) == local for each in found)


@given(INSTANTS, ZONES, st.integers(0, 7200), st.integers(0, 7200))
@settings(deadline=None)
def test_what_is_told_apart_is_never_told_wrongly(
    instant: datetime, zone: ZoneInfo, ringing: int, talking: int
) -> None:
    """The true times are always among the candidates, so a single reading that fits is the true one or refused."""
    times = (instant, instant + timedelta(seconds=ringing), instant + timedelta(seconds=ringing + talking))
    local = [candidates(each.astimezone(zone).replace(tzinfo=None).isoformat(), zone) for each in times]
    try:
        read = told_apart(*local, seconds=ringing + talking, answered_seconds=talking, began_at=instant)
    except TimeError:
        return
    assert tuple(read) == times


@pytest.mark.parametrize("text", ["2026-03-08T02:30:00", "2026-03-08 02:00:00"])
def test_a_time_that_the_clocks_skipped_is_refused(text: str) -> None:
    with pytest.raises(TimeError, match="skipped"):
        candidates(text, NEW_YORK)


def test_a_time_without_offset_needs_a_zone() -> None:
    with pytest.raises(TimeError, match="no zone is set"):
        candidates("2026-10-10T12:00:00", None)
    assert candidates("2026-10-10T12:00:00Z", None) == candidates("2026-10-10T08:00:00-0400", None)


def test_the_hour_of_the_clock_change_is_never_billed_an_hour_too_long() -> None:
    start = candidates("2026-11-01T01:59:30", NEW_YORK)
    end = candidates("2026-11-01T01:00:30", NEW_YORK)
    read = told_apart(start, start, end, seconds=60, answered_seconds=60)
    assert read.ended_at is not None
    assert read.ended_at - read.started_at == timedelta(seconds=60)
    assert told_apart(start, None, end) == (read.started_at, None, read.ended_at), (
        "a call ends after it began"
    )
    with pytest.raises(TimeError, match="happened twice"):
        told_apart(start, None, None)
