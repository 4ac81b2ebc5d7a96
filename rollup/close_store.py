"""A sealed month becomes statements: all of them, the events that tell of them, and its closed state, or nothing (C2, C3).

A sealed month takes no rows, so everything here is read without a lock, however long it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from rollup.announcement import (
    AccountTold,
    Announcement,
    EventTopics,
    ToldStatement,
    period_closed,
    statement_closed,
)
from rollup.closed_month_store import ClosedMonth, UnpricedNumbers, closed_month
from rollup.month_sums_store import (
    differences,
    ledger_usage,
    monthly_usage,
    numbers_in_force,
    owners,
    peaks,
)
from rollup.months_store import database_now, earliest_unclosed
from rollup.statement import (
    CHAIN_START,
    HeldNumbers,
    Owner,
    OwnerMonth,
    OwnerNames,
    chained,
    numbers_held,
    statement,
)
from rollup.sums import UsageGroup, UsageSums
from rollup.tariff_store import load_tariffs
from schemas.bulk import copy_line, copy_rows
from schemas.periods import Period
from schemas.statements import Statement, sha256_hex

CLOSING: Final = "tenant-billing closing"  # by this name others know a session that closes
frozen_seconds_max: Final = 600  # a closer that stands still for so long inside its transaction loses it
_differences_shown_max: Final = 20
_statements_at_once_max: Final = 1000
_STATEMENT_COLUMNS: Final = (
    *("sequence", "id", "period", "kind", "account_id", "tenant_id", "currency", "usage_cost", "total_cost"),
    *("body", "sha256", "chain", "generated_at"),
)


class NotSealedError(RuntimeError):
    """The month cannot close yet: it, or an earlier one, has not come that far."""


class AggregatesDifferError(RuntimeError):
    """The sums kept beside the ledger are not the ledger's; the month stays sealed and nothing is published."""


@dataclass(frozen=True, slots=True)
class MonthFacts:
    """What every statement of a month is made of; `names` has its owners in the order of the chain."""

    period: Period
    as_of: datetime
    names: Mapping[Owner, OwnerNames]
    usage: Mapping[Owner, Sequence[tuple[UsageGroup, UsageSums]]]
    numbers: HeldNumbers
    peaks: Mapping[int, int]

    def of(self, owner: Owner) -> OwnerMonth:
        """One owner's part."""
        return OwnerMonth(
            self.usage.get(owner, ()), self.numbers.by_owner.get(owner, ()), self.peaks.get(owner.code, 0)
        )


def close(connection: Connection, period: Period, topics: EventTopics) -> ClosedMonth:
    """Close a sealed month, once: repeated, concurrent and interrupted closes give one result.

    Args:
        connection: in a transaction of its own; the caller commits.
        period: the month; closed already is fine.
        topics: where the events will be published.

    Raises:
        NotSealedError: it is open, or an earlier month is not closed.
        AggregatesDifferError: monthly usage is not what the ledger says.
        OperationalError: (55P03) another closer has held the month for `frozen_seconds_max`.
    """
    _begin_closing(connection)
    state, sealed_at = _hold_period(connection, period)
    if state == "closed":
        return closed_month(connection, period)
    if state != "sealed":
        raise NotSealedError(f"{period} is {state}; only a sealed month can close")
    _refuse_out_of_order(connection, period)
    usage = ledger_usage(connection, period)
    _refuse_differences(connection, period, usage)
    month = month_facts(connection, period, sealed_at, usage)
    closed_at = database_now(connection)
    _write(connection, month, closed_at, topics)
    connection.execute(
        text(
            "update periods set state = 'closed', closed_at = :at where period = :period and state = 'sealed'"
        ),
        {"at": closed_at, "period": period.first_day},
    )
    return closed_month(connection, period, _unpriced(month))


def month_facts(
    connection: Connection, period: Period, as_of: datetime, usage: Mapping[UsageGroup, UsageSums]
) -> MonthFacts:
    """What a sealed or closed month consists of (C3); reads only what cannot change any more (C6).

    Args:
        connection: any transaction.
        period: the month.
        as_of: the instant stored as the month's `sealed_at`; names and tariffs are as they stood then.
        usage: the ledger's sums of rows posted to the month.
    """
    by_owner: dict[Owner, list[tuple[UsageGroup, UsageSums]]] = defaultdict(list)
    for group, sums in usage.items():
        if group.account_id is not None:
            by_owner[Owner(group.account_id, group.tenant_id)].append((group, sums))
    return MonthFacts(
        period,
        as_of,
        owners(connection, period, as_of, by_owner.keys()),
        by_owner,
        numbers_held(numbers_in_force(connection, period), load_tariffs(connection, as_of), period),
        peaks(connection, period),
    )


