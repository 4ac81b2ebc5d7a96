"""What came of the sample traffic, as the database tells it."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, text

from deploy.sample.expected import Owner, Usage
from rollup import reading_store
from schemas.periods import Period
from schemas.statements import Statement


class ClosedStatement(NamedTuple):
    """A statement and the hash it is known by."""

    statement: Statement
    sha256: str


class IgnoredHeader(NamedTuple):
    """A header on a dedicated address that named someone else (A4)."""

    source_ip: str
    named: str
    tenant: str
    records: int


class UnattributedUsage(NamedTuple):
    """Posted records without a tenant, by why (A6); `account` is None where nobody owns the number or address."""

    account: str | None
    reason: str
    records: int
    cost: Decimal


def outcomes(connection: Connection) -> Counter[tuple[str, str]]:
    """Messages by (outcome, reason)."""
    found: Counter[tuple[str, str]] = Counter()
    for each in reading_store.outcome_counts(connection):
        found[each.outcome, each.reason] += each.records
    return found


def statements(connection: Connection, period: Period) -> list[ClosedStatement]:
    """A month's statements, in the order they were made."""
    rows = connection.execute(
        text("select body, sha256 from statements where period = :period order by sequence"),
        {"period": period.first_day},
    )
    return [ClosedStatement(Statement.model_validate_json(bytes(row.body)), row.sha256) for row in rows]


def usage(connection: Connection, period: Period) -> dict[Owner, Usage]:
    """Usage posted to a month, by owner."""
    found: dict[Owner, Usage] = {}
    for each in reading_store.usage_so_far(connection, period):
        total = found.setdefault(Owner(each.account, each.tenant), Usage())
        total.attempts += each.attempts
        total.calls += each.calls
        total.answered_seconds += each.answered_seconds
        total.billed_seconds += each.billed_seconds
        total.cost += each.cost
    return found


def unattributed(connection: Connection) -> list[UnattributedUsage]:
    """Posted records without a tenant."""
    rows = connection.execute(
        text(
            "select a.code, u.reason, count(*), sum(u.cost) from usage_records u "
            "left join accounts a on a.id = u.account_id where u.reason is not null "
            "group by 1, 2 order by 1 nulls last, 3 desc, 2"
        )
    )
    return [UnattributedUsage(*row) for row in rows]


def ignored_headers(connection: Connection) -> list[IgnoredHeader]:
    """Headers that named someone else, by address and name."""
    rows = connection.execute(
        text(
            "select host(u.source_ip), u.header_ignored, t.code, count(*) from usage_records u "
            "join tenants t on t.id = u.tenant_id where u.header_ignored is not null "
            "group by 1, 2, 3 order by 4 desc, 1, 2"
        )
    )
    return [IgnoredHeader(*row) for row in rows]


def gap_records(connection: Connection) -> int:
    """Records that Kafka had dropped before they were read."""
    return int(
        connection.execute(text("select coalesce(sum(gap_records), 0) from stream_positions")).scalar_one()
    )


def quarantine_examples(connection: Connection) -> list[tuple[str, int, str]]:
    """Reason, number of records and the commonest detail of what is in quarantine."""
    rows = connection.execute(
        text(
            "select reason, count(*), mode() within group (order by detail) from quarantine "
            "group by 1 order by 2 desc, 1"
        )
    )
    return [(row[0], row[1], row[2]) for row in rows]
