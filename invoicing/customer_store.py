"""Who a tenant is to its account's Stripe: its newest details, and which customer it is there (I1, I5)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, text

from invoicing.remote import CustomerFacts
from schemas.identity import fact_id

Obstacle = Literal["no_tenant_details", "no_billing_email", "address_not_validated"]


@dataclass(frozen=True, slots=True)
class BillingDetails:
    """What Stripe may be told of a tenant, in the version made at `made_at`."""

    facts: CustomerFacts
    made_at: datetime
    address_validated_at: datetime | None


@dataclass(frozen=True, slots=True)
class KnownCustomer:
    """Which customer a tenant is in one Stripe account.

    `linked`: `ours` was made by us, `theirs` existed and is left alone. `details_made_at`: the version of the tenant's
    details that Stripe was told last, of ours.
    """

    customer: str
    linked: Literal["ours", "theirs"]
    details_made_at: datetime | None


def billing_details(connection: Connection, tenant_id: int) -> BillingDetails | None:
    """A tenant's newest details, mapped as I5 says; None where it has none."""
    row = connection.execute(
        text(
            "select name, contact_name, billing_email, phone, address_line1, address_line2, city, region, "
            "postal_code, country, address_validated_at, made_at from tenant_details "
            "where tenant_id = :id order by made_at desc limit 1"
        ),
        {"id": tenant_id},
    ).one_or_none()
    if row is None:
        return None
    facts = CustomerFacts(
        reference=fact_id("stripe customer", tenant_id),
        tenant_name=row.name,
        contact_name=row.contact_name,
        email=row.billing_email,
        phone=row.phone,
        line1=row.address_line1,
        line2=row.address_line2,
        city=row.city,
        region=row.region,
        postal_code=row.postal_code,
        country=row.country,
    )
    return BillingDetails(facts, row.made_at, row.address_validated_at)


def obstacle(details: BillingDetails | None) -> Obstacle | None:
    """Why no invoice may go to a tenant of these details; None: it may (I1)."""
    if details is None:
        return "no_tenant_details"
    if not details.facts.email.strip():
        return "no_billing_email"
    return "address_not_validated" if details.address_validated_at is None else None


def customer_of(connection: Connection, tenant_id: int, stripe_account: str) -> KnownCustomer | None:
    """Which customer the tenant is in that Stripe account."""
    row = connection.execute(
        text(
            "select customer, linked, details_made_at from stripe_customers "
            "where tenant_id = :id and stripe_account = :stripe_account"
        ),
        {"id": tenant_id, "stripe_account": stripe_account},
    ).one_or_none()
    return None if row is None else KnownCustomer(row.customer, row.linked, row.details_made_at)


def save_customer(
    connection: Connection,
    tenant_id: int,
    stripe_account: str,
    customer: str,
    linked: Literal["ours", "theirs"],
    now: datetime,
    details_made_at: datetime | None = None,
) -> None:
    """Note which customer the tenant is: one made by us, or one that existed and was linked (I5).

    A customer that people linked is never replaced by one made by us.
    """
    connection.execute(
        text(
            "insert into stripe_customers (tenant_id, stripe_account, customer, linked, made_at, details_made_at) "
            "values (:tenant_id, :stripe_account, :customer, :linked, :now, :details_made_at) "
            "on conflict (tenant_id, stripe_account) do update "
            "set customer = excluded.customer, linked = excluded.linked, made_at = excluded.made_at, "
            "details_made_at = excluded.details_made_at "
            "where excluded.linked = 'theirs' "
            "or (stripe_customers.linked = 'ours' and stripe_customers.customer = excluded.customer)"
        ),
        {
            "tenant_id": tenant_id,
            "stripe_account": stripe_account,
            "customer": customer,
            "linked": linked,
            "now": now,
            "details_made_at": details_made_at,
        },
    )
