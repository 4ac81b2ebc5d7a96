"""The statements of the posting transaction (L1-L5): ledger rows, sums, held records, quarantine, counts, position.

Nothing here commits. Rows arrive sorted by identity, so that writers of the same keys never deadlock (FACTS).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, text

from rollup.ledger import LEDGER_COLUMNS, Identity, UsageGroup, UsageRow, UsageSums, nearby_midnight
from schemas.bulk import copy_line, copy_rows
from schemas.locks import Lock
from schemas.periods import Period

_LEDGER_COLUMNS: Final = ("period", "late", *LEDGER_COLUMNS)


class HeldRow(NamedTuple):
    """A record that waits; the fields are columns of `held_records`, in the order they are copied."""

    started_date: date
    key: str
    content: str
    reason: str
    hold_until: datetime
    call_id: str | None
    switch: str
    record_id: str
    started_at: datetime
    received_at: datetime
    position_id: int
    kafka_offset: int
    value: bytes

    @property
    def identity(self) -> Identity:
        """What it will be known by in the ledger."""
        return Identity(self.started_date, self.key)


class QuarantineRow(NamedTuple):
    """A record that could not be read or must not be posted; fields as columns of `quarantine`."""

    position_id: int
    kafka_offset: int
    ordinal: int
    received_at: datetime
    reason: str
    detail: str
    account_id: int | None
    started_at: datetime | None
    key: bytes | None
    value: bytes | None


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


def copy_usage(connection: Connection, rows: Sequence[UsageRow], posted_to: Mapping[date, date]) -> None:
    """Append rows to the ledger; a duplicate raises a unique violation."""
    copy_rows(connection, "usage_records", _LEDGER_COLUMNS, _ledger_lines(rows, posted_to))


class Merged(NamedTuple):
    """What a merge did: identities that were new, and what stands in the ledger under each that was not.

    `over_midnight`: identities whose record is known under the adjacent date (L1), so its content differs.
    """

    new: set[Identity]
    standing: dict[Identity, str]
    over_midnight: set[Identity]


def merge_usage(connection: Connection, rows: Sequence[UsageRow], posted_to: Mapping[date, date]) -> Merged:
    """Append those rows whose identity is new; needs no luck, costs about twice a copy."""
    connection.execute(
        text(
            "create temporary table if not exists incoming_usage "
            "(like usage_records including defaults) on commit delete rows"
        )
    )
    connection.execute(text("delete from incoming_usage"))  # of an earlier merge in this transaction
    over_midnight = claim_midnights(connection, rows)
    candidates = [row for row in rows if row.identity not in over_midnight]
    copy_rows(connection, "incoming_usage", _LEDGER_COLUMNS, _ledger_lines(candidates, posted_to))
    columns = ", ".join(_LEDGER_COLUMNS)
    inserted = connection.execute(
        text(
            f"insert into usage_records ({columns}) select {columns} from incoming_usage "  # noqa: S608 (our own column names)
            "order by started_date, key on conflict (started_date, key) do nothing returning started_date, key"
        )
    )
    new = {_identity(row) for row in inserted}
    return Merged(new, _standing(connection) if len(new) < len(candidates) else {}, over_midnight)


def claim_midnights(connection: Connection, rows: Sequence[UsageRow | HeldRow]) -> set[Identity]:
    """Claim the keys of records near a midnight; returns those already claimed by the other date (L1)."""
    claims = sorted(  # of two in one batch the first received claims
        (midnight, row.key, row.kafka_offset, row.started_date)
        for row in rows
        if (midnight := nearby_midnight(row.started_at)) is not None
    )
    if not claims:
        return set()
    parameters = {
        "midnights": [claim[0] for claim in claims],
        "keys": [claim[1] for claim in claims],
        "dates": [claim[3] for claim in claims],
    }
    asked = "unnest(cast(:midnights as date[]), cast(:keys as uuid[]), cast(:dates as date[])) as a(midnight_on, key, started_date)"
    connection.execute(
        text(
            f"insert into midnight_identities (midnight_on, key, started_date) select * from {asked} "  # noqa: S608 (our own text)
            "on conflict (midnight_on, key) do nothing"
        ),
        parameters,
    )
    elsewhere = connection.execute(
        text(
            f"select a.started_date, a.key from {asked} "  # noqa: S608 (our own text)
            "join midnight_identities m on m.midnight_on = a.midnight_on and m.key = a.key "
            "where m.started_date <> a.started_date"
        ),
        parameters,
    )
    return {_identity(row) for row in elsewhere}


def posted_identities(connection: Connection, identities: Sequence[Identity]) -> dict[Identity, str]:
    """The contents of those identities that are in the ledger."""
    return _contents(connection, "usage_records", identities)


def anything_held(connection: Connection) -> bool:
    """Whether any record waits at all; spares the look-up of held identities where none does."""
    return bool(connection.scalar(text("select exists (select from held_records)")))


def held_identities(connection: Connection, identities: Sequence[Identity]) -> dict[Identity, str]:
    """The contents of those identities that are held now."""
    return _contents(connection, "held_records", identities)


def add_usage(connection: Connection, shard: int, sums: Mapping[UsageGroup, UsageSums]) -> None:
    """Add to the monthly usage of one writer (L4); sorted, so that writers that share a shard never deadlock."""
    if not sums:
        return
    connection.execute(
        text(
            "create temporary table if not exists incoming_sums "
            "(like monthly_usage including defaults) on commit delete rows"
        )
    )
    lines = (copy_line((shard, *group, *total)) for group, total in sums.items())
    copy_rows(connection, "incoming_sums", ("shard", *UsageGroup._fields, *UsageSums._fields), lines)
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
    columns = ", ".join(HeldRow._fields)
    connection.execute(
        text(
            "create temporary table if not exists incoming_held (like held_records including defaults) on commit delete rows"
        )
    )
    copy_rows(connection, "incoming_held", HeldRow._fields, (copy_line(row) for row in rows))
    held = connection.execute(
        text(
            f"insert into held_records ({columns}) select {columns} from incoming_held "  # noqa: S608 (our own column names)
            "order by started_date, key on conflict (started_date, key) do nothing returning started_date, key"
        )
    )
    return {_identity(row) for row in held}


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


def _contents(connection: Connection, table: str, identities: Sequence[Identity]) -> dict[Identity, str]:
    rows = connection.execute(
        text(
            f"select t.started_date, t.key, t.content from {table} t "  # noqa: S608 (our own table names)
            "join unnest(cast(:dates as date[]), cast(:keys as uuid[])) as a(started_date, key) "
            "on t.started_date = a.started_date and t.key = a.key"
        ),
        {"dates": [each.started_date for each in identities], "keys": [each.key for each in identities]},
    )
    return {_identity(row): row.content.hex for row in rows}


def _standing(connection: Connection) -> dict[Identity, str]:
    """What the ledger holds under the identities that came in, each with its content."""
    rows = connection.execute(
        text(
            "select u.started_date, u.key, u.content from incoming_usage i "
            "join usage_records u on u.started_date = i.started_date and u.key = i.key"
        )
    )
    return {_identity(row): row.content.hex for row in rows}


def _identity(row: Row[Any]) -> Identity:
    return Identity(row.started_date, row.key.hex)


def _ledger_lines(rows: Iterable[UsageRow], posted_to: Mapping[date, date]) -> Iterable[bytes]:
    prefixes = {month: copy_line((period, period != month)) + b"," for month, period in posted_to.items()}
    return [prefixes[row.started_date.replace(day=1)] + row.line for row in rows]
