"""Is there exactly one right invoice for each statement? Asked of Stripe's books, statement by statement.

Slow and obvious on purpose: what was intended is compared with what is there, and every difference is a sentence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from deploy.invoice_faults.statements import Expected
from deploy.invoice_faults.world_store import Fee, Recorded

Thing = dict[str, Any]


def differences(
    expected: Sequence[Expected], books: dict[str, Thing], rows: Sequence[Recorded], fees: Sequence[Fee]
) -> list[str]:
    """Everything that is not as it must be; `books` maps each Stripe account to what the sandbox has in it."""
    return [
        *_strangers(expected, books),
        *(sentence for each in expected for sentence in _one(each, books)),
        *_customers(expected, books),
        *_rows(expected, rows),
        *_fees(expected, fees),
    ]


def _strangers(expected: Sequence[Expected], books: dict[str, Thing]) -> Iterator[str]:
    known = {each.statement_id for each in expected if each.fate == "sent"}
    for account, book in books.items():
        for invoice in book["invoices"]:
            statement = invoice["metadata"].get("statement_id")
            if statement not in known:
                yield f"{invoice['id']} in {account} is for {statement}, which is not to be billed"


def _one(each: Expected, books: dict[str, Thing]) -> Iterator[str]:
    found = [
        (account, book, invoice)
        for account, book in books.items()
        for invoice in book["invoices"]
        if invoice["metadata"].get("statement_id") == each.statement_id
    ]
    if each.fate != "sent":
        return
    if len(found) != 1:
        yield f"statement {each.statement_id} has {len(found)} invoices: {[one['id'] for *_, one in found]}"
        return
    account, book, invoice = found[0]
    if account != each.stripe_account:
        yield f"{invoice['id']} is in {account} instead of {each.stripe_account}"
    yield from _content(each, invoice)
    yield from _scheduling(each, book, invoice)


def _content(each: Expected, invoice: Thing) -> Iterator[str]:
    name, wanted = invoice["id"], _wanted(each)
    if _found(invoice["lines"]) != wanted:
        yield f"{name} has the lines {_found(invoice['lines'])} instead of {wanted}"
    if invoice["subtotal"] != sum(each.lines.values()):
        yield f"{name} comes to {invoice['subtotal']} instead of {sum(each.lines.values())} before tax"
    if invoice["total"] != each.total:
        yield f"{name} comes to {invoice['total']} instead of {each.total} with tax"
    if invoice["status"] not in {"open", "paid"} or invoice["number"] is None:
        yield f"{name} was not sent: it is {invoice['status']}"
    if invoice["automatic_tax"]["enabled"] != each.tenant.taxes:
        yield f"{name} has automatic tax {invoice['automatic_tax']['enabled']}"


def _scheduling(each: Expected, book: Thing, invoice: Thing) -> Iterator[str]:
    told = [scheduling for scheduling in book["schedulings"] if scheduling["invoice"] == invoice["id"]]
    if not told:
        yield f"{invoice['id']} was never told to send itself"
    for scheduling in told:
        if _found(scheduling["lines"]) != _wanted(each):
            yield f"{invoice['id']} was told to send itself with the lines {_found(scheduling['lines'])}"
        if datetime.fromtimestamp(scheduling["finalizes_at"], UTC) < each.not_before:
            yield f"{invoice['id']} was told to send itself before its billing day"


def _customers(expected: Sequence[Expected], books: dict[str, Thing]) -> Iterator[str]:
    emails = {account: {} for account in books}  # type: dict[str, dict[str, str]]
    for account, book in books.items():
        for customer in book["customers"]:
            if customer["email"] in emails[account].values():
                yield f"{customer['email']} is a customer twice in {account}"
            emails[account][customer["id"]] = customer["email"]
    tenants = {each.statement_id: each.tenant for each in expected}
    for account, book in books.items():
        for invoice in book["invoices"]:
            tenant = tenants.get(invoice["metadata"].get("statement_id"))
            if tenant is not None and emails[account].get(invoice["customer"]) != tenant.email:
                yield f"{invoice['id']} goes to {emails[account].get(invoice['customer'])} instead of {tenant.email}"


def _rows(expected: Sequence[Expected], rows: Sequence[Recorded]) -> Iterator[str]:
    by_statement = {row.statement_id: row for row in rows}
    if len(rows) != len(expected) or len(by_statement) != len(expected):
        yield f"{len(rows)} rows for {len(expected)} statements"
    for each in expected:
        row = by_statement.get(each.statement_id)
        if row is None:
            yield f"statement {each.statement_id} was never heard of"
        elif row.state != each.fate:
            yield f"statement {each.statement_id} is {row.state} ({row.reason}) instead of {each.fate}"
        elif row.notice is not None and not each.tenant.auto_charge:
            yield f"statement {each.statement_id} carries the notice: {row.notice}"


def _fees(expected: Sequence[Expected], fees: Sequence[Fee]) -> Iterator[str]:
    wanted = Counter((each.statement_id, each.fee, "USD") for each in expected if each.fee is not None)
    found = Counter((fee.statement_id, fee.amount, fee.currency) for fee in fees)
    for statement, amount, _ in wanted - found:
        yield f"the fee of {amount} for statement {statement} is missing"
    for statement, amount, _ in found - wanted:
        yield f"a fee of {amount} for statement {statement} should not be"


def _wanted(each: Expected) -> list[tuple[str, int]]:
    return sorted(each.lines.items())


def _found(lines: Sequence[Thing]) -> list[tuple[str, int]]:
    return sorted((line["metadata"].get("line", "?"), line["amount"]) for line in lines)
