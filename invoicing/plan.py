"""What is to be done about a statement: bill it so, or do not, and why (I1-I4).

The whole decision, made from values alone, so that `invoice preview` and the invoicer cannot disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from invoicing.lines import InvoiceLine, product_lines, subtotal_minor
from invoicing.profile import BillingProfile, FlatRecurring
from invoicing.schedule import ProfileVersion, send_instant, version_in_force
from schemas.periods import Period
from schemas.statements import Statement

LINES_MAX: Final = 250  # Stripe: items on one invoice
TOTAL_MINOR_MAX: Final = 99_999_999  # Stripe: eight digits of the smallest unit

BlockedReason = Literal["currency_differs", "too_many_lines", "total_over_maximum"]


class InvoiceTerms(BaseModel):
    """How an invoice is to be paid; fixed with its lines when drafting begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    auto_charge: bool
    taxes: bool
    terms_days: int

    @classmethod
    def of(cls, profile: BillingProfile) -> InvoiceTerms:
        """The terms that a profile gives its invoices."""
        return cls(auto_charge=profile.auto_charge, taxes=profile.taxes, terms_days=profile.terms_days)


@dataclass(frozen=True, slots=True)
class ToBill:
    """Make this invoice and have it sent at `send_at`. A one-time invoice follows no profile: its `profile_id` is None."""

    profile_id: int | None
    terms: InvoiceTerms
    lines: tuple[InvoiceLine, ...]
    subtotal_minor: int
    send_at: datetime


@dataclass(frozen=True, slots=True)
class NotBilled:
    """No billing profile was in force when the statement was generated."""


@dataclass(frozen=True, slots=True)
class NothingToBill:
    """The profile's products come to nothing on this statement: no invoice, no fee."""

    profile_id: int


@dataclass(frozen=True, slots=True)
class Blocked:
    """It cannot be billed as it stands; someone must decide."""

    reason: BlockedReason
    profile_id: int


Plan = ToBill | NotBilled | NothingToBill | Blocked


def plan_invoice(statement: Statement, generated_at: datetime, versions: Sequence[ProfileVersion]) -> Plan:
    """Decide about a statement generated at that instant, given all versions of its tenant's profile."""
    version = version_in_force(versions, generated_at)
    return NotBilled() if version is None else plan_by(version, statement, generated_at)


def plan_by(version: ProfileVersion, statement: Statement, generated_at: datetime) -> Plan:
    """Decide about a statement by one version of a profile, whether or not it was in force."""
    if version.profile.currency != statement.currency:
        return Blocked("currency_differs", version.id)
    lines = lines_by(version, statement)
    if not lines:
        return NothingToBill(version.id)
    reason = over_limits(lines)
    if reason is not None:
        return Blocked(reason, version.id)
    return ToBill(
        profile_id=version.id,
        terms=InvoiceTerms.of(version.profile),
        lines=lines,
        subtotal_minor=subtotal_minor(lines),
        send_at=send_instant(generated_at, version.profile.billing_day),
    )


def lines_by(version: ProfileVersion, statement: Statement) -> tuple[InvoiceLine, ...]:
    """The lines that a version of a profile gives a statement.

    A tenant that ended before the month began (its statement holds usage that came late) owes no flat item any more.
    """
    ended_at, products = version.tenant_ended_at, version.profile.products
    if ended_at is not None and ended_at <= Period.parse(statement.period).starts_at:
        return product_lines(
            statement, [product for product in products if not isinstance(product, FlatRecurring)]
        )
    return product_lines(statement, products)


def over_limits(lines: Sequence[InvoiceLine]) -> BlockedReason | None:
    """Why Stripe would not take an invoice of these lines; None: it would."""
    if len(lines) > LINES_MAX:
        return "too_many_lines"
    return "total_over_maximum" if subtotal_minor(lines) > TOTAL_MINOR_MAX else None
