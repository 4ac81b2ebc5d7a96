"""What a month consists of: its usage by the ledger and by the sums beside it, owners, numbers, peaks.

Every query is over the whole month at once. What is read of a sealed month cannot change: rows posted to it or to
earlier months, and history that lies before its `sealed_at`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any, Final, cast

import numpy as np
import psycopg2.extensions
from sqlalchemy import Connection, Row, text

from rollup.classify import CALL_CLASSES
from rollup.peaks import CallSpans, Chunk, peak_channels_of_many
from rollup.statement import Owner, OwnerNames
from rollup.sums import UsageGroup, UsageSums
from schemas.periods import Period

_SUMS = "count(*), count(*) filter (where answered), sum(answered_seconds), sum(billed_seconds)::bigint, sum(cost)"
# COPY's binary format (PostgreSQL documentation, "COPY"): a header, rows of (field count, length, value, ...), a trailer.
_COPY_HEADER_BYTES: Final = 19
_COPY_TRAILER_BYTES: Final = 2
_chunk_calls_max: Final = 500_000
_COPIED_CALL: Final = np.dtype(
    [
        ("fields", ">i2"),
        *(("owner_bytes", ">i4"), ("owner", ">i8")),
        *(("answered_bytes", ">i4"), ("answered", ">i8")),
        *(("ended_bytes", ">i4"), ("ended", ">i8")),
    ]
)


def ledger_usage(connection: Connection, period: Period) -> dict[UsageGroup, UsageSums]:
    """The ledger's rows posted to a month, added up: its own partition, and late rows of earlier ones."""
    rows = connection.execute(
        text(
            "select period, cast(:period as date), account_id, tenant_id, usage_class, currency, "  # noqa: S608 (our own text)
            f"{_SUMS} from usage_records "
            "where started_date >= :period and started_date < :next_period and period = :period "
            "group by period, account_id, tenant_id, usage_class, currency "
            "union all "
            "select period, date_trunc('month', started_date)::date, account_id, tenant_id, usage_class, currency, "
            f"{_SUMS} from usage_records "
            "where late and period = :period and not (started_date >= :period and started_date < :next_period) "
            "group by 1, 2, 3, 4, 5, 6"
        ),
        {"period": period.first_day, "next_period": period.next().first_day},
    )
    return _grouped(rows)


def monthly_usage(connection: Connection, period: Period) -> dict[UsageGroup, UsageSums]:
    """The sums that were kept while a month's rows were posted (L4)."""
    rows = connection.execute(
        text(
            "select period, usage_period, account_id, tenant_id, usage_class, currency, "
            "attempts, calls, answered_seconds, billed_seconds, cost "
            "from monthly_usage_totals where period = :period"
        ),
        {"period": period.first_day},
    )
    return _grouped(rows)


def differences(
    connection: Connection, ledger: Mapping[UsageGroup, UsageSums], kept: Mapping[UsageGroup, UsageSums]
) -> list[str]:
    """Groups whose kept sums are not the ledger's, each in words that name the row of monthly usage."""
    nothing = UsageSums(0, 0, Decimal(0), 0, Decimal(0))
    wrong = {
        group
        for group in ledger.keys() | kept.keys()
        if ledger.get(group, nothing) != kept.get(group, nothing)
    }
    names = owner_names(
        connection, {Owner(each.account_id, each.tenant_id) for each in wrong if each.account_id}
    )
    return [
        f"{names.get((group.account_id, group.tenant_id), 'nobody')}, {group.usage_class} of "
        f"{Period.of(group.usage_period)} in {group.currency}: the ledger has {_spelt(ledger.get(group, nothing))}, "
        f"monthly usage has {_spelt(kept.get(group, nothing))}"
        for group in sorted(wrong, key=str)
    ]


def owner_names(
    connection: Connection, wanted: Collection[Owner]
) -> dict[tuple[int | None, int | None], str]:
    """Some owners as a person knows them."""
    if not wanted:
        return {}
    rows = connection.execute(
        text(
            "select a.id, t.id as tenant_id, a.code, t.code as tenant from unnest(cast(:accounts as bigint[]), "
            "cast(:tenants as bigint[])) as o(account_id, tenant_id) join accounts a on a.id = o.account_id "
            "left join tenants t on t.id = o.tenant_id"
        ),
        {"accounts": [each.account_id for each in wanted], "tenants": [each.tenant_id for each in wanted]},
    )
    return {
        (row.id, row.tenant_id): f"account {row.code}, "
        + (f"tenant {row.tenant}" if row.tenant else "unassigned usage")
        for row in rows
    }


