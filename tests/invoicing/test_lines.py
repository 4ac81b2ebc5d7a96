"""What a statement costs its tenant, line by line."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.lines import InvoiceLine, charge_minor, product_lines, subtotal_minor
from invoicing.plan import Blocked, NothingToBill, ToBill, plan_invoice
from invoicing.profile import BillingProfile
from invoicing.schedule import ProfileVersion
from schemas.statements import NumbersHeld, StatementLine
from tests.invoicing.builders import OUTBOUND, amounts, profile, statement, usage, utc

MAY, APRIL = "2026-05", "2026-04"


def only_line(definition: BillingProfile, *lines: StatementLine, **fields: int) -> InvoiceLine:
    (line,) = product_lines(statement(*lines, **fields), definition.products)  # type: ignore[arg-type]
    return line


def test_minutes_are_seconds_times_price_over_sixty_rounded_once() -> None:
    line = only_line(profile({**OUTBOUND, "price": "0.0129"}), usage(seconds=74_074))
    assert line.amount_minor == 15_93  # 15.92591
    assert line.description == ("Outbound minutes: 1,234 min 34 s at USD 0.0129 a minute, May 2026 (UTC)")


def test_half_a_cent_is_rounded_up() -> None:
    assert only_line(profile({**OUTBOUND, "price": "0.005"}), usage(seconds=60)).amount_minor == 1


@pytest.mark.parametrize(
    ("currency", "quantity", "minor"),
    [("JPY", "149", 1), ("JPY", "150", 2), ("USD", "150", 150), ("KWD", "0.149", 1), ("KWD", "0.15", 2)],
)
def test_an_amount_is_rounded_to_its_currencys_own_smallest_unit(
    currency: str, quantity: str, minor: int
) -> None:
    assert charge_minor(Decimal(quantity), "item", Decimal("0.01"), currency) == minor


def test_classes_of_one_product_share_its_included_minutes() -> None:
    minutes = {
        "kind": "minutes",
        "description": "Calls",
        "usage_classes": ["inbound_conversational", "outbound_conversational"],
        "price": "0.01",
        "included_minutes": "100",
    }
    line = only_line(profile(minutes), usage(seconds=4_200), usage("inbound_conversational", seconds=4_800))
    assert line.quantity == 3_000
    assert line.amount_minor == 50
    assert line.description == (
        "Calls: 150 min less 100 min included, 50 min at USD 0.01 a minute, May 2026 (UTC)"
    )


def test_late_usage_has_a_line_of_its_own_month_and_consumes_no_included_minutes() -> None:
    late = usage(seconds=600, period=APRIL, late=True)
    definition = profile({**OUTBOUND, "price": "0.01", "included_minutes": "10"})
    lines = product_lines(statement(usage(seconds=1_200), late), definition.products)
    assert amounts(lines) == {"1.2026-05": 10, "1.2026-04": 10}
    assert lines[1].description == (
        "Outbound minutes: 10 min at USD 0.01 a minute, late usage of April 2026 (UTC)"
    )


def test_numbers_channels_events_and_flat_items_are_counted() -> None:
    held = (
        NumbersHeld(usage_class="number_local", count=3, cost=Decimal(3)),
        NumbersHeld(usage_class="number_toll_free", count=1, cost=Decimal(2)),
    )
    definition = profile(
        {"kind": "numbers", "description": "Local numbers", "usage_class": "number_local", "price": "1.50"},
        {"kind": "numbers", "description": "Toll-free", "usage_class": "number_toll_free", "price": "4"},
        {"kind": "peak_channels", "description": "Channels", "price": "12.34"},
        {
            "kind": "service_events",
            "description": "Names",
            "usage_class": "caller_id_lookup",
            "price": "0.008",
        },
        {"kind": "flat", "description": "Support", "price": "25", "quantity": "2"},
    )
    body = statement(usage("caller_id_lookup", attempts=1_000), numbers=held, peak=7)
    lines = product_lines(body, definition.products)
    assert [(line.amount_minor, line.description) for line in lines] == [
        (4_50, "Local numbers: 3 numbers at USD 1.5, May 2026 (UTC)"),
        (4_00, "Toll-free: 1 number at USD 4, May 2026 (UTC)"),
        (86_38, "Channels: 7 channels at USD 12.34, May 2026 (UTC)"),
        (8_00, "Names: 1,000 events at USD 0.008, May 2026 (UTC)"),
        (50_00, "Support: 2 at USD 25, May 2026 (UTC)"),
    ]


def test_cost_plus_marks_up_what_the_carrier_charged_numbers_included() -> None:
    held = (NumbersHeld(usage_class="number_local", count=1, cost=Decimal("1.000000")),)
    definition = profile({"kind": "cost_plus", "description": "Usage", "markup_percent": "20"})
    body = statement(usage(cost="10.123456"), usage(cost="2", period=APRIL, late=True), numbers=held)
    lines = product_lines(body, definition.products)
    assert amounts(lines) == {"1.2026-05": 13_35, "1.2026-04": 2_40}
    assert lines[0].description == "Usage: cost USD 11.123456 plus 20 %, May 2026 (UTC)"


def test_a_line_that_comes_to_nothing_is_left_out() -> None:
    definition = profile({**OUTBOUND, "price": "0.01", "included_minutes": "500"})
    assert product_lines(statement(usage(seconds=600)), definition.products) == ()


def test_a_flat_item_is_billed_without_any_usage() -> None:
    flat = profile({"kind": "flat", "description": "Line rental", "price": "5"})
    assert only_line(flat).amount_minor == 5_00


quantities = st.decimals(0, 10**9, places=6, allow_nan=False, allow_infinity=False)
prices = st.decimals(0, 10**6, places=12, allow_nan=False, allow_infinity=False)


@given(quantities, prices, st.sampled_from(["second", "item"]))
def test_an_amount_is_the_exact_product_rounded_half_up_once(
    quantity: Decimal, price: Decimal, unit: str
) -> None:
    exact = Fraction(quantity) * Fraction(price) * 100 / (60 if unit == "second" else 1)
    whole = exact.numerator // exact.denominator
    auditor = whole + (exact - whole >= Fraction(1, 2))
    assert charge_minor(quantity, unit, price, "USD") == auditor  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 10**7), max_size=6), prices)
def test_months_never_mix_and_each_line_is_within_half_a_cent(
    late_seconds: list[int], price: Decimal
) -> None:
    late = [
        usage(seconds=seconds, period=f"2026-{1 + i % 4:02d}", late=True)
        for i, seconds in enumerate(late_seconds)
    ]
    body = statement(usage(seconds=1_000_000), *late)
    lines = product_lines(body, profile({**OUTBOUND, "price": str(price)}).products)
    assert len({line.key for line in lines}) == len(lines)
    assert len(lines) <= 5
    exact = Fraction(price) * (1_000_000 + sum(late_seconds)) / 60 * 100
    assert abs(subtotal_minor(lines) - exact) <= Fraction(5, 2)


def version(definition: BillingProfile) -> list[ProfileVersion]:
    return [ProfileVersion(1, utc(2026, 5, 1), None, definition)]


@pytest.mark.parametrize(
    ("definition", "reason"),
    [
        (profile({"kind": "flat", "description": "Dear", "price": "999999.99"}, {"kind": "flat", "description": "Cent", "price": "0.01"}), "total_over_maximum"),
        (profile({**OUTBOUND, "price": "1"}, currency="EUR"), "currency_differs"),
        (profile(*[{**OUTBOUND, "price": "1"}] * 126), "too_many_lines"),
    ],
)  # fmt: skip
def test_what_stripe_would_not_take_is_blocked_with_the_reason(
    definition: BillingProfile, reason: str
) -> None:
    body = statement(usage(seconds=60), usage(seconds=60, period=APRIL, late=True))
    assert plan_invoice(body, utc(2026, 6, 3), version(definition)) == Blocked(reason, 1)  # type: ignore[arg-type]


def test_two_hundred_and_fifty_lines_are_billed() -> None:
    body = statement(usage(seconds=60), usage(seconds=60, period=APRIL, late=True))
    plan = plan_invoice(body, utc(2026, 6, 3), version(profile(*[{**OUTBOUND, "price": "1"}] * 125)))
    assert isinstance(plan, ToBill)
    assert len(plan.lines) == 250


def test_nothing_to_bill_is_a_decision_of_its_own() -> None:
    assert plan_invoice(statement(), utc(2026, 6, 3), version(profile())) == NothingToBill(1)