def _begin_closing(connection: Connection) -> None:
    """Make this transaction one that others know, that ends if it stands still, and that waits for nobody for ever."""
    connection.execute(
        text(
            "select set_config('application_name', :name, true), set_config('lock_timeout', :patience, true), "
            "set_config('idle_in_transaction_session_timeout', :patience, true)"
        ),
        {"name": CLOSING, "patience": f"{frozen_seconds_max}s"},
    )


def _hold_period(connection: Connection, period: Period) -> tuple[str, datetime]:
    """Lock the month's row against another closer; nobody who posts ever locks it."""
    row = connection.execute(
        text("select state, sealed_at from periods where period = :period for update"),
        {"period": period.first_day},
    ).one_or_none()
    if row is None:
        raise NotSealedError(f"{period} is not a month of this ledger")
    return row.state, row.sealed_at


def _refuse_out_of_order(connection: Connection, period: Period) -> None:
    """In order, so that one close at a time extends the chain of statements."""
    earlier = earliest_unclosed(connection, period)
    if earlier is not None:
        raise NotSealedError(f"{earlier} is not closed yet; months close in order")


def _refuse_differences(
    connection: Connection, period: Period, ledger: Mapping[UsageGroup, UsageSums]
) -> None:
    wrong = differences(connection, ledger, monthly_usage(connection, period))
    if wrong:
        shown = "".join(f"\n  - {each}" for each in wrong[:_differences_shown_max])
        raise AggregatesDifferError(
            f"{period}: {len(wrong)} rows of monthly usage differ from the ledger:{shown}"
        )


class _Made(NamedTuple):
    """A statement and its link of the chain."""

    owner: Owner
    told: ToldStatement
    sequence: int
    chain: str


def _write(connection: Connection, month: MonthFacts, closed_at: datetime, topics: EventTopics) -> None:
    """Write statements and their events part by part, and last what each account is told of its month."""
    accounts: dict[str, AccountTold] = {}
    made = _made(connection, month)
    while part := list(islice(made, _statements_at_once_max)):
        rows = (_statement_row(month.period, each, closed_at) for each in part)
        copy_rows(connection, "statements", _STATEMENT_COLUMNS, map(copy_line, rows))
        _announce(connection, [statement_closed(each.told, closed_at, topics.statements) for each in part])
        for each in part:
            _add_up(accounts, each.told.statement)
    events = (
        period_closed(month.period, account, told, closed_at, topics.periods)
        for account, told in accounts.items()
    )
    _announce(connection, events)


def _announce(connection: Connection, events: Iterable[Announcement]) -> None:
    copy_rows(connection, "outbox", Announcement._fields, map(copy_line, events))


def _add_up(accounts: dict[str, AccountTold], each: Statement) -> None:
    before = accounts.get(each.account, AccountTold(each.currency, 0, Decimal("0.000000")))
    accounts[each.account] = AccountTold(
        each.currency, before.statement_count + 1, before.total_cost + each.totals.total_cost
    )


def _made(connection: Connection, month: MonthFacts) -> Iterator[_Made]:
    last = connection.execute(
        text("select sequence, chain from statements order by sequence desc limit 1")
    ).one_or_none()
    sequence, chain = (last.sequence, last.chain) if last else (0, CHAIN_START)
    for owner, names in month.names.items():
        each = statement(names, month.period, month.as_of, month.of(owner))
        body = each.canonical_bytes()
        told = ToldStatement(each, body, sha256_hex(body))
        sequence, chain = sequence + 1, chained(chain, told.sha256)
        yield _Made(owner, told, sequence, chain)


def _statement_row(period: Period, made: _Made, closed_at: datetime) -> tuple[object, ...]:
    each, totals = made.told.statement, made.told.statement.totals
    return (
        *(
            made.sequence,
            each.statement_id,
            period.first_day,
            each.kind,
            made.owner.account_id,
            made.owner.tenant_id,
        ),
        *(each.currency, totals.usage_cost, totals.total_cost, made.told.body, made.told.sha256, made.chain),
        closed_at,
    )


def _unpriced(month: MonthFacts) -> tuple[UnpricedNumbers, ...]:
    codes = {owner.account_id: names.account for owner, names in month.names.items()}
    return tuple(
        UnpricedNumbers(codes[account_id], usage_class, count)
        for (account_id, usage_class), count in sorted(month.numbers.without_tariff.items())
    )
