"""Stripe's objects in our words. Nothing is asked here: `gateway` hands over what it was given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from invoicing.remote import (
    Collection,
    Customer,
    RemoteInvoice,
    RemoteLine,
    RemoteTax,
    RemoteTaxes,
)


def metadata(found: Any) -> dict[str, str]:  # noqa: ANN401 (Stripe's objects are typed loosely)
    """What we wrote on it."""
    return found.metadata.to_dict() if found.metadata else {}


def customer(found: Any) -> Customer:  # noqa: ANN401 (same)
    """A customer."""
    settings = getattr(found, "invoice_settings", None)
    payment_method = settings is not None and settings.default_payment_method is not None
    return Customer(
        id=found.id, chargeable=payment_method or getattr(found, "default_source", None) is not None
    )


def tax_location(found: Any) -> str:  # noqa: ANN401 (same)
    """Whether Stripe can calculate taxes where a customer is: its own word for it."""
    tax = getattr(found, "tax", None)
    return "unknown" if tax is None else str(tax.automatic_tax)


def invoice(found: Any) -> RemoteInvoice:  # noqa: ANN401 (same)
    """An invoice."""
    error = getattr(found, "last_finalization_error", None)
    finalizes_at = getattr(found, "automatically_finalizes_at", None)
    collection: Collection = found.collection_method
    return RemoteInvoice(
        id=found.id,
        status=found.status,
        reference=metadata(found).get("request"),
        customer=str(found.customer),
        currency=found.currency.upper(),
        subtotal_minor=found.subtotal,
        collection=collection,
        auto_advance=bool(found.auto_advance),
        finalizes_at=None if finalizes_at is None else datetime.fromtimestamp(finalizes_at, UTC),
        tax_enabled=bool(found.automatic_tax.enabled),
        tax_status=found.automatic_tax.status,
        finalization_error=None if error is None else (getattr(error, "message", None) or "no reason given"),
    )


def line(found: Any) -> RemoteLine:  # noqa: ANN401 (same)
    """A line of an invoice."""
    details = found.parent.invoice_item_details if found.parent else None
    return RemoteLine(
        key=metadata(found).get("line"),
        item=None if details is None else details.invoice_item,
        amount_minor=found.amount,
        currency=found.currency.upper(),
    )


def taxes(found: Any) -> RemoteTaxes:  # noqa: ANN401 (same)
    """An invoice's taxes."""
    finalized_at = found.status_transitions.finalized_at
    return RemoteTaxes(
        id=found.id,
        number=found.number,
        status=found.status,
        finalized_at=None if finalized_at is None else datetime.fromtimestamp(finalized_at, UTC),
        currency=found.currency.upper(),
        subtotal_minor=found.subtotal,
        total_minor=found.total,
        tax_enabled=bool(found.automatic_tax.enabled),
        disabled_reason=getattr(found.automatic_tax, "disabled_reason", None),
        taxes=tuple(_tax(each) for each in getattr(found, "total_taxes", None) or ()),
    )


def _tax(found: Any) -> RemoteTax:  # noqa: ANN401 (same)
    rate = getattr(found, "tax_rate_details", None)
    return RemoteTax(
        taxable_minor=getattr(found, "taxable_amount", None) or 0,
        tax_minor=found.amount,
        rate=None if rate is None else rate.tax_rate,
        reason=getattr(found, "taxability_reason", None),
    )
