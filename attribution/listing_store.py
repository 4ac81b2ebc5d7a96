"""What an operator lists: accounts, tenants, numbers and IPs as they stand, and all that ever happened to a tenant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, text

from attribution.changes_store import find_account, find_tenant


@dataclass(frozen=True, slots=True)
class AccountListing:
    """An account and how many tenants, numbers and IPs it has now."""

    account: str
    name: str
    currency: str
    home_country: str
    made_at: datetime
    tenants: int
    numbers: int
    ips: int


@dataclass(frozen=True, slots=True)
class TenantListing:
    """A tenant of an account; `ended_at` None while it exists."""

    account: str
    tenant: str
    name: str
    made_at: datetime
    ended_at: datetime | None
    address_validated_at: datetime | None


@dataclass(frozen=True, slots=True)
class NumberListing:
    """A number in force; `tenant` None: the account's, without a tenant."""

    account: str
    number: str
    tenant: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True)
class IpListing:
    """A network in force; `tenant` None: shared, with the default tenant where it has one."""

    account: str
    network: str
    tenant: str | None
    default_tenant: str | None
    made_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a tenant: `event` is a slug, `subject` the asset or name it happened to."""

    at: datetime
    event: str
    subject: str


def list_accounts(connection: Connection) -> Sequence[AccountListing]:
    """All accounts, by code."""
    rows = connection.execute(
        text("""
            select code, name, currency, home_country, made_at,
                   (select count(*) from tenants where account_id = accounts.id and ended_at is null),
                   (select count(*) from number_assignments where account_id = accounts.id and ended_at is null),
                   (select count(*) from ip_assignments where account_id = accounts.id and ended_at is null)
            from accounts order by code""")
    )
    return [AccountListing(*row) for row in rows]


def list_tenants(
    connection: Connection, account_code: str, *, ended_too: bool = False
) -> Sequence[TenantListing]:
    """An account's tenants, by Account ID."""
    account = find_account(connection, account_code)
    rows = connection.execute(
        text("""
            select cast(:account as text), tenants.code, details.name, tenants.made_at, tenants.ended_at,
                   details.address_validated_at
            from tenants join lateral (
                select name, address_validated_at from tenant_details
                where tenant_id = tenants.id order by made_at desc limit 1) as details on true
            where account_id = :account_id and (:ended_too or ended_at is null) order by tenants.code"""),
        {"account": account.code, "account_id": account.id, "ended_too": ended_too},
    )
    return [TenantListing(*row) for row in rows]


def list_numbers(
    connection: Connection, account_code: str, tenant_code: str | None = None
) -> Iterator[NumberListing]:
    """The numbers in force of an account, or of one of its tenants, by number; streamed, there may be millions."""
    account = find_account(connection, account_code)
    tenant_id = find_tenant(connection, account, tenant_code).id if tenant_code is not None else None
    rows = connection.execute(
        text("""
            select cast(:account as text), number, tenants.code, a.made_at
            from number_assignments as a left join tenants on tenants.id = a.tenant_id
            where a.account_id = :account_id and a.ended_at is null
              and (cast(:tenant_id as bigint) is null or a.tenant_id = :tenant_id)
            order by number"""),
        {"account": account.code, "account_id": account.id, "tenant_id": tenant_id},
        execution_options={"stream_results": True},
    )
    return (NumberListing(*row) for row in rows)


def list_ips(connection: Connection, account_code: str) -> Sequence[IpListing]:
    """The networks in force of an account, by address."""
    account = find_account(connection, account_code)
    rows = connection.execute(
        text("""
            select cast(:account as text), network::text, dedicated.code, default_tenants.code, a.made_at
            from ip_assignments as a
            left join tenants as dedicated on dedicated.id = a.tenant_id
            left join tenants as default_tenants on default_tenants.id = a.default_tenant_id
            where a.account_id = :account_id and a.ended_at is null order by a.network"""),
        {"account": account.code, "account_id": account.id},
    )
    return [IpListing(*row) for row in rows]


def tenant_history(connection: Connection, account_code: str, tenant_code: str) -> Sequence[HistoryEntry]:
    """All that happened to a tenant, ended or not, oldest first.

    Raises:
        UnknownNameError: there is no such account or tenant.
    """
    tenant = find_tenant(connection, find_account(connection, account_code), tenant_code, ended_too=True)
    rows = connection.execute(text(_HISTORY), {"account_id": tenant.account_id, "tenant_id": tenant.id})
    return [HistoryEntry(*row) for row in rows]


_HISTORY = """
    select at, event, subject from (
        select 0, made_at, 'tenant_made', code from tenants where id = :tenant_id
        union all
        select 1, made_at, 'details_changed', name from tenant_details
        where tenant_id = :tenant_id
          and made_at > (select min(made_at) from tenant_details where tenant_id = :tenant_id)
        union all
        select distinct on (address_validated_at) 2, address_validated_at, 'address_validated',
               concat_ws(', ', address_line1, city, region, postal_code, country)
        from tenant_details where tenant_id = :tenant_id and address_validated_at is not null
        union all
        select 3, made_at, 'number_assigned', number from number_assignments
        where account_id = :account_id and tenant_id = :tenant_id
        union all
        select 4, ended_at, 'number_left', number from number_assignments
        where account_id = :account_id and tenant_id = :tenant_id and ended_at is not null
        union all
        select 3, made_at, 'ip_dedicated', network::text from ip_assignments
        where account_id = :account_id and tenant_id = :tenant_id
        union all
        select 4, ended_at, 'ip_left', network::text from ip_assignments
        where account_id = :account_id and tenant_id = :tenant_id and ended_at is not null
        union all
        select 3, made_at, 'ip_default_set', network::text from ip_assignments
        where account_id = :account_id and default_tenant_id = :tenant_id
        union all
        select 4, ended_at, 'ip_default_cleared', network::text from ip_assignments
        where account_id = :account_id and default_tenant_id = :tenant_id and ended_at is not null
        union all
        select 5, ended_at, 'tenant_ended', code from tenants where id = :tenant_id and ended_at is not null
    ) as happened (place, at, event, subject)
    order by at, place, subject"""
