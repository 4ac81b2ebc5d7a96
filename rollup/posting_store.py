"""The statements of the posting transaction (L1-L5): ledger rows, sums, held records, quarantine, counts, position.

Nothing here commits. Rows arrive sorted by identity, so that writers of the same keys never deadlock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from rollup.ledger import LEDGER_COLUMNS, Identity, UsageColumns, date_of, key_of
from rollup.standing_store import identity_in
from rollup.sums import Totals, UsageGroup, UsageSums, months_of
from rollup.unposted import HeldRow, QuarantineRow
from schemas.binary import NEVER, Integers, binary_bool, binary_date, binary_row_start
from schemas.bulk import array_of, copy_binary, copy_line, copy_rows
from schemas.locks import Lock
from schemas.periods import Period

_LEDGER_COLUMNS: Final = ("period", "late", *LEDGER_COLUMNS)
_rows_together_max: Final = 4000  # each part waits for the interpreter's lock
_HELD_COLUMNS: Final = ("started_date", "key", *HeldRow._fields[1:])


class Counted(NamedTuple):
    """What records are counted by: the position they were read at, and what they came to."""

    position_id: int
    outcome: str
    reason: str


Outcomes = Counter[tuple[str, str]]
"""How many records came to each (outcome, reason)."""


def by_outcome(counts: Mapping[Counted, int]) -> Outcomes:
    """Counts of several positions added up."""
    outcomes: Outcomes = Counter()
    for (_, outcome, reason), records in counts.items():
        outcomes[outcome, reason] += records
    return outcomes


class Move(NamedTuple):
    """A position's way over some messages; `read_through_at`: the latest Kafka timestamp of them (A10)."""

    position_id: int
    first_offset: int
    next_offset: int
    read_through_at: datetime | None


def move_positions(connection: Connection, moves: Sequence[Move]) -> set[int]:
    """Move positions by compare-and-set (L3); several are not waited for where someone else is writing them.

    Returns:
        The ids of those that moved. Of the others nothing may be written: someone else has been there, or is there.
    """
    waiting = "for no key update" if len(moves) == 1 else "for no key update skip locked"
    moved = connection.execute(
        text(
            "with asked as (select * from unnest(cast(:ids as integer[]), cast(:firsts as bigint[]), "  # noqa: S608 (our own text)
            "cast(:nexts as bigint[]), cast(:read_through as timestamptz[])) as a(id, first, next, read_through_at)), "
            "mine as materialized (select p.id from stream_positions p join asked a on a.id = p.id and a.first = p.next_offset "
            f"order by p.id {waiting}) "
            "update stream_positions p set next_offset = a.next, "
            "read_through_at = greatest(p.read_through_at, a.read_through_at) "
            "from asked a join mine using (id) where p.id = a.id and p.next_offset = a.first returning p.id"
        ),
        {
            "ids": [each.position_id for each in moves],
            "firsts": [each.first_offset for each in moves],
            "nexts": [each.next_offset for each in moves],
            "read_through": [each.read_through_at for each in moves],
        },
    )
    return set(moved.scalars())


def posting_periods(connection: Connection) -> PostingPeriods:
    """Where each month's records are posted now, and until this transaction ends: no month seals meanwhile (L5)."""
    rows = connection.execute(
        # one round trip, but two statements: the second sees what was committed while the first waited
        text("select pg_advisory_xact_lock_shared(:key); select period, state from periods order by period"),
        {"key": Lock.PERIODS},
    )
    return PostingPeriods({row.period: row.state for row in rows})


class PostingPeriods(Mapping[date, date]):
    """For each month's first day the month it is posted to: its own while open, else the oldest open one (L5)."""

    def __init__(self, states: dict[date, str]) -> None:
        opened = [period for period, state in states.items() if state == "open"]
        self.oldest = Period.of(min(states)) if states else None
        self._posted_to = {
            period: period if state == "open" else min(opened) for period, state in states.items() if opened
        }

    def __getitem__(self, month: date) -> date:
        return self._posted_to[month]

    def __iter__(self) -> Iterator[date]:
        return iter(self._posted_to)

    def __len__(self) -> int:
        return len(self._posted_to)


def copy_usage(
    connection: Connection, usage: UsageColumns, places: Integers, posted_to: Mapping[date, date]
) -> None:
    """Append some rows to the ledger; a duplicate raises a unique violation."""
    if len(places):
        copy_binary(connection, "usage_records", _LEDGER_COLUMNS, ledger_rows(usage, places, posted_to))


def merge_usage(
    connection: Connection, usage: UsageColumns, places: Integers, posted_to: Mapping[date, date]
) -> set[Identity]:
    """Append those of some rows that the ledger does not hold, waiting for whoever is writing one of them now.

    Returns:
        The identities that it held already.
    """
    if not len(places):
        return set()
    connection.execute(
        text(
            "create temporary table if not exists incoming_usage "
            "(like usage_records including defaults) on commit delete rows"
        )
    )
    connection.execute(text("delete from incoming_usage"))  # of an earlier merge in this transaction
    copy_binary(connection, "incoming_usage", _LEDGER_COLUMNS, ledger_rows(usage, places, posted_to))
    columns = ", ".join(_LEDGER_COLUMNS)
    held = connection.execute(
        text(
            f"with added as (insert into usage_records ({columns}) select {columns} from incoming_usage "  # noqa: S608 (our own column names)
            "order by started_date, key on conflict (started_date, key) do nothing returning started_date, key) "
            "select i.started_date, i.key from incoming_usage i "
            "where not exists (select from added a where a.started_date = i.started_date and a.key = i.key)"
        )
    )
    return {identity_in(row) for row in held}


