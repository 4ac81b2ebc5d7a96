"""Which request is which operation, and how lists are cut into pages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from invoicing.sandbox.books import Books
from invoicing.sandbox.forms import Form, integer, parse_form, text
from invoicing.sandbox.parameters import refuse_unknown
from invoicing.sandbox.refusal import RefusedError, invalid, missing
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
            found = route.run(books, form, *match.groups())
            # a deep copy: an answer that is replayed later says what was true then
            copy = json.loads(json.dumps(found))
            return _page(path, form, copy) if isinstance(copy, list) else copy
    raise RefusedError(404, f"Unrecognized request URL ({method}: {path}).")


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
    run: Callable[..., Thing | list[Thing]]


def _route(method: str, path: str, params: str, run: Callable[..., Thing | list[Thing]]) -> _Route:
    return _Route(method, re.compile(path.replace("ID", r"(\w+)")), params, run)


_ROUTES: Final = (
    _route("POST", "/v1/customers", "CustomerCreateParams", Books.create_customer),
    _route("GET", "/v1/customers", "CustomerListParams", Books.list_customers),
    _route("POST", "/v1/customers/ID", "CustomerUpdateParams", lambda b, f, i: b.update_customer(i, f)),
    _route("GET", "/v1/customers/ID", "CustomerRetrieveParams", lambda b, _, i: b.customer(i)),
    _route("DELETE", "/v1/customers/ID", "CustomerDeleteParams", lambda b, _, i: b.delete_customer(i)),
    _route("POST", "/v1/invoices", "InvoiceCreateParams", Books.create_invoice),
    _route("GET", "/v1/invoices", "InvoiceListParams", Books.list_invoices),
    _route("POST", "/v1/invoices/ID", "InvoiceUpdateParams", lambda b, f, i: b.update_invoice(i, f)),
    _route("GET", "/v1/invoices/ID", "InvoiceRetrieveParams", lambda b, _, i: b.invoice(i)),
    _route("DELETE", "/v1/invoices/ID", "InvoiceDeleteParams", lambda b, _, i: b.delete_invoice(i)),
    _route("GET", "/v1/invoices/ID/lines", "InvoiceLineItemListParams", lambda b, _, i: b.lines(i)),
    _route("POST", "/v1/invoices/ID/finalize", "InvoiceFinalizeInvoiceParams", lambda b, _, i: b.finalize(i)),
    _route("POST", "/v1/invoices/ID/pay", "InvoicePayParams", lambda b, _, i: b.pay(i)),
    _route("POST", "/v1/invoices/ID/void", "InvoiceVoidInvoiceParams", lambda b, _, i: b.void(i)),
    _route("POST", "/v1/invoiceitems", "InvoiceItemCreateParams", Books.create_item),
    _route("GET", "/v1/invoiceitems", "InvoiceItemListParams", Books.list_items),
    _route("GET", "/v1/invoiceitems/ID", "InvoiceItemRetrieveParams", lambda b, _, i: b.item(i)),
    _route("DELETE", "/v1/invoiceitems/ID", "InvoiceItemDeleteParams", lambda b, _, i: b.delete_item(i)),
)
