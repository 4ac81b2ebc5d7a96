"""What would a month's statement say if it ended now: for previews only, it is no statement (C6)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import numpy as np
from sqlalchemy import Connection, text

from rollup.classify import CALL_CLASSES
from rollup.month_sums_store import monthly_usage, numbers_in_force, owners
from rollup.peaks import CallSpans, peak_channels
from rollup.statement import Owner, OwnerMonth, numbers_held, statement
from rollup.tariff_store import load_tariffs
from schemas.periods import Period
from schemas.statements import Statement

_MICROSECONDS: Final = "(extract(epoch from {}) * 1000000)::bigint"


def statement_so_far(
    connection: Connection, period: Period, account_id: int, tenant_id: int, as_of: datetime
) -> Statement | None:
    """One tenant's month as far as it was posted, with the numbers it holds now.

    None: it has no such month (it did not exist in it), or the ledger has not.
    """
    known = connection.scalar(
        text("select 1 from periods where period = :period"), {"period": period.first_day}
    )
    owner = Owner(account_id, tenant_id)
    usage = {
        group: sums
        for group, sums in monthly_usage(connection, period).items()
        if (group.account_id, group.tenant_id) == owner
    }
    names = owners(connection, period, as_of, [owner] if usage else []).get(owner)
    if known is None or names is None:
        return None
    assigned = (each for each in numbers_in_force(connection, period) if (each[0], each[1]) == owner)
    numbers = numbers_held(assigned, load_tariffs(connection, as_of), period)
    peak = _peak(connection, period, tenant_id)
    month = OwnerMonth(tuple(usage.items()), numbers.by_owner.get(owner, ()), peak)
    return statement(names, period, as_of, month)


def _peak(connection: Connection, period: Period, tenant_id: int) -> int:
    """The most calls the tenant had at one instant of the month so far (C3)."""
    rows = connection.execute(
        text(
            f"select {_MICROSECONDS.format('greatest(answered_at, :starts_at)')} as answered, "  # noqa: S608 (constants)
            f"{_MICROSECONDS.format('ended_at')} as ended "
            "from usage_records where started_date >= :day_before and started_date < :next_period "
            "and period <= :period and tenant_id = :tenant_id and usage_class = any(:classes) "
            "and answered_at < ended_at and ended_at > :starts_at and answered_at < :ends_at"
        ),
        {
            "period": period.first_day,
            "day_before": period.first_day - timedelta(days=1),
            "next_period": period.next().first_day,
            "starts_at": period.starts_at,
            "ends_at": period.ends_at,
            "tenant_id": tenant_id,
            "classes": sorted(CALL_CLASSES),
        },
    ).all()
    edges = np.array([tuple(row) for row in rows], dtype=np.int64).reshape(-1, 2)
    spans = CallSpans(np.full(len(edges), tenant_id, dtype=np.int64), edges[:, 0], edges[:, 1])
    return peak_channels(spans).get(tenant_id, 0)