def add_usage(connection: Connection, shard: int, totals: Totals) -> None:
    """Add to the monthly usage of one writer (L4); sorted, so that writers that share a shard never deadlock."""
    if not len(totals.attempts):
        return
    tallies = {tally: place for place, tally in enumerate(dict.fromkeys(totals.tallies), 1)}
    groups = ", ".join(("shard", *UsageGroup._fields))
    added = ", ".join(f"{name} = m.{name} + excluded.{name}" for name in UsageSums._fields)
    connection.execute(
        text(
            f"insert into monthly_usage as m ({groups}, {', '.join(UsageSums._fields)}) "  # noqa: S608 (our own column names)
            "select :shard, date '2000-01-01' + period, date '2000-01-01' + usage_period, "
            "nullif(account_id, :never), nullif(tenant_id, :never), "
            "(cast(:usage_classes as text[]))[tally], (cast(:currencies as text[]))[tally], "
            "attempts, calls, answered_millionths * 0.000001, billed_seconds, cost_millionths * 0.000001 "
            "from unnest(cast(:periods as integer[]), cast(:usage_periods as integer[]), "
            "cast(:account_ids as bigint[]), cast(:tenant_ids as bigint[]), cast(:tallies as integer[]), "
            "cast(:attempts as bigint[]), cast(:calls as bigint[]), cast(:answered as numeric[]), "
            "cast(:billed_seconds as bigint[]), cast(:costs as numeric[])) as a(period, usage_period, account_id, "
            "tenant_id, tally, attempts, calls, answered_millionths, billed_seconds, cost_millionths) "
            f"order by 2, 3, 4, 5, 6, 7 on conflict ({groups}) do update set {added}"
        ),
        {
            "shard": shard,
            "never": NEVER,
            "usage_classes": [each.usage_class for each in tallies],
            "currencies": [each.currency for each in tallies],
            "periods": array_of(totals.periods),
            "usage_periods": array_of(totals.usage_periods),
            "account_ids": array_of(totals.account_ids),
            "tenant_ids": array_of(totals.tenant_ids),
            "tallies": array_of(map(tallies.__getitem__, totals.tallies)),
            "attempts": array_of(totals.attempts),
            "calls": array_of(totals.calls),
            "answered": array_of(totals.answered_seconds),
            "billed_seconds": array_of(totals.billed_seconds),
            "costs": array_of(totals.costs),
        },
    )


def hold(connection: Connection, rows: Sequence[HeldRow]) -> set[Identity]:
    """Hold records; those whose identity is held already are left alone.

    Returns:
        The identities that are held now and were not before.
    """
    if not rows:
        return set()
    connection.execute(
        text(
            "create temporary table if not exists incoming_held (like held_records including defaults) on commit delete rows"
        )
    )
    lines = [
        copy_line((date_of(row.identity), key_of(row.identity), row.content.hex(), *row[2:])) for row in rows
    ]
    copy_rows(connection, "incoming_held", _HELD_COLUMNS, lines)
    columns = ", ".join(_HELD_COLUMNS)
    held = connection.execute(
        text(
            f"insert into held_records ({columns}) select {columns} from incoming_held "  # noqa: S608 (our own column names)
            "order by started_date, key on conflict (started_date, key) do nothing returning started_date, key"
        )
    )
    return {identity_in(row) for row in held}


def quarantine(connection: Connection, rows: Sequence[QuarantineRow]) -> None:
    """Keep records that were not posted, with their bytes and coordinates."""
    copy_rows(connection, "quarantine", QuarantineRow._fields, (copy_line(row) for row in rows))


def count(connection: Connection, writer: str, counts: Mapping[Counted, int]) -> None:
    """Move outcome counts (DESIGN 8); negative numbers take back what was counted before."""
    moved = sorted((*counted, records) for counted, records in counts.items() if records)
    if not moved:
        return
    position_ids, outcomes, reasons, records = map(list, zip(*moved, strict=True))
    connection.execute(
        text(
            "insert into outcome_counts as o (position_id, writer, outcome, reason, records) "
            "select a.position_id, :writer, a.outcome, a.reason, a.records from unnest(cast(:position_ids as integer[]), "
            "cast(:outcomes as text[]), cast(:reasons as text[]), cast(:records as bigint[])) "
            "as a(position_id, outcome, reason, records) order by 1, 3, 4 "
            "on conflict (position_id, writer, outcome, reason) do update set records = o.records + excluded.records"
        ),
        {
            "writer": writer,
            "position_ids": position_ids,
            "outcomes": outcomes,
            "reasons": reasons,
            "records": records,
        },
    )


def ledger_rows(usage: UsageColumns, places: Integers, posted_to: Mapping[date, date]) -> Iterable[bytes]:
    """Rows in the form that `copy_binary` takes, each begun with the period it is posted to; many joined at a time."""
    if not len(places):
        return
    months, which = months_of(usage.started[places])
    fields = binary_row_start(len(_LEDGER_COLUMNS))
    lines = list(map(usage.lines.__getitem__, places.tolist()))
    new_months = np.flatnonzero(np.diff(which)) + 1
    ends = [
        *np.union1d(new_months, np.arange(_rows_together_max, len(lines), _rows_together_max)),
        len(lines),
    ]
    for first, end in zip([0, *ends], ends, strict=False):
        month = months[which[first]]
        start = fields + binary_date(posted_to[month]) + binary_bool(posted_to[month] != month)
        yield start + start.join(lines[first:end])
