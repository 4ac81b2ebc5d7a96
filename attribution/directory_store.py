"""How the directory comes out of the database: behind a fence, whole or only what changed (A7).

A fence fixes an instant up to which history is complete. Whatever is read in later statements, also in another
transaction, then holds all that was made up to it, and rows are never rewritten, so reading takes no lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from attribution.assets import Account, IpAssignment, Tenant
from attribution.columns_store import Progress, no_progress, read_columns
from attribution.directory import Changes, Directory
from attribution.number_columns import NumberColumns
from schemas.locks import Lock
from schemas.network import network

changes_max: Final = (
    200_000  # above it, everything is read again: whole columns are cheaper than so many objects
)

_Row = Row[*tuple[Any, ...]]

# columns of tenants in the order of `Tenant`
_ACCOUNTS: Final = "select id, code, currency, home_country, domestic_regions from accounts where "
_TENANTS: Final = "select id, account_id, code, made_at, ended_at from tenants where "
_IPS: Final = "select id, network::text as network, account_id, tenant_id, default_tenant_id, made_at, ended_at from ip_assignments where "
_MADE: Final = "made_at <= :as_of"
_MADE_SINCE: Final = "made_at > :after and made_at <= :as_of"
_CHANGED_SINCE: Final = f"(({_MADE_SINCE}) or (ended_at > :after and ended_at <= :as_of))"
_HOW_MANY: Final = (
    f"select count(*) from (select from number_assignments where {_CHANGED_SINCE} limit :enough) as changed"  # noqa: S608 (constants of this file)
)

# of numbers in the order of `NumberColumns`
_NUMBERS: Final = """
    select substr(number, 2)::bigint, made_at, coalesce(ended_at, 'infinity'), id, account_id, coalesce(tenant_id, 0)
    from number_assignments where """
_NUMBERS_MADE: Final = _NUMBERS + "made_at <= %(as_of)s"
_NUMBERS_CHANGED_SINCE: Final = (
    _NUMBERS
    + "((made_at > %(after)s and made_at <= %(as_of)s) or (ended_at > %(after)s and ended_at <= %(as_of)s))"
)
_NUMBER_COLUMNS_WIDTH: Final = 6


def take_fence(connection: Connection) -> datetime:
    """The instant up to which history is complete once this transaction is committed (A7).

    Waits for changes in flight. Commit at once: changes wait for it. Every later change is made strictly after it,
    even if the database's clock steps back.
    """
    connection.execute(text("select pg_advisory_xact_lock_shared(:key)"), {"key": Lock.DIRECTORY})
    as_of: datetime = connection.execute(
        text(
            "update directory_clock set last_made_at = greatest(clock_timestamp(), last_made_at) returning last_made_at"
        )
    ).scalar_one()
    return as_of


def load_directory(connection: Connection, as_of: datetime, progress: Progress = no_progress) -> Directory:
    """The whole history up to a fence.

    Args:
        connection: outside the fence's transaction.
        as_of: what `take_fence` gave.
        progress: called with numbers of rows as they are read.
    """
    at = {"as_of": as_of}
    rows = Changes(
        accounts=[_account(row) for row in _all(connection, _ACCOUNTS + _MADE, at)],
        tenants=[Tenant(*row) for row in _all(connection, _TENANTS + _MADE, at)],
        ips=[_ip(row) for row in _all(connection, _IPS + _MADE, at)],
    )
    progress(len(rows.accounts) + len(rows.tenants) + len(rows.ips))
    columns = read_columns(connection, _NUMBERS_MADE, at, _NUMBER_COLUMNS_WIDTH, progress)
    return Directory.of(as_of, rows, NumberColumns(*columns))


def refresh_directory(connection: Connection, before: Directory, as_of: datetime) -> Directory:
    """The directory as of a later fence: what changed is read, or everything where very much did."""
    span = {"after": before.as_of, "as_of": as_of}
    if connection.execute(text(_HOW_MANY), span | {"enough": changes_max + 1}).scalar_one() > changes_max:
        return load_directory(connection, as_of)
    changes = Changes(
        accounts=[_account(row) for row in _all(connection, _ACCOUNTS + _MADE_SINCE, span)],
        tenants=[Tenant(*row) for row in _all(connection, _TENANTS + _CHANGED_SINCE, span)],
        ips=[_ip(row) for row in _all(connection, _IPS + _CHANGED_SINCE, span)],
    )
    numbers = read_columns(connection, _NUMBERS_CHANGED_SINCE, span, _NUMBER_COLUMNS_WIDTH)
    return before.refreshed(changes, as_of, NumberColumns(*numbers))


def _all(connection: Connection, query: str, parameters: dict[str, datetime]) -> Sequence[_Row]:
    return connection.execute(text(query), parameters).all()


def _account(row: _Row) -> Account:
    return Account(row.id, row.code, row.currency, row.home_country, frozenset(row.domestic_regions))


def _ip(row: _Row) -> IpAssignment:
    return IpAssignment(
        row.id,
        network(row.network),
        row.account_id,
        row.tenant_id,
        row.default_tenant_id,
        row.made_at,
        row.ended_at,
    )
