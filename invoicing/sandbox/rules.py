"""What Stripe checks before it takes a parameter, and how it shows a line."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Final

from invoicing.sandbox.forms import Form, group, integer, text, texts
from invoicing.sandbox.refusal import invalid, not_here

ITEMS_MAX: Final = 250
DESCRIPTION_MAX: Final = 500
AMOUNT_MAX: Final = 99_999_999

NOWHERE: Final = "00000"  # a postal code that no tax can be calculated for

_BOUNDS: Final = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}

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


def refuse_sending(customer: Thing, due_date: int | None) -> None:
    """What an invoice that is to be sent must have."""
    if due_date is None:
        raise invalid(
            "If collection_method is send_invoice, days_until_due or due_date is needed.", "due_date"
        )
    if not customer["email"]:
        raise invalid("Missing email. An invoice that is sent needs a customer with an email.", "customer")


def discounts_of(form: Form, customer: Thing) -> list[Thing]:
    """What lessens a new invoice: nothing where the request says so with an empty text, else the customer's coupon."""
    asked = form.get("discounts")
    if asked is None:
        return [customer["discount"]] if customer.get("discount") else []
    if asked != "":
        raise not_here("discounts of an invoice")
    return []


def is_within(form: Form, name: str, instant: int | None) -> bool:
    """Whether an instant is what a list asks for: that one, or one within `gt`, `gte`, `lt`, `lte`."""
    asked = form.get(name)
    if asked is None:
        return True
    if instant is None:
        return False
    if not isinstance(asked, dict):
        return instant == integer(form, name)
    bounds = {bound: integer(asked, bound) for bound in asked}
    return all(value is None or _BOUNDS[bound](instant, value) for bound, value in bounds.items())


def finalization_error(message: str, code: str) -> Thing:
    """Why an invoice could not be finalised, as Stripe keeps it on the invoice."""
    return {"type": "invalid_request_error", "message": message, "code": code}


def is_chargeable(customer: Thing) -> bool:
    """Whether a customer's invoices can be charged."""
    return customer.get("invoice_settings", {}).get("default_payment_method") is not None


def is_located(address: Mapping[str, Any]) -> bool:
    """Whether taxes can be calculated at an address."""
    return bool(address.get("country")) and address.get("postal_code") not in {None, "", NOWHERE}


def refuse_location(form: Form, known: Mapping[str, Any] | None = None) -> None:
    """Refuse a customer whose address, validated as asked, is nowhere that taxes are known for."""
    validated = text(group(form, "tax"), "validate_location") == "immediately"
    if validated and not is_located(texts(form, "address") if "address" in form else known or {}):
        raise invalid(
            "The customer's location isn't recognized. Set a valid customer address in order to "
            "automatically calculate tax.",
            "address",
            "customer_tax_location_invalid",
        )


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
