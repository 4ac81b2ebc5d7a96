"""Where the records of one switch and id stand: in the ledger, waiting, or in quarantine, on every date (L1).

The ledger's key is a hash of switch and id, and its index begins with the date: each date there may be is looked up.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, text

from schemas.identity import record_key

_Row = TypeVar("_Row", bound=tuple[Any, ...])
_candidates_max: Final = 1000


class PostedRecord(NamedTuple):
    """A ledger row with the names of what it refers to; `tariff_…` where a tariff gave seconds or cost.

    `month_sealed_at`: when the month of `started_at` was sealed, if it was; `statement_id`: where it is shown, once.
    """

    topic: str
    partition: int
    offset: int
    received_at: datetime
    switch: str
    record_id: str
    service: str
    direction: str
    call_id: str | None
    from_number: str | None
    to_number: str | None
    source_ip: str | None
    x_tenant: str | None
    started_at: datetime
    answered_at: datetime | None
    ended_at: datetime | None
    account_id: int | None
    account: str | None
    home_country: str | None
    domestic_regions: list[str] | None
    tenant: str | None
    rule: str
    reason: str | None
    assignment_id: int | None
    header_ignored: str | None
    usage_class: str
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal
    currency: str
    tariff_id: int | None
    tariff_class: str | None
    tariff_prefix: str | None
    tariff_effective_at: datetime | None
    tariff_made_at: datetime | None
    tariff_unit: str | None
    tariff_cost: Decimal | None
    tariff_first_seconds: int | None
    tariff_next_seconds: int | None
    period: date
    late: bool
    period_state: str
    month_sealed_at: datetime | None
    statement_id: str | None


class WaitingRecord(NamedTuple):
    """A held record, with its message."""

    topic: str
    partition: int
    offset: int
    received_at: datetime
    position_id: int
    reason: str
    hold_until: datetime
    examined: bool
    value: bytes


class KeptRecord(NamedTuple):
    """A record in quarantine, with its message."""

    id: int
    topic: str
    partition: int
    offset: int
    received_at: datetime
    position_id: int
    reason: str
    detail: str
    state: str
    resolved_at: datetime | None
    resolution: str | None
    value: bytes


class TopicRead(NamedTuple):
    """How far a partition has been read, by offset and by Kafka's timestamps."""

    topic: str
    partition: int
    next_offset: int
    read_through_at: datetime | None


def posted(connection: Connection, switch: str, record_id: str) -> tuple[PostedRecord, ...]:
    """What the ledger holds of a switch's record id, oldest first."""
    return _rows(
        connection,
        PostedRecord,
        "with dates as (select generate_series(min(period), max(period) + interval '1 month' - interval '1 day', "
        "interval '1 day')::date as day from periods) select s.topic, s.partition, u.kafka_offset, u.received_at, u.switch, u.record_id, u.service, "
        "u.direction, u.call_id, u.from_number, u.to_number, host(u.source_ip), u.x_tenant, u.started_at, "
        "u.answered_at, u.ended_at, u.account_id, a.code, a.home_country, a.domestic_regions, t.code, u.rule, u.reason, "
        "u.assignment_id, u.header_ignored, u.usage_class, u.answered_seconds, u.billed_seconds, u.cost, u.currency, "
        "f.id, f.usage_class, f.prefix, f.effective_at, f.made_at, f.unit, f.cost, f.increment_first_seconds, "
        "f.increment_next_seconds, u.period, u.late, p.state, m.sealed_at, cast(st.id as text) "
        "from dates d join usage_records u on u.started_date = d.day and u.key = cast(:key as uuid) "
        "join stream_positions s on s.id = u.position_id join periods p on p.period = u.period "
        "left join periods m on m.period = date_trunc('month', u.started_date)::date "
        "left join accounts a on a.id = u.account_id left join tenants t on t.id = u.tenant_id "
        "left join tariffs f on f.id = u.tariff_id "
        "left join statements st on st.period = u.period and st.account_id = u.account_id "
        "and st.tenant_id is not distinct from u.tenant_id order by u.started_at",
        key=record_key(switch, record_id),
    )


def waiting(connection: Connection, switch: str, record_id: str) -> tuple[WaitingRecord, ...]:
    """What is held of a switch's record id, oldest first."""
    found = connection.execute(
        text(
            "select s.topic, s.partition, h.kafka_offset, h.received_at, h.position_id, h.reason, h.hold_until, "
            "h.examined, h.value from held_records h join stream_positions s on s.id = h.position_id "
            "where h.key = cast(:key as uuid) order by h.received_at"
        ),
        {"key": record_key(switch, record_id)},
    )
    return tuple(WaitingRecord(*_with_bytes(row)) for row in found)


def kept(connection: Connection, record_id: str) -> tuple[KeptRecord, ...]:
    """Records in quarantine, resolved or not, whose bytes may be of this id: whoever reads them must look closer."""
    words = re.findall(r"[A-Za-z0-9]+", record_id)  # what JSON and URL encoding leave as it is
    found = connection.execute(
        text(
            "select q.id, s.topic, s.partition, q.kafka_offset, q.received_at, q.position_id, q.reason, q.detail, q.state, "
            "q.resolved_at, q.resolution, q.value from quarantine q join stream_positions s on s.id = q.position_id "
            "where position(cast(:word as bytea) in q.value) > 0 order by q.received_at, q.id limit :max"
        ),
        {"word": max(words, key=len, default="").encode(), "max": _candidates_max},
    )
    return tuple(KeptRecord(*_with_bytes(row)) for row in found)


def topics_read(connection: Connection, topics: list[str]) -> tuple[TopicRead, ...]:
    """How far the partitions of some topics have been read."""
    return _rows(
        connection,
        TopicRead,
        "select topic, partition, next_offset, read_through_at from stream_positions where topic = any(:topics) and partition >= 0 "
        "order by topic, partition",
        topics=topics,
    )


def _rows(connection: Connection, shape: type[_Row], query: str, **parameters: object) -> tuple[_Row, ...]:
    return tuple(shape(*row) for row in connection.execute(text(query), parameters))


def _with_bytes(row: Row[Any]) -> tuple[Any, ...]:
    """A row whose last column, a message, is plain bytes."""
    *facts, value = tuple(row)
    return (*facts, bytes(value))
