"""Whatever in Stripe is not exactly our invoice is named, and nothing that is ours is taken for a difference (I7)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.lines import InvoiceLine
from invoicing.remote import RemoteInvoice, RemoteLine
from invoicing.verify import difference, tax_trouble
from tests.invoicing.test_gateway import LINE

OURS = (LINE, LINE.model_copy(update={"key": "2.2026-05", "amount_minor": 25_00}))
THEIRS = tuple(RemoteLine(line.key, f"ii_{line.key}", line.amount_minor, "USD") for line in OURS)
REMOTE = RemoteInvoice(
    id="in_1",
    status="draft",
    reference="ref.1",
    customer="cus_1",
    currency="USD",
    subtotal_minor=37_00,
    collection="send_invoice",
    auto_advance=False,
    finalizes_at=None,
    tax_enabled=False,
    tax_status=None,
    finalization_error=None,
)


def told(lines: tuple[RemoteLine, ...] = THEIRS, **changed: Any) -> str | None:
    return difference(OURS, 37_00, "USD", replace(REMOTE, **changed), lines)


def test_our_own_lines_in_any_order_are_ours() -> None:
    assert told() is None
    assert told(THEIRS[::-1]) is None


@pytest.mark.parametrize(
    ("lines", "changed", "said"),
    [
        (THEIRS, {"subtotal_minor": 36_99}, "subtotal differs: USD 36.99 instead of USD 37.00"),
        (THEIRS, {"currency": "EUR"}, "the draft is in EUR, the invoice in USD"),
        (THEIRS[:1], {}, "lines differ: 2.2026-05 (USD 25.00) missing, none not ours"),
        ((*THEIRS, THEIRS[0]), {}, "lines differ: none missing, 1.2026-05 (USD 12.00) not ours"),
        ((*THEIRS, RemoteLine(None, None, 0, "USD")), {}, "lines differ: none missing, unnamed (USD 0.00) not ours"),
        (
            (replace(THEIRS[0], currency="EUR"), THEIRS[1]),
            {},
            "lines differ: 1.2026-05 (USD 12.00) missing, 1.2026-05 (EUR 12.00) not ours",
        ),
    ],
)  # fmt: skip
def test_what_is_not_ours_is_named(lines: tuple[RemoteLine, ...], changed: dict[str, Any], said: str) -> None:
    assert told(lines, **changed) == said


@given(st.lists(st.integers(1, 10**8), min_size=1, max_size=8), st.data())
def test_no_amount_can_move_unnoticed(amounts: list[int], data: st.DataObject) -> None:
    ours = [
        InvoiceLine.model_validate({**LINE.model_dump(), "key": f"{position}", "amount_minor": amount})
        for position, amount in enumerate(amounts)
    ]
    theirs = [RemoteLine(line.key, None, line.amount_minor, "USD") for line in ours]
    wrong = data.draw(st.integers(0, len(theirs) - 1))
    by = data.draw(st.integers(-5, 5).filter(bool))
    moved = [
        replace(line, amount_minor=line.amount_minor + (by if position == wrong else 0))
        for position, line in enumerate(theirs)
    ]
    right = replace(REMOTE, subtotal_minor=sum(amounts))
    assert difference(ours, sum(amounts), "USD", right, theirs) is None
    assert difference(ours, sum(amounts), "USD", right, moved) is not None


@pytest.mark.parametrize(
    ("taxes", "enabled", "status", "said"),
    [
        (False, False, None, None),
        (True, True, "complete", None),
        (False, True, "complete", "automatic tax is on in Stripe"),
        (True, False, None, "automatic tax is off in Stripe"),
        (True, True, None, "tax cannot be calculated: no status yet"),
        (True, True, "failed", "tax cannot be calculated: failed"),
        (True, True, "requires_location_inputs", "tax cannot be calculated: requires_location_inputs"),
    ],
)
def test_only_complete_taxes_and_only_where_they_are_asked_for_are_right(
    *, taxes: bool, enabled: bool, status: str | None, said: str | None
) -> None:
    found = tax_trouble(taxes, replace(REMOTE, tax_enabled=enabled, tax_status=status))
    assert found == said if said is None else str(found).startswith(said)
