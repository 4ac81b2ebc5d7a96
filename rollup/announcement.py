"""What is the world told of a close (C5): every statement, then each account's month."""

from __future__ import annotations

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
from schemas.statements import Statement, canonical_json


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


class ToldStatement(NamedTuple):
    """A statement with its canonical bytes and their hash, as they were stored."""

    statement: Statement
    body: bytes
    sha256: str


class AccountTold(NamedTuple):
    """What an account is told of its month: how many statements, and what they come to."""

    currency: str
    statement_count: int
    total_cost: Decimal


def statement_closed(told: ToldStatement, closed_at: datetime, topic: str) -> Announcement:
    """The event of one statement; its id is the statement's."""
    each = told.statement
    key = f"{each.account}/{each.tenant or ''}"
    event = StatementClosed(
        statement_id=each.statement_id,
        kind=each.kind,
        account=each.account,
        tenant=each.tenant,
        period=each.period,
        currency=each.currency,
        total_cost=each.totals.total_cost,
        sha256=told.sha256,
        closed_at=closed_at,
        statement=each,
    )
    facts = event.model_dump(mode="json", exclude={"statement"}) | {"statement": orjson.Fragment(told.body)}
    value = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)
    headers = cloud_event_headers(each.statement_id, STATEMENT_CLOSED, f"{key}/{each.period}", closed_at)
    return Announcement(topic, key, orjson.dumps(headers).decode(), value, closed_at)


def period_closed(
    period: Period, account: str, told: AccountTold, closed_at: datetime, topic: str
) -> Announcement:
    """The event of one account's month; to be published after those of all its statements."""
    event = PeriodClosed(
        account=account,
        period=str(period),
        currency=told.currency,
        statement_count=told.statement_count,
        total_cost=told.total_cost,
        closed_at=closed_at,
    )
    event_id = str(fact_id("period closed", account, str(period)))
    headers = cloud_event_headers(event_id, PERIOD_CLOSED, f"{account}/{period}", closed_at)
    return Announcement(topic, account, orjson.dumps(headers).decode(), canonical_json(event), closed_at)
