"""Which months exist, what keeps one open, and the instant it takes no more rows (C1, C2, C4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from rollup import boundary_store
from schemas.locks import Lock
from schemas.periods import Period, utc_text

cutoff_margin: Final = timedelta(seconds=60)
seal_wait_seconds_max: Final = 5


class PeriodRow(NamedTuple):
    """A month and how far it has come; `state` is open, sealed or closed."""

    period: Period
    state: str
    cutoff_at: datetime | None
    sealed_at: datetime | None
    closed_at: datetime | None


class BlockerKind(StrEnum):
    """What a month may wait for."""

    NO_SUCH_MONTH = "no_such_month"
    BOOTSTRAP = "bootstrap"
    CUTOFF = "cutoff"
    EARLIER_MONTH = "earlier_month"
    NEXT_MONTH = "next_month"
    BOUNDARIES = "boundaries"
    UNREAD = "unread"
    HELD = "held"
    QUARANTINED = "quarantined"
    POSTING = "posting"
    CLOSING = "closing"


@dataclass(frozen=True, slots=True)
class Blocker:
    """One thing a month waits for; `text` is for a person."""

    kind: BlockerKind
    text: str


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a month stays open: `grace` after its end, `quarantine` for repairs after the cutoff (C4)."""

    grace: timedelta
    quarantine: timedelta


def seal(connection: Connection, period: Period, waits: Waits, as_of: datetime) -> tuple[Blocker, ...]:
    """Let a month take no more rows (C2); the caller commits at once, for no batch is posted meanwhile.

    Args:
        connection: in a transaction of its own.
        period: the month.
        waits: how long it stays open.
        as_of: an instant of the directory's fence; what the statements say of names is as of then.

    Returns:
        What it waits for after all; empty where the month is sealed now, by this call or before.

    Raises:
        OperationalError: (55P03) a batch was being posted all the time; nothing has changed.
    """
    # Postings queue behind this lock while it waits for the batches that are being written: rather give up and come
    # back than let them wait behind one that stands still. Who stands still holding it loses it.
    connection.execute(text(f"set local lock_timeout = '{seal_wait_seconds_max}s'"))
    connection.execute(text(f"set local idle_in_transaction_session_timeout = '{seal_wait_seconds_max}s'"))
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": Lock.PERIODS})
    blockers = what_blocks(connection, period, database_now(connection), waits)
    if not blockers:
        connection.execute(
            text(
                "update periods set state = 'sealed', sealed_at = :as_of where period = :period and state = 'open'"
            ),
            {"period": period.first_day, "as_of": as_of},
        )
    return blockers


def what_blocks(connection: Connection, period: Period, now: datetime, waits: Waits) -> tuple[Blocker, ...]:
    """Everything that an open month waits for; nothing for one that is sealed or closed.

    Args:
        connection: any transaction; `seal` asks again under the periods' lock.
        period: the month.
        now: the database's clock.
        waits: how long it stays open.
    """
    row = period_row(connection, period)
    if row is None:
        return (Blocker(BlockerKind.NO_SUCH_MONTH, f"{period} is not a month of this ledger"),)
    if row.state != "open":
        return ()
    cutoff = row.cutoff_at or period.ends_at + waits.grace
    found = [
        *_installation(connection),
        *_cutoff(period, cutoff, now),
        *_neighbours(connection, period),
        *_reading(connection, period),
        *_held(connection, period, cutoff),
    ]
    if now < cutoff + waits.quarantine:
        found += left_in_quarantine(connection, period, cutoff)
    return tuple(found)


def left_in_quarantine(connection: Connection, period: Period, cutoff: datetime) -> tuple[Blocker, ...]:
    """Records received in time that could still be posted once someone repairs what is missing (C4)."""
    rows = connection.execute(
        text(
            "select reason, count(*) as records from quarantine where state = 'open' "
            "and reason in ('unrated', 'unreadable') and received_at >= :starts_at and received_at < :cutoff "
            "and (started_at is null or (started_at >= :starts_at and started_at < :ends_at)) "
            "group by reason order by reason"
        ),
        {"starts_at": period.starts_at, "ends_at": period.ends_at, "cutoff": cutoff},
    )
    return tuple(
        Blocker(
            BlockerKind.QUARANTINED,
            f"{row.records} {row.reason} records received before the cutoff are in quarantine: replay or discard them",
        )
        for row in rows
    )


