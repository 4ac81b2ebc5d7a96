"""How accounts and tenants are made, changed and ended: append-only, each change at the directory's own instant (A7, A9).

Every change begins with `take_change_instant`, in the transaction that will hold it; what is checked afterwards can
then not be changed by anybody else until the commit.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from attribution.assets import Account, Tenant
from attribution.details import (
    AccountDetails,
    RefusedChangeError,
    TenantDetails,
    UnknownNameError,
    checked_account,
    checked_code,
    checked_details,
)
from schemas.locks import Lock

_ADDRESS: Final = ("address_line1", "address_line2", "city", "region", "postal_code", "country")


def take_change_instant(connection: Connection) -> datetime:
    """The `made_at` of this transaction's changes: after every change and every fence before it (A7).

    Other changes and fences wait until this transaction ends.
    """
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": Lock.DIRECTORY})
    made_at: datetime = connection.execute(
        text("""
            update directory_clock
            set last_made_at = greatest(clock_timestamp(), last_made_at + interval '1 microsecond')
            returning last_made_at""")
    ).scalar_one()
    return made_at


def make_account(connection: Connection, made_at: datetime, details: AccountDetails) -> int:
    """Make an account; returns its id.

    Raises:
        RefusedChangeError: a field is missing or impossible, or the code is taken.
    """
    account = checked_account(details)
    made: int | None = connection.execute(
        text("""
            insert into accounts (code, name, currency, home_country, domestic_regions, made_at)
            values (:code, :name, :currency, :home_country, :regions, :made_at)
            on conflict (code) do nothing returning id"""),
        {
            "code": account.code,
            "name": account.name,
            "currency": account.currency,
            "home_country": account.home_country,
            "regions": list(account.domestic_regions),
            "made_at": made_at,
        },
    ).scalar_one_or_none()
    if made is None:
        raise RefusedChangeError(f"account {account.code!r} exists already")
    return made


def make_tenant(
    connection: Connection, made_at: datetime, account_code: str, code: str, details: TenantDetails
) -> int:
    """Make a tenant of an account; returns its id. Its address is not validated yet.

    Raises:
        RefusedChangeError: a field is missing or impossible, or the Account ID was used before, in any case.
    """
    account = find_account(connection, account_code)
    checked_code(code)
    checked = checked_details(details)
    known = _tenant_like(connection, account, code)
    if known is not None:
        ended = ", by a tenant that ended" if known.ended_at else ""
        raise RefusedChangeError(
            f"Account ID {code!r} is used already in account {account.code!r} as {known.code!r}{ended}"
        )
    tenant_id: int = connection.execute(
        text(
            "insert into tenants (account_id, code, made_at) values (:account_id, :code, :made_at) returning id"
        ),
        {"account_id": account.id, "code": code, "made_at": made_at},
    ).scalar_one()
    _add_details(connection, tenant_id, made_at, checked, None)
    return tenant_id


def change_tenant_details(
    connection: Connection, made_at: datetime, account_code: str, code: str, details: TenantDetails
) -> None:
    """Add a new version of what is known of a tenant; a changed address must be validated anew.

    Raises:
        RefusedChangeError: the tenant does not exist, a field is missing or impossible, or nothing changes.
    """
    tenant = find_tenant(connection, find_account(connection, account_code), code)
    checked = checked_details(details)
    before, validated_at = present_details(connection, tenant.id)
    if before == checked:
        raise RefusedChangeError(f"nothing changes: that is what is known of tenant {code!r} already")
    same_address = all(getattr(before, name) == getattr(checked, name) for name in _ADDRESS)
    _add_details(connection, tenant.id, made_at, checked, validated_at if same_address else None)


def mark_address_validated(connection: Connection, made_at: datetime, account_code: str, code: str) -> None:
    """Write down that the tenant's present address was validated; once written it stays as it was.

    Raises:
        RefusedChangeError: the tenant does not exist.
    """
    tenant = find_tenant(connection, find_account(connection, account_code), code)
    connection.execute(
        text("""
            update tenant_details set address_validated_at = :made_at
            where tenant_id = :tenant_id and address_validated_at is null
              and made_at = (select max(made_at) from tenant_details where tenant_id = :tenant_id)"""),
        {"tenant_id": tenant.id, "made_at": made_at},
    )


def end_tenant(connection: Connection, made_at: datetime, account_code: str, code: str) -> None:
    """End a tenant: at the same instant its assets go back to the account, and it is nobody's default any more.

    Numbers are left without a tenant, dedicated IPs become shared ones.

    Raises:
        RefusedChangeError: the tenant does not exist.
    """
    tenant = find_tenant(connection, find_account(connection, account_code), code)
    whose = {"account_id": tenant.account_id, "tenant_id": tenant.id, "made_at": made_at}
    if tenant.made_at >= made_at:
        raise RefusedChangeError(f"tenant {code!r} was made at this very instant")
    connection.execute(text("update tenants set ended_at = :made_at where id = :tenant_id"), whose)
    connection.execute(
        text("""
            with ended as (
                update number_assignments set ended_at = :made_at
                where account_id = :account_id and tenant_id = :tenant_id and ended_at is null
                returning number, account_id)
            insert into number_assignments (number, account_id, made_at)
            select number, account_id, :made_at from ended order by number"""),
        whose,
    )
    connection.execute(
        text("""
            with ended as (
                update ip_assignments set ended_at = :made_at
                where account_id = :account_id and (tenant_id = :tenant_id or default_tenant_id = :tenant_id)
                  and ended_at is null
                returning network, account_id)
            insert into ip_assignments (network, account_id, made_at)
            select network, account_id, :made_at from ended order by network"""),
        whose,
    )


def find_account(connection: Connection, code: str) -> Account:
    """The account with this code.

    Raises:
        UnknownNameError: there is none.
    """
    row = connection.execute(
        text("select id, code, currency, home_country, domestic_regions from accounts where code = :code"),
        {"code": code},
    ).one_or_none()
    if row is None:
        raise UnknownNameError(f"there is no account {code!r}")
    return Account(row.id, row.code, row.currency, row.home_country, frozenset(row.domestic_regions))


def find_tenant(connection: Connection, account: Account, code: str, *, ended_too: bool = False) -> Tenant:
    """The account's tenant with exactly this Account ID.

    Raises:
        UnknownNameError: there is none, or it ended and ended ones are not wanted.
    """
    tenant = _tenant_like(connection, account, code)
    if tenant is None or tenant.code != code:
        meant = f"; did you mean {tenant.code!r}?" if tenant else ""
        raise UnknownNameError(f"account {account.code!r} has no tenant {code!r}{meant}")
    if tenant.ended_at is not None and not ended_too:
        raise UnknownNameError(f"tenant {code!r} ended at {tenant.ended_at.isoformat()}")
    return tenant


def present_details(connection: Connection, tenant_id: int) -> tuple[TenantDetails, datetime | None]:
    """What is known of a tenant now, and when its address was validated."""
    row = connection.execute(
        text("""
            select name, contact_name, billing_email, phone, address_line1, city, region, postal_code, country,
                   address_line2, address_validated_at
            from tenant_details where tenant_id = :tenant_id order by made_at desc limit 1"""),
        {"tenant_id": tenant_id},
    ).one()
    *values, validated_at = row
    return TenantDetails(*values), validated_at


def _tenant_like(connection: Connection, account: Account, code: str) -> Tenant | None:
    """The account's tenant, ended or not, with this Account ID in any case; there is at most one."""
    row = connection.execute(
        text("""
            select id, account_id, code, made_at, ended_at from tenants
            where account_id = :account_id and lower(code) = lower(:code)"""),
        {"account_id": account.id, "code": code},
    ).one_or_none()
    return Tenant(row.id, row.account_id, row.code, row.made_at, row.ended_at) if row else None


def _add_details(
    connection: Connection,
    tenant_id: int,
    made_at: datetime,
    details: TenantDetails,
    validated_at: datetime | None,
) -> None:
    connection.execute(
        text("""
            insert into tenant_details (tenant_id, made_at, name, contact_name, billing_email, phone, address_line1,
                                        address_line2, city, region, postal_code, country, address_validated_at)
            values (:tenant_id, :made_at, :name, :contact_name, :billing_email, :phone, :address_line1,
                    :address_line2, :city, :region, :postal_code, :country, :validated_at)"""),
        {"tenant_id": tenant_id, "made_at": made_at, "validated_at": validated_at, **asdict(details)},
    )
