"""What is the world told of a close (C5): every statement, then each account's month."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import orjson

from schemas.events import (
    PERIOD_CLOSED,
    STATEMENT_CLOSED,
    PeriodClosed,
    StatementClosed,
    cloud_event_headers,
)
from schemas.identity import fact_id
from schemas.periods import Period
from schemas.statements import Statement, canonical_json, sha256_hex


@dataclass(frozen=True, slots=True)
class EventTopics:
    """Where a close is told: one topic for statements, one for whole months."""

    statements: str
    periods: str


class Announcement(NamedTuple):
    """An event as the outbox keeps it; the fields are its columns. `headers` is JSON, `value` the event's data."""

    topic: str
    key: str
    headers: str
    value: bytes
    made_at: datetime


def announcements(
    period: Period, statements: Sequence[Statement], closed_at: datetime, topics: EventTopics
) -> Iterator[Announcement]:
    """The events of one close, in the order they are to be published: no month before any of its statements."""
    by_account: dict[str, list[Statement]] = defaultdict(list)
    for each in statements:
        by_account[each.account].append(each)
        yield _statement_closed(each, closed_at, topics.statements)
    for mine in by_account.values():
        yield _period_closed(period, mine, closed_at, topics.periods)


def _statement_closed(each: Statement, closed_at: datetime, topic: str) -> Announcement:
    key = f"{each.account}/{each.tenant or ''}"
    event = StatementClosed(
        statement_id=each.statement_id,
        kind=each.kind,
        account=each.account,
        tenant=each.tenant,
        period=each.period,
        currency=each.currency,
        total_cost=each.totals.total_cost,
        sha256=sha256_hex(each.canonical_bytes()),
        closed_at=closed_at,
        statement=each,
    )
    headers = cloud_event_headers(each.statement_id, STATEMENT_CLOSED, f"{key}/{each.period}", closed_at)
    return Announcement(topic, key, orjson.dumps(headers).decode(), canonical_json(event), closed_at)


def _period_closed(
    period: Period, mine: Sequence[Statement], closed_at: datetime, topic: str
) -> Announcement:
    account = mine[0].account
    event = PeriodClosed(
        account=account,
        period=str(period),
        currency=mine[0].currency,
        statement_count=len(mine),
        total_cost=sum((each.totals.total_cost for each in mine), Decimal("0.000000")),
        closed_at=closed_at,
    )
    event_id = str(fact_id("period closed", account, str(period)))
    headers = cloud_event_headers(event_id, PERIOD_CLOSED, f"{account}/{period}", closed_at)
    return Announcement(topic, account, orjson.dumps(headers).decode(), canonical_json(event), closed_at)
