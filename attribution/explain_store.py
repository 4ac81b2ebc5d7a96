"""Who had an asset, and when: the assignments among which the one in force at a call's instant decided (A2, A3)."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from attribution.assets import Tenant

_entries_max: Final = 20


class AssetEntry(NamedTuple):
    """One assignment of a number or network; `made_at` is when it was made and from when it worked (A7)."""

    assignment_id: int
    asset: str
    account: str
    tenant: str | None
    default_tenant: str | None
    made_at: datetime
    ended_at: datetime | None


def number_history(connection: Connection, number: str, at: datetime) -> tuple[AssetEntry, ...]:
    """The assignments of a number in E.164, oldest first; of very many those nearest to the instant."""
    return _history(connection, "number", "a.number = :asset", number, at)


def ip_history(connection: Connection, address: str, at: datetime) -> tuple[AssetEntry, ...]:
    """The assignments of all networks that hold an address, oldest first; of very many those nearest to the instant."""
    return _history(connection, "network", "a.network >>= cast(:asset as inet)", address, at)


def tenants_of(connection: Connection, account_id: int) -> tuple[Tenant, ...]:
    """All tenants of an account, ended or not."""
    rows = connection.execute(
        text("select id, account_id, code, made_at, ended_at from tenants where account_id = :account_id"),
        {"account_id": account_id},
    )
    return tuple(Tenant(*row) for row in rows)


def _history(
    connection: Connection, column: str, chosen: str, asset: str, at: datetime
) -> tuple[AssetEntry, ...]:
    table, default = (
        ("number_assignments", "null") if column == "number" else ("ip_assignments", "default_tenants.code")
    )
    join = (
        ""
        if column == "number"
        else "left join tenants as default_tenants on default_tenants.id = a.default_tenant_id "
    )
    rows = connection.execute(
        text(
            f"select a.id, a.{column}::text as asset, accounts.code, tenants.code, {default}, a.made_at, a.ended_at "  # noqa: S608 (our own text)
            f"from {table} as a join accounts on accounts.id = a.account_id "
            f"left join tenants on tenants.id = a.tenant_id {join}"
            f"where {chosen} order by abs(extract(epoch from a.made_at - :at)), a.id limit :max"
        ),
        {"asset": asset, "at": at, "max": _entries_max},
    )
    return tuple(sorted((AssetEntry(*row) for row in rows), key=lambda each: (each.made_at, each.asset)))
