"""What a record costs (L7, L8), and which tariff says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollup.rate import Rated, Unrated, billed_seconds, rate
from rollup.tariffs import Tariff, Tariffs
from rollup.terms import unowned
from tests.rollup.builders import LONG_AGO, US, at, call


def tariff(**fields: Any) -> Tariff:
    standard = Tariff(1, 1, "outbound_conversational", "", LONG_AGO, "minute", Decimal("0.012"))
    return replace(standard, **fields)


def rated(*tariffs: Tariff, **fields: Any) -> Rated:
    found = rate(call(**fields), US, Tariffs(tariffs))
    assert isinstance(found, Rated)
    return found


def test_a_minute_costs_its_tariff() -> None:
    found = rated(tariff())
    assert (found.answered_seconds, found.billed_seconds, found.cost) == (Decimal(60), 60, Decimal("0.012"))
    assert (found.tariff_id, found.currency, found.answered) == (1, "USD", True)


def test_what_the_switch_sent_stands() -> None:
    found = rated(tariff(), cost="0.0255", billed_seconds=180, answered_seconds="179.5", currency="USD")
    assert (found.cost, found.billed_seconds, found.answered_seconds) == (
        Decimal("0.025500"),
        180,
        Decimal("179.5"),
    )
    assert found.tariff_id is None


def test_a_cost_is_rounded_half_up_to_six_decimals() -> None:
    assert rated(cost="0.0000005").cost == Decimal("0.000001")
    assert str(rated(tariff(cost=Decimal("0.000001")), billed_seconds=30).cost) == "0.000001"


def test_ringing_costs_nothing_and_is_an_attempt() -> None:
    found = rated(tariff(), answered_at=None)
    assert (found.answered, found.answered_seconds, found.billed_seconds, found.cost) == (
        False,
        Decimal(0),
        0,
        Decimal(0),
    )


def test_a_call_that_was_answered_and_ended_at_once_is_a_call_and_not_only_an_attempt() -> None:
    found = rated(answered_seconds="0", billed_seconds=0)
    assert (found.answered, found.answered_seconds, found.cost) == (True, Decimal(0), Decimal(0))


def test_an_unanswered_call_needs_no_tariff() -> None:
    assert rated(answered_at=None).cost == 0


def test_an_emergency_call_is_free_without_a_tariff() -> None:
    found = rated(to_number="911")
    assert (found.usage_class, found.billed_seconds, found.cost) == ("outbound_emergency", 60, Decimal(0))


def test_without_cost_and_tariff_it_is_unrated_and_says_of_what() -> None:
    found = rate(call(), US, Tariffs())
    assert isinstance(found, Unrated)
    assert "outbound_conversational" in found.detail


def test_a_tariff_per_month_prices_no_call() -> None:
    assert isinstance(rate(call(), US, Tariffs([tariff(unit="month")])), Unrated)


def test_a_service_event_costs_its_tariff_per_event() -> None:
    lookup = tariff(usage_class="caller_id_lookup", unit="event", cost=Decimal("0.004"))
    found = rated(lookup, service="caller_id_lookup", direction="inbound", answered_at=None, ended_at=None)
    assert (found.usage_class, found.cost, found.billed_seconds) == ("caller_id_lookup", Decimal("0.004"), 0)


def test_what_nobody_owns_costs_what_was_sent_or_nothing() -> None:
    nobody = unowned("US")
    sent = rate(call(cost="0.02", currency="EUR"), nobody, Tariffs())
    silent = rate(call(), nobody, Tariffs())
    assert isinstance(sent, Rated)
    assert isinstance(silent, Rated)
    assert (sent.cost, sent.currency) == (Decimal("0.020000"), "EUR")
    assert (silent.cost, silent.currency) == (Decimal(0), "XXX")


@pytest.mark.parametrize(
    ("increments", "seconds", "expected"),
    [
        ((1, 1), "0.001", 1),
        ((1, 1), "60.2", 61),
        ((6, 6), "1", 6),
        ((6, 6), "12", 12),
        ((30, 6), "30.001", 36),
        ((60, 6), "59", 60),
        ((60, 6), "61", 66),
        ((60, 60), "60.001", 120),
        ((60, 60), "0", 0),
    ],
)
def test_increments_round_up_per_call(increments: tuple[int, int], seconds: str, expected: int) -> None:
    first, following = increments
    by = tariff(increment_first_seconds=first, increment_next_seconds=following)
    assert billed_seconds(Decimal(seconds), by) == expected


@given(st.decimals(0, 86_400, places=6), st.integers(1, 120), st.integers(1, 120))
def test_billed_seconds_are_the_least_increments_that_hold_the_call(
    seconds: Decimal, first: int, following: int
) -> None:
    billed = billed_seconds(seconds, tariff(increment_first_seconds=first, increment_next_seconds=following))
    if seconds == 0:
        assert billed == 0
    elif seconds <= first:
        assert billed == first
    else:
        assert billed == first + ceil((seconds - first) / following) * following


def test_the_longest_prefix_wins_and_a_later_tariff_replaces_an_earlier_one() -> None:
    tariffs = Tariffs(
        [
            tariff(id=1, usage_class="outbound_international"),
            tariff(id=2, usage_class="outbound_international", prefix="44"),
            tariff(id=3, usage_class="outbound_international", prefix="447"),
            tariff(
                id=4,
                usage_class="outbound_international",
                prefix="44",
                effective_at=at("2026-10-01T00:00:00"),
            ),
        ]
    )

    def which(digits: str, when: str) -> int | None:
        found = tariffs.in_force(1, "outbound_international", digits, at(when))
        return found.id if found else None

    assert which("33123456789", "2026-10-10T00:00:00") == 1
    assert which("442071838750", "2026-09-30T23:59:59.999") == 2
    assert which("442071838750", "2026-10-01T00:00:00") == 4
    assert which("447700900123", "2026-10-10T00:00:00") == 3
    assert which("442071838750", "2024-01-01T00:00:00") is None


@pytest.mark.parametrize(
    ("called", "which"), [("+442071838750", 2), ("011442071838750", 2), ("+33142685300", 1)]
)
def test_a_calls_prefix_is_that_of_its_number_in_e164_however_it_was_dialled(called: str, which: int) -> None:
    anywhere = tariff(id=1, usage_class="outbound_international")
    found = rated(anywhere, replace(anywhere, id=2, prefix="44"), to_number=called)
    assert (found.usage_class, found.tariff_id) == ("outbound_international", which)


def test_a_longer_prefix_that_is_not_in_force_yet_leaves_the_shorter_one() -> None:
    tariffs = Tariffs(
        [tariff(id=1), tariff(id=2, prefix="1212", effective_at=LONG_AGO + timedelta(days=900))]
    )
    found = tariffs.in_force(1, "outbound_conversational", "12125550100", at("2026-10-10T00:00:00"))
    assert found is not None
    assert found.id == 1
