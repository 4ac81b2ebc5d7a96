"""An invoice outside the schedule: any products, any time, sent at once (I10).

It is planned by the same lines and limits as a monthly one. Products that count usage count it on the statement of a
closed month, which the request names; the monthly invoice of that month is not changed by it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from invoicing.lines import product_lines, subtotal_minor
from invoicing.plan import InvoiceTerms, ToBill, over_limits
from invoicing.profile import PRODUCTS_MAX, BillingProfile, FlatRecurring, Product
from schemas.periods import Period
from schemas.statements import Statement, StatementTotals, canonical_json

TERMS_DAYS: Final = 30  # of a tenant without a billing profile

_NOTHING: Final = StatementTotals(
    attempts=0,
    calls=0,
    answered_seconds=Decimal(0),
    billed_seconds=0,
    usage_cost=Decimal(0),
    number_cost=Decimal(0),
    total_cost=Decimal(0),
)


class OneTimeInvoice(BaseModel):
    """What is asked for once. What is left out is as the tenant's billing profile says.

    `month` (such as 2026-10) names the closed month whose statement the products count; flat ones need none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    products: Annotated[tuple[Product, ...], Field(min_length=1, max_length=PRODUCTS_MAX)]
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    month: Annotated[str, Field(pattern=r"^\d{4}-\d{2}$")] | None = None
    auto_charge: bool | None = None
    taxes: bool | None = None
    terms_days: Annotated[int, Field(ge=0, le=365)] | None = None

    def digest(self) -> str:
        """What is asked for, in 32 hexadecimal digits: the same request gives the same."""
        return hashlib.sha256(canonical_json(self)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Payer:
    """Who a one-time invoice goes to; `profile` is the tenant's present one, None where it has none."""

    account: str
    tenant: str
    currency: str
    profile: BillingProfile | None


@dataclass(frozen=True, slots=True)
class NotAskedFor:
    """It cannot be asked for so; `reason` tells people why."""

    reason: str


def plan_one_time(
    asked: OneTimeInvoice, payer: Payer, statement: Statement | None, now: datetime
) -> ToBill | NotAskedFor:
    """Decide about a one-time invoice; `statement` is the tenant's of the month it names."""
    refused = _refused(asked, payer, statement)
    if refused is not None:
        return NotAskedFor(refused)
    terms = _terms(asked, payer.profile)
    bare = [product.description for product in asked.products if terms.taxes and product.tax_code is None]
    if bare:
        return NotAskedFor(
            f"the tenant is taxed, so each product needs a tax_code; missing: {', '.join(bare)}"
        )
    lines = product_lines(statement or _blank(payer, now), asked.products)
    if not lines:
        return NotAskedFor("it comes to nothing: there is nothing to ask for")
    reason = over_limits(lines)
    if reason is not None:
        return NotAskedFor(f"Stripe would not take it: {reason}")
    return ToBill(
        profile_id=None, terms=terms, lines=lines, subtotal_minor=subtotal_minor(lines), send_at=now
    )


def _refused(asked: OneTimeInvoice, payer: Payer, statement: Statement | None) -> str | None:
    if asked.currency != payer.currency:
        return f"it is in {asked.currency}, the account's statements are in {payer.currency}"
    if asked.month is not None and statement is None:
        return f"{asked.month} has no statement of {payer.tenant}: a month can be billed once it is closed"
    if statement is None and (counted := _counted(asked.products)):
        return f"these products count usage, so a closed month must be named: {', '.join(counted)}"
    profile_taxes = None if payer.profile is None else payer.profile.taxes
    if asked.taxes is not None and profile_taxes is not None and asked.taxes != profile_taxes:
        return f"the tenant's billing profile has taxes {'on' if profile_taxes else 'off'}"
    return None


def _counted(products: Sequence[Product]) -> list[str]:
    return [product.description for product in products if not isinstance(product, FlatRecurring)]


def _terms(asked: OneTimeInvoice, profile: BillingProfile | None) -> InvoiceTerms:
    usual = (
        InvoiceTerms(auto_charge=False, taxes=bool(asked.taxes), terms_days=TERMS_DAYS)
        if profile is None
        else InvoiceTerms.of(profile)
    )
    return InvoiceTerms(
        auto_charge=usual.auto_charge if asked.auto_charge is None else asked.auto_charge,
        taxes=usual.taxes,
        terms_days=usual.terms_days if asked.terms_days is None else asked.terms_days,
    )


def _blank(payer: Payer, now: datetime) -> Statement:
    """A statement without usage, of the present month: flat items need only its month and currency."""
    return Statement(
        statement_id="",
        kind="tenant",
        account=payer.account,
        tenant=payer.tenant,
        tenant_name=None,
        period=str(Period.of(now)),
        currency=payer.currency,
        lines=(),
        numbers=(),
        peak_concurrent_channels=0,
        totals=_NOTHING,
        as_of=now,
    )
