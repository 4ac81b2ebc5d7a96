"""What the campaign's audit reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from deploy.faults.traffic import Usage


class Row(NamedTuple):
    """A ledger row: whose record, what it says, and the month it was posted to."""

    record_id: str
    usage: Usage
    period: date
    late: bool


class MonthSum(NamedTuple):
    """Monthly usage of one owner, over all writers."""

    account: str | None
    tenant: str | None
    usage_class: str
    month: date
    attempts: int
    answered_seconds: Decimal
    billed_seconds: int
    cost: Decimal


class Statement(NamedTuple):
    """A statement as it is stored."""

    statement_id: str
    period: date
    kind: str
    account: str
    tenant: str | None
    sha256: str
    body: bytes


_OWNERS = "left join accounts a on a.id = u.account_id left join tenants t on t.id = u.tenant_id"


def ledger(connection: Connection) -> list[Row]:
    """Every ledger row."""
    rows = connection.execute(
        text(
            "select u.record_id, a.code as account, t.code as tenant, u.usage_class, to_char(u.started_date, 'YYYY-MM') as month, "  # noqa: S608 (our own text)
            f"u.answered, u.answered_seconds, u.billed_seconds, u.cost, u.period, u.late from usage_records u {_OWNERS}"
        )
    )
    return [Row(row[0], Usage(*row[1:9]), row.period, row.late) for row in rows]


def month_sums(connection: Connection) -> list[MonthSum]:
    """Monthly usage by owner, class and month of usage."""
    rows = connection.execute(
        text(
            "select a.code, t.code, u.usage_class, u.usage_period, sum(u.attempts)::bigint, sum(u.answered_seconds), "  # noqa: S608 (same)
            f"sum(u.billed_seconds)::bigint, sum(u.cost) from monthly_usage u {_OWNERS} group by 1, 2, 3, 4"
        )
    )
    return [MonthSum(*row) for row in rows]


def outcomes(connection: Connection) -> dict[tuple[str, str], int]:
    """What became of records, zeros left out."""
    rows = connection.execute(
        text(
            "select outcome, reason, sum(records)::bigint from outcome_counts group by 1, 2 having sum(records) <> 0"
        )
    )
    return {(outcome, reason): records for outcome, reason, records in rows}


def statements(connection: Connection) -> list[Statement]:
    """Every statement."""
    rows = connection.execute(
        text(
            "select cast(s.id as text), s.period, s.kind, a.code, t.code, s.sha256, s.body from statements s "
            "join accounts a on a.id = s.account_id left join tenants t on t.id = s.tenant_id order by s.sequence"
        )
    )
    return [Statement(*row)._replace(body=bytes(row.body)) for row in rows]


def months_by_state(connection: Connection) -> dict[str, str]:
    """The state of each month."""
    rows = connection.execute(text("select to_char(period, 'YYYY-MM'), state from periods order by period"))
    return {row[0]: row[1] for row in rows}


def waiting(connection: Connection) -> tuple[int, int]:
    """How many records are held, and how many events wait to be published."""
    row = connection.execute(
        text(
            "select (select count(*) from held_records), (select count(*) from outbox where published_at is null)"
        )
    ).one()
    return (int(row[0]), int(row[1]))


def read_to(connection: Connection, topics: Sequence[str]) -> int:
    """How many offsets of some topics have been read."""
    return int(
        connection.execute(
            text("select coalesce(sum(next_offset), 0) from stream_positions where topic = any(:topics)"),
            {"topics": list(topics)},
        ).scalar_one()
    )