def owners(
    connection: Connection, period: Period, as_of: datetime, with_usage: Collection[Owner]
) -> dict[Owner, OwnerNames]:
    """Everyone who gets a statement: who existed in the month or has usage posted to it (C2).

    In the order of the chain: by account, its tenants by Account ID, then its unassigned usage.
    """
    rows = connection.execute(
        text(
            "select a.id as account_id, a.code as account, a.currency, t.id as tenant_id, t.code as tenant, d.name "
            "from accounts a join tenants t on t.account_id = a.id "
            "left join lateral (select name from tenant_details where tenant_id = t.id and made_at <= :as_of "
            "order by made_at desc limit 1) d on true "
            "where (t.made_at < :ends_at and (t.ended_at is null or t.ended_at > :starts_at)) "
            "or t.id = any(cast(:tenants as bigint[])) "
            "union all "
            "select a.id, a.code, a.currency, null, null, null from accounts a "
            "where a.made_at < :ends_at or a.id = any(cast(:accounts as bigint[]))"
        ),
        {
            "as_of": as_of,
            "starts_at": period.starts_at,
            "ends_at": period.ends_at,
            "tenants": [owner.tenant_id for owner in with_usage if owner.tenant_id is not None],
            "accounts": [owner.account_id for owner in with_usage],
        },
    )
    ordered = sorted(rows, key=lambda row: (row.account, row.tenant is None, row.tenant or ""))
    return {
        Owner(row.account_id, row.tenant_id): OwnerNames(row.account, row.currency, row.tenant, row.name)
        for row in ordered
    }


def numbers_in_force(connection: Connection, period: Period) -> Iterator[tuple[int, int | None, str]]:
    """Account, tenant and number of every assignment in force at a month's last instant; streamed."""
    rows = connection.execute(
        text(
            "select account_id, tenant_id, number from number_assignments "
            "where made_at < :ends_at and (ended_at is null or ended_at >= :ends_at)"
        ),
        {"ends_at": period.ends_at},
        execution_options={"yield_per": 10_000},
    )
    for row in rows:
        yield row.account_id, row.tenant_id, row.number


def peaks(connection: Connection, period: Period) -> dict[int, int]:
    """The most calls each owner had at one instant of a month (C3), by `Owner.code`.

    From answer to end, from the month's beginning at the earliest, so that a call over its edge counts on both sides.
    A call lasts 24 hours at most (L6), so one that reaches into the month began no earlier than the day before. Rows
    posted to later months came after the seal and do not count (C6). Needs 38 bytes of temporary file a call, and
    memory for one slice of time (`peaks.slice_calls_max`).
    """
    with closing(connection.connection.cursor()) as plain, TemporaryFile() as file:
        cursor = cast("psycopg2.extensions.cursor", plain)  # psycopg2's own: SQLAlchemy has no COPY
        query = cursor.mogrify(
            "select coalesce(tenant_id, -account_id), greatest(answered_at, %(starts_at)s), ended_at "
            "from usage_records where started_date >= %(day_before)s and started_date < %(next_period)s "
            "and period <= %(period)s and account_id is not null and usage_class = any(%(classes)s) "
            "and answered_at < ended_at and ended_at > %(starts_at)s and answered_at < %(ends_at)s",
            {
                "period": period.first_day,
                "day_before": period.first_day - timedelta(days=1),
                "next_period": period.next().first_day,
                "starts_at": period.starts_at,
                "ends_at": period.ends_at,
                "classes": sorted(CALL_CLASSES),
            },
        )
        cursor.copy_expert(f"copy ({query.decode()}) to stdout with (format binary)", file)
        return peak_channels_of_many(list(_chunks(file)))


def _chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """Rows of three 8-byte integers in COPY's binary format, in chunks; instants are microseconds since 2000."""
    rows = (file.tell() - _COPY_HEADER_BYTES - _COPY_TRAILER_BYTES) // _COPIED_CALL.itemsize
    for first in range(0, rows, _chunk_calls_max):
        yield partial(_read_chunk, file, first, min(_chunk_calls_max, rows - first))


def _read_chunk(file: IO[bytes], first: int, rows: int) -> CallSpans:
    file.seek(_COPY_HEADER_BYTES + first * _COPIED_CALL.itemsize)
    calls = np.fromfile(file, _COPIED_CALL, count=rows)
    return CallSpans(*(calls[name].astype(np.int64) for name in ("owner", "answered", "ended")))


def _grouped(rows: Iterable[Row[Any]]) -> dict[UsageGroup, UsageSums]:
    return {UsageGroup._make(row[:6]): UsageSums._make(row[6:]) for row in rows}


def _spelt(sums: UsageSums) -> str:
    return (
        f"{sums.attempts} attempts, {sums.calls} calls, {sums.answered_seconds} answered seconds, "
        f"{sums.billed_seconds} billed seconds, cost {sums.cost}"
    )
