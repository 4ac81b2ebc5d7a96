"""What an account has set up: its Stripe link and its tenants' billing profiles."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Connection, text

from invoicing.customer_store import billing_details
from invoicing.phantom import CurrencyWithoutFeeError, phantom_fee
from invoicing.profile import BillingProfile
from invoicing.schedule import ProfileVersion


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
        SetupRefusedError: one is linked already, the id is no Stripe account's, it is another account's, or the account's
            currency has no phantom fee (I6).
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
    others = connection.scalar(
        text(
            "select a.code from stripe_links l join accounts a on a.id = l.account_id "
            "where l.stripe_account = :stripe_account and l.unlinked_at is null"
        ),
        {"stripe_account": stripe_account},
    )
    if others is not None:
        raise SetupRefusedError(
            f"{stripe_account} is linked to account {others!r}; its invoices would be sent from there"
        )
    refuse_currency(currency)
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


def scheduled_count(connection: Connection, account_id: int) -> int:
    """How many of an account's invoices are scheduled: Stripe sends them, linked or not."""
    query = text("select count(*) from invoices where account_id = :id and state = 'scheduled'")
    count: int = connection.execute(query, {"id": account_id}).scalar_one()
    return count


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
            account's or has no phantom fee (I6), or a version was made at or after that instant.
    """
    refuse_profile(connection, tenant_id, profile, made_at)
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
            "select p.id, p.made_at, p.ended_at, p.definition, t.ended_at as tenant_ended_at from billing_profiles p "
            "join tenants t on t.id = p.tenant_id where p.tenant_id = :id order by p.made_at"
        ),
        {"id": tenant_id},
    )
    return [
        ProfileVersion(
            row.id,
            row.made_at,
            row.ended_at,
            BillingProfile.model_validate(row.definition),
            row.tenant_ended_at,
        )
        for row in rows
    ]


def refuse_currency(currency: str) -> None:
    """Refuse an account that cannot send invoices, before anything is set up for it (I6).

    Raises:
        SetupRefusedError: its currency has no phantom fee.
    """
    try:
        phantom_fee(Decimal(0), currency)
    except CurrencyWithoutFeeError as error:
        raise SetupRefusedError(f"this account cannot send invoices: {error}") from None


def refuse_profile(
    connection: Connection, tenant_id: int, profile: BillingProfile, made_at: datetime
) -> None:
    """Refuse a profile that may not be made, as `make_profile` would; nothing is written.

    Raises:
        SetupRefusedError: why not.
    """
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
    refuse_currency(tenant.currency)
    details = billing_details(connection, tenant_id)
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
