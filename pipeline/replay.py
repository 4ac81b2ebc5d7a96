"""Quarantine is tried again, or given up: each record once, whoever repeats it, wherever it is killed (DESIGN 8).

A replayed record goes the way of every other: decoded by its input's present format, attributed, rated, and written in
one transaction with its own new state and its counts. What still cannot be posted stays, with its new reason.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from pipeline.batch_rows import Part
from pipeline.database import first_line, sqlstate
from pipeline.prepare import Item, Message, Snapshot, decode, decode_one, prepare, quarantined
from pipeline.settings import Settings
from pipeline.snapshot import Snapshots
from pipeline.worker import input_spec
from pipeline.writing import write
from rollup import posting_store, quarantine_store
from rollup.ledger import Identity, UsageRow
from rollup.posting_store import Counted, Outcomes, by_outcome
from rollup.quarantine_store import Chosen, KeptRecord, Standing
from rollup.unposted import HeldRow, QuarantineRow, RefusedRow
from schemas.formats.building import AMBIGUOUS_TIME, UNDIRECTED, UNREADABLE

_log = structlog.get_logger(__name__)
REPLAY_SHARD: Final = -1
_records_max: Final = 1000
_bytes_max: Final = 32 * 1024 * 1024
_RETRYABLE: Final = frozenset({"40001", "40P01"})
_DATA_ERROR_CLASSES: Final = ("22", "23")
_attempts_max: Final = 5
_OF_THE_MESSAGE: Final = frozenset(
    {UNREADABLE, UNDIRECTED, AMBIGUOUS_TIME}
)  # said before it is known what it holds

Progress = Callable[[int], None]


def replay(
    engine: Engine,
    settings: Settings,
    snapshots: Snapshots,
    chosen: Chosen,
    *,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Outcomes:
    """Try every chosen record that is open now once.

    Args:
        engine: where quarantine is.
        settings: how each input is read now.
        snapshots: who owns what; refreshed for every part.
        chosen: which records.
        dry_run: do the same and roll it back: only the answer remains.
        progress: told after each part how many records it was.

    Returns:
        How many records came to each (outcome, reason); `quarantined` are those that stay.
    """
    job = _Replay(engine, settings, snapshots, chosen, dry_run)
    total: Outcomes = Counter()
    for ids in _parts(engine, chosen):
        total += job.part(ids)
        if progress:
            progress(len(ids))
    return total


def discard(engine: Engine, chosen: Chosen, because: str, progress: Progress | None = None) -> int:
    """Give every chosen record up that is open now: it stays quarantined in the counts and is never tried again.

    Returns:
        How many were given up by this call.
    """
    total = 0
    for ids in _parts(engine, chosen):
        with engine.begin() as connection:
            total += quarantine_store.discard(connection, chosen, ids, because)
        if progress:
            progress(len(ids))
    return total


def _parts(engine: Engine, chosen: Chosen) -> Iterator[list[int]]:
    """The ids of the chosen records in parts of a bounded size; records that come in meanwhile are not among them."""
    with engine.connect() as connection:
        last_id = quarantine_store.extent(connection, chosen).last_id
    after_id = 0
    while True:
        with engine.connect() as connection:
            ids = quarantine_store.next_ids(connection, chosen, after_id, last_id, _records_max, _bytes_max)
        if not ids:
            return
        yield ids
        after_id = ids[-1]


@dataclass(frozen=True, slots=True)
class _Replay:
    """What each part of one replay is done with."""

    engine: Engine
    settings: Settings
    snapshots: Snapshots
    chosen: Chosen
    dry_run: bool

    def part(self, ids: Sequence[int]) -> Outcomes:
        """Replay a part in one transaction, or around the record that the database refuses for its data (L3)."""
        for attempt in range(1, _attempts_max + 1):
            try:
                return self._once(ids)
            except DBAPIError as error:
                code = sqlstate(error)
                if code in _RETRYABLE and attempt < _attempts_max:
                    continue
                if code[:2] not in _DATA_ERROR_CLASSES:
                    raise
                if len(ids) == 1:
                    return self._once(ids, refused_for=f"{type(error).__name__} {code}: {first_line(error)}")
                middle = len(ids) // 2
                return self.part(ids[:middle]) + self.part(ids[middle:])
        raise AssertionError("unreachable")

    def _once(self, ids: Sequence[int], refused_for: str | None = None) -> Outcomes:
        snapshot = self.snapshots.refresh()
        with self.engine.connect() as connection, connection.begin() as transaction:
            records = quarantine_store.lock(connection, self.chosen, ids)
            total: Outcomes = Counter()
            for position_id, group in _by_position(records).items():
                tried = _Tried(_refused(group, refused_for)) if refused_for else self._tried(group, snapshot)
                total += _write(connection, position_id, tried.records)
                total += _write_found(connection, position_id, tried.found)
            if self.dry_run:
                transaction.rollback()
        return total

    def _tried(self, records: Sequence[KeptRecord], snapshot: Snapshot) -> _Tried:
        """What the records of one partition come to now; empty where no input reads their topic any more."""
        topic = next((each for each in self.settings.inputs if each.topic == records[0].topic), None)
        if topic is None:
            _log.warning("replay_without_input", topic=records[0].topic, records=len(records))
            return _Tried({})
        spec = input_spec(self.settings, topic, records[0].position_id)
        items = prepare(spec, [decode_one(spec, _message(record)) for record in records], snapshot)
        found = [
            each
            for record in records
            if record.reason in _OF_THE_MESSAGE and record.alone
            for each in decode(spec, [_message(record)])
            if each[0].ordinal != record.ordinal
        ]
        return _Tried(dict(zip(records, items, strict=True)), prepare(spec, found, snapshot))


class _Tried(NamedTuple):
    """What records in quarantine come to, and what was found in their messages beside them: now they can be read."""

    records: Mapping[KeptRecord, Item]
    found: Sequence[Item] = ()


def _write_found(connection: Connection, position_id: int, found: Sequence[Item]) -> Outcomes:
    """Write records that were never counted, as the stream would have: a message that could not be read counted as one."""
    written = write(connection, [Part(position_id, found)], shard=REPLAY_SHARD)
    posting_store.count(connection, "stream", written.counts)
    return by_outcome(written.counts)


def _write(connection: Connection, position_id: int, tried: Mapping[KeptRecord, Item]) -> Outcomes:
    """Write what the records of one partition came to, and move their counts and states with it."""
    stay = {record: row for record, item in tried.items() if (row := _stays(record, item)) is not None}
    go = {record: item for record, item in tried.items() if record not in stay}
    quarantine_store.keep(connection, [_standing(record, row) for record, row in stay.items()])
    quarantine_store.set_aside(connection, [record.id for record in go])
    written = write(connection, [Part(position_id, list(go.values()))], shard=REPLAY_SHARD)
    quarantine_store.settle(connection, _resolutions(go, set(written.new.tolist())))
    came_to = written.counts + Counter(
        Counted(position_id, "quarantined", row.reason) for row in stay.values()
    )
    moved = Counter(came_to)
    moved.subtract(Counted(position_id, "quarantined", record.reason) for record in tried)
    posting_store.count(connection, "replay", moved)
    return by_outcome(came_to)


def _stays(record: KeptRecord, item: Item) -> QuarantineRow | None:
    """The row of a record that need not be written; one that shall stand from now on is, for another may stand already."""
    match item.outcome:
        case QuarantineRow() as row:
            return row
        case RefusedRow(kept=row) if record.stands:
            return row
        case _:
            return None


def _standing(record: KeptRecord, row: QuarantineRow) -> Standing:
    identity = (row.started_date, row.record_key, row.content)
    return Standing(record.id, row.reason, row.detail, row.account_id, row.started_at, *identity)


def _resolutions(written: Mapping[KeptRecord, Item], posted: set[Identity]) -> dict[int, str]:
    """What became of each record that was written; those that came back to quarantine are found by the store."""
    resolutions = {}
    for record, item in written.items():
        match item.outcome:
            case UsageRow(identity=identity):
                resolutions[record.id] = "posted" if identity in posted else "duplicate"
                posted.discard(identity)
            case HeldRow():
                resolutions[record.id] = "held"
            case RefusedRow():
                resolutions[record.id] = "duplicate"
            case _:
                resolutions[record.id] = "not billable"
    return resolutions


def _refused(records: Iterable[KeptRecord], why: str) -> dict[KeptRecord, Item]:
    items = {}
    for record in records:
        message = _message(record)
        row = quarantined(record.position_id, message, "refused_by_database", why)
        items[record] = Item(message, row)
    return items


def _by_position(records: Iterable[KeptRecord]) -> dict[int, list[KeptRecord]]:
    groups: dict[int, list[KeptRecord]] = defaultdict(list)
    for record in records:
        groups[record.position_id].append(record)
    return dict(sorted(groups.items()))


def _message(record: KeptRecord) -> Message:
    return Message(record.kafka_offset, record.received_at, record.key, record.value, record.ordinal)
