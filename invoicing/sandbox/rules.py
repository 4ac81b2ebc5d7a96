"""What Stripe checks before it takes a parameter, and how it shows a line."""

from __future__ import annotations

from typing import Any, Final

from invoicing.sandbox.forms import Form, integer, text, texts
from invoicing.sandbox.refusal import invalid

ITEMS_MAX: Final = 250
DESCRIPTION_MAX: Final = 500
AMOUNT_MAX: Final = 99_999_999

Thing = dict[str, Any]


def metadata_of(form: Form) -> dict[str, str]:
    """The request's metadata, within Stripe's limits."""
    metadata = texts(form, "metadata")
    if len(metadata) > 50 or any(len(key) > 40 or len(value) > 500 for key, value in metadata.items()):
        raise invalid("Metadata may have 50 keys of 40 characters, with values of 500.", "metadata")
    return metadata


def due_date_of(form: Form, collection: str, now: int) -> int | None:
    """When an invoice is due, in Unix seconds; None where the request does not say."""
    due_date, days = integer(form, "due_date"), integer(form, "days_until_due")
    if (due_date is not None or days is not None) and collection != "send_invoice":
        raise invalid("A due date is only for collection_method send_invoice.", "due_date")
    if due_date is not None and due_date <= now:
        raise invalid("Due date must be in the future.", "due_date")
    return due_date if days is None else now + days * 86_400


def is_chargeable(customer: Thing) -> bool:
    """Whether a customer's invoices can be charged."""
    return customer.get("invoice_settings", {}).get("default_payment_method") is not None


def line_of(item: Thing) -> Thing:
    """An item as the line of its invoice."""
    return {
        "id": f"il_{item['id'].removeprefix('ii_')}",
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discountable": False,
        "invoice": item["invoice"],
        "livemode": False,
        "metadata": item["metadata"],
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {"invoice_item": item["id"], "proration": False},
            "subscription_item_details": None,
        },
        "period": item["period"],
        "quantity": 1,
    }


def refuse_item(form: Form, invoice: Thing, customer: Thing, items: int) -> int:
    """What Stripe refuses of a line on a draft that has so many items already; gives its amount."""
    amount = integer(form, "amount")
    if amount is None:
        raise invalid("One of amount or pricing is required.", "amount", "parameter_missing")
    if abs(amount) > AMOUNT_MAX:
        raise invalid("Amount must be no more than $999,999.99", "amount", "amount_too_large")
    if customer["id"] != invoice["customer"]:
        raise invalid("The customer does not match the invoice's customer.", "customer")
    if (text(form, "currency") or "").lower() != invoice["currency"]:
        raise invalid("The currency does not match the invoice's currency.", "currency")
    if len(text(form, "description") or "") > DESCRIPTION_MAX:
        raise invalid(f"Description may be at most {DESCRIPTION_MAX} characters.", "description")
    if items >= ITEMS_MAX:
        raise invalid(f"An invoice may have at most {ITEMS_MAX} items.", code="invoice_too_many_items")
    if invoice["automatic_tax"]["enabled"] and (amount < 0 or "tax_rates" in form):
        raise invalid("Automatic tax allows neither negative lines nor tax rates on them.", "amount")
    return amount
