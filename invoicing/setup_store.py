"""What an account has set up: its Stripe link, its tenants' billing profiles and customers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy import Connection, Row, text

from invoicing.phantom import phantom_fee
from invoicing.profile import BillingProfile
from invoicing.remote import CustomerFacts
from invoicing.schedule import ProfileVersion
from schemas.identity import fact_id


class SetupRefusedError(ValueError):
    """What was asked for cannot be set up; the text tells people why."""


@dataclass(frozen=True, slots=True)
class StripeLink:
    """An account's own Stripe account, linked and not unlinked; paused while Stripe refuses us (I8, I11)."""

    id: int
    account_id: int
    stripe_account: str
    paused_reason: str | None


def link_stripe(connection: Connection, account_id: int, stripe_account: str, now: datetime) -> None:
    """Link an account's Stripe account (I11).

    Raises:
        SetupRefusedError: one is linked already, the id is no Stripe account's, or its currency has no phantom fee (I6).
    """
    if not stripe_account.startswith("acct_"):
        raise SetupRefusedError(f"{stripe_account!r} is not the id of a Stripe account (acct_…)")
    currency = connection.scalar(
        text("select currency from accounts where id = :id for update"), {"id": account_id}
    )
    if currency is None:
        raise SetupRefusedError("no such account")
    linked = link_in_force(connection, account_id)
    if linked is not None:
        raise SetupRefusedError(f"{linked.stripe_account} is linked already; unlink it first")
    try:
        phantom_fee(Decimal(0), currency)
    except ValueError as error:
        raise SetupRefusedError(f"this account cannot send invoices: {error}") from None
    connection.execute(
        text(
            "insert into stripe_links (account_id, stripe_account, linked_at) values (:account_id, :stripe_account, :now)"
        ),
        {"account_id": account_id, "stripe_account": stripe_account, "now": now},
    )


def unlink_stripe(connection: Connection, account_id: int, now: datetime) -> bool:
    """Disconnect: no new invoices; what is scheduled stays Stripe's; statements go on. False: nothing was linked."""
    changed = connection.execute(
        text("update stripe_links set unlinked_at = :now where account_id = :id and unlinked_at is null"),
        {"id": account_id, "now": now},
    )
    return changed.rowcount == 1


def link_in_force(connection: Connection, account_id: int) -> StripeLink | None:
    """The account's Stripe link, paused or not."""
    row = connection.execute(
        text(
            "select id, account_id, stripe_account, paused_reason from stripe_links "
            "where account_id = :id and unlinked_at is null"
        ),
        {"id": account_id},
    ).one_or_none()
    return None if row is None else StripeLink(row.id, row.account_id, row.stripe_account, row.paused_reason)


def pause_link(connection: Connection, link: StripeLink, reason: str, now: datetime) -> None:
    """Stripe refuses us: nothing more is tried for this account until someone resumes it (I8)."""
    connection.execute(
        text(
            "update stripe_links set paused_at = :now, paused_reason = :reason where id = :id and paused_at is null"
        ),
        {"id": link.id, "now": now, "reason": reason},
    )


def resume_link(connection: Connection, account_id: int) -> bool:
    """Try again after a pause. False: nothing was paused."""
    changed = connection.execute(
        text(
            "update stripe_links set paused_at = null, paused_reason = null "
            "where account_id = :id and unlinked_at is null and paused_at is not null"
        ),
        {"id": account_id},
    )
    return changed.rowcount == 1


def make_profile(connection: Connection, tenant_id: int, profile: BillingProfile, made_at: datetime) -> int:
    """Make the next version of a tenant's billing profile; the present one ends at that instant (I1). Gives its id.

    Raises:
        SetupRefusedError: no such tenant, it has ended, its address is not validated, the currency is not the
            account's, or a version was made at or after that instant.
    """
    _refuse_profile(connection, tenant_id, profile, made_at)
    end_profile(connection, tenant_id, made_at)
    return int(
        connection.execute(
            text(
                "insert into billing_profiles (tenant_id, made_at, definition) "
                "values (:tenant_id, :made_at, cast(:definition as jsonb)) returning id"
            ),
            {"tenant_id": tenant_id, "made_at": made_at, "definition": profile.model_dump_json()},
        ).scalar_one()
    )


