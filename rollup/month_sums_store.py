"""What a month consists of: its usage by the ledger and by the sums beside it, owners, numbers, peaks.

Every query is over the whole month at once. What is read of a sealed month cannot change: rows posted to it or to
earlier months, and history that lies before its `sealed_at`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from rollup.classify import CALL_CLASSES
from rollup.ledger import UsageGroup, UsageSums
from rollup.statement import Owner, OwnerNames
from schemas.periods import Period

_SUMS = "count(*), count(*) filter (where answered), sum(answered_seconds), sum(billed_seconds)::bigint, sum(cost)"


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


def differences(ledger: Mapping[UsageGroup, UsageSums], kept: Mapping[UsageGroup, UsageSums]) -> list[str]:
    """Groups whose kept sums are not the ledger's, each in words."""
    nothing = UsageSums(0, 0, Decimal(0), 0, Decimal(0))
    return [
        f"account {group.account_id}, tenant {group.tenant_id}, {group.usage_class} of "
        f"{Period.of(group.usage_period)} in {group.currency}: the ledger has {_spelt(ledger.get(group, nothing))}, "
        f"monthly usage has {_spelt(kept.get(group, nothing))}"
        for group in sorted(ledger.keys() | kept.keys(), key=str)
        if ledger.get(group, nothing) != kept.get(group, nothing)
    ]


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


def peaks(connection: Connection, period: Period) -> dict[Owner, int]:
    """The most calls each owner had at one instant of a month (C3).

    From answer to end, clipped to the month, so that a call over its edge counts on both sides; an end comes before
    a start at the same instant. A call lasts 24 hours at most (L6), so one that reaches into the month began no
    earlier than the day before. Rows posted to later months came after the seal and do not count (C6).
    """
    rows = connection.execute(
        text(
            "select account_id, tenant_id, max(channels) as peak from ("
            "select account_id, tenant_id, sum(step) over ("
            "partition by account_id, tenant_id order by at, step rows unbounded preceding) as channels "
            "from usage_records cross join lateral "
            "(values (greatest(answered_at, :starts_at), 1), (ended_at, -1)) as edge(at, step) "
            "where started_date >= cast(:period as date) - 1 and started_date < :next_period and period <= :period "
            "and account_id is not null and usage_class = any(cast(:classes as text[])) "
            "and answered_at < ended_at and ended_at > :starts_at and answered_at < :ends_at"
            ") as counted group by account_id, tenant_id"
        ),
        {
            "period": period.first_day,
            "next_period": period.next().first_day,
            "starts_at": period.starts_at,
            "ends_at": period.ends_at,
            "classes": sorted(CALL_CLASSES),
        },
    )
    return {Owner(row.account_id, row.tenant_id): int(row.peak) for row in rows}


def _grouped(rows: Iterable[Row[Any]]) -> dict[UsageGroup, UsageSums]:
    return {UsageGroup._make(row[:6]): UsageSums._make(row[6:]) for row in rows}


def _spelt(sums: UsageSums) -> str:
    return (
        f"{sums.attempts} attempts, {sums.calls} calls, {sums.answered_seconds} answered seconds, "
        f"{sums.billed_seconds} billed seconds, cost {sums.cost}"
    )
