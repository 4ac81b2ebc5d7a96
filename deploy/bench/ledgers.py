"""A month of any size, ready to be closed: made on the server, as a ledger that grew over the month would lie there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from sqlalchemy import Engine, text

from deploy.bench.world import make_directory
from deploy.stack.postgres import EmbeddedPostgres
from pipeline import position_store
from pipeline.clock import utc_now
from pipeline.database import connect, migrate
from schemas.periods import Period

TENANTS: Final = 10_000
_FILL_RECORDS: Final = 500_000  # in one insert
_TOLD_EACH_SECONDS: Final = 10.0


def benched_month() -> Period:
    """The month that is filled and closed."""
    return Period.of(utc_now()).plus(-1)


@contextmanager
def ledger(console: Console, postgres: EmbeddedPostgres, records: int) -> Iterator[Engine]:
    """A database with a month of so many records, skewed over its tenants; says how far it has come."""
    name = f"ledger_{records}"
    outside = connect(postgres.url(), application_name="bench").execution_options(
        isolation_level="AUTOCOMMIT"
    )
    with outside.connect() as connection:
        connection.exec_driver_sql(f"create database {name}")
    outside.dispose()
    engine = connect(postgres.url(name), application_name="bench")
    try:
        migrate(engine)
        make_directory(engine, TENANTS, benched_month())
        _fill(console, engine, records)
        yield engine
    finally:
        engine.dispose()


def settle(engine: Engine) -> None:
    """Write out what is left of earlier work, so that no measurement pays for what came before it."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("vacuum (analyze) usage_records")
        connection.exec_driver_sql("vacuum (analyze) monthly_usage")
        connection.exec_driver_sql("checkpoint")


def _fill(console: Console, engine: Engine, records: int) -> None:
    """Records in the order in which they would have come, and the sums that posting them would have kept."""
    started = told = time.perf_counter()
    with engine.begin() as connection:
        position = position_store.ensure_position(connection, "calls.raw", 0, 0)
    for first in range(0, records, _FILL_RECORDS):
        behind = min(first + _FILL_RECORDS, records)
        _make_records(engine, position.id, first, behind, records)
        if time.perf_counter() - told > _TOLD_EACH_SECONDS:
            told = time.perf_counter()
            console.print(f"{behind:,} of {records:,} records, {told - started:.0f} s")
    with engine.begin() as connection:
        connection.execute(text(_SUMS_SQL), {"position_id": position.id})
    settle(engine)
    console.print(f"a ledger of {records:,} records made in {time.perf_counter() - started:.0f} s")


def _make_records(engine: Engine, position_id: int, first: int, behind: int, records: int) -> None:
    month = benched_month()
    with engine.begin() as connection:
        connection.execute(
            text(_RECORDS_SQL),
            {
                "first": first,
                "last": behind - 1,
                "records": records,
                "tenants": TENANTS,
                "period": month.first_day,
                "starts_at": month.starts_at,
                "seconds": (month.ends_at - month.starts_at).total_seconds() - 1,
                "position_id": position_id,
            },
        )


_RECORDS_SQL: Final = """
insert into usage_records (started_date, key, content, period, late, account_id, tenant_id, usage_class, rule,
    assignment_id, switch, record_id, call_id, service, direction, from_number, to_number, source_ip,
    started_at, answered_at, ended_at, answered, answered_seconds, billed_seconds, cost, currency, received_at,
    position_id, kafka_offset)
select (started_at at time zone 'UTC')::date, md5(n::text)::uuid, md5('c' || n)::uuid, :period, false, 1, tenant,
    (array['inbound_conversational', 'outbound_conversational', 'outbound_international', 'inbound_toll_free'])[1 + n % 4],
    case n % 2 when 0 then 'A2' else 'A3' end, tenant, 'sbc-nyc-1', md5('r' || n)::uuid::text, md5('i' || n)::uuid::text,
    'call', case n % 2 when 0 then 'inbound' else 'outbound' end, '+14155550' || lpad((n % 1000)::text, 3, '0'),
    '+12125550' || lpad((n % 1000)::text, 3, '0'), '192.0.2.1'::inet + (n % 200), started_at, answered_at,
    answered_at + make_interval(secs => seconds), answered_at is not null,
    case when answered_at is null then 0 else seconds end, case when answered_at is null then 0 else seconds end,
    case when answered_at is null then 0 else seconds * 0.000142 end, 'USD', started_at + interval '15 minutes',
    :position_id, n
from (
    select n, 1 + floor(:tenants * power(random(), 2))::int as tenant, 6 + floor(random() * 594)::int as seconds,
        started_at, case when n % 10 < 9 then started_at + interval '5 seconds' end as answered_at
    from (
        select n, cast(:starts_at as timestamptz)
            + make_interval(secs => cast(:seconds as float) * (n + random()) / :records) as started_at
        from generate_series(cast(:first as bigint), :last) as n
    ) as begun
) as made
"""
_SUMS_SQL: Final = """
insert into monthly_usage (shard, period, usage_period, account_id, tenant_id, usage_class, currency, attempts, calls,
    answered_seconds, billed_seconds, cost)
select :position_id, period, period, account_id, tenant_id, usage_class, currency, count(*),
    count(*) filter (where answered), sum(answered_seconds), sum(billed_seconds), sum(cost)
from usage_records group by period, account_id, tenant_id, usage_class, currency
"""
