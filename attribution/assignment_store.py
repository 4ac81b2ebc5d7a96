"""How numbers and IPs change hands: one assignment ends and the next is made at one instant, or nothing happens (A9).

Each function takes the instant of `changes_store.take_change_instant`, called before in the same transaction, whose
lock keeps what is checked here true until the commit.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, text

from attribution.assets import Account
from attribution.changes_store import find_account, find_tenant
from attribution.details import RefusedChangeError, checked_network, checked_number
from schemas.network import Network

_Row = Row[*tuple[Any, ...]]


def assign_number(
    connection: Connection, made_at: datetime, account_code: str, number: str, tenant_code: str | None
) -> int:
    """Give a number to an account's tenant, or to the account with no tenant; returns the assignment's id.

    A number that nobody owns becomes the account's; one that the account owns is moved.

    Raises:
        RefusedChangeError: an impossible number, another account's, no such tenant, or nothing changes.
    """
    account = find_account(connection, account_code)
    e164 = checked_number(number, account.home_country)
    tenant_id = _tenant_id(connection, account, tenant_code)
    now = _number_in_force(connection, e164)
    if now is not None:
        _refuse_foreign(e164, now, account, made_at)
        if now.tenant_id == tenant_id:
            raise RefusedChangeError(f"nothing changes: {e164} is assigned so already")
        _end(connection, "number_assignments", now.id, made_at)
    assignment_id: int = connection.execute(
        text("""
            insert into number_assignments (number, account_id, tenant_id, made_at)
            values (:number, :account_id, :tenant_id, :made_at) returning id"""),
        {"number": e164, "account_id": account.id, "tenant_id": tenant_id, "made_at": made_at},
    ).scalar_one()
    return assignment_id


def release_number(connection: Connection, made_at: datetime, account_code: str, number: str) -> None:
    """Take a number from its tenant and its account: nobody owns it from then on.

    Raises:
        RefusedChangeError: an impossible number, or the account does not own it.
    """
    account = find_account(connection, account_code)
    e164 = checked_number(number, account.home_country)
    now = _number_in_force(connection, e164)
    if now is None:
        raise RefusedChangeError(f"nothing changes: {e164} is nobody's")
    _refuse_foreign(e164, now, account, made_at)
    _end(connection, "number_assignments", now.id, made_at)


def assign_ip(
    connection: Connection,
    made_at: datetime,
    account_code: str,
    network: str,
    tenant_code: str | None = None,
    default_tenant_code: str | None = None,
) -> int:
    """Make an IP network an account's: dedicated to a tenant, or shared, with or without a default tenant.

    Networks of one account may lie inside one another: the longest prefix wins. Those of two accounts may not.
    Returns the assignment's id.

    Raises:
        RefusedChangeError: no network, another account's or overlapping one, no such tenant, or nothing changes.
    """
    account = find_account(connection, account_code)
    prefix = checked_network(network)
    if tenant_code is not None and default_tenant_code is not None:
        raise RefusedChangeError("an IP is dedicated to a tenant or shared with a default tenant, not both")
    tenant_id = _tenant_id(connection, account, tenant_code)
    default_id = _tenant_id(connection, account, default_tenant_code)
    _refuse_overlapping(connection, prefix, account)
    now = _ip_in_force(connection, prefix)
    if now is not None:
        _refuse_foreign(str(prefix), now, account, made_at)
        if (now.tenant_id, now.default_tenant_id) == (tenant_id, default_id):
            raise RefusedChangeError(f"nothing changes: {prefix} is assigned so already")
        _end(connection, "ip_assignments", now.id, made_at)
    assignment_id: int = connection.execute(
        text("""
            insert into ip_assignments (network, account_id, tenant_id, default_tenant_id, made_at)
            values (cast(:network as cidr), :account_id, :tenant_id, :default_id, :made_at) returning id"""),
        {
            "network": str(prefix),
            "account_id": account.id,
            "tenant_id": tenant_id,
            "default_id": default_id,
            "made_at": made_at,
        },
    ).scalar_one()
    return assignment_id


def release_ip(connection: Connection, made_at: datetime, account_code: str, network: str) -> None:
    """Take an IP network from its account: nobody owns it from then on.

    Raises:
        RefusedChangeError: no network, or the account does not own exactly this one.
    """
    account = find_account(connection, account_code)
    prefix = checked_network(network)
    now = _ip_in_force(connection, prefix)
    if now is None:
        raise RefusedChangeError(f"nothing changes: {prefix} is nobody's")
    _refuse_foreign(str(prefix), now, account, made_at)
    _end(connection, "ip_assignments", now.id, made_at)


def _tenant_id(connection: Connection, account: Account, code: str | None) -> int | None:
    return None if code is None else find_tenant(connection, account, code).id


def _refuse_foreign(asset: str, now: _Row, account: Account, made_at: datetime) -> None:
    if now.account_id != account.id:
        raise RefusedChangeError(f"{asset} belongs to account {now.account_code!r}, not to {account.code!r}")
    if now.made_at >= made_at:
        raise RefusedChangeError(
            f"{asset} was assigned at this very instant; a change needs an instant of its own"
        )


def _refuse_overlapping(connection: Connection, prefix: Network, account: Account) -> None:
    foreign = connection.execute(
        text("""
            select network::text as network, accounts.code as account_code
            from ip_assignments join accounts on accounts.id = account_id
            where ended_at is null and account_id <> :account_id and network && cast(:network as cidr)
            order by network limit 1"""),
        {"account_id": account.id, "network": str(prefix)},
    ).one_or_none()
    if foreign is not None and foreign.network != str(prefix):
        raise RefusedChangeError(
            f"{prefix} overlaps {foreign.network}, which belongs to account {foreign.account_code!r}"
        )


def _number_in_force(connection: Connection, number: str) -> _Row | None:
    return connection.execute(
        text("""
            select a.id, a.account_id, a.tenant_id, a.made_at, accounts.code as account_code
            from number_assignments as a join accounts on accounts.id = a.account_id
            where a.number = :number and a.ended_at is null"""),
        {"number": number},
    ).one_or_none()


def _ip_in_force(connection: Connection, prefix: Network) -> _Row | None:
    return connection.execute(
        text("""
            select a.id, a.account_id, a.tenant_id, a.default_tenant_id, a.made_at, accounts.code as account_code
            from ip_assignments as a join accounts on accounts.id = a.account_id
            where a.network = cast(:network as cidr) and a.ended_at is null"""),
        {"network": str(prefix)},
    ).one_or_none()


def _end(connection: Connection, table: str, assignment_id: int, made_at: datetime) -> None:
    connection.execute(
        text(f"update {table} set ended_at = :made_at where id = :id"),  # noqa: S608 (a table of this file)
        {"id": assignment_id, "made_at": made_at},
    )
