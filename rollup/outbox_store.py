"""Events that wait to be published, and the word that they were (C5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

frozen_seconds_max: Final = (
    10  # a relay that stands still for so long while it marks events loses the transaction
)


class OutboxEvent(NamedTuple):
    """One event, ready to send."""

    id: int
    topic: str
    key: str
    headers: Mapping[str, str]
    value: bytes


class Acknowledged(NamedTuple):
    """Where the broker has put an event."""

    id: int
    partition: int
    offset: int


def pending(connection: Connection, limit: int) -> list[OutboxEvent]:
    """The next events to publish, in order."""
    rows = connection.execute(
        text(
            "select id, topic, key, headers, value from outbox where published_at is null order by id limit :limit"
        ),
        {"limit": limit},
    )
    return [OutboxEvent(row.id, row.topic, row.key, row.headers, bytes(row.value)) for row in rows]


def mark_published(connection: Connection, acknowledged: Sequence[Acknowledged]) -> int:
    """Write down what was acknowledged; what another relay has marked before stays as it is."""
    if not acknowledged:
        return 0
    connection.execute(text(f"set local idle_in_transaction_session_timeout = '{frozen_seconds_max}s'"))
    marked = connection.execute(
        text(
            "update outbox o set published_at = clock_timestamp(), kafka_partition = a.partition, "
            "kafka_offset = a.kafka_offset "
            "from unnest(cast(:ids as bigint[]), cast(:partitions as integer[]), cast(:offsets as bigint[])) "
            "as a(id, partition, kafka_offset) where o.id = a.id and o.published_at is null"
        ),
        {
            "ids": [each.id for each in acknowledged],
            "partitions": [each.partition for each in acknowledged],
            "offsets": [each.offset for each in acknowledged],
        },
    )
    return marked.rowcount
