"""How far each partition must have been read before a month may seal: pinned once, never moved (C1)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from schemas.periods import Period


class Behind(NamedTuple):
    """A boundary that has not been reached: `next_offset` is where reading stands, None where it has not begun."""

    topic: str
    partition: int
    offset: int
    next_offset: int | None


def pin_boundaries(
    connection: Connection,
    period: Period,
    cutoff: datetime,
    now: datetime,
    found: Mapping[tuple[str, int], int],
    topic_ids: Mapping[str, str],
) -> None:
    """Write a month's cutoff and boundaries down; whoever wrote first has said it for good (C1).

    `topic_ids`: Kafka's, where it tells them: the boundaries are of these topics, and of no later ones of their names.
    """
    pinned = connection.execute(
        text("update periods set cutoff_at = :cutoff where period = :period and cutoff_at is null"),
        {"cutoff": cutoff, "period": period.first_day},
    )
    if pinned.rowcount == 0 or not found:
        return
    connection.execute(
        text(
            "insert into period_boundaries (period, topic, partition, boundary_offset, pinned_at, topic_id) "
            "values (:period, :topic, :partition, :offset, :now, :topic_id) on conflict do nothing"
        ),
        [
            {
                "period": period.first_day,
                "topic": topic,
                "partition": partition,
                "offset": offset,
                "now": now,
                "topic_id": topic_ids.get(topic),
            }
            for (topic, partition), offset in sorted(found.items())
        ],
    )


def not_reached(connection: Connection, period: Period) -> tuple[Behind, ...]:
    """The boundaries of a month that its partitions' positions have not reached yet.

    A topic that was made anew has two positions: its own, and that of the log that is gone (`begin_anew`), which has
    read all that there will ever be. A boundary is reached by the one of the topic that was asked for it.
    """
    rows = connection.execute(
        text(
            "select b.topic, b.partition, b.boundary_offset, p.next_offset from period_boundaries b "
            "left join lateral (select next_offset from stream_positions p where p.topic = b.topic and ("
            "p.partition = b.partition and (p.topic_id = b.topic_id or p.topic_id is null or b.topic_id is null) "
            "or p.former_partition = b.partition and p.topic_id = b.topic_id) "
            "order by p.partition desc limit 1) p on true "
            "where b.period = :period and coalesce(p.next_offset, 0) < b.boundary_offset "
            "order by b.topic, b.partition"
        ),
        {"period": period.first_day},
    )
    return tuple(Behind(*row) for row in rows)
