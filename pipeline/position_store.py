"""Stream positions in Postgres: where each partition is to be read from (L3, A10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from pipeline import silence_store

_POSTING: Final = "tenant-billing posting"
silent_seconds_max: Final = 5.0  # shorter than a consumer group's session: who takes over after it meets none
lock_wait_seconds_max: Final = 10
idle_seconds_max: Final = 20


class Position(NamedTuple):
    """One partition's row: its id (and a shard of monthly usage), the next offset to read, and Kafka's id of its topic."""

    id: int
    next_offset: int
    topic_id: str | None


class PartitionState(NamedTuple):
    """How far one partition was read: by offset, and by Kafka's timestamps where known.

    `gap_records`: those lost before they were read, of former logs of that name too.
    """

    topic: str
    partition: int
    next_offset: int
    read_through_at: datetime | None
    gap_records: int


def ensure_position(
    connection: Connection, topic: str, partition: int, log_start: int, topic_id: str | None = None
) -> Position:
    """A partition's position; one that was never read begins at the earliest record there is.

    Where no topic's id is kept with it yet, the present one is.
    """
    connection.execute(
        text(
            "insert into stream_positions (topic, partition, next_offset, topic_id) "
            "values (:topic, :partition, :start, :topic_id) on conflict (topic, partition) do nothing"
        ),
        {"topic": topic, "partition": partition, "start": log_start, "topic_id": topic_id},
    )
    position = _position(connection, topic, partition)
    assert position is not None
    if position.topic_id is None and topic_id is not None:
        connection.execute(
            text("update stream_positions set topic_id = :topic_id where id = :id and topic_id is null"),
            {"id": position.id, "topic_id": topic_id},
        )
        return position._replace(topic_id=topic_id)
    return position


def begin_anew(
    connection: Connection, topic: str, partition: int, log_start: int, topic_id: str | None
) -> int:
    """Give a partition a new position, at the start of a new log; returns what `give_up` says of the old one."""
    lost = give_up(connection, topic, partition)
    ensure_position(connection, topic, partition, log_start, topic_id)
    return lost


def give_up(connection: Connection, topic: str, partition: int) -> int:
    """Take a partition's position for done with, because its log is gone. The row stays: what was read from there names it.

    Its offset is moved to where no batch begins, so that a worker that still reads the old log writes nothing more, and
    no month waits for it.

    Returns:
        How many records are known to be lost: those up to the furthest boundary of a month. They count as a gap.
    """
    lost = connection.scalar(
        text(
            "update stream_positions p set partition = -p.id, former_partition = p.partition, "
            "next_offset = 9223372036854775807, gap_records = p.gap_records + known.lost from ("
            "select s.id, greatest(max(b.boundary_offset) - s.next_offset, 0) as lost from stream_positions s "
            "left join period_boundaries b on b.topic = s.topic and b.partition = s.partition "
            "and (b.topic_id = s.topic_id or b.topic_id is null or s.topic_id is null) "
            "where s.topic = :topic and s.partition = :partition group by s.id) known "
            "where p.id = known.id returning known.lost"
        ),
        {"topic": topic, "partition": partition},
    )
    return int(lost or 0)


def partitions_awaited(connection: Connection, topic: str) -> dict[int, str | None]:
    """The partitions of a topic that a boundary was pinned on and that nobody has begun to read; with Kafka's topic id."""
    rows = connection.execute(
        text(
            "select b.partition, max(b.topic_id) as topic_id from period_boundaries b "
            "where b.topic = :topic and b.boundary_offset > 0 and not exists (select from stream_positions p "
            "where p.topic = b.topic and coalesce(p.former_partition, p.partition) = b.partition) "
            "group by b.partition order by b.partition"
        ),
        {"topic": topic},
    )
    return {row.partition: row.topic_id for row in rows}


def positions_of(connection: Connection, topic: str) -> dict[int, Position]:
    """The position of each partition of a topic that was ever read."""
    rows = connection.execute(
        text(
            "select partition, id, next_offset, topic_id from stream_positions "
            "where topic = :topic and partition >= 0 order by partition"
        ),
        {"topic": topic},
    )
    return {row.partition: Position(row.id, row.next_offset, row.topic_id) for row in rows}


def begin_posting(connection: Connection) -> None:
    """Make a transaction that posts records one that can be told from others, and that waits for nobody for ever."""
    connection.execute(
        text(
            "select set_config('application_name', :name, true), set_config('lock_timeout', :wait, true), "
            "set_config('idle_in_transaction_session_timeout', :silence, true)"
        ),
        {
            "name": _POSTING,
            "wait": f"{lock_wait_seconds_max}s",
            "silence": f"{idle_seconds_max}s",
        },
    )


def end_silent_sessions(connection: Connection) -> list[int]:
    """End sessions that stand still in the middle of posting; returns their server processes.

    A worker that is frozen or cut off holds its rows' locks for as long as it stands: whoever takes its partitions over
    ends it.
    """
    return silence_store.end_silent(connection, _POSTING, silent_seconds_max)


def skip_gap(connection: Connection, position: Position, log_start: int) -> bool:
    """Go on behind records that Kafka dropped before they were read; the hole is counted, for ever.

    Returns:
        False where the position has moved meanwhile.
    """
    moved = connection.execute(
        text(
            "update stream_positions set next_offset = :start, gap_records = gap_records + (:start - next_offset) "
            "where id = :id and next_offset = :next"
        ),
        {"start": log_start, "id": position.id, "next": position.next_offset},
    )
    return moved.rowcount == 1


def read_to_end(connection: Connection, ends: Mapping[tuple[str, int], int], through: datetime) -> None:
    """Partitions whose position is at their end have been read through an instant (A10).

    A position above the end that was asked for says nothing: either records came meanwhile, whose own timestamps tell,
    or the topic was made anew, and nothing of it has been read.
    """
    for (topic, partition), end in sorted(ends.items()):
        connection.execute(
            text(
                "update stream_positions set read_through_at = greatest(read_through_at, :through) "
                "where topic = :topic and partition = :partition and next_offset = :end"
            ),
            {"topic": topic, "partition": partition, "end": end, "through": through},
        )


def partition_states(connection: Connection, topics: Sequence[str]) -> list[PartitionState]:
    """All known partitions of some topics."""
    rows = connection.execute(
        text(
            "select topic, partition, next_offset, read_through_at, gap_records + ("
            "select coalesce(sum(f.gap_records), 0)::bigint from stream_positions f "
            "where f.topic = p.topic and f.former_partition = p.partition) as gap_records from stream_positions p "
            "where topic = any(:topics) and partition >= 0 order by topic, partition"
        ),
        {"topics": list(topics)},
    )
    return [PartitionState(*row) for row in rows]


def _position(connection: Connection, topic: str, partition: int) -> Position | None:
    row = connection.execute(
        text(
            "select id, next_offset, topic_id from stream_positions where topic = :topic and partition = :partition"
        ),
        {"topic": topic, "partition": partition},
    ).one_or_none()
    return Position(*row) if row is not None else None
