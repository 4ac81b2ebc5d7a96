"""Statements, ledger, fees and months cannot be changed, not even by their owner with plain statements (C7)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from rollup.announcement import EventTopics
from rollup.close_store import close
from tests.rollup.builders import NOVEMBER, OCTOBER, World

LEDGER = "usage_records_partition_2026_10"


@pytest.fixture
def closed(database: Engine) -> Iterator[Connection]:
    """A closed month with one call, its statements, and a fee; in a transaction as the tables' owner."""
    with database.connect() as connection:
        world = World(connection, OCTOBER, NOVEMBER)
        tenant = world.tenant(world.account(), "shop")
        world.record(1, tenant, OCTOBER.starts_at)
        world.run(
            "update periods set state = 'sealed', cutoff_at = :at, sealed_at = :at where period = :october",
            at=OCTOBER.ends_at + timedelta(days=3),
            october=OCTOBER.first_day,
        )
        close(connection, OCTOBER, EventTopics("s", "p"))
        world.run(
            "insert into phantom_fees (statement_id, account_id, tenant_id, period, stripe_invoice, amount, currency, "
            "evidence, made_at) select id, account_id, tenant_id, period, 'in_1', 5, 'USD', 'sent', now() "
            "from statements where tenant_id is not null"
        )
        connection.commit()
        yield connection


ATTEMPTS = [
    "update statements set usage_cost = 0",
    "update statements set body = '{}' where sequence = 1",
    "delete from statements",
    "truncate statements",
    "truncate statements cascade",
    "truncate accounts cascade",
    "update usage_records set cost = 0",
    "update usage_records set tenant_id = null",
    "update usage_records set started_date = '2026-11-01'",
    "delete from usage_records",
    "truncate usage_records",
    f"update {LEDGER} set cost = 0",
    f"update only {LEDGER} set period = '2026-11-01'",
    f"delete from {LEDGER}",
    f"truncate {LEDGER}",
    f"truncate only {LEDGER}",
    f"insert into {LEDGER} select * from {LEDGER} on conflict (started_date, key) do update set cost = 0",
    f"merge into {LEDGER} u using (select 1) as s(one) on true when matched then delete",
    f"with gone as (delete from {LEDGER} returning *) select count(*) from gone",
    "update phantom_fees set amount = 1",
    "delete from phantom_fees",
    "truncate phantom_fees",
    "update period_boundaries set boundary_offset = 0",
    "truncate period_boundaries",
    "update periods set state = 'open' where state = 'closed'",
    "update periods set state = 'sealed' where state = 'closed'",
    "update periods set sealed_at = now() where state = 'closed'",
    "update periods set cutoff_at = null where state = 'closed'",
    "delete from periods where state = 'open'",
    "truncate periods cascade",
]  # fmt: skip


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_no_plain_statement_changes_what_was_billed(closed: Connection, role: str) -> None:
    closed.execute(
        text(
            "insert into period_boundaries (period, topic, partition, boundary_offset, pinned_at) "
            "values ('2026-10-01', 'calls.raw', 0, 7, now())"
        )
    )
    closed.commit()
    for attempt in ATTEMPTS:
        closed.execute(text(f"set session_replication_role = {role}"))
        with pytest.raises(DBAPIError) as refused:
            closed.execute(text(attempt))
        assert getattr(refused.value.orig, "pgcode", None) == "23001", (attempt, refused.value.orig)
        closed.rollback()


def test_months_made_later_are_guarded_as_well(closed: Connection) -> None:
    closed.execute(text("select make_period('2026-12-01')"))
    closed.commit()
    with pytest.raises(DBAPIError, match="append-only"):
        closed.execute(text("truncate usage_records_partition_2026_12"))
