"""One Postgres transaction per batch (L3): position, ledger, sums, held records, quarantine and counts, or nothing.

The position moves by compare-and-set first, so a worker that has lost its partition writes nothing. Rows that are
surely new are copied straight into the ledger; those that may be duplicates are looked up, and merged. What the database refuses
for its data is bisected down to the record, which is quarantined.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from operator import attrgetter
from typing import Final, NamedTuple, assert_never

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline import position_store
from pipeline.prepare import Item, Message, SipContextRow, quarantined
from rollup import posting_store as store
from rollup.ledger import Identity, UsageRow, sums_of
from rollup.posting_store import Asked, Count, HeldRow, QuarantineRow, RefusedRow
from schemas.bulk import copy_line, copy_rows
from schemas.decoded import Ignored

_UNIQUE_VIOLATION: Final = "23505"
_RETRYABLE: Final = frozenset({"40001", "40P01"})
_DATA_ERROR_CLASSES: Final = ("22", "23")
_attempts_max: Final = 5
recent_identities_max: Final = 400_000


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


class RecentIdentities:
    """A bounded memory of identities posted lately: what it knows is probably a duplicate, and is looked up.

    Two generations of a set, so that forgetting costs nothing; what it has forgotten the unique index still stops.
    `doubtful`: it has just been surprised (a replay, a restart, resends that reach another worker), so everything is
    looked up and merged until nothing is met.
    """

    def __init__(self, size_max: int = recent_identities_max) -> None:
        self._size_max = size_max // 2
        self._new: set[Identity] = set()
        self._old: set[Identity] = set()
        self.doubtful = False

    def suspects(self, rows: Sequence[UsageRow]) -> list[UsageRow]:
        """Those of some rows that are probably in the ledger."""
        if self.doubtful:
            return list(rows)
        new, old = self._new, self._old
        return [row for row in rows if row.identity in new or row.identity in old]

    def add(self, identities: Iterable[Identity]) -> None:
        """Remember identities that have been committed."""
        self._new.update(identities)
        if len(self._new) > self._size_max:
            self._old, self._new = self._new, set()


class BatchPoster:
    """Posts prepared batches; one per worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._recent = RecentIdentities()

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
        message, outcome = batch.items[0].message, batch.items[0].outcome
        if isinstance(outcome, QuarantineRow):
            raise error
        refused = Item(message, quarantined(batch.position_id, message, "refused_by_database", _short(error)))
        return self.post(PreparedBatch(batch.position_id, batch.first_offset, batch.next_offset, [refused]))

    def _post_once(self, batch: PreparedBatch) -> Counter[tuple[str, str]]:
        with self._engine.begin() as connection:
            position_store.begin_posting(connection)
            moved = store.move_position(
                connection, batch.position_id, batch.first_offset, batch.next_offset, batch.read_through_at
            )
            if not moved:
                raise LostPlaceError(f"position {batch.position_id} is not at offset {batch.first_offset}")
            written = write(connection, batch.position_id, batch.items, self._recent)
            counts = [Count(outcome, reason, number) for (outcome, reason), number in written.counts.items()]
            store.count(connection, batch.position_id, "stream", counts)
        self._recent.add(written.new)
        return written.counts


class Written(NamedTuple):
    """What one transaction wrote: records by (outcome, reason), and the identities that are in the ledger since."""

    counts: Counter[tuple[str, str]]
    new: list[Identity]


class BatchRows(NamedTuple):
    """A batch by what is to be done with it; in-batch duplicates are already told apart.

    `messages` are those that `usage`, `held` and `refused` came from.
    """

    usage: dict[Identity, UsageRow]
    held: dict[Identity, HeldRow]
    refused: dict[Identity, RefusedRow]
    messages: dict[Identity, Message]
    quarantine: list[QuarantineRow]
    contexts: list[SipContextRow]


def write(
    connection: Connection, shard: int, items: Sequence[Item], recent: RecentIdentities | None = None
) -> Written:
    """Write items within the caller's transaction; counts are returned, not written.

    Args:
        connection: in a transaction.
        shard: whose monthly usage to add to (L4); for the stream it is the position's id.
        items: in the order they were received: of two with one identity the first stands (L2).
        recent: identities that are probably in the ledger; None merges every row.
    """
    counts: Counter[tuple[str, str]] = Counter()
    rows = sorted_out(items, counts)
    _drop_standing(connection, rows, counts)
    if rows.usage:
        store.share_periods(connection)
        posted_to = store.posting_periods(connection)
        new = _post_usage(connection, rows, posted_to, counts, recent)
        store.add_usage(connection, shard, sums_of(new, posted_to))
        counts["posted", ""] += len(new)
    else:
        new = []
    _hold(connection, rows, counts)
    _refuse(connection, rows, counts)
    rows.quarantine.sort(
        key=attrgetter("kafka_offset")
    )  # a replay takes them in the order they were received
    store.quarantine(connection, rows.quarantine)
    for row in rows.quarantine:
        counts["quarantined", row.reason] += 1
    copy_rows(connection, "sip_contexts", SipContextRow._fields, map(copy_line, rows.contexts))
    counts["context", ""] += len(rows.contexts)
    return Written(+counts, [row.identity for row in new])


