"""What we ask of Stripe and what we read back, in our words: values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from invoicing.lines import InvoiceLine

Collection = Literal["charge_automatically", "send_invoice"]
RemoteStatus = Literal["draft", "open", "paid", "uncollectible", "void"]


@dataclass(frozen=True, slots=True)
class CustomerFacts:
    """Who the tenant is, as its account's Stripe is told: these fields and nothing more (I5).

    `reference` is our own opaque id, by which a customer whose creation we lost sight of is found again.
    """

    reference: UUID
    tenant_name: str
    contact_name: str
    email: str
    phone: str
    line1: str
    line2: str
    city: str
    region: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as Stripe has it; `chargeable`: it has a payment method that invoices are charged to (I4)."""

    id: str
    chargeable: bool


@dataclass(frozen=True, slots=True)
class DraftFacts:
    """An invoice to be begun. `reference` names it in Stripe's metadata: the invoice's id and generation.

    `due_at` is None where the customer is charged automatically.
    """

    reference: str
    statement_id: UUID | None
    customer: str
    currency: str
    collection: Collection
    due_at: datetime | None
    taxes: bool


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """One line to be put on a draft."""

    customer: str
    stripe_invoice: str
    currency: str
    line: InvoiceLine
    taxes: bool


@dataclass(frozen=True, slots=True)
class RemoteLine:
    """A line on Stripe's invoice; `key` is None where it is not one of ours. Amount in smallest units, before tax."""

    key: str | None
    item: str | None
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class RemoteInvoice:
    """An invoice as Stripe has it. `tax_status` is Stripe's (`complete`, `requires_location_inputs`, `failed`)."""

    id: str
    status: RemoteStatus
    reference: str | None
    customer: str
    currency: str
    subtotal_minor: int
    collection: Collection
    auto_advance: bool
    finalizes_at: datetime | None
    tax_enabled: bool
    tax_status: str | None
    finalization_error: str | None


@dataclass(frozen=True, slots=True)
class RemoteTax:
    """One tax on an invoice, as Stripe calculated it: amounts in smallest units; `reason` is Stripe's word for why so."""

    taxable_minor: int
    tax_minor: int
    rate: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RemoteTaxes:
    """What Stripe says of an invoice's taxes when asked; amounts in smallest units, before and after tax."""

    id: str
    number: str | None
    status: RemoteStatus
    finalized_at: datetime | None
    currency: str
    subtotal_minor: int
    total_minor: int
    tax_enabled: bool
    disabled_reason: str | None
    taxes: tuple[RemoteTax, ...]
