"""What the directory's benchmark owns: assignments by the million, made in SQL, and how their assets are named.

A thousand accounts share the tenants. One number in twenty was moved twice, one in a hundred released; the
others have one assignment. Networks lie up to three deep.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, text

_ROWS_AT_ONCE: Final = 1_000_000
_NETWORKS_A_BLOCK: Final = 5

_ACCOUNTS: Final = """
    insert into accounts (code, name, currency, home_country, domestic_regions, made_at)
    select 'account-' || n, 'Account', 'USD', 'US', '{US,PR}', '2015-01-01Z' from generate_series(1, 1000) n"""
_TENANT_ROWS: Final = """
    insert into tenants (account_id, code, made_at)
    select 1 + n % 1000, 't' || n || '.example.com', '2015-01-01Z' from generate_series(1, :tenants) n order by n"""
_NUMBERS: Final = """
    insert into number_assignments (number, account_id, tenant_id, made_at, ended_at)
    select '+' || (10000000000 + n * 104729 % 7999999993), 1 + (1 + n % :tenants) % 1000, 1 + n % :tenants, made_at,
           case when move < moves or n % 100 = 7 then made_at + interval '1 year' end
    from generate_series(cast(:first as bigint), :last) n,
         lateral (select case when n % 20 = 0 then 2 else 0 end as moves) as life,
         lateral generate_series(0, moves) move,
         lateral (select timestamptz '2018-01-01Z' + n * interval '5 seconds' + move * interval '1 year' as made_at) as made"""
_NETWORKS: Final = """
    insert into ip_assignments (network, account_id, tenant_id, made_at)
    select network, 1 + (1 + n) % 1000, case when n % 10 > 0 then 1 + n end, timestamptz '2018-01-01Z' + n * interval '1 minute'
    from generate_series(0, :blocks - 1) n,
         lateral (values (set_masklen(inet '10.0.0.0' + n * 256, 24)::cidr), (set_masklen(inet '10.0.0.8' + n * 256, 29)::cidr),
                         ((inet '10.0.0.9' + n * 256)::cidr), ((inet '10.0.0.200' + n * 256)::cidr),
                         (('2001:db8:' || to_hex(n) || '::/48')::cidr)) as networks (network)"""
_MOVE_NUMBERS: Final = """
    with ended as (update number_assignments set ended_at = :at
                   where ended_at is null and number = any(:assets) returning number, account_id)
    insert into number_assignments (number, account_id, made_at) select number, account_id, :at from ended"""
_MOVE_NETWORKS: Final = """
    with ended as (update ip_assignments set ended_at = :at
                   where ended_at is null and network = any(cast(:assets as cidr[])) returning network, account_id)
    insert into ip_assignments (network, account_id, made_at) select network, account_id, :at from ended"""


def number_of(asset: int) -> str:
    """The number of an asset, counted from 1."""
    return f"+{10_000_000_000 + asset * 104_729 % 7_999_999_993}"


def addresses(networks: int) -> list[str]:
    """One address of each network, which lies in none of the longer ones."""
    blocks = range(networks // _NETWORKS_A_BLOCK)
    v4 = [f"10.{n >> 8}.{n & 255}.{host}" for n in blocks for host in (1, 10, 9, 200)]
    return v4 + [f"2001:db8:{n:x}::1" for n in blocks]


def make_holdings(engine: Engine, numbers: int, networks: int, tenants: int) -> None:
    """Fill an empty database in the state `bootstrap`; ten numbers come to eleven assignments."""
    with engine.begin() as connection:
        # The rows are right by construction; comparing each with all others would take as long as a real import.
        connection.execute(text("set local session_replication_role = replica"))
        connection.execute(text(_ACCOUNTS))
        connection.execute(text(_TENANT_ROWS), {"tenants": tenants})
        connection.execute(text(_NETWORKS), {"blocks": networks // _NETWORKS_A_BLOCK})
        for first in range(1, numbers + 1, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE - 1, numbers)
            connection.execute(text(_NUMBERS), {"tenants": tenants, "first": first, "last": last})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def move(connection: Connection, at: datetime, numbers: list[str], networks: list[str]) -> int:
    """Take assets from their tenants, at one instant; returns how many had one."""
    moved = connection.execute(text(_MOVE_NUMBERS), {"at": at, "assets": numbers}).rowcount
    return moved + connection.execute(text(_MOVE_NETWORKS), {"at": at, "assets": networks}).rowcount
