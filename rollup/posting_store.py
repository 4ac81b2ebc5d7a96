"""The statements of the posting transaction (L1-L5): ledger rows, sums, held records, quarantine, counts, position.

Nothing here commits. Rows arrive sorted by identity, so that writers of the same keys never deadlock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
from sqlalchemy import Connection, text

from rollup.ledger import LEDGER_COLUMNS, Identity, UsageColumns, date_of, key_of
from rollup.ledger_rows import TALLIES
from rollup.standing_store import identity_in
from rollup.sums import Totals, UsageGroup, UsageSums, months_of
from rollup.unposted import HeldRow, QuarantineRow
from schemas.binary import Integers, binary_bool, binary_date, binary_numerics, binary_row_start, binary_rows
from schemas.bulk import copy_binary, copy_line, copy_rows
from schemas.locks import Lock
from schemas.periods import Period

_LEDGER_COLUMNS: Final = ("period", "late", *LEDGER_COLUMNS)
_SUMS_COLUMNS: Final = (
    *("shard", "period", "usage_period", "account_id", "tenant_id"),
    *("attempts", "calls", "answered_seconds", "billed_seconds", "cost", "usage_class", "currency"),
)
_rows_together_max: Final = 1000
_HELD_COLUMNS: Final = ("started_date", "key", *HeldRow._fields[1:])


class Count(NamedTuple):
    """So many records of a position came to one outcome."""

    outcome: str
    reason: str
    records: int


def move_position(
    connection: Connection,
    position_id: int,
    first_offset: int,
    next_offset: int,
    read_through_at: datetime | None,
) -> bool:
    """Move a position by compare-and-set (L3).

    Returns:
        False where the position is not at `first_offset`: someone else has been here, and nothing may be written.
    """
    moved = connection.execute(
        text(
            "update stream_positions set next_offset = :next, "
            "read_through_at = greatest(read_through_at, :read_through_at) "
            "where id = :id and next_offset = :first"
        ),
        {"id": position_id, "first": first_offset, "next": next_offset, "read_through_at": read_through_at},
    )
    return moved.rowcount == 1


def share_periods(connection: Connection) -> None:
    """Keep months from sealing until this transaction ends; states are read in a later statement (L5)."""
    connection.execute(text("select pg_advisory_xact_lock_shared(:key)"), {"key": Lock.PERIODS})


def posting_periods(connection: Connection) -> PostingPeriods:
    """Where each month's records are posted now."""
    rows = connection.execute(text("select period, state from periods order by period"))
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
    connection.execute(
        text(
            "create temporary table if not exists incoming_sums "
            "(like monthly_usage including defaults) on commit delete rows"
        )
    )
    fields = binary_rows(
        [
            np.full(len(totals.attempts), shard, dtype=np.int32),
            *(totals.periods.astype(np.int32), totals.usage_periods.astype(np.int32)),
            *(totals.account_ids, totals.tenant_ids, totals.attempts, totals.calls),
            binary_numerics(totals.answered_seconds),
            *(totals.billed_seconds, binary_numerics(totals.costs)),
        ]
    )
    start = binary_row_start(len(_SUMS_COLUMNS))
    rows = map(b"".join, zip(repeat(start), fields, TALLIES.each(totals.tallies)))
    copy_binary(connection, "incoming_sums", _SUMS_COLUMNS, [b"".join(rows)])
    groups = ", ".join(UsageGroup._fields)
    added = ", ".join(f"{name} = m.{name} + excluded.{name}" for name in UsageSums._fields)
    connection.execute(
        text(
            f"insert into monthly_usage as m select * from incoming_sums where shard = :shard order by {groups} "  # noqa: S608 (our own column names)
            f"on conflict (shard, {groups}) do update set {added}"
        ),
        {"shard": shard},
    )
    connection.execute(text("delete from incoming_sums"))


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


def count(connection: Connection, position_id: int, writer: str, counts: Iterable[Count]) -> None:
    """Move outcome counts of one position (DESIGN 8); negative numbers take back what was counted before."""
    moved = [each for each in sorted(counts) if each.records]
    if not moved:
        return
    connection.execute(
        text(
            "insert into outcome_counts as o (position_id, writer, outcome, reason, records) "
            "values (:position_id, :writer, :outcome, :reason, :records) "
            "on conflict (position_id, writer, outcome, reason) do update set records = o.records + excluded.records"
        ),
        [{"position_id": position_id, "writer": writer, **each._asdict()} for each in moved],
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
