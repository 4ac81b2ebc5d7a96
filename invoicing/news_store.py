"""That a statement closed, written down: one due row for each, whatever Kafka repeats (I0)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

from invoicing.news import RefusedNews
from invoicing.states import State
from schemas.identity import fact_id


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
