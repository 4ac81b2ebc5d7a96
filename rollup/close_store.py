"""A sealed month becomes statements: all of them, the events that tell of them, and its closed state, or nothing (C2, C3).

A sealed month takes no rows, so everything here is read without a lock, however long it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from rollup.announcement import Announcement, EventTopics, announcements
from rollup.ledger import UsageGroup, UsageSums
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
from rollup.tariff_store import load_tariffs
from schemas.bulk import copy_line, copy_rows
from schemas.periods import Period
from schemas.statements import Statement, sha256_hex

_STATEMENT_COLUMNS = (
    *("sequence", "id", "period", "kind", "account_id", "tenant_id", "currency", "usage_cost", "total_cost"),
    *("body", "sha256", "chain", "generated_at"),
)


class NotSealedError(RuntimeError):
    """The month cannot close yet: it, or an earlier one, has not come that far."""


class AggregatesDifferError(RuntimeError):
    """The sums kept beside the ledger are not the ledger's; the month stays sealed and nothing is published."""


class AccountMonth(NamedTuple):
    """What one account's statements of a month come to."""

    account: str
    currency: str
    statement_count: int
    usage_cost: Decimal
    total_cost: Decimal


class UnownedUsage(NamedTuple):
    """Usage of nobody's numbers and addresses: in no statement, shown to the carrier (A6)."""

    usage_class: str
    currency: str
    attempts: int
    calls: int
    answered_seconds: Decimal
    cost: Decimal


class UnpricedNumbers(NamedTuple):
    """Numbers that cost nothing because the account has no tariff for them."""

    account: str
    usage_class: str
    numbers: int


@dataclass(frozen=True, slots=True)
class ClosedMonth:
    """What a close did. `unpriced_numbers` is known only to the close that made the statements."""

    period: Period
    accounts: tuple[AccountMonth, ...]
    unowned: tuple[UnownedUsage, ...]
    unpriced_numbers: tuple[UnpricedNumbers, ...] = ()

    @property
    def statement_count(self) -> int:
        """How many statements the month has."""
        return sum(account.statement_count for account in self.accounts)


@dataclass(frozen=True, slots=True)
class MonthStatements:
    """The statements of a month, computed and not yet written, in the order they are chained."""

    statements: tuple[tuple[Owner, Statement], ...]
    names: Mapping[Owner, OwnerNames]
    numbers: HeldNumbers


def close(connection: Connection, period: Period, topics: EventTopics) -> ClosedMonth:
    """Close a sealed month, once: repeated, concurrent and interrupted closes give one result.

    Args:
        connection: in a transaction of its own; the caller commits.
        period: the month; closed already is fine.
        topics: where the events will be published.

    Raises:
        NotSealedError: it is open, or an earlier month is not closed.
        AggregatesDifferError: monthly usage is not what the ledger says.
    """
    state, sealed_at = _hold_period(connection, period)
    if state == "closed":
        return closed_month(connection, period)
    if state != "sealed":
        raise NotSealedError(f"{period} is {state}; only a sealed month can close")
    _refuse_out_of_order(connection, period)
    usage = ledger_usage(connection, period)
    _refuse_differences(period, usage, monthly_usage(connection, period))
    month = compute(connection, period, sealed_at, usage)
    closed_at = database_now(connection)
    _write(connection, period, month.statements, closed_at)
    events = announcements(period, [each for _, each in month.statements], closed_at, topics)
    copy_rows(connection, "outbox", Announcement._fields, map(copy_line, events))
    connection.execute(
        text(
            "update periods set state = 'closed', closed_at = :at where period = :period and state = 'sealed'"
        ),
        {"at": closed_at, "period": period.first_day},
    )
    return closed_month(connection, period, _unpriced(month))


def compute(
    connection: Connection, period: Period, as_of: datetime, usage: Mapping[UsageGroup, UsageSums]
) -> MonthStatements:
    """Every statement of a sealed or closed month (C3); reads only what cannot change any more (C6).

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
    named = owners(connection, period, as_of, by_owner.keys())
    numbers = numbers_held(numbers_in_force(connection, period), load_tariffs(connection, as_of), period)
    peak = peaks(connection, period)
    statements = tuple(
        (
            owner,
            statement(
                names,
                period,
                as_of,
                OwnerMonth(by_owner.get(owner, ()), numbers.by_owner.get(owner, ()), peak.get(owner.code, 0)),
            ),
        )
        for owner, names in named.items()
    )
    return MonthStatements(statements, named, numbers)


def closed_month(
    connection: Connection, period: Period, unpriced: tuple[UnpricedNumbers, ...] = ()
) -> ClosedMonth:
    """What a closed month came to."""
    accounts = connection.execute(
        text(
            "select a.code, s.currency, count(*), sum(s.usage_cost), sum(s.total_cost) from statements s "
            "join accounts a on a.id = s.account_id where s.period = :period "
            "group by a.code, s.currency order by a.code"
        ),
        {"period": period.first_day},
    )
    unowned = connection.execute(
        text(
            "select usage_class, currency, sum(attempts)::bigint, sum(calls)::bigint, sum(answered_seconds), sum(cost) "
            "from monthly_usage where period = :period and account_id is null group by 1, 2 order by 1, 2"
        ),
        {"period": period.first_day},
    )
    return ClosedMonth(
        period,
        tuple(AccountMonth(*row) for row in accounts),
        tuple(UnownedUsage(*row) for row in unowned),
        unpriced,
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
    period: Period, ledger: Mapping[UsageGroup, UsageSums], kept: Mapping[UsageGroup, UsageSums]
) -> None:
    wrong = differences(ledger, kept)
    if wrong:
        shown = "; ".join(wrong[:20])
        raise AggregatesDifferError(f"{period}: {len(wrong)} groups differ from the ledger: {shown}")


def _write(
    connection: Connection,
    period: Period,
    statements: Sequence[tuple[Owner, Statement]],
    closed_at: datetime,
) -> None:
    copy_rows(
        connection,
        "statements",
        _STATEMENT_COLUMNS,
        map(copy_line, _statement_rows(connection, period, statements, closed_at)),
    )


def _statement_rows(
    connection: Connection,
    period: Period,
    statements: Sequence[tuple[Owner, Statement]],
    closed_at: datetime,
) -> Iterator[tuple[object, ...]]:
    last = connection.execute(
        text("select sequence, chain from statements order by sequence desc limit 1")
    ).one_or_none()
    sequence, chain = (last.sequence, last.chain) if last else (0, CHAIN_START)
    for owner, each in statements:
        body = each.canonical_bytes()
        sha256 = sha256_hex(body)
        sequence, chain = sequence + 1, chained(chain, sha256)
        totals = each.totals
        yield (
            *(sequence, each.statement_id, period.first_day, each.kind, owner.account_id, owner.tenant_id),
            *(each.currency, totals.usage_cost, totals.total_cost, body, sha256, chain, closed_at),
        )


def _unpriced(month: MonthStatements) -> tuple[UnpricedNumbers, ...]:
    codes = {owner.account_id: names.account for owner, names in month.names.items()}
    return tuple(
        UnpricedNumbers(codes[account_id], usage_class, count)
        for (account_id, usage_class), count in sorted(month.numbers.without_tariff.items())
    )