def end_profile(connection: Connection, tenant_id: int, ended_at: datetime) -> bool:
    """End a tenant's profile: statements generated from then on are not billed. False: there was none."""
    changed = connection.execute(
        text("update billing_profiles set ended_at = :ended_at where tenant_id = :id and ended_at is null"),
        {"id": tenant_id, "ended_at": ended_at},
    )
    return changed.rowcount == 1


def profile_versions(connection: Connection, tenant_id: int) -> list[ProfileVersion]:
    """All versions of a tenant's billing profile, oldest first."""
    rows = connection.execute(
        text(
            "select id, made_at, ended_at, definition from billing_profiles where tenant_id = :id order by made_at"
        ),
        {"id": tenant_id},
    )
    return [
        ProfileVersion(row.id, row.made_at, row.ended_at, BillingProfile.model_validate(row.definition))
        for row in rows
    ]


def customer_of(connection: Connection, tenant_id: int, stripe_account: str) -> str | None:
    """Which customer the tenant is in that Stripe account."""
    customer = connection.scalar(
        text(
            "select customer from stripe_customers where tenant_id = :id and stripe_account = :stripe_account"
        ),
        {"id": tenant_id, "stripe_account": stripe_account},
    )
    return None if customer is None else str(customer)


def save_customer(
    connection: Connection,
    tenant_id: int,
    stripe_account: str,
    customer: str,
    linked: Literal["ours", "theirs"],
    now: datetime,
) -> None:
    """Note which customer the tenant is: one made by us, or one that existed and was linked (I5).

    A customer that people linked is never replaced by one made by us.
    """
    connection.execute(
        text(
            "insert into stripe_customers (tenant_id, stripe_account, customer, linked, made_at) "
            "values (:tenant_id, :stripe_account, :customer, :linked, :now) "
            "on conflict (tenant_id, stripe_account) do update "
            "set customer = excluded.customer, linked = excluded.linked, made_at = excluded.made_at "
            "where excluded.linked = 'theirs'"
        ),
        {
            "tenant_id": tenant_id,
            "stripe_account": stripe_account,
            "customer": customer,
            "linked": linked,
            "now": now,
        },
    )


def customer_facts(connection: Connection, tenant_id: int) -> CustomerFacts | None:
    """What Stripe is told of a tenant: its newest details, mapped as I5 says; None where it has none."""
    row = _newest_details(connection, tenant_id)
    if row is None:
        return None
    return CustomerFacts(
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


def _refuse_profile(
    connection: Connection, tenant_id: int, profile: BillingProfile, made_at: datetime
) -> None:
    tenant = connection.execute(
        text(
            "select t.ended_at, a.currency from tenants t join accounts a on a.id = t.account_id "
            "where t.id = :id for update of t"
        ),
        {"id": tenant_id},
    ).one_or_none()
    if tenant is None:
        raise SetupRefusedError("no such tenant")
    if tenant.ended_at is not None and tenant.ended_at <= made_at:
        raise SetupRefusedError("the tenant has ended")
    details = _newest_details(connection, tenant_id)
    if details is None or details.address_validated_at is None:
        raise SetupRefusedError("the tenant's address is not validated; validate it before making a profile")
    if profile.currency != tenant.currency:
        raise SetupRefusedError(
            f"the profile is in {profile.currency}, the account's statements are in {tenant.currency}"
        )
    latest = connection.scalar(
        text("select max(made_at) from billing_profiles where tenant_id = :id"), {"id": tenant_id}
    )
    if latest is not None and made_at <= latest:
        raise SetupRefusedError(
            "a version of the profile was made at or after that instant; history does not change"
        )


def _newest_details(connection: Connection, tenant_id: int) -> Row[tuple[str, ...]] | None:
    return connection.execute(
        text(
            "select name, contact_name, billing_email, phone, address_line1, address_line2, city, region, "
            "postal_code, country, address_validated_at from tenant_details "
            "where tenant_id = :id order by made_at desc limit 1"
        ),
        {"id": tenant_id},
    ).one_or_none()
