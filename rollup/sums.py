"""What rows of the ledger add up to, by month, owner, class and currency (L4): exactly, and all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollup.ledger import Tally, UsageColumns
from schemas.binary import NEVER, Integers, day_number, numbers

_EPOCH: Final = np.datetime64("2000-01-01", "us")
_INTEGERS_END: Final = 2**63


class UsageGroup(NamedTuple):
    """What one row of monthly usage adds up, but for its writer's shard."""

    period: date
    usage_period: date
    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageSums(NamedTuple):
    """The sums of one group; every record is an attempt, every answered one a call."""

    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


def months_of(started: Integers) -> tuple[list[date], Integers]:
    """The months that instants lie in, by their first days, and for each instant which of these."""
    days = _EPOCH + started.astype("timedelta64[us]")
    months, which = np.unique(days.astype("datetime64[M]"), return_inverse=True)
    return months.astype(object).tolist(), which


class Totals(NamedTuple):
    """The sums of some groups by column, as `UsageGroup` and `UsageSums` have them.

    Months: as `schemas.binary.day_number` of their first days. Ids: `NEVER` for none. Amounts: millionths, in Python's
    integers where 64 bits could be too few.
    """

    periods: Integers
    usage_periods: Integers
    account_ids: Integers
    tenant_ids: Integers
    tallies: Sequence[Tally]
    attempts: Integers
    calls: Integers
    answered_seconds: NDArray[Any]
    billed_seconds: Integers
    costs: NDArray[Any]


def sums_of(usage: UsageColumns, places: Integers, posting_period: Mapping[date, date]) -> Totals:
    """Some rows added up by group; `posting_period` says for each month of `started` where it is posted (L5)."""
    months, month = months_of(usage.started[places])
    account_ids, tenant_ids = usage.account_ids[places], usage.tenant_ids[places]
    tallies: dict[Tally, int] = {}
    tally = numbers([tallies.setdefault(each, len(tallies)) for each in usage.tallies])[places]
    told = _told_apart((month, account_ids, tenant_ids, tally))
    groups, first, group = np.unique(told, return_index=True, return_inverse=True)
    known = list(tallies)
    return Totals(
        numbers([day_number(posting_period[each]) for each in months])[month[first]],
        numbers([day_number(each) for each in months])[month[first]],
        account_ids[first],
        tenant_ids[first],
        [known[each] for each in tally[first].tolist()],
        np.bincount(group, minlength=len(groups)),
        np.bincount(group[usage.answered[places]], minlength=len(groups)),
        _added(group, len(groups), usage.answered_millionths[places]),
        _added(group, len(groups), usage.billed_seconds[places]),
        _added(group, len(groups), usage.cost_millionths[places]),
    )


def _told_apart(columns: Sequence[Integers]) -> Integers:
    """A number for each row, the same where all columns are; these hold numbers from 0 on, or ids and `NEVER`."""
    told, end = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        also = np.where(column == NEVER, 0, column)
        also_end = int(also.max(initial=0)) + 1
        if end * also_end >= _INTEGERS_END:
            told, also = [np.unique(each, return_inverse=True)[1] for each in (told, also)]
            end, also_end = [int(each.max(initial=0)) + 1 for each in (told, also)]
        told, end = told * also_end + also, end * also_end
    return told


def _added(group: Integers, groups: int, column: Integers) -> NDArray[Any]:
    """A column's sum for each group, exactly: by Python's integers where 64 bits could be too few."""
    fits = int(column.max(initial=0)) * len(column) < _INTEGERS_END
    sums = np.zeros(groups, dtype=np.int64 if fits else np.object_)
    np.add.at(sums, group, column if fits else column.astype(np.object_))
    return sums
