"""What Stripe is told, parameter by parameter: our words in its. Nothing is asked here, `gateway` sends it.

The names are checked against Stripe's published OpenAPI by the contract tests. There is no application fee.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from invoicing.remote import CustomerFacts, DraftFacts, ItemFacts
from schemas.periods import Period


def draft(facts: DraftFacts) -> Any:  # noqa: ANN401 (Stripe's parameters are typed by name, ours are put together)
    """An invoice that does not send itself (I2)."""
    params: dict[str, Any] = {
        "customer": facts.customer,
        "currency": facts.currency.lower(),
        "auto_advance": False,
        "automatic_tax": {"enabled": facts.taxes},
        "collection_method": facts.collection,
        "pending_invoice_items_behavior": "exclude",
        "discounts": "",  # left out, a coupon of the customer's would make it another invoice than the statement's
        "metadata": {"request": facts.reference},
    }
    if facts.statement_id is not None:
        params["metadata"]["statement_id"] = str(facts.statement_id)
    if facts.due_at is not None:
        params["due_date"] = int(facts.due_at.timestamp())
    return params


def item(facts: ItemFacts) -> Any:  # noqa: ANN401 (same)
    """A line of a draft: its amount a whole number, rounded by us, and its month (I3)."""
    month = Period.parse(facts.line.usage_period)
    params: dict[str, Any] = {
        "customer": facts.customer,
        "invoice": facts.stripe_invoice,
        "amount": facts.line.amount_minor,
        "currency": facts.currency.lower(),
        "description": facts.line.description,
        "period": {
            "start": int(month.starts_at.timestamp()),
            "end": int((month.ends_at - timedelta(seconds=1)).timestamp()),
        },
        "metadata": {"line": facts.line.key},
    }
    if facts.taxes:
        params["tax_behavior"] = "exclusive"
        params["tax_code"] = facts.line.tax_code
    return params


def schedule(finalizes_at: datetime, due_at: datetime | None) -> Any:  # noqa: ANN401 (same)
    """Send yourself then (I2)."""
    params: dict[str, Any] = {
        "auto_advance": True,
        "automatically_finalizes_at": int(finalizes_at.timestamp()),
    }
    if due_at is not None:
        params["due_date"] = int(due_at.timestamp())
    return params


def new_customer(facts: CustomerFacts, *, locate: bool) -> Any:  # noqa: ANN401 (same)
    """A customer's fields; Stripe takes an empty one where it clears something, not where there is nothing yet."""
    params = customer(facts, locate=locate)
    if not facts.line2:
        del params["address"]["line2"]
    return params


def customer(facts: CustomerFacts, *, locate: bool) -> Any:  # noqa: ANN401 (same)
    """A customer's fields (I5)."""
    params: dict[str, Any] = {
        "description": facts.tenant_name,
        "name": facts.contact_name,
        "email": facts.email,
        "phone": facts.phone,
        "address": {
            "line1": facts.line1,
            "line2": facts.line2,
            "city": facts.city,
            "state": facts.region,
            "postal_code": facts.postal_code,
            "country": facts.country,
        },
        "metadata": {"tenant_reference": str(facts.reference)},
    }
    if locate:
        params["tax"] = {"validate_location": "immediately"}
    return params
