"""Which request is which operation, and how lists are cut into pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from invoicing.sandbox.books import Books
from invoicing.sandbox.forms import Form, integer, parse_form, text, texts
from invoicing.sandbox.parameters import refuse_unknown
from invoicing.sandbox.refusal import RefusedError, invalid, missing, not_here
from invoicing.sandbox.rules import Thing

PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 10

Body = dict[str, Any]


def run(books: Books, method: str, path: str, encoded: str) -> Body:
    """Do what a request asks, with its form or query still encoded; gives the answer's body.

    Raises:
        RefusedError: Stripe would not do it.
    """
    for route in _ROUTES:
        match = route.path.fullmatch(path)
        if match is not None and route.method == method:
            form = parse_form(encoded)
            refuse_unknown(route.params, form)
            expanded = _refuse_untaken(route, form)
            found = route.run(books, form, *match.groups())
            # a deep copy: an answer that is replayed later says what was true then
            copy = json.loads(json.dumps(found))
            return _page(path, form, copy) if isinstance(copy, list) else _shown(copy, expanded)
    raise RefusedError(404, f"Unrecognized request URL ({method}: {path}).")


def _refuse_untaken(route: _Route, form: Form) -> set[str]:
    """Refuse what Stripe knows and the sandbox does not; gives what is to be expanded."""
    strangers = sorted(form.keys() - route.takes)
    if strangers:
        raise not_here(f"the parameter {strangers[0]} of {route.params}")
    expanded = set(texts(form, "expand").values())
    if expanded - _EXPANDABLE:
        raise not_here(f"expanding {', '.join(sorted(expanded - _EXPANDABLE))}")
    return expanded


def _shown(thing: Thing, expanded: set[str]) -> Thing:
    return {name: value for name, value in thing.items() if name not in _EXPANDABLE - expanded}


def _page(path: str, form: Form, things: list[Thing]) -> Body:
    limit = integer(form, "limit") or PAGE_DEFAULT
    if not 1 <= limit <= PAGE_MAX:
        raise invalid(f"Limit must be between 1 and {PAGE_MAX}.", "limit")
    after, start = text(form, "starting_after"), 0
    if after is not None:
        ids = [thing["id"] for thing in things]
        if after not in ids:
            raise missing("object", after, "starting_after", 400)
        start = ids.index(after) + 1
    page = things[start : start + limit]
    return {"object": "list", "url": path, "data": page, "has_more": start + limit < len(things)}


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: re.Pattern[str]
    params: str
    takes: frozenset[str]
    run: Callable[..., Thing | list[Thing]]


def _route(
    method: str, path: str, params: str, takes: str, run: Callable[..., Thing | list[Thing]]
) -> _Route:
    pattern = re.compile(path.replace("ID", r"(\w+)"))
    return _Route(method, pattern, params, frozenset(takes.split()), run)


_EXPANDABLE: Final = frozenset({"tax"})  # of a customer; Stripe leaves it out unless asked
_PAGE: Final = "limit starting_after"
_CUSTOMER: Final = "address description email expand invoice_settings metadata name phone tax"
_INVOICE: Final = "auto_advance automatic_tax automatically_finalizes_at collection_method days_until_due description due_date metadata"
_NEW_INVOICE: Final = f"{_INVOICE} currency customer discounts pending_invoice_items_behavior"
_INVOICES: Final = f"{_PAGE} collection_method created customer due_date status"
_ITEM: Final = "amount currency customer description invoice metadata period tax_behavior tax_code tax_rates"

_ROUTES: Final = (
    _route("GET", "/v1/account", "AccountRetrieveCurrentParams", "", lambda b, _: b.shown()),
    _route("GET", "/v1/accounts/ID", "AccountRetrieveParams", "", lambda b, _, i: _own_account(b, i)),
    _route("POST", "/v1/customers", "CustomerCreateParams", _CUSTOMER, Books.create_customer),
    _route("GET", "/v1/customers", "CustomerListParams", f"{_PAGE} email", Books.list_customers),
    _route(
        "POST",
        "/v1/customers/ID",
        "CustomerUpdateParams",
        _CUSTOMER,
        lambda b, f, i: b.update_customer(i, f),
    ),
    _route("GET", "/v1/customers/ID", "CustomerRetrieveParams", "expand", lambda b, _, i: b.customer(i)),
    _route("DELETE", "/v1/customers/ID", "CustomerDeleteParams", "", lambda b, _, i: b.delete_customer(i)),
    _route("POST", "/v1/invoices", "InvoiceCreateParams", _NEW_INVOICE, Books.create_invoice),
    _route("GET", "/v1/invoices", "InvoiceListParams", _INVOICES, Books.list_invoices),
    _route(
        "POST", "/v1/invoices/ID", "InvoiceUpdateParams", _INVOICE, lambda b, f, i: b.update_invoice(i, f)
    ),
    _route("GET", "/v1/invoices/ID", "InvoiceRetrieveParams", "", lambda b, _, i: b.invoice(i)),
    _route("DELETE", "/v1/invoices/ID", "InvoiceDeleteParams", "", lambda b, _, i: b.delete_invoice(i)),
    _route("GET", "/v1/invoices/ID/lines", "InvoiceLineItemListParams", _PAGE, lambda b, _, i: b.lines(i)),
    _route(
        "POST",
        "/v1/invoices/ID/finalize",
        "InvoiceFinalizeInvoiceParams",
        "auto_advance",
        lambda b, _, i: b.finalize(i),
    ),
    _route("POST", "/v1/invoices/ID/pay", "InvoicePayParams", "", lambda b, _, i: b.pay(i)),
    _route("POST", "/v1/invoices/ID/void", "InvoiceVoidInvoiceParams", "", lambda b, _, i: b.void(i)),
    _route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams", _ITEM, Books.create_item),
    _route("GET", "/v1/invoiceitems", "InvoiceItemListParams", f"{_PAGE} customer invoice", Books.list_items),
    _route("GET", "/v1/invoiceitems/ID", "InvoiceItemRetrieveParams", "", lambda b, _, i: b.item(i)),
    _route("DELETE", "/v1/invoiceitems/ID", "InvoiceItemDeleteParams", "", lambda b, _, i: b.delete_item(i)),
)


def _own_account(books: Books, account: str) -> Thing:
    if account != books.account:
        raise RefusedError(
            403, "The provided key does not have access to that account.", code="account_invalid"
        )
    return books.shown()