def sorted_out(items: Sequence[Item], counts: Counter[tuple[str, str]]) -> BatchRows:
    """A batch by what is to be done with each record; what needs no more than counting is counted."""
    rows = BatchRows({}, {}, {}, {}, [], [])
    usage, held, refused, messages = rows.usage, rows.held, rows.refused, rows.messages
    for item in items:
        outcome = item.outcome
        match outcome:
            case UsageRow() | HeldRow() | RefusedRow():
                identity = outcome.identity
                if identity in messages:
                    first = usage.get(identity) or held.get(identity) or refused[identity]
                    _repeated(outcome, item.message, rows, counts, same=first.content == outcome.content)
                    continue
                messages[identity] = item.message
                if isinstance(outcome, UsageRow):
                    usage[identity] = outcome
                elif isinstance(outcome, HeldRow):
                    held[identity] = outcome
                else:
                    refused[identity] = outcome
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
    row: Asked,
    message: Message,
    rows: BatchRows,
    counts: Counter[tuple[str, str]],
    *,
    same: bool,
) -> None:
    """Judge a record whose identity stands already: the same content changes nothing, another is kept aside (L2)."""
    if same:
        counts["duplicate", ""] += 1
        return
    account_id = (
        row.payer.account_id
        if isinstance(row, UsageRow)
        else row.detained.account_id
        if isinstance(row, RefusedRow)
        else None
    )
    detail = f"record {row.record_id!r} of {row.switch!r} was received before with other billable content"
    rows.quarantine.append(
        quarantined(row.position_id, message, "conflicting_duplicate", detail, account_id, row.started_at)
    )


def _drop_standing(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """A record that waits stands, and one that lacks only a tariff: what comes later under its identity repeats it."""
    if not rows.messages:
        return
    unposted = store.standing_unposted(connection, len(rows.messages))
    asked: list[Asked] = [*rows.usage.values(), *rows.held.values(), *rows.refused.values()]
    suspects = asked if unposted is None else [row for row in asked if row.identity in unposted]
    _drop(store.standing(connection, "standing_records", suspects), rows, counts)


def _drop(standing: Mapping[Identity, bool], rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Take records out that stand already, with the same content or another."""
    for identity, same in standing.items():
        row = rows.usage.pop(identity, None) or rows.held.pop(identity, None) or rows.refused.pop(identity)
        _repeated(row, rows.messages[identity], rows, counts, same=same)


def _post_usage(
    connection: Connection,
    rows: BatchRows,
    posted_to: Mapping[date, date],
    counts: Counter[tuple[str, str]],
    recent: RecentIdentities | None,
) -> list[UsageRow]:
    """Post what is new; returns it.

    What is surely new is copied straight into the ledger; where that meets a record after all, it is merged. Either is
    sorted, so that writers of the same records never deadlock.
    """
    over_midnight = store.claim_midnights(connection, list(rows.usage.values()))
    _drop(dict.fromkeys(over_midnight, False), rows, counts)
    ordered = [rows.usage[identity] for identity in sorted(rows.usage)]
    known = store.standing(
        connection, "usage_records", ordered if recent is None else recent.suspects(ordered)
    )
    _drop(known, rows, counts)
    new = [row for row in ordered if row.identity not in known] if known else ordered
    if recent is not None and not recent.doubtful and _copied(connection, new, posted_to):
        return new
    met = store.merge_usage(connection, new, posted_to)
    _drop(store.standing(connection, "usage_records", [rows.usage[each] for each in met]), rows, counts)
    if recent is not None:
        recent.doubtful = bool(known or met)
    return [row for row in new if row.identity not in met]


def _copied(connection: Connection, rows: Sequence[UsageRow], posted_to: Mapping[date, date]) -> bool:
    """Copy rows that are believed to be new; False, and nothing written, where one was not.

    Raises:
        DBAPIError: the database refuses them for another reason.
    """
    if not rows:
        return True
    try:
        with connection.begin_nested():
            store.copy_usage(connection, rows, posted_to)
    except DBAPIError as error:
        if sqlstate(error) != _UNIQUE_VIOLATION:
            raise
        return False
    return True


def _hold(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Hold what is not known yet: neither in the ledger, nor waiting already, nor on the other side of midnight."""
    if not rows.held:
        return
    known = store.standing(connection, "usage_records", list(rows.held.values()))
    fresh = [row for identity, row in sorted(rows.held.items()) if identity not in known]
    over_midnight = store.claim_midnights(connection, fresh)
    held = store.hold(connection, [row for row in fresh if row.identity not in over_midnight])
    waiting = [row for row in fresh if row.identity not in held and row.identity not in over_midnight]
    known |= store.standing(connection, "standing_records", waiting)
    for identity, row in rows.held.items():
        if identity in held:
            counts["held", row.reason] += 1
        else:
            _repeated(row, rows.messages[identity], rows, counts, same=known.get(identity, False))


def _refuse(connection: Connection, rows: BatchRows, counts: Counter[tuple[str, str]]) -> None:
    """Quarantine what its owner's terms refuse, unless it stands already: then it is only repeated (L2)."""
    if not rows.refused:
        return
    _drop(store.standing(connection, "usage_records", list(rows.refused.values())), rows, counts)
    over_midnight = store.claim_midnights(connection, list(rows.refused.values()))
    _drop(dict.fromkeys(over_midnight, False), rows, counts)
    rows.quarantine.extend(row.kept for row in rows.refused.values())


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
