"""What an account owes in taxes on a month's invoices, as Stripe says when asked; kept nowhere (I11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final

from invoicing.gateway import StripeGateway
from invoicing.listing_store import InvoiceListing
from invoicing.outcomes import Ok, Refusal
from invoicing.remote import RemoteTax, RemoteTaxes
from schemas.money import minor_unit_digits

OWED: Final = frozenset(
    {"open", "paid", "uncollectible"}
)  # Stripe's states of an invoice that was sent and stands


@dataclass(frozen=True, slots=True)
class TaxedInvoice:
    """One invoice's taxes. `taxable` is the largest base that any of them was calculated on: they overlap.

    `status` is Stripe's (`draft`: not final), or `deleted`. `detail` names each tax: rate, base, amount and Stripe's reason.
    """

    tenant: str
    kind: str
    invoice: str
    number: str | None
    status: str
    sent_at: datetime | None
    currency: str
    subtotal: Decimal
    taxable: Decimal
    tax: Decimal
    total: Decimal
    note: str | None
    detail: tuple[dict[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class TaxTotal:
    """What the invoices that were sent and stand come to."""

    invoices: int
    currency: str
    subtotal: Decimal
    taxable: Decimal
    tax: Decimal


def read_taxes(gateway: StripeGateway, invoices: Iterable[InvoiceListing]) -> list[TaxedInvoice] | Refusal:
    """Ask Stripe about each invoice that it has; the first refusal ends it."""
    report: list[TaxedInvoice] = []
    for each in invoices:
        if each.stripe_account is None or each.stripe_invoice is None:
            continue
        outcome = gateway.taxes(each.stripe_account, each.stripe_invoice)
        if not isinstance(outcome, Ok):
            return outcome
        report.append(_deleted(each) if outcome.value is None else _taxed(each, outcome.value))
    return report


def tax_total(report: Iterable[TaxedInvoice]) -> TaxTotal | None:
    """The sum over what was sent and stands; None where nothing was."""
    owed = [each for each in report if each.status in OWED]
    if not owed:
        return None
    return TaxTotal(
        invoices=len(owed),
        currency=owed[0].currency,
        subtotal=sum((each.subtotal for each in owed), Decimal(0)),
        taxable=sum((each.taxable for each in owed), Decimal(0)),
        tax=sum((each.tax for each in owed), Decimal(0)),
    )


def _taxed(ours: InvoiceListing, remote: RemoteTaxes) -> TaxedInvoice:
    def amount(minor: int) -> Decimal:
        return Decimal(minor).scaleb(-minor_unit_digits(remote.currency))

    return TaxedInvoice(
        tenant=ours.tenant,
        kind=ours.kind,
        invoice=remote.id,
        number=remote.number,
        status=remote.status,
        sent_at=remote.finalized_at,
        currency=remote.currency,
        subtotal=amount(remote.subtotal_minor),
        taxable=amount(max((tax.taxable_minor for tax in remote.taxes), default=0)),
        tax=amount(sum(tax.tax_minor for tax in remote.taxes)),
        total=amount(remote.total_minor),
        note=_note(remote),
        detail=tuple(_detail(tax, remote.currency) for tax in remote.taxes),
    )


def _note(remote: RemoteTaxes) -> str | None:
    if remote.tax_enabled:
        return None
    why = remote.disabled_reason
    return "without automatic tax" if why is None else f"Stripe switched automatic tax off: {why}"


def _detail(tax: RemoteTax, currency: str) -> dict[str, str | None]:
    digits = minor_unit_digits(currency)
    return {
        "rate": tax.rate,
        "taxable": str(Decimal(tax.taxable_minor).scaleb(-digits)),
        "tax": str(Decimal(tax.tax_minor).scaleb(-digits)),
        "reason": tax.reason,
    }


def _deleted(ours: InvoiceListing) -> TaxedInvoice:
    zero = Decimal(0)
    return TaxedInvoice(
        tenant=ours.tenant,
        kind=ours.kind,
        invoice=str(ours.stripe_invoice),
        number=None,
        status="deleted",
        sent_at=None,
        currency=ours.currency,
        subtotal=zero,
        taxable=zero,
        tax=zero,
        total=zero,
        note="deleted in Stripe",
        detail=(),
    )