def make_months(connection: Connection, now: datetime, months_ahead: int) -> tuple[Period, ...]:
    """Make the months that are missing between the latest one (or the present one) and `months_ahead` from now.

    Returns:
        The months made. Making one waits a second at most for readers of the ledger, and raises if it cannot.
    """
    last = Period.of(now).plus(months_ahead)
    latest = connection.scalar(text("select max(period) from periods"))
    first = Period.of(latest).next() if latest else Period.of(now)
    made = []
    while first <= last:
        make_month(connection, first)
        made.append(first)
        first = first.next()
    return tuple(made)


def make_month(connection: Connection, period: Period) -> bool:
    """Make one month: its row and its partitions; False where it exists."""
    if period_row(connection, period) is not None:
        return False
    # Postings queue behind this lock: rather give up and come back than let them wait behind a long reader.
    connection.execute(text("set local lock_timeout = '1s'"))
    return bool(connection.scalar(text("select make_period(:month)"), {"month": period.first_day}))


def period_row(connection: Connection, period: Period) -> PeriodRow | None:
    """One month, if it exists."""
    rows = _period_rows(connection, "where period = :period", {"period": period.first_day})
    return rows[0] if rows else None


def period_rows(connection: Connection) -> tuple[PeriodRow, ...]:
    """Every month, oldest first."""
    return _period_rows(connection, "", {})


def earliest_unclosed(connection: Connection, before: Period) -> Period | None:
    """The earliest month before another that is not closed; months close in order."""
    first_day = connection.scalar(
        text("select min(period) from periods where period < :period and state <> 'closed'"),
        {"period": before.first_day},
    )
    return None if first_day is None else Period.of(first_day)


def database_now(connection: Connection) -> datetime:
    """The one clock that months go by."""
    return connection.execute(text("select clock_timestamp()")).scalar_one()  # type: ignore[no-any-return]


def _period_rows(connection: Connection, where: str, parameters: dict[str, object]) -> tuple[PeriodRow, ...]:
    rows = connection.execute(
        text(f"select period, state, cutoff_at, sealed_at, closed_at from periods {where} order by period"),  # noqa: S608 (our own text)
        parameters,
    )
    return tuple(PeriodRow(Period.of(row.period), *row[1:]) for row in rows)


def _installation(connection: Connection) -> Iterable[Blocker]:
    if connection.scalar(text("select state = 'bootstrap' from installation")):
        yield Blocker(BlockerKind.BOOTSTRAP, "the installation is still in the state bootstrap")


def _cutoff(period: Period, cutoff: datetime, now: datetime) -> Iterable[Blocker]:
    if now < cutoff + cutoff_margin:
        yield Blocker(
            BlockerKind.CUTOFF, f"{period} takes records until {utc_text(cutoff)} and closes a minute later"
        )


def _neighbours(connection: Connection, period: Period) -> Iterable[Blocker]:
    earlier = connection.scalar(
        text("select min(period) from periods where period < :period and state = 'open'"),
        {"period": period.first_day},
    )
    if earlier is not None:
        yield Blocker(BlockerKind.EARLIER_MONTH, f"{Period.of(earlier)} is still open; months seal in order")
    later = text("select exists (select from periods where period > :period and state = 'open')")
    if not connection.scalar(later, {"period": period.first_day}):
        yield Blocker(
            BlockerKind.NEXT_MONTH, f"no later month is open that could take {period}'s late records"
        )


def _reading(connection: Connection, period: Period) -> Iterable[Blocker]:
    row = period_row(connection, period)
    if row is None or row.cutoff_at is None:
        yield Blocker(
            BlockerKind.BOUNDARIES, "how far each partition must be read has not been asked of Kafka yet"
        )
    for behind in boundary_store.not_reached(connection, period):
        read = "not at all" if behind.next_offset is None else f"to offset {behind.next_offset}"
        yield Blocker(
            BlockerKind.UNREAD,
            f"{behind.topic}[{behind.partition}] has been read {read}, the boundary is {behind.offset}",
        )


def _held(connection: Connection, period: Period, cutoff: datetime) -> Iterable[Blocker]:
    """Held records that belong into the statement; one received after the cutoff will be late usage (C4)."""
    held = connection.execute(
        text(
            "select reason, count(*) as records, max(hold_until) as until from held_records "
            "where started_date >= :first_day and started_date <= :last_day and received_at < :cutoff "
            "group by reason order by reason"
        ),
        {"first_day": period.first_day, "last_day": period.last_day, "cutoff": cutoff},
    )
    for row in held:
        yield Blocker(
            BlockerKind.HELD,
            f"{row.records} records of {period} are held ({row.reason}), at the latest until {utc_text(row.until)}",
        )
