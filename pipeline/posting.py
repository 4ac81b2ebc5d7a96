"""One Postgres transaction per batch (L3): position, ledger, sums, held records, quarantine and counts, or nothing.

The position moves by compare-and-set first, so a worker that has lost its partition writes nothing. Rows that are
surely new are copied straight into the ledger; those that may be duplicates are merged. What the database refuses
for its data is bisected down to the record, which is quarantined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple, assert_never

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline.prepare import Item, Message, SipContextRow, quarantined
from rollup import posting_store as store
from rollup.ledger import Identity, UsageRow, nearby_midnight, sums_of
from rollup.posting_store import Count, HeldRow, PostingPeriods, QuarantineRow
from schemas.bulk import copy_line, copy_rows
from schemas.decoded import Ignored

_UNIQUE_VIOLATION: Final = "23505"
_RETRYABLE: Final = frozenset({"40001", "40P01"})
_DATA_ERROR_CLASSES: Final = ("22", "23")
_attempts_max: Final = 5
recent_keys_max: Final = 400_000


class LostPlaceError(RuntimeError):
    """The position is not where this batch begins: another worker has it, or this one is behind. Read it again."""


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """Messages of one partition, each with its outcome, and the offsets that the position moves between."""

    position_id: int
    first_offset: int
    next_offset: int
    items: Sequence[Item]

    @property
    def read_through_at(self) -> datetime | None:
        """The latest Kafka timestamp of the batch: all that was stamped before it has been read (A10)."""
        return max((item.message.received_at for item in self.items), default=None)

    def halves(self) -> tuple[PreparedBatch, PreparedBatch]:
        """The batch cut in two, to find the record that the database refuses."""
        middle = len(self.items) // 2
        cut = self.items[middle].message.offset
        return (
            PreparedBatch(self.position_id, self.first_offset, cut, self.items[:middle]),
            PreparedBatch(self.position_id, cut, self.next_offset, self.items[middle:]),
        )


def joined(batches: Sequence[PreparedBatch]) -> PreparedBatch:
    """Consecutive batches of one partition as one, to be written in one transaction."""
    items = [item for batch in batches for item in batch.items]
    first, last = batches[0], batches[-1]
    return PreparedBatch(first.position_id, first.first_offset, last.next_offset, items)


class RecentKeys:
    """A bounded memory of identities posted lately: what it knows is probably a duplicate, and is merged.

    Two generations of a set, so that forgetting costs nothing; what it has forgotten the unique index still stops.
    """

    def __init__(self, size_max: int = recent_keys_max) -> None:
        self._size_max = size_max // 2
        self._new: set[str] = set()
        self._old: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._new or key in self._old

    def add(self, keys: Iterable[str]) -> None:
        """Remember keys that have been committed."""
        self._new.update(keys)
        if len(self._new) > self._size_max:
            self._old, self._new = self._new, set()


class BatchPoster:
    """Posts prepared batches; one per worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._recent = RecentKeys()

    def post(self, batch: PreparedBatch) -> Counter[tuple[str, str]]:
        """Write a batch, whole; returns how many records came to each (outcome, reason).

        Raises:
            LostPlaceError: the position was elsewhere; nothing was written.
            DBAPIError: the database is unavailable; nothing was written since the last half that committed.
        """
        for attempt in range(1, _attempts_max + 1):
            try:
                return self._post_once(batch)
            except DBAPIError as error:
                code = sqlstate(error)
                if code in _RETRYABLE and attempt < _attempts_max:
                    continue
                if code[:2] not in _DATA_ERROR_CLASSES:
                    raise
                return self._post_around(batch, error)
        raise AssertionError("unreachable")

    def _post_around(self, batch: PreparedBatch, error: DBAPIError) -> Counter[tuple[str, str]]:
        """Post what the database takes of a batch, and quarantine the record that it refuses."""
        if len(batch.items) > 1:
            first, second = batch.halves()
            return self.post(first) + self.post(second)
        message, outcome = batch.items[0]
        if isinstance(outcome, QuarantineRow):
            raise error
        refused = Item(message, quarantined(batch.position_id, message, "refused_by_database", _short(error)))
        return self.post(PreparedBatch(batch.position_id, batch.first_offset, batch.next_offset, [refused]))

    def _post_once(self, batch: PreparedBatch) -> Counter[tuple[str, str]]:
        with self._engine.begin() as connection:
            moved = store.move_position(
                connection, batch.position_id, batch.first_offset, batch.next_offset, batch.read_through_at
            )
            if not moved:
                raise LostPlaceError(f"position {batch.position_id} is not at offset {batch.first_offset}")
            written = write(connection, batch.position_id, batch.items, self._recent)
            counts = [Count(outcome, reason, number) for (outcome, reason), number in written.counts.items()]
            store.count(connection, batch.position_id, "stream", counts)
        self._recent.add(written.new_keys)
        return written.counts


class Written(NamedTuple):
    """What one transaction wrote: records by (outcome, reason), and the keys that are in the ledger since."""

    counts: Counter[tuple[str, str]]
    new_keys: list[str]


class _Rows(NamedTuple):
    """A batch by what is to be done with it; in-batch duplicates are already told apart."""

    usage: dict[Identity, tuple[UsageRow, Message]]
    held: dict[Identity, tuple[HeldRow, Message]]
    quarantine: list[QuarantineRow]
    contexts: list[SipContextRow]


