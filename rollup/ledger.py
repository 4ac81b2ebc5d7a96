"""What goes into the ledger, and what makes it the same record again (L1, L2).

A `UsageRow` is one line of the ledger but for its posting period, which only the posting transaction knows (L5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple

import orjson

from schemas.identity import text_key
from schemas.network import address_text
from schemas.records import CallRecord

_MIDNIGHT_MARGIN: Final = timedelta(minutes=5)


class UsageRow(NamedTuple):
    """One record as the ledger keeps it: `line` holds the columns `LEDGER_COLUMNS`, ready to be copied.

    Beside it stand the facts that a posting transaction asks for.
    """

    started_date: date
    key: str
    content: str
    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str
    answered: bool
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal
    started_at: datetime
    switch: str
    record_id: str
    position_id: int
    kafka_offset: int
    line: bytes

    @property
    def identity(self) -> Identity:
        """What the ledger's unique index holds."""
        return Identity(self.started_date, self.key)


# The columns of a ledger row but for its posting period, in the order of `UsageRow.line`.
LEDGER_COLUMNS: Final = (
    "started_date",
    "key",
    "content",
    "account_id",
    "tenant_id",
    "usage_class",
    "rule",
    "reason",
    "assignment_id",
    "tariff_id",
    "header_ignored",
    "switch",
    "record_id",
    "call_id",
    "service",
    "direction",
    "from_number",
    "to_number",
    "source_ip",
    "x_tenant",
    "started_at",
    "answered_at",
    "ended_at",
    "answered",
    "answered_seconds",
    "billed_seconds",
    "cost",
    "currency",
    "received_at",
    "position_id",
    "kafka_offset",
)


class Identity(NamedTuple):
    """A record's place in the ledger's unique index: the UTC date it started on, and its key (L1)."""

    started_date: date
    key: str


class UsageGroup(NamedTuple):
    """What one row of monthly usage adds up, but for its writer's shard."""

    period: date
    usage_period: date
    account_id: int | None
    tenant_id: int | None
    usage_class: str
    currency: str


class UsageSums(NamedTuple):
    """The sums of one group; every record is an attempt, every answered one a call."""

    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


def content_id(record: CallRecord) -> str:
    """A hash of what matters for attribution, class, quantity and cost (L2): nothing else makes a record another."""
    facts = (
        record.service,
        record.direction,
        record.call_id,
        record.to_number,
        None if record.source_ip is None else address_text(record.source_ip),
        record.x_tenant,
        record.started_at,
        record.answered_at,
        record.ended_at,
        None if record.answered_seconds is None else _shortest(record.answered_seconds),
        record.billed_seconds,
        None if record.cost is None else _shortest(record.cost),
        record.currency,
    )
    return text_key(orjson.dumps(facts))


def nearby_midnight(started_at: datetime) -> date | None:
    """The date that begins at the UTC midnight within five minutes of an instant, if there is one (L1)."""
    after = (started_at + _MIDNIGHT_MARGIN).date()
    return after if after != (started_at - _MIDNIGHT_MARGIN).date() else None


def sums_of(rows: Iterable[UsageRow], posting_period: Mapping[date, date]) -> dict[UsageGroup, UsageSums]:
    """Rows added up by group; `posting_period` says for each month of `started_at` where it is posted (L5)."""
    sums: dict[UsageGroup, list[int | Decimal]] = {}
    for row in rows:
        month = row.started_date.replace(day=1)
        group = UsageGroup(
            posting_period[month], month, row.account_id, row.tenant_id, row.usage_class, row.currency
        )
        total = sums.setdefault(group, [0, 0, Decimal(0), 0, Decimal(0)])
        total[0] += 1
        total[1] += row.answered
        total[2] += row.answered_seconds
        total[3] += row.billed_seconds
        total[4] += row.cost
    return {group: UsageSums(*total) for group, total in sums.items()}  # type: ignore[arg-type]


@lru_cache(maxsize=65_536)
def _shortest(amount: Decimal) -> str:
    """One text for equal amounts: 180.000 and 180 are the same."""
    return format(amount.normalize(), "f")
