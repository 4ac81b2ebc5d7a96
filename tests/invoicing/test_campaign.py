"""The campaign of faults, small, and its auditor, which must notice whatever is wrong."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from rich.console import Console

from deploy.invoice_faults.__main__ import told
from deploy.invoice_faults.audit import differences
from deploy.invoice_faults.campaign import run
from deploy.invoice_faults.statements import Expected, make
from deploy.invoice_faults.world_store import Fee, Recorded

Books = dict[str, dict[str, Any]]


@pytest.mark.slow
def test_one_invoice_per_statement_whatever_breaks() -> None:
    outcome = run(Console(quiet=True), seed=7, count=12, kills=2)
    assert not outcome.findings, told(outcome)
    assert outcome.counts.kills >= 2
    assert sum(outcome.faults.values()) > outcome.requests / 10


def test_the_campaigns_statements_are_the_same_for_one_seed() -> None:
    assert make(40, seed=3) == make(40, seed=3) != make(40, seed=4)
    assert {each.expected.fate for each in make(400, seed=3)} == {"sent", "nothing_to_bill", "not_billed"}


def a_right_world() -> tuple[list[Expected], Books, list[Recorded], list[Fee]]:
    """What the sandbox and the database would hold if all went well."""
    expected = [each.expected for each in make(60, seed=5)]
    books: Books = {
        each.stripe_account: {"invoices": [], "customers": [], "schedulings": []} for each in expected
    }
    for number, each in enumerate(expected):
        if each.fate == "sent":
            _put(books[each.stripe_account], each, f"in_{number}")
    rows = [
        Recorded(each.statement_id, each.fate, None, None, each.stripe_account, None, None)
        for each in expected
    ]
    return expected, books, rows, [Fee(e.statement_id, e.fee, "USD") for e in expected if e.fee is not None]


def _put(book: dict[str, Any], each: Expected, invoice: str) -> None:
    lines = [{"metadata": {"line": key}, "amount": cents} for key, cents in each.lines.items()]
    emails = {customer["email"]: customer["id"] for customer in book["customers"]}
    customer = emails.get(each.tenant.email, f"cus_{each.tenant.code}")
    if each.tenant.email not in emails:
        book["customers"].append({"id": customer, "email": each.tenant.email})
    book["schedulings"].append(
        {
            "invoice": invoice,
            "lines": deepcopy(lines),
            "finalizes_at": int(each.not_before.timestamp()),
        }
    )
    book["invoices"].append(
        {
            "id": invoice,
            "metadata": {"statement_id": each.statement_id},
            "lines": lines,
            "subtotal": sum(each.lines.values()),
            "total": each.total,
            "status": "open",
            "number": invoice,
            "automatic_tax": {"enabled": each.tenant.taxes},
            "customer": customer,
        }
    )


def test_the_auditor_is_content_with_a_right_world() -> None:
    assert differences(*a_right_world()) == []


def _first(books: Books) -> dict[str, Any]:
    return next(book for book in books.values() if book["invoices"])


def _a_second_invoice(books: Books) -> None:
    book = _first(books)
    book["invoices"].append({**book["invoices"][0], "id": "in_second"})


def _a_line_twice(books: Books) -> None:
    lines = _first(books)["invoices"][0]["lines"]
    lines.append(lines[0])


def _a_cent_more(books: Books) -> None:
    _first(books)["invoices"][0]["lines"][0]["amount"] += 1


def _a_cent_more_of_tax(books: Books) -> None:
    _first(books)["invoices"][0]["total"] += 1


def _a_partial_scheduling(books: Books) -> None:
    book = _first(books)
    book["schedulings"].insert(0, {**book["schedulings"][0], "lines": []})


def _an_early_scheduling(books: Books) -> None:
    _first(books)["schedulings"][0]["finalizes_at"] -= 60


def _never_sent(books: Books) -> None:
    _first(books)["invoices"][0]["status"] = "draft"


def _gone(books: Books) -> None:
    _first(books)["invoices"].pop(0)


def _anothers_customer(books: Books) -> None:
    _first(books)["customers"][0]["email"] = "billing@other.example.com"


def _a_customer_twice(books: Books) -> None:
    book = _first(books)
    book["customers"].append({**book["customers"][0], "id": "cus_second"})


@pytest.mark.parametrize(
    "wrong",
    [
        _a_second_invoice,
        _a_line_twice,
        _a_cent_more,
        _a_cent_more_of_tax,
        _a_partial_scheduling,
        _an_early_scheduling,
        _never_sent,
        _gone,
        _anothers_customer,
        _a_customer_twice,
    ],
)
def test_the_auditor_notices_what_is_wrong_in_stripe(wrong: Callable[[Books], None]) -> None:
    expected, books, rows, fees = a_right_world()
    wrong(books)
    assert differences(expected, books, rows, fees)


def test_the_auditor_notices_what_is_wrong_in_the_database() -> None:
    expected, books, rows, fees = a_right_world()
    assert differences(expected, books, rows[1:], fees)
    assert differences(expected, books, [replace(rows[0], state="held"), *rows[1:]], fees)
    assert differences(expected, books, rows, fees[1:])
    assert differences(expected, books, rows, [*fees, fees[0]])
    assert differences(expected, books, rows, [replace(fees[0], amount=Decimal(6)), *fees[1:]])
