"""That a statement closed, written down: one due row for each, whatever Kafka repeats (I0)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.news import RefusedNews, StatementNews, read_news
from invoicing.states import State
from schemas.identity import fact_id
from schemas.periods import Period


class Receipt(StrEnum):
    """What became of the news that a statement closed."""

    NEW = "new"
    KNOWN = "known"
    NO_TENANT = "no_tenant"  # unassigned usage: nobody to send an invoice to (I0)
    NO_SUCH_STATEMENT = "no_such_statement"
    OTHER_BYTES = "other_bytes"  # the event's hash is not the stored statement's


def receive_statement(
    connection: Connection, statement_id: UUID, now: datetime, sha256: str | None = None
) -> Receipt:
    """Write the due row of a closed statement; any number of times gives one row (I0)."""
    statement = connection.execute(
        text("select kind, account_id, tenant_id, period, currency, sha256 from statements where id = :id"),
        {"id": statement_id},
    ).one_or_none()
    if statement is None:
        return Receipt.NO_SUCH_STATEMENT
    if sha256 is not None and sha256 != statement.sha256:
        return Receipt.OTHER_BYTES
    if statement.kind != "tenant":
        return Receipt.NO_TENANT
    written = connection.execute(
        text(
            "insert into invoices (id, statement_id, account_id, tenant_id, period, state, currency, due_at, "
            "received_at, changed_at) values (:id, :statement_id, :account_id, :tenant_id, :period, :state, :currency, "
            ":now, :now, :now) on conflict (statement_id) do nothing"
        ),
        {
            "id": fact_id("invoice", statement_id),
            "statement_id": statement_id,
            "account_id": statement.account_id,
            "tenant_id": statement.tenant_id,
            "period": statement.period,
            "state": State.RECEIVED,
            "currency": statement.currency,
            "now": now,
        },
    )
    return Receipt.NEW if written.rowcount else Receipt.KNOWN


def receive_month(connection: Connection, period: Period, account: str | None, now: datetime) -> int:
    """Write the due rows of a closed month that have none yet, whatever became of its events. Gives how many are new."""
    rows = connection.execute(
        text(
            "select s.id from statements s join accounts a on a.id = s.account_id "
            "where s.period = :period and s.kind = 'tenant' and (cast(:account as text) is null or a.code = :account) "
            "and not exists (select from invoices i where i.statement_id = s.id) order by s.sequence"
        ),
        {"period": period.first_day, "account": account},
    )
    return sum(receive_statement(connection, row.id, now) is Receipt.NEW for row in rows.all())


def resolve_event(
    connection: Connection, topic: str, partition: int, kafka_offset: int, now: datetime, *, dismiss: bool
) -> Receipt | RefusedNews | None:
    """Take a refused event again, by its data alone; once taken, or dismissed, it is resolved.

    Gives what came of it; None: no such event waits.
    """
    place = {"topic": topic, "partition": partition, "kafka_offset": kafka_offset}
    row = connection.execute(
        text(
            "select value from refused_events where topic = :topic and partition = :partition "
            "and kafka_offset = :kafka_offset and resolved_at is null for update"
        ),
        place,
    ).one_or_none()
    if row is None:
        return None
    news = read_news({}, None if row.value is None else bytes(row.value))
    found: Receipt | RefusedNews = news if isinstance(news, RefusedNews) else Receipt.KNOWN
    if isinstance(news, StatementNews):
        found = receive_statement(connection, news.statement_id, now, news.sha256)
    if dismiss or found in {Receipt.NEW, Receipt.KNOWN, Receipt.NO_TENANT}:
        connection.execute(
            text(
                "update refused_events set resolved_at = :now where topic = :topic and partition = :partition "
                "and kafka_offset = :kafka_offset"
            ),
            place | {"now": now},
        )
    return found


def refuse_event(
    connection: Connection,
    topic: str,
    partition: int,
    kafka_offset: int,
    refusal: RefusedNews,
    key: bytes | None,
    value: bytes | None,
    now: datetime,
) -> None:
    """Keep an event that could not be taken, where people see it; the same event again changes nothing."""
    connection.execute(
        text(
            "insert into refused_events (topic, partition, kafka_offset, reason, detail, key, value, refused_at) "
            "values (:topic, :partition, :kafka_offset, :reason, :detail, :key, :value, :now) "
            "on conflict (topic, partition, kafka_offset) do nothing"
        ),
        {
            "topic": topic,
            "partition": partition,
            "kafka_offset": kafka_offset,
            "reason": refusal.reason,
            "detail": refusal.detail,
            "key": key,
            "value": value,
            "now": now,
        },
    )
