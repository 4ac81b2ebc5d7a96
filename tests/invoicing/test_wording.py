"""What Stripe is told, parameter by parameter (I2-I5)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from invoicing import wording
from invoicing.remote import DraftFacts, ItemFacts
from tests.invoicing.builders import utc
from tests.invoicing.test_gateway import LINE, WHO, draft_facts


@pytest.mark.parametrize(
    ("month", "first", "last"),
    [
        ("2026-05", utc(2026, 5, 1), utc(2026, 5, 31, 23, 59, 59)),
        ("2028-02", utc(2028, 2, 1), utc(2028, 2, 29, 23, 59, 59)),
        ("2026-12", utc(2026, 12, 1), utc(2026, 12, 31, 23, 59, 59)),
    ],
)
def test_a_lines_service_period_is_its_month_to_its_last_second(
    month: str, first: datetime, last: datetime
) -> None:
    line = LINE.model_copy(update={"usage_period": month})
    told = wording.item(ItemFacts("cus_1", "in_1", "USD", line, taxes=False))["period"]
    assert (datetime.fromtimestamp(told["start"], UTC), datetime.fromtimestamp(told["end"], UTC)) == (
        first,
        last,
    )


def test_a_draft_never_sends_itself_states_its_taxes_and_takes_nothing_else_along() -> None:
    told = wording.draft(draft_facts("cus_1", taxes=True))
    assert (told["auto_advance"], told["automatic_tax"]) == (False, {"enabled": True})
    assert (told["pending_invoice_items_behavior"], told["discounts"]) == ("exclude", "")
    charged: DraftFacts = replace(draft_facts("cus_1"), collection="charge_automatically", due_at=None)
    assert "due_date" not in wording.draft(charged)


def test_a_due_date_is_told_only_of_an_invoice_that_is_sent() -> None:
    assert "due_date" not in wording.schedule(utc(2026, 6, 20, 12), None)
    due = wording.schedule(utc(2026, 6, 20, 12), utc(2026, 7, 20))["due_date"]
    assert due == utc(2026, 7, 20).timestamp()


def test_a_line_has_a_tax_code_only_where_taxes_are_asked_for() -> None:
    facts = ItemFacts("cus_1", "in_1", "USD", LINE, taxes=True)
    assert (wording.item(facts)["tax_behavior"], wording.item(facts)["tax_code"]) == (
        "exclusive",
        "txcd_10000000",
    )
    assert {"tax_behavior", "tax_code"}.isdisjoint(wording.item(replace(facts, taxes=False)))


def test_an_empty_second_line_clears_what_stripe_has_and_is_not_told_of_a_new_customer() -> None:
    assert wording.customer(WHO, locate=False)["address"]["line2"] == ""
    assert "line2" not in wording.new_customer(WHO, locate=False)["address"]
    assert "tax" not in wording.customer(WHO, locate=False)
    assert wording.new_customer(WHO, locate=True)["tax"] == {"validate_location": "immediately"}
