"""Held records that may be decided now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

from pipeline.prepare import Message

# A record waits for SIP events until all partitions were read past it; looked at once, it waits for its hold to end.
_DUE: Final = """
    (h.reason = 'sip_context' and not h.examined and h.received_at < :through)
    or (h.reason = 'sip_context' and h.hold_until < :through)
    or (h.reason = 'clock_ahead' and h.hold_until <= :now)
"""


class WaitingRow(NamedTuple):
    """A held record as the resolver reads it."""

    started_date: date
    key: str
    reason: str
    call_id: str | None
    position_id: int
    topic: str
    message: Message


def anything_due(connection: Connection, through: datetime | None, now: datetime) -> bool:
    """Whether any held record may be decided."""
    return bool(
        connection.scalar(
            text(f"select exists (select from held_records h where {_DUE})"),  # noqa: S608 (our own text)
            {"through": through, "now": now},
        )
    )


def due(
    connection: Connection, through: datetime | None, now: datetime, records_max: int
) -> Sequence[WaitingRow]:
    """The oldest held records that may be decided, locked for this transaction; those another holds are skipped."""
    rows = connection.execute(
        text(
            "select h.started_date, h.key, h.reason, h.call_id, h.position_id, p.topic, "  # noqa: S608 (our own text)
            "h.kafka_offset, h.received_at, h.value, h.ordinal "
            "from held_records h join stream_positions p on p.id = h.position_id "
            f"where {_DUE} order by h.received_at, h.position_id, h.kafka_offset limit :max for update of h skip locked"
        ),
        {"through": through, "now": now, "max": records_max},
    )
    return [
        WaitingRow(
            row.started_date,
            row.key.hex,
            row.reason,
            row.call_id,
            row.position_id,
            row.topic,
            Message(row.kafka_offset, row.received_at, None, bytes(row.value), row.ordinal),
        )
        for row in rows
    ]


def mark_examined(connection: Connection, row: WaitingRow) -> bool:
    """SIP events received up to this record do not decide it: it is due again when its hold ends.

    Returns:
        False where that was known already.
    """
    marked = connection.execute(
        text(
            "update held_records set examined = true "
            "where started_date = :started_date and key = :key and not examined"
        ),
        {"started_date": row.started_date, "key": row.key},
    )
    return marked.rowcount == 1


def delete_held(connection: Connection, rows: Sequence[WaitingRow]) -> None:
    """Let go of records that are written elsewhere in the same transaction."""
    if not rows:
        return
    connection.execute(
        text(
            "delete from held_records h using unnest(cast(:dates as date[]), cast(:keys as uuid[])) as a(started_date, key) "
            "where h.started_date = a.started_date and h.key = a.key"
        ),
        {"dates": [row.started_date for row in rows], "keys": [row.key for row in rows]},
    )
