"""Stream positions in Postgres: where each partition is to be read from (L3, A10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class Position(NamedTuple):
    """One partition's row: its id (the shard of its monthly usage), and the next offset to read."""

    id: int
    next_offset: int


class PartitionState(NamedTuple):
    """How far one partition was read: by offset, and by Kafka's timestamps where known."""

    topic: str
    partition: int
    next_offset: int
    read_through_at: datetime | None
    gap_records: int


def ensure_position(connection: Connection, topic: str, partition: int, log_start: int) -> Position:
    """A partition's position; one that was never read begins at the earliest record there is."""
    connection.execute(
        text(
            "insert into stream_positions (topic, partition, next_offset) values (:topic, :partition, :start) "
            "on conflict (topic, partition) do nothing"
        ),
        {"topic": topic, "partition": partition, "start": log_start},
    )
    row = connection.execute(
        text("select id, next_offset from stream_positions where topic = :topic and partition = :partition"),
        {"topic": topic, "partition": partition},
    ).one()
    return Position(row.id, row.next_offset)


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
    """Partitions whose position is at their end have been read through an instant (A10)."""
    for (topic, partition), end in sorted(ends.items()):
        connection.execute(
            text(
                "update stream_positions set read_through_at = greatest(read_through_at, :through) "
                "where topic = :topic and partition = :partition and next_offset >= :end"
            ),
            {"topic": topic, "partition": partition, "end": end, "through": through},
        )


def partition_states(connection: Connection, topics: Sequence[str]) -> list[PartitionState]:
    """All known partitions of some topics."""
    rows = connection.execute(
        text(
            "select topic, partition, next_offset, read_through_at, gap_records from stream_positions "
            "where topic = any(:topics) order by topic, partition"
        ),
        {"topics": list(topics)},
    )
    return [PartitionState(*row) for row in rows]
