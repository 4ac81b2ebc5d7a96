"""Which profile bills a statement, and when its invoice goes out."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.schedule import ProfileVersion, due_instant, send_instant, version_in_force
from tests.invoicing.builders import profile, utc

instants = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize(
    ("generated_at", "billing_day", "sends_at"),
    [
        (utc(2026, 6, 3, 1), 20, utc(2026, 6, 20, 12)),
        (utc(2026, 2, 3), 31, utc(2026, 2, 28, 12)),
        (utc(2028, 2, 3), 29, utc(2028, 2, 29, 12)),
        (utc(2026, 2, 3), 29, utc(2026, 2, 28, 12)),
        (utc(2026, 4, 3), 31, utc(2026, 4, 30, 12)),
        (utc(2026, 6, 3, 1), 3, utc(2026, 6, 3, 12)),
        (utc(2026, 6, 3, 13), 3, utc(2026, 6, 3, 13)),
        (utc(2026, 6, 3, 1), 1, utc(2026, 6, 3, 1)),
    ],
)
def test_the_invoice_goes_out_at_noon_on_the_billing_day_or_at_once(
    generated_at: datetime, billing_day: int, sends_at: datetime
) -> None:
    assert send_instant(generated_at, billing_day) == sends_at


@given(instants, st.integers(1, 31))
def test_an_invoice_never_goes_out_before_its_statement_nor_in_another_month(
    generated_at: datetime, billing_day: int
) -> None:
    sends_at = send_instant(generated_at, billing_day)
    assert sends_at >= generated_at
    assert (sends_at.year, sends_at.month) == (generated_at.year, generated_at.month)
    last_day = monthrange(sends_at.year, sends_at.month)[1]
    assert sends_at == generated_at or sends_at.day == min(billing_day, last_day)


def test_a_profile_bills_statements_generated_after_it_was_made_until_it_ends() -> None:
    first = ProfileVersion(1, utc(2026, 5, 15), utc(2026, 6, 10), profile())
    second = ProfileVersion(2, utc(2026, 6, 10), None, profile())
    versions = [first, second]
    assert version_in_force(versions, utc(2026, 5, 3)) is None
    assert version_in_force(versions, utc(2026, 6, 3)) is first
    assert version_in_force(versions, utc(2026, 6, 10)) is second
    assert version_in_force([first], utc(2026, 7, 3)) is None


def test_a_sent_invoice_is_due_at_the_end_of_the_day_its_terms_after_sending() -> None:
    assert due_instant(utc(2026, 6, 20, 12), 0) == utc(2026, 6, 20, 23, 59, 59)
    assert due_instant(utc(2026, 6, 20, 12), 30) == utc(2026, 7, 20, 23, 59, 59)


@given(instants, st.integers(0, 365))
def test_no_invoice_is_due_before_it_is_sent(sent_at: datetime, terms_days: int) -> None:
    assert due_instant(sent_at, terms_days) > sent_at - timedelta(seconds=1)
