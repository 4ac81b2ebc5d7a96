"""How imported rows reach the database in bulk: COPY into a temporary table, conflicts by query, then one insert.

The temporary tables live as long as the transaction. Rows are streamed into them, so that memory does not grow with
the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from datetime import datetime
from itertools import islice
from typing import Final, Literal, NamedTuple, TypeVar

from sqlalchemy import Connection, text

from attribution.assets import Account, Tenant
from attribution.csv_rows import AccountRow, IpRow, NumberRow, TenantRow
from attribution.details import TenantDetails
from schemas.bulk import copy_line, copy_rows

_chunk_rows_max: Final = 20_000
_DETAIL_COLUMNS: Final = [each.name for each in fields(TenantDetails)]
_T = TypeVar("_T")

Asset = Literal["number", "network"]
_TABLES: Final[Mapping[Asset, str]] = {"number": "number_assignments", "network": "ip_assignments"}
_OWNERS: Final[Mapping[Asset, str]] = {
    "number": "account_id, tenant_id",
    "network": "account_id, tenant_id, default_tenant_id",
}


class Conflict(NamedTuple):
    """A row that cannot be imported, its value, and why."""

    row: int
    value: str
    reason: str


class Written(NamedTuple):
    """What an import of assignments did: rows made, rows that ended an older assignment, rows that were so already."""

    made: int
    moved: int
    unchanged: int


def all_accounts(connection: Connection) -> dict[str, Account]:
    """Every account, by code."""
    rows = connection.execute(text("select id, code, currency, home_country, domestic_regions from accounts"))
    return {
        row.code: Account(row.id, row.code, row.currency, row.home_country, frozenset(row[4])) for row in rows
    }


def all_tenants(connection: Connection) -> dict[tuple[int, str], Tenant]:
    """Every tenant, ended or not, by account id and Account ID."""
    rows = connection.execute(text("select id, account_id, code, made_at, ended_at from tenants"))
    return {(row.account_id, row.code): Tenant(*row) for row in rows}


def add_accounts(connection: Connection, rows: Iterable[AccountRow]) -> None:
    """Make accounts whose codes are free."""
    lines = (
        (
            each.code,
            each.name,
            each.currency,
            each.home_country,
            f"{{{','.join(each.domestic_regions)}}}",
            made_at,
        )
        for _, each, made_at in rows
    )
    columns = ["code", "name", "currency", "home_country", "domestic_regions", "made_at"]
    _copy(connection, "accounts", columns, lines)


def add_tenants(connection: Connection, rows: Sequence[TenantRow]) -> None:
    """Make tenants whose Account IDs are free, with their details."""
    tenants = ((row.account_id, row.code, row.made_at, row.ended_at) for row in rows)
    _copy(connection, "tenants", ["account_id", "code", "made_at", "ended_at"], tenants)
    connection.execute(
        text(
            "create temporary table imported_details on commit drop as select * from tenant_details with no data"
        )
    )
    ids = all_tenants(connection)
    details = ((ids[row.account_id, row.code].id, row.made_at, *astuple(row.details)) for row in rows)
    _copy(connection, "imported_details", ["tenant_id", "made_at", *_DETAIL_COLUMNS], details)
    columns = ", ".join(["tenant_id", "made_at", *_DETAIL_COLUMNS])
    selected = columns.replace(
        "address_line2", "coalesce(address_line2, '')"
    )  # COPY reads empty text as null
    connection.execute(
        text(f"insert into tenant_details ({columns}) select {selected} from imported_details")  # noqa: S608 (constants)
    )


def stage_numbers(connection: Connection, rows: Iterable[NumberRow]) -> None:
    """Put number assignments where the next functions find them."""
    _stage(connection, "number", "number text", NumberRow._fields, rows)


def stage_ips(connection: Connection, rows: Iterable[IpRow]) -> None:
    """Put IP assignments where the next functions find them."""
    _stage(connection, "network", "network cidr, default_tenant_id bigint", IpRow._fields, rows)


def overlaps_within(connection: Connection, asset: Asset) -> Iterator[Conflict]:
    """Rows that assign an asset in a time in which another row of the file assigns it."""
    query = f"""
        select row, {asset}::text as value from (
            select row, {asset}, made_at,
                   max(coalesce(ended_at, 'infinity')) over (
                       partition by {asset} order by made_at, row
                       rows between unbounded preceding and 1 preceding) as taken_until
            from imported_{asset}) as staged
        where made_at < taken_until order by row"""  # noqa: S608 (names of this file)
    for row in connection.execute(text(query)):
        yield Conflict(row.row, row.value, "is assigned by another row of the file in that time")


def conflicts(connection: Connection, asset: Asset, instant: datetime) -> Iterator[Conflict]:
    """Rows that assign an asset in a time in which it is assigned already.

    A row in force from now on may follow the same account's assignment that is in force: that is a move.
    """
    query = f"""
        select staged.row, staged.{asset}::text as value, accounts.code, present.made_at, present.ended_at
        from imported_{asset} as staged
        join {_TABLES[asset]} as present on present.{asset} = staged.{asset}
         and present.made_at < coalesce(staged.ended_at, 'infinity')
         and staged.made_at < coalesce(present.ended_at, 'infinity')
        join accounts on accounts.id = present.account_id
        where not (present.account_id = staged.account_id and present.ended_at is null
                   and present.made_at < :instant and {_FROM_NOW_ON})
        order by row"""  # noqa: S608 (names of this file)
    for row in connection.execute(text(query), {"instant": instant}):
        until = f" until {row.ended_at.isoformat()}" if row.ended_at else ""
        reason = f"belongs to account {row.code!r} already, from {row.made_at.isoformat()}{until}"
        yield Conflict(row.row, row.value, reason)


def foreign_overlaps(connection: Connection) -> Iterator[Conflict]:
    """Networks that overlap another account's in time and addresses, in the database or in the file.

    Of two networks that overlap one holds the other, so each is cut to every length there is and looked up.
    """
    query = """
        with every as materialized (
            select network, account_id, made_at, ended_at, 0 as row from ip_assignments
            union all select network, account_id, made_at, ended_at, row from imported_network),
        lengths as materialized (select distinct family(network) as version, masklen(network) as length from every)
        select greatest(narrow.row, wide.row) as row, accounts.code,
               case when narrow.row > wide.row then narrow.network else wide.network end::text as value,
               case when narrow.row > wide.row then wide.network else narrow.network end::text as other
        from every as narrow
        join lengths on version = family(narrow.network) and length <= masklen(narrow.network)
        join every as wide on wide.network = set_masklen(narrow.network, length)
         and narrow.row <> wide.row and narrow.account_id <> wide.account_id
         and narrow.made_at < coalesce(wide.ended_at, 'infinity')
         and wide.made_at < coalesce(narrow.ended_at, 'infinity')
        join accounts
          on accounts.id = case when narrow.row > wide.row then wide.account_id else narrow.account_id end
        order by row"""
    for row in connection.execute(text(query)):
        yield Conflict(row.row, row.value, f"overlaps {row.other}, which belongs to account {row.code!r}")


def write_assignments(connection: Connection, asset: Asset, instant: datetime) -> Written:
    """Make what was staged and has no conflict; what is in force and moves ends at the instant."""
    table, owners, at = _TABLES[asset], _OWNERS[asset], {"instant": instant}
    present = f"present.{asset} = staged.{asset} and present.ended_at is null and {_FROM_NOW_ON}"
    mine, theirs = _prefixed("staged", owners), _prefixed("present", owners)
    unchanged = connection.execute(
        text(
            f"delete from imported_{asset} as staged using {table} as present "  # noqa: S608 (names of this file)
            f"where {present} and ({mine}) is not distinct from ({theirs})"
        ),
        at,
    ).rowcount
    moved = connection.execute(
        text(
            f"update {table} as present set ended_at = :instant from imported_{asset} as staged where {present}"  # noqa: S608 (same)
        ),
        at,
    ).rowcount
    made = connection.execute(
        text(
            f"insert into {table} ({asset}, {owners}, made_at, ended_at) "  # noqa: S608 (same)
            f"select {asset}, {owners}, made_at, ended_at from imported_{asset} order by {asset}, made_at"
        )
    ).rowcount
    return Written(made, moved, unchanged)


_FROM_NOW_ON: Final = "staged.ended_at is null and staged.made_at = :instant"


def _prefixed(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in columns.split(", "))


def _stage(
    connection: Connection,
    asset: Asset,
    own_columns: str,
    columns: Sequence[str],
    rows: Iterable[tuple[object, ...]],
) -> None:
    connection.execute(text(f"drop table if exists pg_temp.imported_{asset}"))
    connection.execute(
        text(
            f"create temporary table imported_{asset} (row integer, {own_columns}, account_id bigint, "
            "tenant_id bigint, made_at timestamptz, ended_at timestamptz) on commit drop"
        )
    )
    _copy(connection, f"imported_{asset}", columns, rows)
    connection.execute(text(f"analyze imported_{asset}"))


def _copy(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    for chunk in _chunks(rows):
        copy_rows(connection, table, columns, map(copy_line, chunk))


def _chunks(rows: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, _chunk_rows_max)):
        yield chunk
