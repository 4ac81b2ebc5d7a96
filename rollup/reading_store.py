"""What operators ask: statements, months, usage so far, what waits, what could not be posted, and the counts.

Each answer is a tuple of plain rows whose field names are stable: they are the columns and the JSON of the command line.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, text

from schemas.periods import Period

_Row = TypeVar("_Row", bound=tuple[Any, ...])


class StatementEntry(NamedTuple):
    """A statement in a list; `tenant` is None for an account's unassigned usage."""

    statement_id: str
    period: str
    kind: str
    account: str
    tenant: str | None
    currency: str
    usage_cost: Decimal
    total_cost: Decimal
    sha256: str
    generated_at: datetime


class StatementDocument(NamedTuple):
    """One statement, with the very bytes that were hashed."""

    entry: StatementEntry
    body: bytes


class UsageSoFar(NamedTuple):
    """Usage posted to a month; while `state` is open it is for operators only and no statement (C6)."""

    period: str
    state: str
    usage_period: str
    account: str | None
    tenant: str | None
    usage_class: str
    currency: str
    attempts: int
    calls: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


class QuarantinedRecord(NamedTuple):
    """A record that could not be read or must not be posted, and where Kafka has it."""

    id: int
    reason: str
    detail: str
    account: str | None
    topic: str
    partition: int
    offset: int
    ordinal: int
    received_at: datetime
    started_at: datetime | None
    state: str
    resolution: str | None


class HeldRecord(NamedTuple):
    """A record that waits, for what, and until when at the latest."""

    switch: str
    record_id: str
    call_id: str | None
    reason: str
    hold_until: datetime
    started_at: datetime
    received_at: datetime
    topic: str
    partition: int
    offset: int


class OutcomeCount(NamedTuple):
    """How many records of a topic came to one outcome."""

    topic: str
    outcome: str
    reason: str
    records: int


_STATEMENT = (
    "select cast(s.id as text), to_char(s.period, 'YYYY-MM'), s.kind, a.code, t.code, s.currency, s.usage_cost, "
    "s.total_cost, s.sha256, s.generated_at"
)
_STATEMENT_FROM = (
    " from statements s join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id "
)


def statements(
    connection: Connection,
    period: Period | None = None,
    account: str | None = None,
    tenant: str | None = None,
) -> tuple[StatementEntry, ...]:
    """Statements of a month, an account, a tenant, or all; in the order they were made."""
    return _rows(
        connection,
        StatementEntry,
        f"{_STATEMENT}{_STATEMENT_FROM}"
        "where (cast(:period as date) is null or s.period = :period) "
        "and (cast(:account as text) is null or a.code = :account) "
        "and (cast(:tenant as text) is null or t.code = :tenant) order by s.sequence",
        period=period.first_day if period else None,
        account=account,
        tenant=tenant,
    )


def statement_document(
    connection: Connection, period: Period, account: str, tenant: str | None
) -> StatementDocument | None:
    """One statement: a tenant's, or with `tenant` None the account's unassigned usage."""
    return _document(
        connection,
        "where s.period = :period and a.code = :account and t.code is not distinct from cast(:tenant as text)",
        period=period.first_day,
        account=account,
        tenant=tenant,
    )


def statement_by_id(connection: Connection, statement_id: str) -> StatementDocument | None:
    """One statement by its id."""
    return _document(connection, "where cast(s.id as text) = :id", id=statement_id.lower())


def usage_so_far(
    connection: Connection,
    period: Period | None = None,
    account: str | None = None,
    tenant: str | None = None,
) -> tuple[UsageSoFar, ...]:
    """Usage posted to a month, or to every month that is not closed; unowned usage has no account."""
    return _rows(
        connection,
        UsageSoFar,
        "select to_char(m.period, 'YYYY-MM'), p.state, to_char(m.usage_period, 'YYYY-MM'), a.code, t.code, "
        "m.usage_class, m.currency, m.attempts, m.calls, m.answered_seconds, m.billed_seconds, m.cost "
        "from monthly_usage_totals m join periods p on p.period = m.period "
        "left join accounts a on a.id = m.account_id left join tenants t on t.id = m.tenant_id "
        "where (m.period = cast(:period as date) or (cast(:period as date) is null and p.state <> 'closed')) "
        "and (cast(:account as text) is null or a.code = :account) "
        "and (cast(:tenant as text) is null or t.code = :tenant) "
        "order by m.period, a.code nulls last, t.code nulls last, m.usage_period, m.usage_class",
        period=period.first_day if period else None,
        account=account,
        tenant=tenant,
    )


def quarantined(
    connection: Connection,
    *,
    reason: str | None = None,
    account: str | None = None,
    state: str | None = "open",
    limit: int = 1000,
) -> tuple[QuarantinedRecord, ...]:
    """Records in quarantine, the oldest first; with `state` None the replayed and discarded ones too."""
    return _rows(
        connection,
        QuarantinedRecord,
        "select q.id, q.reason, q.detail, a.code, p.topic, p.partition, q.kafka_offset, q.ordinal, q.received_at, "
        "q.started_at, q.state, q.resolution from quarantine q join stream_positions p on p.id = q.position_id "
        "left join accounts a on a.id = q.account_id "
        "where (cast(:reason as text) is null or q.reason = :reason) "
        "and (cast(:account as text) is null or a.code = :account) "
        "and (cast(:state as text) is null or q.state = :state) order by q.received_at, q.id limit :limit",
        reason=reason,
        account=account,
        state=state,
        limit=limit,
    )


def held(connection: Connection, limit: int = 1000) -> tuple[HeldRecord, ...]:
    """Records that wait, the oldest first."""
    return _rows(
        connection,
        HeldRecord,
        "select h.switch, h.record_id, h.call_id, h.reason, h.hold_until, h.started_at, h.received_at, p.topic, "
        "p.partition, h.kafka_offset from held_records h join stream_positions p on p.id = h.position_id "
        "order by h.received_at, h.started_date, h.key limit :limit",
        limit=limit,
    )


def outcome_counts(connection: Connection) -> tuple[OutcomeCount, ...]:
    """How many records of each topic came to each outcome, by reason."""
    return _rows(
        connection,
        OutcomeCount,
        "select topic, outcome, reason, records from conservation where records <> 0 order by topic, outcome, reason",
    )


def _document(connection: Connection, where: str, **parameters: object) -> StatementDocument | None:
    row = connection.execute(text(f"{_STATEMENT}, s.body{_STATEMENT_FROM}{where}"), parameters).one_or_none()
    return None if row is None else StatementDocument(StatementEntry(*row[:-1]), bytes(row[-1]))


def _rows(connection: Connection, shape: type[_Row], query: str, **parameters: object) -> tuple[_Row, ...]:
    return tuple(shape(*row) for row in connection.execute(text(query), parameters))
