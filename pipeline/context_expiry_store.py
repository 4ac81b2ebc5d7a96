"""SIP contexts that nothing can ask for any more, and how they are let go."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, text

from schemas.periods import Period

_strays_max: Final = 10_000


def earliest_undecided(connection: Connection) -> datetime | None:
    """When Kafka received the oldest record that SIP events may yet decide: held, or to be replayed once it is rated."""
    earliest: datetime | None = connection.scalar(
        text("""
            select least((select min(received_at) from held_records),
                         (select min(received_at) from quarantine where state = 'open' and reason = 'unrated'))""")
    )
    return earliest


def oldest_expired_month(connection: Connection, needed_from: datetime) -> Period | None:
    """The oldest closed month, no earlier one being open, whose SIP contexts are still there and all older than that."""
    first_day = connection.scalar(
        text("""
            select min(period) from periods
            where (period + interval '1 month')::timestamp at time zone 'UTC' <= :needed_from
              and period < coalesce((select min(period) from periods where state <> 'closed'), 'infinity')
              and to_regclass('sip_contexts_partition_' || to_char(period, 'YYYY_MM')) is not null"""),
        {"needed_from": needed_from},
    )
    return None if first_day is None else Period.of(first_day)


def drop_month(connection: Connection, month: Period) -> bool:
    """Drop a month's SIP contexts; False where they were gone already. The database refuses while they may be needed."""
    # Postings queue behind this lock: rather give up and come back than let them wait behind a long reader.
    connection.execute(text("set local lock_timeout = '1s'"))
    return bool(connection.scalar(text("select drop_sip_contexts(:month)"), {"month": month.first_day}))


def forget_strays(connection: Connection, needed_from: datetime) -> int:
    """Delete old SIP contexts of no month, such as those that were read after their month was dropped.

    Returns:
        How many went; a part of very many.
    """
    deleted = connection.execute(
        text("""
            delete from sip_contexts_partition_other where ctid = any(array(
                select ctid from sip_contexts_partition_other where received_at < :needed_from limit :max))"""),
        {"needed_from": needed_from, "max": _strays_max},
    )
    return deleted.rowcount


def kept(connection: Connection, at: datetime) -> bool:
    """Whether the SIP events that Kafka received in the month of an instant are still there."""
    return bool(
        connection.scalar(
            text("select to_regclass('sip_contexts_partition_' || :month) is not null"),
            {"month": f"{at.astimezone(UTC):%Y_%m}"},
        )
    )


def place(connection: Connection, position_id: int) -> tuple[str, int]:
    """The topic and partition of a position."""
    row = connection.execute(
        text("select topic, partition from stream_positions where id = :id"), {"id": position_id}
    ).one()
    return row.topic, row.partition