def write(
    connection: Connection, shard: int, items: Sequence[Item], recent: RecentKeys | None = None
) -> Written:
    """Write items within the caller's transaction; counts are returned, not written.

    Args:
        connection: in a transaction.
        shard: whose monthly usage to add to (L4); for the stream it is the position's id.
        items: in the order they were received: of two with one identity the first stands (L2).
        recent: identities that are probably in the ledger; None merges every row.
    """
    counts: Counter[tuple[str, str]] = Counter()
    rows = _sorted_out(items, counts)
    if rows.usage:
        store.share_periods(connection)
        posted_to = store.posting_periods(connection)
        _drop_held_already(connection, rows, counts)
        new = _post_usage(connection, rows, posted_to, counts, recent)
        store.add_usage(connection, shard, sums_of(new, posted_to))
        counts["posted", ""] += len(new)
    else:
        new = []
    _hold(connection, rows, counts)
    store.quarantine(connection, rows.quarantine)
    for row in rows.quarantine:
        counts["quarantined", row.reason] += 1
    copy_rows(connection, "sip_contexts", SipContextRow._fields, map(copy_line, rows.contexts))
    counts["context", ""] += len(rows.contexts)
    return Written(+counts, [row.key for row in new])


def _sorted_out(items: Sequence[Item], counts: Counter[tuple[str, str]]) -> _Rows:
    rows = _Rows({}, {}, [], [])
    contents: dict[Identity, str] = {}
    for message, outcome in items:
        match outcome:
            case UsageRow() | HeldRow():
                identity = Identity(outcome.started_date, outcome.key)
                first = contents.setdefault(identity, outcome.content)
                if identity in rows.usage or identity in rows.held:
                    _repeated(first, outcome, message, rows, counts)
                elif isinstance(outcome, UsageRow):
                    rows.usage[identity] = (outcome, message)
                else:
                    rows.held[identity] = (outcome, message)
            case QuarantineRow():
                rows.quarantine.append(outcome)
            case SipContextRow():
                rows.contexts.append(outcome)
            case Ignored(reason):
                counts["ignored", reason] += 1
            case _:
                assert_never(outcome)
    return rows


def _repeated(
    first: str | None,
    row: UsageRow | HeldRow,
    message: Message,
    rows: _Rows,
    counts: Counter[tuple[str, str]],
) -> None:
    """Judge a record whose identity stands already: the same content changes nothing, another is kept aside (L2)."""
    if first == row.content:
        counts["duplicate", ""] += 1
        return
    account_id = row.account_id if isinstance(row, UsageRow) else None
    detail = f"record {row.record_id!r} of {row.switch!r} was received before with other billable content"
    rows.quarantine.append(
        quarantined(row.position_id, message, "conflicting_duplicate", detail, account_id, row.started_at)
    )


def _drop_held_already(connection: Connection, rows: _Rows, counts: Counter[tuple[str, str]]) -> None:
    """A record that is waiting stands: what comes later under its identity is its duplicate."""
    if not store.anything_held(connection):
        return
    for identity, content in store.held_identities(connection, list(rows.usage)).items():
        row, message = rows.usage.pop(identity)
        _repeated(content, row, message, rows, counts)


def _post_usage(
    connection: Connection,
    rows: _Rows,
    posted_to: PostingPeriods,
    counts: Counter[tuple[str, str]],
    recent: RecentKeys | None,
) -> list[UsageRow]:
    """Post what is new; returns it."""
    ordered = [rows.usage[identity][0] for identity in sorted(rows.usage)]
    fresh: list[UsageRow] = []
    suspects: list[UsageRow] = []
    for row in ordered:
        surely_new = recent is not None and row.key not in recent and nearby_midnight(row.started_at) is None
        (fresh if surely_new else suspects).append(row)
    if fresh and not _copied(connection, fresh, posted_to):
        fresh, suspects = [], ordered
    if not suspects:
        return fresh
    merged = store.merge_usage(connection, suspects, posted_to)
    for row in suspects:
        if row.identity not in merged.new:
            _repeated(merged.standing.get(row.identity), row, rows.usage[row.identity][1], rows, counts)
    return fresh + [row for row in suspects if row.identity in merged.new]


def _copied(connection: Connection, rows: Sequence[UsageRow], posted_to: Mapping[date, date]) -> bool:
    """Copy rows that are believed to be new; False, and nothing written, where one was not."""
    try:
        with connection.begin_nested():
            store.copy_usage(connection, rows, posted_to)
    except DBAPIError as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        return False
    return True


def _hold(connection: Connection, rows: _Rows, counts: Counter[tuple[str, str]]) -> None:
    """Hold what is not known yet: neither in the ledger, nor waiting already, nor on the other side of midnight."""
    if not rows.held:
        return
    known = store.posted_identities(connection, list(rows.held))
    fresh = [row for identity, (row, _) in sorted(rows.held.items()) if identity not in known]
    over_midnight = store.claim_midnights(connection, fresh)
    held = store.hold(connection, [row for row in fresh if row.identity not in over_midnight])
    known |= store.held_identities(
        connection, [each for each in rows.held if each not in held | known.keys()]
    )
    for identity, (row, message) in rows.held.items():
        if identity in held:
            counts["held", row.reason] += 1
        else:
            _repeated(known.get(identity), row, message, rows, counts)


def sqlstate(error: DBAPIError) -> str:
    """The five-character SQLSTATE of a database error; empty where the connection itself failed."""
    return getattr(error.orig, "pgcode", None) or ""


def described(error: Exception) -> str:
    """An error for the log: its kind and, of the database's own, the first line, which holds no row's values."""
    if isinstance(error, DBAPIError):
        return f"{type(error).__name__} {sqlstate(error)}: {_short(error)}"
    return f"{type(error).__name__}: {error}"


def _short(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n", 1)[0][:500] or "refused"
