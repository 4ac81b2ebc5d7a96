"""What cannot be true is never posted (L6)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollup.plausible import Refusal, implausible, ordinary
from schemas.binary import microseconds_each
from schemas.columns import CallColumns
from schemas.periods import Period
from tests.rollup.builders import US, at, call

STARTED = at("2026-10-10T12:00:00")
OLDEST = Period(2025, 1)
COMPLETE = {"answered_seconds": "60", "billed_seconds": 60, "cost": "0.01", "currency": "USD"}


def judged(**fields: Any) -> Refusal | None:
    return implausible(call(**fields), US, STARTED + timedelta(hours=1), OLDEST)


def test_an_ordinary_call_is_believed() -> None:
    assert judged() is None
    assert judged(ended_at=None, answered_at=None) is None
    assert judged(currency="USD", cost="0", billed_seconds=0) is None
    assert judged(**COMPLETE) is None


@pytest.mark.parametrize("rest", [{}, COMPLETE], ids=["bare", "complete"])
@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        ({"ended_at": STARTED + timedelta(seconds=4)}, "ended_at is before answered_at"),
        ({"answered_at": None, "ended_at": STARTED - timedelta(seconds=1)}, "ended_at is before started_at"),
        ({"answered_seconds": "-0.001"}, "answered_seconds is negative"),
        ({"billed_seconds": -1}, "billed_seconds is negative"),
        ({"cost": "-0.01"}, "cost is negative"),
        ({"ended_at": STARTED + timedelta(hours=24, microseconds=1)}, "it lasted longer than 24 hours"),
        ({"answered_seconds": "86400.001"}, "answered_seconds is more than 24 hours"),
        ({"billed_seconds": 86_401}, "billed_seconds is more than 24 hours"),
        ({"currency": "EUR"}, "currency EUR is not the account's USD"),
    ],
)
def test_a_contradiction_is_implausible_and_says_what_it_is(
    fields: dict[str, Any], detail: str, rest: dict[str, Any]
) -> None:
    assert judged(**rest | fields) == Refusal("implausible", detail, by_terms="currency" in fields)


def test_a_call_of_exactly_a_day_is_believed() -> None:
    assert judged(ended_at=STARTED + timedelta(hours=24)) is None


@pytest.mark.parametrize("rest", [{}, COMPLETE], ids=["bare", "complete"])
def test_a_record_older_than_400_days_when_received_is_too_old(rest: dict[str, Any]) -> None:
    assert implausible(call(**rest), US, STARTED + timedelta(days=400), OLDEST) is None
    late = implausible(call(**rest), US, STARTED + timedelta(days=400, microseconds=1), OLDEST)
    assert late is not None
    assert late.reason == "too_old"


@pytest.mark.parametrize("rest", [{}, COMPLETE], ids=["bare", "complete"])
def test_a_record_before_the_ledgers_first_month_is_too_old(rest: dict[str, Any]) -> None:
    early = implausible(call(**rest), US, STARTED, Period(2026, 11))
    assert early is not None
    assert early.reason == "too_old"
    assert implausible(call(**rest), US, STARTED, Period(2026, 10)) is None


def test_what_the_record_tells_by_itself_goes_before_what_only_its_owners_terms_tell() -> None:
    old = implausible(call(currency="EUR"), US, STARTED, Period(2026, 11))
    assert old is not None
    assert (old.reason, old.by_terms) == ("too_old", False)


AMOUNTS = st.sampled_from(["0", "-0", "-0.0000001", "0.0000001", "60", "86400", "86400.000001", "-1"])


@given(
    started=st.sampled_from([STARTED, STARTED - timedelta(days=400), at("2024-12-31T23:59:59.999999")]),
    answered=st.none() | st.integers(-1, 90_000),
    ended=st.integers(-1, 90_000),
    seconds=AMOUNTS.filter(lambda text: "0000001" not in text),
    billed=st.sampled_from([-1, 0, 60, 86_400, 86_401]),
    cost=AMOUNTS,
)
def test_of_what_is_ordinary_nothing_is_to_be_said(
    started: datetime, answered: int | None, ended: int, seconds: str, billed: int, cost: str
) -> None:
    record = call(
        started_at=started,
        answered_at=None if answered is None else started + timedelta(seconds=answered),
        ended_at=started + timedelta(seconds=ended),
        answered_seconds=seconds,
        billed_seconds=billed,
        cost=cost,
        currency="USD",
    )
    received = STARTED + timedelta(hours=1)
    (found,) = ordinary(CallColumns.of([record]), microseconds_each([received]), OLDEST)

    if found:
        assert implausible(record, US, received, OLDEST) is None
    else:  # it need not be told of a cost of less than a millionth, nor of an answer before the start
        untold = "0000001" in cost or (answered is not None and answered < 0)
        assert untold or implausible(record, US, received, OLDEST) is not None
